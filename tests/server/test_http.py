"""The HTTP layer alone: every wait has an end, and sockets without a call are bounded."""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from app.server import SocketRules
from benchmarks.attacks import TEXT, frame, upgrade_request
from tests.server.instance import Instance, Listener, serving
from tests.server.raw import RawPeer, a_connection, a_raw_peer
from tests.waiting import WAIT_SECONDS, until

HASTY = SocketRules(first_byte_seconds=0.4, request_seconds=0.4, response_seconds=0.6)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


async def answer(peer: RawPeer) -> bytes:
    """Read one answer; give its body."""
    async with asyncio.timeout(WAIT_SECONDS):
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(OK), head
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return await peer.reader.readexactly(size)


# ---------------------------------------------------------------------- deadlines


@pytest.mark.parametrize(
    ("sent", "answered", "reason"),
    [
        pytest.param(b"", b"", "no_request", id="silence"),
        pytest.param(b"GET / HTTP/1.1\r\nHost:", b"408 ", "slow_request", id="half a header"),
        pytest.param(b"GE", b"408 ", "slow_request", id="half a method"),
        pytest.param(POST + b"12345", b"408 ", "slow_request", id="half a body"),
        pytest.param(b"\r\n", b"408 ", "slow_request", id="a blank line"),
        pytest.param(GET + b"GET", OK[9:13], "slow_request", id="half of a second request"),
    ],
)
async def test_who_does_not_finish_a_request_is_closed(
    sent: bytes, answered: bytes, reason: str
) -> None:
    async with serving(HASTY) as server, a_connection(server.port) as peer:
        await peer.send(sent)
        received = await peer.gone()
        assert received.startswith(b"HTTP/1.1 " + answered if answered else b"")
        assert bool(received) == bool(answered)
        assert server.closed(reason) == 1


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nX: ", b"x", id="a header"),
        pytest.param(POST.replace(b"10", b"1000"), b"x", id="a body"),
        pytest.param(GET, b"\r\n", id="blank lines after a request"),
    ],
)
async def test_who_sends_a_request_drop_by_drop_is_closed(first: bytes, drop: bytes) -> None:
    async with serving(HASTY) as server, a_connection(server.port) as peer:

        async def drip() -> None:
            await peer.send(first)
            while True:
                await asyncio.sleep(0.05)
                await peer.send(drop)

        dripping = asyncio.create_task(drip())
        await peer.gone()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        assert server.closed("slow_request") == 1


@pytest.mark.parametrize("hasty", ["first_byte_seconds", "request_seconds", "response_seconds"])
async def test_a_connection_between_requests_is_left_alone(hasty: str) -> None:
    rules = replace(SocketRules(), **{hasty: 0.3})
    async with serving(rules) as server, a_connection(server.port) as peer:
        for _ in range(2):
            await peer.send(GET)
            assert await answer(peer) == b"ok"
            await asyncio.sleep(0.4)
        await peer.send(POST + b"1234567890")
        assert await answer(peer) == b"ok"


async def test_a_request_may_come_in_parts() -> None:
    async with serving() as server, a_connection(server.port) as peer:
        await peer.send(POST[:20])
        await asyncio.sleep(0.1)
        await peer.send(POST[20:] + b"1234567890")
        assert await answer(peer) == b"ok"


@pytest.mark.parametrize("ending", [b"", b"Connection: close\r\n"])
async def test_who_does_not_read_the_answer_is_cut(ending: bytes) -> None:
    app = Listener(body=b"x" * 50_000_000)
    async with serving(HASTY, app) as server, a_connection(server.port) as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + ending + b"\r\n")
        await until(lambda: server.closed("slow_response") == 1)
        await until(lambda: not server.connections)


async def test_an_answer_that_is_read_in_time_is_no_fault() -> None:
    app = Listener(body=b"x" * 5_000_000)
    rules = SocketRules(response_seconds=1.5)
    async with serving(rules, app) as server, a_connection(server.port) as peer:
        for _ in range(2):
            await peer.send(GET)
            assert len(await answer(peer)) == 5_000_000
        await asyncio.sleep(1.6)
        assert server.closed("slow_response") == 0


async def test_an_answer_that_goes_on_may_as_long_as_it_is_read() -> None:
    app = Listener(body=b"x" * 1000, goes_on=True)
    async with serving(HASTY, app) as server, a_connection(server.port) as peer:
        await peer.send(GET)
        async with asyncio.timeout(WAIT_SECONDS):
            # For three times as long as an answer may take that is not read.
            await peer.reader.readexactly(1000 * 90)
        assert server.closed("slow_response") == 0


async def test_an_answer_that_goes_on_and_is_not_read_is_cut() -> None:
    app = Listener(body=b"x" * 5_000_000, goes_on=True)
    async with serving(HASTY, app) as server, a_connection(server.port) as peer:
        await peer.send(GET)
        await until(lambda: server.closed("slow_response") == 1)
        await until(lambda: not server.connections)


async def test_a_request_that_is_never_answered_is_given_up() -> None:
    async with (
        serving(HASTY, Listener(holds=asyncio.Event())) as server,
        a_connection(server.port) as peer,
    ):
        await peer.send(GET)
        assert await peer.gone() == b""
        assert server.closed("slow_response") == 1
        assert server.app.holds is not None
        server.app.holds.set()


# ------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(b"a: b\r\n" * 129, id="too many"),
        pytest.param(b"a: " + b"b" * 70_000 + b"\r\n", id="too long"),
        pytest.param(b"a: " + b"b" * 300_000, id="too long, and no end"),
    ],
)
async def test_headers_are_bounded(headers: bytes) -> None:
    async with serving() as server, a_connection(server.port) as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")
        assert (await peer.gone()).startswith(b"HTTP/1.1 431 ")
        assert server.closed("headers_too_large") == 1
        assert server.app.received == []


async def test_as_many_headers_as_may_be_are_served() -> None:
    async with serving() as server, a_connection(server.port) as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 127 + b"\r\n")
        assert await answer(peer) == b"ok"


async def test_what_is_no_request_is_refused() -> None:
    async with serving() as server, a_connection(server.port) as peer:
        await peer.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10)
        assert (await peer.gone()).startswith(b"HTTP/1.1 400 ")


async def test_requests_that_do_not_wait_for_answers_are_bounded() -> None:
    async with serving() as server:
        async with a_connection(server.port) as peer:
            await peer.send(GET * 10)
            for _ in range(10):
                assert await answer(peer) == b"ok"
        async with a_connection(server.port) as peer:
            await peer.send(GET * 1000)
            await peer.gone()
        assert server.closed("pipelining") == 1
        assert len(server.app.received) < 100


async def test_a_new_connection_is_served_whoever_waits() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(SocketRules(max_unadmitted=5)))
        silent = [await stack.enter_async_context(a_connection(server.port)) for _ in range(5)]
        for _ in range(3):
            async with a_connection(server.port) as peer:
                await peer.send(GET)
                assert await answer(peer) == b"ok"
        assert await silent[0].gone() == b""
        assert server.closed("gave_way") == 1


async def test_without_anybody_to_give_way_a_connection_is_closed_at_once() -> None:
    app = Listener(holds=asyncio.Event())
    assert app.holds is not None
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(SocketRules(max_unadmitted=2), app))
        stack.callback(app.holds.set)
        for _ in range(2):
            busy = await stack.enter_async_context(a_connection(server.port))
            await busy.send(GET)
        await until(lambda: len(app.received) == 2)
        late = await stack.enter_async_context(a_connection(server.port))
        assert await late.gone() == b""
        assert server.closed("too_many_sockets") == 1


# ------------------------------------------------------------------ media sockets


async def refusal(server: Instance, forwarded_for: str = "") -> tuple[int, str]:
    """Open a media socket in vain; give the status, and the reason in the body."""
    headers = {"X-Forwarded-For": forwarded_for} if forwarded_for else {}
    async with a_connection(server.port) as peer:
        await peer.send(upgrade_request("/", headers))
        head, _, body = (await peer.gone()).partition(b"\r\n\r\n")
    assert b"Retry-After: 5" in head
    return int(head.split()[1]), json.loads(body)["error"]


async def test_unadmitted_sockets_are_bounded_and_admitted_ones_do_not_count() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(SocketRules(max_unadmitted=2)))
        first, second = [await stack.enter_async_context(a_raw_peer(server.port)) for _ in range(2)]
        assert await refusal(server) == (503, "too_many_sockets")
        await first.send(frame(TEXT, b"admit"))
        await until(lambda: server.app.received == ["admit"])
        third = await stack.enter_async_context(a_raw_peer(server.port))
        assert await refusal(server) == (503, "too_many_sockets")
        second.writer.close()
        await until(lambda: len(server.connections) == 2)
        await stack.enter_async_context(a_raw_peer(server.port))
        await third.send(frame(TEXT, b"admit") * 2)
        await until(lambda: len(server.app.received) == 3)
        first.writer.close()
        await until(lambda: len(server.connections) == 2)
        assert len(server.config.door.unadmitted) == 1
        assert server.closed("too_many_sockets") == 2


async def test_a_refused_handshake_is_counted_no_longer() -> None:
    async with serving() as server:
        bad = upgrade_request("/").replace(
            b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"
        )
        async with a_connection(server.port) as peer:
            await peer.send(bad)
            assert (await peer.gone()).startswith(b"HTTP/1.1 4")
        assert len(server.config.door.unadmitted) == 0


async def test_unadmitted_sockets_are_bounded_by_address_where_it_is_known() -> None:
    from ipaddress import ip_network

    rules = SocketRules(max_unadmitted_per_address=2, trusted_proxies=(ip_network("127.0.0.0/8"),))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(rules))

        async def opened(address: str) -> None:
            headers = {"X-Forwarded-For": address} if address else {}
            await stack.enter_async_context(a_raw_peer(server.port, "/", headers))

        for address in ("192.0.2.7", "6.6.6.6, 192.0.2.7", "192.0.2.8", "", "", ""):
            await opened(address)
        assert await refusal(server, "192.0.2.7") == (503, "too_many_from_address")
        await opened("192.0.2.8")
        assert server.closed("too_many_from_address") == 1


async def test_an_http_request_is_served_while_media_sockets_are_refused() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(SocketRules(max_unadmitted=2)))
        for _ in range(2):
            await stack.enter_async_context(a_raw_peer(server.port))
        async with a_connection(server.port) as peer:
            await peer.send(GET)
            assert await answer(peer) == b"ok"


# ------------------------------------------------------------ what a request says of itself

UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET /\r\n\r\n", id="HTTP/0.9 without a version"),
        pytest.param(b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", id="HTTP/0.9"),
        pytest.param(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", id="HTTP/1.2"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", id="one host twice"),
        pytest.param(b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", id="two hosts in 1.0"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", id="a space in the host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", id="a path in the host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", id="a user in the host"),
        pytest.param(b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", id="another host's URL"),
        pytest.param(b"GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n", id="a user's URL"),
        pytest.param(b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", id="another scheme"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", id="a folded header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n" + UPGRADE, id="socket, two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\n" + UPGRADE, id="socket, no host"),
        pytest.param(b"GET / HTTP/1.0\r\nHost: a\r\n" + UPGRADE, id="socket over 1.0"),
    ],
)
async def test_refuses_a_request_whose_version_or_host_is_in_doubt(sent: bytes) -> None:
    rules = SocketRules(own_headers=((b"x-content-type-options", b"nosniff"),))
    async with serving(rules) as server, a_connection(server.port) as peer:
        await peer.send(sent)
        answered = await peer.gone()
        assert answered.startswith(b"HTTP/1.1 400 ")
        assert b"\r\nx-content-type-options: nosniff\r\n" in answered
        assert server.app.received == []


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", id="1.0 without a host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a.example.com:8000\r\n\r\n", id="with a port"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", id="IPv6"),
        pytest.param(b"GET http://a/x HTTP/1.1\r\nHost: A\r\n\r\n", id="its own URL"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", id="an asterisk"),
    ],
)
async def test_serves_a_request_that_names_one_host(sent: bytes) -> None:
    async with serving() as server, a_connection(server.port) as peer:
        await peer.send(sent)
        assert await answer(peer) == b"ok"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n" + UPGRADE, b"101", id="accepted"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\n" + UPGRADE.replace(b"n: 13", b"n: 7"),
            b"400",
            id="a version that is not served",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 9000 + b"\r\n" + UPGRADE, b"431", id="long"
        ),
    ],
)
async def test_each_answer_to_a_handshake_has_the_servers_own_headers(
    sent: bytes, status: bytes
) -> None:
    rules = SocketRules(own_headers=((b"x-content-type-options", b"nosniff"),))
    async with serving(rules) as server, a_connection(server.port) as peer:
        await peer.send(sent)
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + status)
        assert head.lower().count(b"x-content-type-options: nosniff") == 1
