"""Two businesses and everything that admits a call: each reaches its own, and nothing else.

Each attempt on another business or call is made beside one that is allowed, and Redis is
compared before and after.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.auth import TicketOffice, TicketUse
from app.credentials.handshake import pair_digest
from app.credentials.sealing import Sealing
from app.plans import Business
from app.store.redis import RedisStore
from app.wire import exotel, twilio
from tests.businesses import BUSINESSES, business, plan
from tests.service import (
    TOKEN,
    WAIT_SECONDS,
    Peer,
    Service,
    a_call,
    a_peer,
    http_client,
    lines_with,
    post,
    receipt_of,
    service_alone,
    signature,
    started,
    written,
)
from tests.waiting import until
from tests.web.test_voice import parameters, verbs

A, B = "biz-a", "biz-b"
A_NUMBER, B_NUMBER = "+15005552001", "+15005552002"
SECRET_KEY, JWT_SECRET = "s" * 32, "j" * 32
SHARED, OWN_A, OWN_B = "shared-key:shared-token", "a-key:a-token", "b-key:b-token"
A_TOKEN, B_TOKEN = "twilio-token-of-a", "twilio-token-of-b"
EXOTEL_ADDRESS = {"X-Forwarded-For": "192.0.2.7"}
Outcome = str


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a service with two businesses, which have Exotel pairs of their own."""
    directory = tmp_path_factory.mktemp("two")
    more = directory / "more.toml"
    text = plan("roomy", max_concurrent_calls=500)
    text += business(A, "roomy", A_NUMBER, exotel_pairs=[OWN_A])
    text += business(B, "roomy", B_NUMBER, exotel_pairs=[OWN_B])
    more.write_text(BUSINESSES + text, encoding="utf-8")
    shared_key, _, shared_token = SHARED.partition(":")
    with service_alone(
        directory,
        BUSINESSES_FILE=str(more),
        SECRET_KEY=SECRET_KEY,
        SUPPORT_EXOTEL="true",
        EXOTEL_API_KEY=shared_key,
        EXOTEL_API_TOKEN=shared_token,
        EXOTEL_ALLOWED_IPS="192.0.2.0/24",
        TRUSTED_PROXIES="127.0.0.0/8",
        JWT_SECRET=JWT_SECRET,
    ) as running:
        yield running


@pytest.fixture
async def accounts(two: Service) -> Service:
    """Give the service, on which both have a Twilio account of their own."""
    store = RedisStore.from_url(two.redis_url, WAIT_SECONDS)
    for business_id, token in ((A, A_TOKEN), (B, B_TOKEN)):
        sealed = Sealing([SECRET_KEY]).seal(business_id, "twilio_auth_tokens", token)
        await store.save_secrets(business_id, {"twilio_auth_tokens": sealed})
    await store.close()
    return two


# ----------------------------------------------------------------- what is in Redis

# Leases and measures, which go on while a call is live, and what counts failed attempts.
MOVING = ("held:", "attempts:", "store:", "audit")


async def state(service: Service) -> dict[str, Any]:
    """Read all that calls have left in Redis, without what moves by itself."""
    found: dict[str, Any] = {}
    async with Redis.from_url(
        service.redis_url, encoding="latin-1", decode_responses=True
    ) as redis:
        async for key in redis.scan_iter():
            if key.startswith(MOVING) or ":metered:" in key:
                continue
            match await redis.type(key):
                case "zset":
                    found[key] = sorted(await redis.zrange(key, 0, -1))
                case "hash":
                    fields = await redis.hgetall(key)
                    found[key] = {name: fields[name] for name in sorted(fields) if name != "ms"}
                case "stream":
                    found[key] = [entry for entry, _ in await redis.xrange(key)]
                case "list":
                    found[key] = await redis.lrange(key, 0, -1)
                case "string":
                    found[key] = "there"
    return found


@dataclass(frozen=True)
class LiveCall:
    """A call of business B that is under way."""

    call_sid: str
    stream_sid: str
    peer: Peer


@asynccontextmanager
async def a_live_call(service: Service) -> AsyncIterator[LiveCall]:
    call = a_call(B_NUMBER)
    answer = await post(service, "/twilio-voice", call)
    async with a_peer(service, call_sid=call["CallSid"]) as peer:
        await peer.start(parameters(answer.text))
        await peer.media(3)
        await started(service, peer.stream_sid)
        await written(service, peer.stream_sid, 1)
        yield LiveCall(peer.call_sid, peer.stream_sid, peer)
        await peer.stop()
        assert await peer.closed() == (1000, "stop")
    assert (await receipt_of(service, peer.stream_sid))["published"] == 3


# ----------------------------------------------------------------------- credentials


def basic(pair: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def token(**claims: str) -> dict[str, str]:
    given = {"tenant_id": A, "exp": int(time.time()) + 60, **claims}
    return {"Authorization": "Bearer " + jwt.encode(given, JWT_SECRET, algorithm="HS256")}


def ticket(
    business_id: str = A, call_sid: str = "call-a", use: TicketUse = TicketUse.INGEST
) -> str:
    office = TicketOffice([SECRET_KEY], time.time, lambda: secrets.token_hex(8))
    return office.issue(call_sid, business_id, "roomy", use)


def old_ticket(business_id: str = A, call_sid: str = "call-a") -> str:
    """Make a ticket as version 0.1 does: without a use."""
    key = hmac.digest(SECRET_KEY.encode(), b"stream-ticket", hashlib.sha256)
    claims = {"sub": call_sid, "biz": business_id, "plan": "roomy"}
    times = {"exp": int(time.time()) + 60, "jti": secrets.token_hex(8)}
    return jwt.encode({**claims, **times}, key, algorithm="HS256")


# -------------------------------------------------------------------------- attempts


def called() -> str:
    return "call-" + secrets.token_hex(8)


async def stream_url(
    service: Service,
    headers: Mapping[str, str],
    query: Mapping[str, str] | str = "",
    **body: Any,
) -> Outcome:
    """Ask for a stream URL; give the status, and the reason of a refusal."""
    encoded = query if isinstance(query, str) else urlencode(query)
    method = "POST" if body else "GET"
    async with http_client() as client:
        answer = await client.request(
            method, f"{service.url}/exotel-stream-url?{encoded}", headers=dict(headers), **body
        )
    reason = answer.json().get("error", "")
    return f"{answer.status_code} {reason}".strip()


async def opened(url: str, headers: Mapping[str, str], messages: list[str | bytes]) -> Outcome:
    """Open a socket and send these; give how the upgrade was refused, or the socket closed."""
    try:
        async with connect(url, additional_headers=dict(headers), compression=None) as socket:
            try:
                for message in messages:
                    await socket.send(message)
                while True:
                    await socket.recv()
            except ConnectionClosed:
                pass
            reason = (socket.close_reason or "").partition(":")[0]
            return f"{socket.close_code} {reason}"
    except InvalidStatus as refused:
        reason = json.loads(refused.response.body or b"{}").get("error", "")
        return f"{refused.response.status_code} {reason}"


async def by_exotel(
    service: Service,
    headers: Mapping[str, str],
    query: Mapping[str, str] | str = "",
    *,
    call_sid: str = "call-a",
    **params: str,
) -> Outcome:
    encoded = query if isinstance(query, str) else urlencode(query)
    sid = "ex-" + secrets.token_hex(8)
    start = exotel.start_message(sid, call_sid, to_number=A_NUMBER, params=params)
    media = exotel.media_message(sid, b"\0\1" * 160, seq=2, chunk=1, timestamp=0)
    messages: list[str | bytes] = [start, media, exotel.stop_message(sid, call_sid, seq=3)]
    return await opened(f"{service.ws_url}/v1/ingest?{encoded}", headers, messages)


async def by_client(
    service: Service,
    headers: Mapping[str, str],
    query: Mapping[str, str] | str = "",
    **start: str,
) -> Outcome:
    encoded = query if isinstance(query, str) else urlencode(query)
    said = {"event": "start", "interaction_id": called(), **start}
    messages: list[str | bytes] = [json.dumps(said), b"\0\1" * 160, json.dumps({"event": "stop"})]
    return await opened(f"{service.ws_url}/v1/ingest?{encoded}", headers, messages)


async def by_twilio(
    service: Service, path: str, signer: str, call_sid: str, **params: str
) -> Outcome:
    url = f"{service.ws_url}/twilio-media{path}"
    sid = "MZ" + secrets.token_hex(16)
    messages: list[str | bytes] = [
        twilio.start_message(sid, call_sid, params=params),
        twilio.media_message(sid, b"\xff" * 160, seq=2, chunk=1, timestamp=0),
        twilio.stop_message(sid, call_sid, seq=3),
    ]
    return await opened(url, {"X-Twilio-Signature": signature(url, token=signer)}, messages)


Attempt = Callable[[Service, LiveCall], Awaitable[Outcome]]
TWILIO = TicketUse.TWILIO_MEDIA

# What is tried, and how it must be refused. The live call is business B's.
FOREIGN: dict[str, tuple[Attempt, Outcome]] = {
    # Finding 1: a ticket is not accepted where stream URLs are given.
    "a ticket of A asks a URL of B": (
        lambda s, live: stream_url(s, {}, {"ticket": ticket(), "businessId": B, "CallSid": "x"}),
        "403 purpose_mismatch",
    ),
    "a ticket of A asks a URL of A": (
        lambda s, live: stream_url(s, {}, {"ticket": ticket(), "CallSid": "call-a"}),
        "403 purpose_mismatch",
    ),
    "a ticket of A posts": (
        lambda s, live: stream_url(s, {}, {"ticket": ticket()}, data={"CallSid": "call-a"}),
        "403 purpose_mismatch",
    ),
    "a Twilio ticket asks a URL": (
        lambda s, live: stream_url(s, {}, {"ticket": ticket(use=TWILIO), "CallSid": "call-a"}),
        "403 purpose_mismatch",
    ),
    "a ticket of version 0.1 asks a URL": (
        lambda s, live: stream_url(s, {}, {"ticket": old_ticket(), "CallSid": "call-a"}),
        "403 purpose_mismatch",
    ),
    "a ticket in the form asks a URL": (
        lambda s, live: stream_url(s, {}, data={"ticket": ticket(), "CallSid": "call-a"}),
        "401 credentials_missing",
    ),
    "a token of one interaction asks for another call": (
        lambda s, live: stream_url(s, token(interaction_id="int-1"), {"CallSid": live.call_sid}),
        "403 business_mismatch",
    ),
    "a token of one interaction names another": (
        lambda s, live: stream_url(s, token(interaction_id="i1"), {"interaction_id": "i2"}),
        "403 business_mismatch",
    ),
    **{
        f"a token of A names B by {name}": (
            lambda s, live, name=name: stream_url(s, token(), {name: B, "CallSid": called()}),
            "403 business_mismatch",
        )
        for name in ("businessId", "tenant_id", "business_id")
    },
    "A's pair names B in the query": (
        lambda s, live: stream_url(s, basic(OWN_A), {"businessId": B, "CallSid": live.call_sid}),
        "403 business_mismatch",
    ),
    "A's pair names B in the form": (
        lambda s, live: stream_url(s, basic(OWN_A), data={"businessId": B, "CallSid": called()}),
        "403 business_mismatch",
    ),
    "A's pair names B in JSON": (
        lambda s, live: stream_url(s, basic(OWN_A), json={"businessId": B, "CallSid": called()}),
        "403 business_mismatch",
    ),
    "A's pair names A in the query and B in the form": (
        lambda s, live: stream_url(s, basic(OWN_A), {"businessId": A}, data={"businessId": B}),
        "403 business_mismatch",
    ),
    "A's pair names B in the query and A in the form": (
        lambda s, live: stream_url(s, basic(OWN_A), {"businessId": B}, data={"businessId": A}),
        "403 business_mismatch",
    ),
    "A's pair names B, then A": (
        lambda s, live: stream_url(s, basic(OWN_A), f"businessId={B}&businessId={A}"),
        "403 business_mismatch",
    ),
    "A's pair names B in percent signs": (
        lambda s, live: stream_url(s, basic(OWN_A), "businessId=%62iz%2Db"),
        "403 business_mismatch",
    ),
    "A's pair names A in another case": (
        lambda s, live: stream_url(s, basic(OWN_A), {"businessId": A.upper()}),
        "403 business_mismatch",
    ),
    "a call named as made-up ones are": (
        lambda s, live: stream_url(s, basic(OWN_A), {"CallSid": "url-1"}),
        "400 invalid_identifier",
    ),
    # /v1/ingest, in its URL.
    "A's pair opens a stream of B": (
        lambda s, live: by_exotel(s, basic(OWN_A), {"businessId": B}),
        "403 business_mismatch",
    ),
    "a ticket of A opens a stream of B": (
        lambda s, live: by_exotel(s, {}, {"ticket": ticket(), "businessId": B}),
        "403 business_mismatch",
    ),
    "a ticket of one call names another in the URL": (
        lambda s, live: by_exotel(s, {}, {"ticket": ticket(), "callSid": live.call_sid}),
        "403 business_mismatch",
    ),
    **{
        f"a token of A opens a stream of B by {name}": (
            lambda s, live, name=name: by_client(s, token(), {name: B}),
            "403 business_mismatch",
        )
        for name in ("businessId", "tenant_id", "business_id")
    },
    **{
        f"a token of one interaction names another by {name}": (
            lambda s, live, name=name: by_client(s, token(interaction_id="int-1"), {name: "i2"}),
            "403 business_mismatch",
        )
        for name in ("interaction_id", "callSid", "CallSid")
    },
    "a Twilio ticket opens a socket of Exotel's": (
        lambda s, live: by_exotel(s, {}, {"ticket": ticket(use=TWILIO)}),
        "401 credentials_invalid",
    ),
    # /v1/ingest, in `start`.
    "A's pair starts a stream of B": (
        lambda s, live: by_exotel(s, basic(OWN_A), businessId=B),
        "1008 business_mismatch",
    ),
    "a ticket of A starts a stream of B": (
        lambda s, live: by_exotel(s, {}, {"ticket": ticket()}, businessId=B),
        "1008 business_mismatch",
    ),
    "a ticket of A brings one of B in start": (
        lambda s, live: by_exotel(
            s,
            {},
            {"ticket": ticket()},
            call_sid=live.call_sid,
            ticket=ticket(B, live.call_sid),
        ),
        "1008 ticket_invalid",
    ),
    "a ticket of one call starts another": (
        lambda s, live: by_exotel(s, {}, {"ticket": ticket()}, call_sid=live.call_sid),
        "1008 ticket_invalid",
    ),
    "a ticket of one call passes a parameter of another": (
        lambda s, live: by_exotel(s, {}, {"ticket": ticket()}, callSid=live.call_sid),
        "1008 business_mismatch",
    ),
    "a ticket without a call starts a live one": (
        lambda s, live: by_exotel(s, {}, {"ticket": ticket(B, "url-1")}, call_sid=live.call_sid),
        "1008 ticket_invalid",
    ),
    "a token of A starts a stream of tenant B": (
        lambda s, live: by_client(s, token(), tenant_id=B),
        "1008 business_mismatch",
    ),
    "a token of A starts a stream of business B": (
        lambda s, live: by_client(s, token(), business_id=B),
        "1008 business_mismatch",
    ),
    "a token of one interaction starts another": (
        lambda s, live: by_client(s, token(interaction_id="int-1"), interaction_id="int-2"),
        "1008 business_mismatch",
    ),
    # /twilio-media.
    "A's account at the path of B": (
        lambda s, live: by_twilio(s, f"/{B}", A_TOKEN, live.call_sid, ticket=ticket(B)),
        "403 signature_invalid",
    ),
    "A's account at no path": (
        lambda s, live: by_twilio(s, "", A_TOKEN, "call-a", ticket=ticket(use=TWILIO)),
        "403 signature_invalid",
    ),
    "A's account with a ticket of B": (
        lambda s, live: by_twilio(
            s, f"/{A}", A_TOKEN, live.call_sid, ticket=ticket(B, live.call_sid, TWILIO)
        ),
        "1008 business_mismatch",
    ),
    "A's account names B in start": (
        lambda s, live: by_twilio(
            s, f"/{A}", A_TOKEN, "call-a", ticket=ticket(use=TWILIO), businessId=B
        ),
        "1008 business_mismatch",
    ),
    "A's account names B in the query": (
        lambda s, live: by_twilio(
            s, f"/{A}?businessId={B}", A_TOKEN, "call-a", ticket=ticket(use=TWILIO)
        ),
        "1008 business_mismatch",
    ),
    "the service's account at the path of B with a ticket of A": (
        lambda s, live: by_twilio(s, f"/{B}", TOKEN, "call-a", ticket=ticket(use=TWILIO)),
        "1008 business_mismatch",
    ),
    "a ticket of one call at another": (
        lambda s, live: by_twilio(s, "", TOKEN, live.call_sid, ticket=ticket(use=TWILIO)),
        "1008 ticket_invalid",
    ),
    "a parameter of another call": (
        lambda s, live: by_twilio(
            s, "", TOKEN, "call-a", ticket=ticket(use=TWILIO), callSid=live.call_sid
        ),
        "1008 business_mismatch",
    ),
    "a ticket for ingest at Twilio's socket": (
        lambda s, live: by_twilio(s, "", TOKEN, "call-a", ticket=ticket()),
        "1008 ticket_invalid",
    ),
    "a ticket without a call at Twilio's socket": (
        lambda s, live: by_twilio(s, "", TOKEN, "call-a", ticket=ticket(A, "url-1")),
        "1008 ticket_invalid",
    ),
    "an old ticket without a call at Twilio's socket": (
        lambda s, live: by_twilio(s, "", TOKEN, "call-a", ticket=old_ticket(A, "url-1")),
        "1008 ticket_invalid",
    ),
    "no ticket at Twilio's socket": (
        lambda s, live: by_twilio(s, "", TOKEN, live.call_sid),
        "1008 ticket_missing",
    ),
}


@pytest.mark.parametrize(("attempt", "refused"), FOREIGN.values(), ids=FOREIGN)
async def test_refuses_what_a_credential_is_not_for_and_changes_nothing(
    accounts: Service, attempt: Attempt, refused: Outcome
) -> None:
    async with a_live_call(accounts) as live:
        before = await state(accounts)
        assert await attempt(accounts, live) == refused
        after = await state(accounts)
    # A ticket that failed at `start` may be spent: it is the peer's own.
    assert without_tickets(after) == without_tickets(before)
    assert "Traceback" not in accounts.logged()


def without_tickets(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if not key.startswith("ticket:")}


# The same credentials at what they are for.
OWN: dict[str, tuple[Attempt, Outcome]] = {
    "A's pair asks a URL": (
        lambda s, live: stream_url(s, basic(OWN_A), {"CallSid": called()}),
        "200",
    ),
    "A's pair names A": (
        lambda s, live: stream_url(s, basic(OWN_A), {"businessId": A}, data={"businessId": A}),
        "200",
    ),
    "A's pair names A, then B": (
        lambda s, live: stream_url(s, basic(OWN_A), f"businessId={A}&businessId={B}"),
        "200",
    ),
    "A's pair names nobody": (
        lambda s, live: stream_url(s, basic(OWN_A), "businessId="),
        "200",
    ),
    "the shared pair asks a URL of B": (
        lambda s, live: stream_url(s, basic(SHARED), {"businessId": B, "CallSid": called()}),
        "200",
    ),
    "Exotel's address asks a URL of B": (
        lambda s, live: stream_url(s, EXOTEL_ADDRESS, {"CallTo": B_NUMBER, "CallSid": called()}),
        "200",
    ),
    "a token asks a URL": (
        lambda s, live: stream_url(s, token(), {"CallSid": called(), "tenant_id": A}),
        "200",
    ),
    "a token of one interaction asks for it": (
        lambda s, live: stream_url(s, token(interaction_id="int-7"), {"CallSid": "int-7"}),
        "200",
    ),
    "A's pair": (
        lambda s, live: by_exotel(s, basic(OWN_A), {"businessId": A}, call_sid=called()),
        "1000 stop",
    ),
    "the shared pair for B": (
        lambda s, live: by_exotel(s, basic(SHARED), {"businessId": B}, call_sid=called()),
        "1000 stop",
    ),
    "Exotel's address for B": (
        lambda s, live: by_exotel(s, EXOTEL_ADDRESS, {"businessId": B}, call_sid=called()),
        "1000 stop",
    ),
    "a ticket": (
        lambda s, live: by_exotel(s, {}, {"ticket": ticket(), "businessId": A}),
        "1000 stop",
    ),
    "a ticket without a call": (
        lambda s, live: by_exotel(s, {}, {"ticket": ticket(A, "url-2")}, call_sid=called()),
        "1000 stop",
    ),
    "a ticket of version 0.1": (
        lambda s, live: by_exotel(s, {}, {"ticket": old_ticket()}),
        "1000 stop",
    ),
    "a token": (
        lambda s, live: by_client(s, token(), {"tenant_id": A}, tenant_id=A, business_id=A),
        "1000 stop",
    ),
    "a token of one interaction": (
        lambda s, live: by_client(s, token(interaction_id="int-8"), interaction_id="int-8"),
        "1000 stop",
    ),
    "A's account": (
        lambda s, live: by_twilio(
            s, f"/{A}", A_TOKEN, "CA-a1", ticket=ticket(A, "CA-a1", TWILIO), businessId=A
        ),
        "1000 stop",
    ),
    "the service's account at a path": (
        lambda s, live: by_twilio(
            s, f"/{A}", TOKEN, "CA-a2", ticket=ticket(A, "CA-a2", TWILIO), callSid="CA-a2"
        ),
        "1000 stop",
    ),
    "a ticket of version 0.1 at Twilio's socket": (
        lambda s, live: by_twilio(s, "", TOKEN, "CA-a3", ticket=old_ticket(A, "CA-a3")),
        "1000 stop",
    ),
    "A's account, of a call with B's CallSid": (
        lambda s, live: by_twilio(
            s, f"/{A}", A_TOKEN, live.call_sid, ticket=ticket(A, live.call_sid, TWILIO)
        ),
        "1000 stop",
    ),
}


async def test_a_webhook_that_is_replayed_admits_two_streams(accounts: Service) -> None:
    form = a_call(B_NUMBER)
    tickets = [
        parameters((await post(accounts, "/twilio-voice", form)).text)["ticket"] for _ in range(12)
    ]
    assert len(set(tickets)) == 12
    async with AsyncExitStack() as opened:
        peers = []
        for one in tickets:
            peer = await opened.enter_async_context(a_peer(accounts, call_sid=form["CallSid"]))
            await peer.start({"ticket": one})
            await peer.media()
            peers.append(peer)
        await until(lambda: [peer.socket.close_code for peer in peers].count(None) == 2)
        refused = {peer.socket.close_reason for peer in peers if peer.socket.close_code}
        assert refused == {"too_many_streams: 2 streams of this call are live, which is the limit"}
        for peer in peers:
            if peer.socket.close_code is None:
                await written(accounts, peer.stream_sid, 1)


@pytest.mark.parametrize(("attempt", "outcome"), OWN.values(), ids=OWN)
async def test_serves_what_a_credential_is_for(
    accounts: Service, attempt: Attempt, outcome: Outcome
) -> None:
    async with a_live_call(accounts) as live:
        before = of_call(await state(accounts), live)
        assert await attempt(accounts, live) == outcome
        assert of_call(await state(accounts), live) == before


def of_call(found: dict[str, Any], live: LiveCall) -> dict[str, Any]:
    """Return what is there of business B's live call."""
    slot = live.call_sid in found[f"live:{{{B}}}"]
    named = {key: value for key, value in found.items() if f"{{{B}}}:" in key}
    mine = {key: value for key, value in named.items() if live.call_sid in key}
    return {"slot": slot, **mine, **{key: found[key] for key in found if live.stream_sid in key}}


# -------------------------------------------------------------------- callbacks


CALLBACKS = ("/twilio-dial", "/twilio-status", "/twilio-stream-status")


@pytest.mark.parametrize("path", CALLBACKS)
@pytest.mark.parametrize("names_b", [False, True])
async def test_a_callback_of_one_account_changes_nothing_of_anothers_call(
    accounts: Service, path: str, names_b: bool
) -> None:
    path += f"?businessId={B if names_b else A}"
    async with a_live_call(accounts) as live:
        form = {
            **{"CallSid": live.call_sid, "StreamSid": live.stream_sid, "To": A_NUMBER},
            **{"CallStatus": "completed", "StreamEvent": "stream-error", "StreamError": "no"},
        }
        before = await state(accounts)
        headers = {"X-Twilio-Signature": signature(accounts.url + path, form, A_TOKEN)}
        answer = await post(accounts, path, form, headers=headers)
        assert (answer.status_code == 403) == names_b
        after = await state(accounts)
        if names_b:
            assert after == before
        assert of_call(after, live) == of_call(before, live)
        # The call can be answered by its own business still: it has not ended.
        again = {**a_call(B_NUMBER), "CallSid": live.call_sid}
        assert "Stream" in (await post(accounts, "/twilio-voice", again)).text


# ---------------------------------------------------------------- replayed webhooks


async def voice(service: Service, form: Mapping[str, str]) -> list[str]:
    return verbs((await post(service, "/twilio-voice", form)).text)


async def test_a_replayed_webhook_gets_no_ticket_after_the_final_status(two: Service) -> None:
    call = a_call(A_NUMBER)
    assert "Connect" in await voice(two, call)
    status = {**call, "CallStatus": "completed"}
    assert (await post(two, "/twilio-status", status)).status_code == 204
    before = await state(two)
    for replayed in (call, {**call, "CallStatus": "in-progress"}):
        assert "Connect" not in await voice(two, replayed)
    assert await state(two) == before
    assert lines_with(two.logged(), call["CallSid"], "refused: call_ended")
    # A ticket that was kept from before is of no use either.
    kept = ticket(A, call["CallSid"], TWILIO)
    assert await by_twilio(two, "", TOKEN, call["CallSid"], ticket=kept) == "1008 call_ended"
    # Another business's call of the same id is another call.
    assert "Connect" in await voice(two, {**call, "To": B_NUMBER})


async def test_a_replayed_webhook_gets_no_ticket_after_the_stream(two: Service) -> None:
    async with a_live_call(two) as live:
        call = {**a_call(B_NUMBER), "CallSid": live.call_sid}
        assert "Connect" in await voice(two, call)
    before = await state(two)
    assert "Connect" not in await voice(two, call)
    assert await state(two) == before
    # A call that its TwiML leads back says so itself, and is answered.
    answer = await post(two, "/twilio-voice", {**call, "CallStatus": "in-progress"})
    again = parameters(answer.text)["ticket"]
    assert await by_twilio(two, "", TOKEN, live.call_sid, ticket=again) == "1000 stop"


async def test_a_final_status_that_comes_before_the_streams_end_is_remembered(
    two: Service,
) -> None:
    async with a_live_call(two) as live:
        call = {**a_call(B_NUMBER), "CallSid": live.call_sid}
        await post(two, "/twilio-status", {**call, "CallStatus": "completed"})
    assert "Connect" not in await voice(two, {**call, "CallStatus": "in-progress"})


# ------------------------------------------------------------------------- tickets


async def test_a_spent_ticket_opens_no_socket_on_another_replica(two: Service) -> None:
    """It was spent by a replica, which is all that this one sees of it."""
    mine = ticket()
    nonce = jwt.decode(mine, options={"verify_signature": False})["jti"]
    async with Redis.from_url(two.redis_url) as redis:
        await redis.set(f"ticket:{{{nonce}}}", "1", px=60_000)
    assert await by_exotel(two, {}, {"ticket": mine}) == "401 credentials_invalid"
    kept = ticket(A, "CA-spent", TWILIO)
    nonce = jwt.decode(kept, options={"verify_signature": False})["jti"]
    async with Redis.from_url(two.redis_url) as redis:
        await redis.set(f"ticket:{{{nonce}}}", "1", px=60_000)
    assert await by_twilio(two, "", TOKEN, "CA-spent", ticket=kept) == "1008 ticket_spent"


async def test_a_stream_url_without_a_call_id_gives_its_slot_to_one_call(two: Service) -> None:
    before = await slots_of(two, A)
    async with http_client() as client:
        answer = await client.get(f"{two.url}/exotel-stream-url", headers=basic(OWN_A))
    [made_up] = await slots_of(two, A) - before
    assert made_up.startswith("url-")
    [given] = parse_qs(urlsplit(answer.json()["url"]).query)["ticket"]
    call_sid, stream = called(), "ex-" + secrets.token_hex(4)
    url = f"{two.ws_url}/v1/ingest?ticket={given}"
    async with connect(url, compression=None) as socket:
        await socket.send(exotel.start_message(stream, call_sid))
        await socket.send(exotel.media_message(stream, b"\0\1", seq=2, chunk=1, timestamp=0))

        async def is_taken_over() -> bool:
            return await slots_of(two, A) - before == {call_sid}

        await until(is_taken_over)
        await socket.send(exotel.stop_message(stream, call_sid, seq=3))


async def slots_of(service: Service, business_id: str) -> set[str]:
    async with Redis.from_url(service.redis_url, decode_responses=True) as redis:
        return set(await redis.zrange(f"live:{{{business_id}}}", 0, -1))


# --------------------------------------------------------------------------- pairs


async def test_a_pair_that_is_shared_speaks_for_the_service_whoever_has_it_too(
    two: Service,
) -> None:
    """What an admin stored before version 0.2, which let any pair be typed."""
    store = RedisStore.from_url(two.redis_url, WAIT_SECONDS)
    stored = await store.stored_business("wide")
    assert stored is not None
    taken: Business = replace(stored.record, exotel_pairs=(pair_digest(SHARED),))
    await store.save_business(taken, None)
    await store.close()
    for _ in range(2):
        query = {"businessId": B, "CallSid": called()}
        assert await stream_url(two, basic(SHARED), query) == "200"
    assert lines_with(two.logged(), "Stream URL given", query["CallSid"], B)
    assert len(lines_with(two.logged(), "pair of business wide is the service's shared pair")) == 1
