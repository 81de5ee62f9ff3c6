"""Requests that Twilio did not make, and its own ones sent again."""

import asyncio
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from app.tools.embedded import EmbeddedRedis
from tests.examples import examples
from tests.service import (
    NUMBER,
    WAIT_SECONDS,
    Peer,
    Service,
    a_call,
    events_of,
    http_client,
    receipt_of,
    running_service,
    signature,
)
from tests.web.test_voice import parameters

CALL = a_call()
WEBHOOK, HANDSHAKE = "/twilio-voice", "/twilio-media"
# What the routes answer; 400 and 431 come from below them, where a header is none.
REFUSED = 403
UNREADABLE = {400, 431}


def ask(service: Service, kind: str, signatures: list[bytes], body: str = "") -> int:
    """Send a request byte by byte as given; give the status of the answer."""
    headers = b"".join(b"X-Twilio-Signature: " + one + b"\r\n" for one in signatures)
    if kind == WEBHOOK:
        body = body or urlencode(CALL)
        head = (
            f"POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n"
        )
    else:
        head = (
            f"GET {HANDSHAKE} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )
    where = urlsplit(service.url)
    with socket.create_connection((where.hostname, where.port), WAIT_SECONDS) as peer:
        try:
            peer.sendall(head.encode() + headers + b"\r\n" + body.encode())
        except ConnectionError:
            pass  # it has answered before it has read all
        answer = peer.recv(100)
    return int(answer.split()[1])


def other_places(service: Service, kind: str) -> list[str]:
    """Name URLs that are not the one which the request goes to."""
    url = urlsplit(service.url)
    host, port = url.hostname, url.port or 0
    own = "http" if kind == WEBHOOK else "ws"
    path = kind
    return [
        f"{own}s://{host}:{port}{path}",
        f"{'ws' if own == 'http' else 'http'}://{host}:{port}{path}",
        f"{own}://{host}:{port + 1}{path}",
        f"{own}://localhost:{port}{path}",
        f"{own}://x:{port}{path}",
        f"{own}://user@{host}:{port}{path}",
        f"{own}://{host}:{port}{path.upper()}",
        f"{own}://{host}:{port}/{path}",
        f"{own}://{host}:{port}{path}?",
        f"{own}://{host}:{port}{path}?businessId=business-2",
        f"{own}://{host}:{port}{path}#ct=1",
        f"{own}://{host}:{port}/twilio-status",
    ]


def forged(service: Service, kind: str) -> list[list[bytes]]:
    """Make signatures by hand that are nearly right."""
    url = f"{service.url if kind == WEBHOOK else service.ws_url}{kind}"
    form = CALL if kind == WEBHOOK else {}
    right = signature(url, form)
    forms = [{}, {**form, "x": ""}, {"CallSid": form.get("CallSid", "CA1")}]
    forms += [{**form, "To": NUMBER[:-1]}, {**form, "to": NUMBER}]
    wrong = [
        *(signature(other, form) for other in other_places(service, kind)),
        *(signature(url, other) for other in forms if other != form),
        signature(url, form, token="54321"),
        signature(url, form, token=""),
        right.lower(),
        right.rstrip("="),
        right + "=",
        right[:-1] + "\u00e9",
        right + ", " + right,
        "sha1=" + right,
        "",
        "null",
        "0" * len(right),
    ]
    doubled = [[right, right], [right, "x"], ["x", right], [right, ""], ["", right]]
    return [[], *([one.encode("latin-1")] for one in wrong)] + [
        [one.encode() for one in several] for several in doubled
    ]


@pytest.mark.parametrize("kind", [WEBHOOK, HANDSHAKE])
def test_a_request_that_is_signed_nearly_right_is_forbidden(service: Service, kind: str) -> None:
    answers = {b"|".join(one): ask(service, kind, one) for one in forged(service, kind)}
    assert set(answers.values()) == {REFUSED}, answers


@pytest.mark.parametrize("kind", [WEBHOOK, HANDSHAKE])
@pytest.mark.parametrize("size", [9_000, 100_000, 1_000_000])
def test_a_signature_of_any_size_is_forbidden_or_too_large(
    service: Service, kind: str, size: int
) -> None:
    assert ask(service, kind, [b"x" * size]) in {REFUSED, *UNREADABLE}


def test_no_bytes_are_a_signature(service: Service) -> None:
    # No line ends: they would begin another header.
    values = st.binary(max_size=60).map(lambda value: re.sub(rb"[\r\n]", b"", value))

    @given(st.lists(values, max_size=2), st.sampled_from([WEBHOOK, HANDSHAKE]))
    @settings(max_examples=examples(300))
    def tried(signatures: list[bytes], kind: str) -> None:
        readable = all(byte == 9 or 32 <= byte != 127 for one in signatures for byte in one)
        assert ask(service, kind, signatures) in ({REFUSED} if readable else {REFUSED, *UNREADABLE})

    tried()


def test_no_form_fits_a_signature_of_another(service: Service) -> None:
    right = signature(service.url + WEBHOOK, CALL).encode()
    forms = st.dictionaries(st.sampled_from([*CALL, "x"]) | st.text(), st.text())

    @given(forms.map(urlencode) | st.text(st.characters(codec="ascii")))
    @settings(max_examples=examples(100))
    def tried(body: str) -> None:
        # 400 where it is no form at all.
        assert ask(service, WEBHOOK, [right], body or "x") in {REFUSED, 400}

    tried()


def test_after_all_that_nothing_has_happened(service: Service) -> None:
    logged = service.logged()
    assert "Traceback" not in logged
    assert " ERROR " not in logged
    assert asyncio.run(events_of(service, CALL["CallSid"])) == []
    right = [signature(service.url + WEBHOOK, CALL).encode()]
    assert ask(service, WEBHOOK, right) == 200
    assert ask(service, HANDSHAKE, [signature(service.ws_url + HANDSHAKE).encode()]) == 101


# ------------------------------------------------------------------------- replays

PUBLIC = "https://bridge.example.com"


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    """Give two instances of one service: one public URL, one secret, one Redis."""
    directory = tmp_path_factory.mktemp("replicas")
    names = [directory / "a", directory / "b"]
    for name in names:
        name.mkdir()
    with (
        EmbeddedRedis(directory / "redis", persistent=False) as redis,
        running_service(names[0], redis.url, PUBLIC_URL=PUBLIC) as first,
        running_service(names[1], redis.url, PUBLIC_URL=PUBLIC) as second,
    ):
        yield [first, second]


async def replayed(replicas: list[Service], call: dict[str, str], times: int) -> list[str]:
    """Send one signed webhook again and again, to both; give the tickets."""
    headers = {
        "X-Twilio-Signature": signature(PUBLIC + WEBHOOK, call),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    limits = httpx.Limits(max_connections=20)
    async with http_client(limits=limits) as client:
        answers = await asyncio.gather(
            *(
                client.post(
                    replicas[turn % 2].url + WEBHOOK, content=urlencode(call), headers=headers
                )
                for turn in range(times)
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    return [parameters(answer.text)["ticket"] for answer in answers]


async def stream_with(service: Service, call_sid: str, ticket: str) -> tuple[tuple[int, str], Peer]:
    """Open a stream with this ticket, send one frame, and see how it ends."""
    headers = {"X-Twilio-Signature": signature(PUBLIC.replace("http", "ws") + HANDSHAKE)}
    async with connect(
        service.ws_url + HANDSHAKE, additional_headers=headers, compression=None
    ) as opened:
        peer = Peer(opened, call_sid)
        await peer.start({"ticket": ticket})
        await peer.media()
        await peer.stop()
        return await peer.closed(), peer


async def test_a_webhook_replayed_a_hundred_times_on_two_replicas_is_one_call(
    replicas: list[Service],
) -> None:
    call = a_call()
    tickets = await replayed(replicas, call, 100)
    assert len(set(tickets)) == len(tickets)
    redis = Redis.from_url(replicas[0].redis_url)
    try:
        assert await redis.zcard("live:{business-1}") == 1
    finally:
        await redis.aclose()
    told = await events_of(replicas[0], call["CallSid"], at_least=1)
    assert [name for name, _ in told] == ["call.incoming"]


async def test_a_ticket_admits_one_stream_however_many_replicas_it_is_shown_to(
    replicas: list[Service],
) -> None:
    call = a_call()
    for ticket in await replayed(replicas, call, 3):
        ends = await asyncio.gather(
            *(stream_with(replicas[turn % 2], call["CallSid"], ticket) for turn in range(10))
        )
        served = [peer for (code, _), peer in ends if code == 1000]
        assert len(served) == 1
        refused = {end for end, _ in ends if end[0] != 1000}
        # Two streams of the call are not live yet when the others are refused.
        assert {(code, reason.partition(":")[0]) for code, reason in refused} <= {
            (1008, "ticket_spent"),
            (1013, "too_many_streams"),
        }
        assert (await receipt_of(replicas[0], served[0].stream_sid))["published"] == 1
