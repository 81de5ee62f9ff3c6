"""The ways into a call: every credential against every field that names something.

Webhooks and callbacks of Twilio, stream URLs of Exotel, and the media sockets. Each case
says what is presented and what is named, and whether that is admitted. Whatever is named,
nothing of the other business changes.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.wire import exotel, twilio
from tests.service import signature
from tests.tenancy.http_rows import PUBLIC_PATHS
from tests.tenancy.routes import http_routes, socket_paths, whole_service
from tests.tenancy.snapshot import changed, snapshot
from tests.tenancy.world import API, FRAME, SERVICE_TOKEN, SHARED_PAIR, Tenant, World
from tests.waiting import WAIT_SECONDS

# A value of a case: made when the world is there.
Made = Callable[[World], str]


# ------------------------------------------------------ webhooks, callbacks, stream URLs

TWILIO_ROUTES = ("/twilio-voice", "/twilio-dial", "/twilio-status", "/twilio-stream-status")
NAMES_OF_TWILIO: Mapping[str, Callable[[Tenant], str]] = {
    "businessId": lambda one: one.id,
    "CallSid": lambda one: one.live.call_sid,
    "To": lambda one: one.number,
    "StreamSid": lambda one: one.live.stream,
}
NAMES_OF_EXOTEL: Mapping[str, Callable[[Tenant], str]] = {
    "businessId": lambda one: one.id,
    "CallSid": lambda one: one.exotel.call_sid,
    "CallTo": lambda one: one.number,
}
# What the callbacks say beside: everything that ends or changes a call.
SAID = {
    "From": "+12763659195",
    "CallStatus": "completed",
    "DialCallStatus": "completed",
    "StreamEvent": "stream-error",
    "StreamError": "31921 closed",
}
# Parameters that name nothing of a business.
FREE_IN_CALLS = frozenset(
    {*SAID, "CallDuration", "SequenceNumber", "CallFrom", "applet", "business_id"}
)


def test_every_route_of_calls_has_a_row_and_every_parameter_is_known() -> None:
    routes = {
        route.path: route.parameters
        for route in http_routes(whole_service())
        if not route.path.startswith((API, "/admin"))
    }
    for path, parameters in routes.items():
        if path in TWILIO_ROUTES:
            assert parameters - NAMES_OF_TWILIO.keys() - FREE_IN_CALLS == set(), path
        elif path == "/exotel-stream-url":
            assert parameters - NAMES_OF_EXOTEL.keys() - FREE_IN_CALLS == set(), path
        else:
            assert path in PUBLIC_PATHS, "a route without a row"


def test_every_media_socket_has_cases() -> None:
    assert socket_paths(whole_service()) == {
        "/twilio-media",
        "/twilio-media/{business_id}",
        "/v1/ingest",
    }


def signed_by(world: World, token: str, method: str, path: str, form: Mapping[str, str]) -> int:
    """Send a webhook that is signed with `token`; return the status."""
    query = {name: form[name] for name in ("businessId",) if name in form}
    fields = {name: value for name, value in form.items() if name not in query}
    if method == "GET":
        query, fields = {**query, **fields}, {}
    url = f"{path}?{urlencode(query)}" if query else path
    headers = {"X-Twilio-Signature": signature(world.near.url + url, fields, token)}
    return world.http.request(method, url, data=fields or None, headers=headers).status_code


def fields_of(
    names: Mapping[str, Callable[[Tenant], str]], world: World, foreign: frozenset[str]
) -> dict[str, str]:
    """Return the fields that name our things, and the other's for those in `foreign`."""
    return {
        name: value(world.theirs if name in foreign else world.ours)
        for name, value in names.items()
    }


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("path", TWILIO_ROUTES)
def test_a_token_of_a_business_signs_for_its_own_calls_alone(
    world: World, path: str, method: str
) -> None:
    call = world.twilio_call(world.ours)
    before = snapshot(world.redis, [world.theirs])

    def status(foreign: frozenset[str], without: frozenset[str] = frozenset()) -> int:
        form = {**SAID, **fields_of(NAMES_OF_TWILIO, world, foreign)}
        if "CallSid" not in foreign:
            form["CallSid"] = call.call_sid
        form = {name: value for name, value in form.items() if name not in without}
        return signed_by(world, world.ours.twilio_token, method, path, form)

    whole = frozenset(NAMES_OF_TWILIO)
    allowed = {200, 204}
    assert status(frozenset()) in allowed
    assert status(frozenset({"businessId"})) == 403
    assert status(frozenset({"To"}), frozenset({"businessId"})) == 403
    assert status(whole) == 403
    # Any business may have a call of any CallSid: what is done is done to its own call.
    for foreign in ({"CallSid"}, {"StreamSid"}, {"To"}, {"CallSid", "StreamSid", "To"}):
        assert status(frozenset(foreign)) in {*allowed, 403}, foreign
    assert changed(before, snapshot(world.redis, [world.theirs])) == []


@pytest.mark.parametrize("path", TWILIO_ROUTES)
@pytest.mark.parametrize(
    "token",
    [lambda world: "x" * 32, lambda world: world.ours.twilio_token],
    ids=["nobody's token", "another business's token"],
)
def test_refuses_webhooks_of_another_that_it_cannot_sign(
    world: World, path: str, token: Made
) -> None:
    before = snapshot(world.redis, [world.theirs])
    form = {**SAID, **fields_of(NAMES_OF_TWILIO, world, frozenset(NAMES_OF_TWILIO))}
    for method in ("POST", "GET"):
        assert signed_by(world, token(world), method, path, form) == 403
        url = f"{path}?{urlencode(form)}"
        assert world.http.request(method, url).status_code == 403
    assert changed(before, snapshot(world.redis, [world.theirs])) == []


def basic(pair: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def stream_url(world: World, headers: Mapping[str, str], **query: str) -> Any:
    """Ask for a stream's URL; return the answer."""
    return world.http.get(f"/exotel-stream-url?{urlencode(query)}", headers=headers)


@pytest.mark.parametrize("foreign", ["businessId", "CallSid", "CallTo", "all"])
def test_a_pair_of_a_business_gets_stream_urls_for_that_business_alone(
    world: World, foreign: str
) -> None:
    before = snapshot(world.redis, [world.theirs])
    names = frozenset(NAMES_OF_EXOTEL if foreign == "all" else {foreign})
    fields = fields_of(NAMES_OF_EXOTEL, world, names)
    if "CallSid" not in names:
        fields["CallSid"] = secrets.token_hex(16)
    answer = stream_url(world, basic(world.ours.pair), **fields)
    if "businessId" in names:
        assert (answer.status_code, answer.json()["error"]) == (403, "business_mismatch")
    else:
        assert answer.status_code == 200
        ticket = parse_qs(urlsplit(answer.json()["url"]).query)["ticket"][0]
        claims = json.loads(base64.urlsafe_b64decode(ticket.split(".")[1] + "=="))
        assert claims["biz"] == world.ours.id
    assert changed(before, snapshot(world.redis, [world.theirs])) == []


TICKETS: Mapping[str, Made] = {
    "a ticket of a Twilio call": lambda world: world.ring(world.ours)["ticket"],
    "a ticket of another's Twilio call": lambda world: world.ring(world.theirs)["ticket"],
    "a stream URL's ticket": lambda world: url_ticket(world, world.ours),
    "another's stream URL's ticket": lambda world: url_ticket(world, world.theirs),
}


def url_ticket(world: World, tenant: Tenant, call_sid: str = "") -> str:
    """Get a stream URL for a business; return its ticket."""
    call_sid = call_sid or secrets.token_hex(16)
    answer = stream_url(world, basic(tenant.pair), CallSid=call_sid)
    assert answer.status_code == 200, answer.text
    world.announced(call_sid)
    return parse_qs(urlsplit(answer.json()["url"]).query)["ticket"][0]


@pytest.mark.parametrize("named", ["ours", "theirs"])
@pytest.mark.parametrize("ticket", TICKETS)
def test_no_ticket_gets_another_ticket(world: World, ticket: str, named: str) -> None:
    business = getattr(world, named).id
    text = TICKETS[ticket](world)
    before = snapshot(world.redis, [world.theirs])
    answer = stream_url(world, {}, ticket=text, businessId=business, CallSid="x")
    assert answer.status_code in (401, 403)
    assert "url" not in answer.json()
    assert changed(before, snapshot(world.redis, [world.theirs])) == []


@pytest.mark.parametrize("claims", [{}, {"interaction_id": "bound"}], ids=["any call", "one call"])
def test_a_token_gets_no_stream_url_of_another(world: World, claims: Mapping[str, str]) -> None:
    headers = {"Authorization": world.ours.token(**claims)}
    before = snapshot(world.redis, [world.theirs])
    for named in ({"businessId": world.theirs.id}, {"CallSid": world.theirs.live.call_sid}):
        answer = stream_url(world, headers, **named)
        if answer.status_code == 200:
            assert "CallSid" in named
            assert not claims, "a token for one call got a URL for another"
        else:
            assert answer.status_code == 403
    assert changed(before, snapshot(world.redis, [world.theirs])) == []


# ------------------------------------------------------------------------ media sockets


@dataclass(frozen=True)
class Attempt:
    """A media socket to open: where, with what headers, and what is sent first."""

    url: str
    headers: Mapping[str, str]
    messages: tuple[str | bytes, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a socket: it was admitted, or refused with a status or a close code."""

    admitted: bool
    code: int = 0
    reason: str = ""


def outcome_of(world: World, tried: Attempt) -> Outcome:
    """Open a socket and send its messages; return as soon as it is admitted or refused."""
    newest: Any = world.redis.xrevrange("calls", count=1)
    after = newest[0][0].decode() if newest else "0-0"

    def has_started() -> bool:
        entries: Any = world.redis.xrange("calls", f"({after}")
        return any(
            (fields[b"event"], fields[b"businessId"]) == (b"stream.started", world.ours.id.encode())
            for _, fields in entries
        )

    async def run() -> Outcome:
        try:
            async with connect(
                tried.url, additional_headers=dict(tried.headers), compression=None
            ) as socket:
                try:
                    for message in tried.messages:
                        await socket.send(message)
                    async with asyncio.timeout(WAIT_SECONDS):
                        while not await asyncio.to_thread(has_started):
                            with suppress(TimeoutError):
                                async with asyncio.timeout(0.01):
                                    await socket.recv()
                except ConnectionClosed:
                    return Outcome(False, socket.close_code or 0, socket.close_reason or "")
                return Outcome(True)
        except InvalidStatus as refused:
            return Outcome(False, refused.response.status_code)

    return world.sockets.run(run())


def mz() -> str:
    return "MZ" + secrets.token_hex(16)


def twilio_socket(
    world: World,
    *,
    token: str = SERVICE_TOKEN,
    path: str = "",
    ticket: str | None = None,
    call_sid: str = "",
    stream_sid: str = "",
    **named: str,
) -> Attempt:
    """Return a socket as Twilio opens it for a call of ours, but for what is given."""
    said = world.ring(world.ours)
    call_sid = call_sid or said["callSid"]
    params = {**said, **named}
    if ticket is not None:
        params["ticket"] = ticket
    stream_sid = stream_sid or mz()
    url = f"{world.near.ws_url}/twilio-media{path}"
    headers = {"X-Twilio-Signature": signature(url, token=token)} if token else {}
    start = twilio.start_message(stream_sid, call_sid, params=params)
    media = twilio.media_message(stream_sid, FRAME, seq=2, chunk=1, timestamp=0)
    return Attempt(url, headers, (twilio.connected_message(), start, media))


def spent(world: World) -> Attempt:
    """Return a second socket with the ticket of one that was admitted."""
    first = twilio_socket(world)
    assert outcome_of(world, first).admitted
    return first


TWILIO_SOCKETS: Mapping[str, tuple[Callable[[World], Attempt], bool]] = {
    "the service's token, our ticket": (twilio_socket, True),
    "our token on our path, our ticket": (
        lambda w: twilio_socket(w, token=w.ours.twilio_token, path=f"/{w.ours.id}"),
        True,
    ),
    "no signature": (lambda w: twilio_socket(w, token=""), False),
    "nobody's token": (lambda w: twilio_socket(w, token="x" * 32), False),
    "our token without a path": (lambda w: twilio_socket(w, token=w.ours.twilio_token), False),
    "our token on their path": (
        lambda w: twilio_socket(w, token=w.ours.twilio_token, path=f"/{w.theirs.id}"),
        False,
    ),
    "our ticket on their path": (lambda w: twilio_socket(w, path=f"/{w.theirs.id}"), False),
    "our token, their ticket": (
        lambda w: twilio_socket(
            w,
            token=w.ours.twilio_token,
            path=f"/{w.ours.id}",
            ticket=w.ring(w.theirs)["ticket"],
        ),
        False,
    ),
    "no ticket": (lambda w: twilio_socket(w, ticket=""), False),
    "a forged ticket": (lambda w: twilio_socket(w, ticket="e30.e30.x"), False),
    "a ticket of another call of ours": (
        lambda w: twilio_socket(w, ticket=w.ring(w.ours)["ticket"]),
        False,
    ),
    "a ticket of theirs": (lambda w: twilio_socket(w, ticket=w.ring(w.theirs)["ticket"]), False),
    "a ticket of a stream URL": (
        lambda w: twilio_socket(w, ticket=url_ticket(w, w.ours)),
        False,
    ),
    "a spent ticket": (spent, False),
    "their businessId in start": (lambda w: twilio_socket(w, businessId=w.theirs.id), False),
    "their businessId in the URL": (
        lambda w: twilio_socket(w, path=f"?businessId={w.theirs.id}"),
        False,
    ),
    "their CallSid": (lambda w: twilio_socket(w, call_sid=w.theirs.live.call_sid), False),
    "their live stream": (lambda w: twilio_socket(w, stream_sid=w.theirs.live.stream), False),
    "their finished stream": (lambda w: twilio_socket(w, stream_sid=w.theirs.ended.stream), False),
    # An id that is not Twilio's is only a name: the stream gets one of ours.
    "their Exotel stream": (lambda w: twilio_socket(w, stream_sid=w.theirs.exotel.stream), True),
    "their client's stream": (lambda w: twilio_socket(w, stream_sid=w.theirs.client.stream), True),
    "our live stream": (lambda w: twilio_socket(w, stream_sid=w.ours.live.stream), False),
}


def exotel_socket(
    world: World,
    headers: Mapping[str, str],
    query: str = "",
    stream_sid: str = "",
    call_sid: str = "",
    **more: Any,
) -> Attempt:
    """Return a socket as Exotel opens it, with what is given."""
    stream_sid, call_sid = stream_sid or secrets.token_hex(16), call_sid or secrets.token_hex(16)
    start = exotel.start_message(stream_sid, call_sid, **more)
    url = f"{world.near.ws_url}/v1/ingest{query}"
    return Attempt(url, headers, (exotel.connected_message(), start))


def with_ticket(world: World, ticket: str, query: str = "", **more: Any) -> Attempt:
    return exotel_socket(world, {}, f"?ticket={ticket}{query}", **more)


def ticket_of_call(world: World, **more: Any) -> Attempt:
    """Return a socket with a ticket of ours, for the call that it is for but for what is given."""
    call_sid = secrets.token_hex(16)
    ticket = url_ticket(world, world.ours, call_sid)
    return with_ticket(world, ticket, **{"call_sid": call_sid, **more})


def client_socket(world: World, claims: Mapping[str, Any], **start: str) -> Attempt:
    """Return a socket of an own client of ours; `start` is what its `start` says."""
    said = {"event": "start", "interaction_id": f"new-{secrets.token_hex(8)}", **start}
    headers = {"Authorization": world.ours.token(**claims)}
    return Attempt(f"{world.near.ws_url}/v1/ingest", headers, (json.dumps(said), bytes(320)))


def own(world: World) -> dict[str, str]:
    return basic(world.ours.pair)


def shared(world: World) -> dict[str, str]:
    return basic(SHARED_PAIR)


INGEST_SOCKETS: Mapping[str, tuple[Callable[[World], Attempt], bool]] = {
    "our pair": (lambda w: exotel_socket(w, own(w)), True),
    "the shared pair, our number": (
        lambda w: exotel_socket(w, shared(w), to_number=w.ours.number),
        True,
    ),
    "no credentials": (lambda w: exotel_socket(w, {}, to_number=w.ours.number), False),
    "nobody's pair": (lambda w: exotel_socket(w, basic("a" * 16 + ":" + "b" * 16)), False),
    "our pair, their businessId in the URL": (
        lambda w: exotel_socket(w, own(w), f"?businessId={w.theirs.id}"),
        False,
    ),
    "our pair, their businessId in start": (
        lambda w: exotel_socket(w, own(w), params={"businessId": w.theirs.id}),
        False,
    ),
    # The shared pair speaks for the whole service: `start` decides, before the URL.
    "the shared pair, two businesses": (
        lambda w: exotel_socket(
            w, shared(w), f"?businessId={w.theirs.id}", params={"businessId": w.ours.id}
        ),
        True,
    ),
    # What the peer calls its stream and its call is its own affair.
    "our pair, their number": (
        lambda w: exotel_socket(w, own(w), to_number=w.theirs.number),
        True,
    ),
    "our pair, their name of a stream": (
        lambda w: exotel_socket(w, own(w), stream_sid=w.theirs.exotel.peer_name),
        True,
    ),
    "our pair, their live stream": (
        lambda w: exotel_socket(w, own(w), stream_sid=w.theirs.exotel.stream),
        True,
    ),
    "our pair, their finished Twilio stream": (
        lambda w: exotel_socket(w, own(w), stream_sid=w.theirs.ended.stream),
        True,
    ),
    "our pair, their live Twilio stream": (
        lambda w: exotel_socket(w, own(w), stream_sid=w.theirs.live.stream),
        True,
    ),
    "our pair, their call": (
        lambda w: exotel_socket(w, own(w), call_sid=w.theirs.exotel.call_sid),
        True,
    ),
    "our ticket": (ticket_of_call, True),
    "our ticket, their businessId": (
        lambda w: ticket_of_call(w, query=f"&businessId={w.theirs.id}"),
        False,
    ),
    "our ticket, their businessId in start": (
        lambda w: ticket_of_call(w, params={"businessId": w.theirs.id}),
        False,
    ),
    "our ticket, their call": (
        lambda w: ticket_of_call(w, call_sid=w.theirs.exotel.call_sid),
        False,
    ),
    "a ticket of a Twilio call": (
        lambda w: with_ticket(w, w.ring(w.ours)["ticket"]),
        False,
    ),
    "a token": (lambda w: client_socket(w, {}), True),
    "a token for one interaction": (
        lambda w: client_socket(w, {"interaction_id": "bound"}, interaction_id="bound"),
        True,
    ),
    "a token for one interaction, another": (
        lambda w: client_socket(w, {"interaction_id": "bound"}, interaction_id="other"),
        False,
    ),
    "a token, their tenant_id": (
        lambda w: client_socket(w, {}, tenant_id=w.theirs.id),
        False,
    ),
    "a token, their business_id": (
        lambda w: client_socket(w, {}, business_id=w.theirs.id),
        False,
    ),
    "a token, their interaction": (
        lambda w: client_socket(w, {}, interaction_id=w.theirs.client.peer_name),
        True,
    ),
    "a token, an interaction named as their stream": (
        lambda w: client_socket(w, {}, interaction_id=w.theirs.client.stream),
        True,
    ),
    # `shop` + `canary.x` must not be what `shop.canary` + `x` is.
    "a token, an interaction that begins as their id": (
        lambda w: client_socket(w, {}, interaction_id=f"canary.{w.theirs.client.peer_name}"),
        True,
    ),
}


@pytest.mark.parametrize("case", TWILIO_SOCKETS)
def test_a_twilio_socket_reaches_its_own_call_alone(world: World, case: str) -> None:
    make, is_admitted = TWILIO_SOCKETS[case]
    _try(world, make, is_admitted)


@pytest.mark.parametrize("case", INGEST_SOCKETS)
def test_an_ingest_socket_reaches_its_own_business_alone(world: World, case: str) -> None:
    make, is_admitted = INGEST_SOCKETS[case]
    _try(world, make, is_admitted)


def _try(world: World, make: Callable[[World], Attempt], is_admitted: bool) -> None:
    tried = make(world)
    before = snapshot(world.redis, [world.theirs])
    outcome = outcome_of(world, tried)
    assert outcome.admitted == is_admitted, outcome
    if not is_admitted:
        assert outcome.code in {401, 403, 1008}, outcome
    assert changed(before, snapshot(world.redis, [world.theirs])) == []
