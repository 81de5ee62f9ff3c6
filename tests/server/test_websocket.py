"""The WebSocket layer alone: what is paid for, what is free, and that nothing is lost."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import OPEN, SERVER, Protocol

from app.budget import Allowance
from app.server import DEFAULT_RULES, NO_BUDGETS, SocketRules
from benchmarks.attacks import (
    BINARY,
    CONT,
    PING,
    PONG,
    TEXT,
    Attack,
    Target,
    flood,
    frame,
    upgrade_request,
)
from tests.server.instance import Listener, serving
from tests.server.raw import CLOSE, a_connection, a_raw_peer
from tests.waiting import WAIT_SECONDS, until

AUDIO = frame(TEXT, b"a" * 400)
BURST = int(DEFAULT_RULES.light_frames.at_once)
FRAGMENTS = DEFAULT_RULES.max_fragments
# Nothing comes back by time: what a test spends is exact.
STILL = SocketRules(light_frames=Allowance(BURST, 0), light_bytes=Allowance(16 * 1024, 0))
END = frame(CLOSE, (1000).to_bytes(2))


def fragmented(pieces: Sequence[bytes], opcode: int = TEXT) -> bytes:
    first, *others = pieces
    *middle, last = others
    return b"".join(
        [
            frame(opcode, first, fin=False),
            *(frame(CONT, piece, fin=False) for piece in middle),
            frame(CONT, last),
        ]
    )


PAID = {
    "pings": (frame(PING, b"p"), BURST),
    "long pings": (frame(PING, b"p" * 125), 16 * 1024 // 127 - 1),
    "pongs": (frame(PONG), BURST),
    "blank messages": (frame(TEXT), BURST),
    "short messages": (frame(TEXT, b"x" * 63), BURST),
    "short binary messages": (frame(BINARY, b"x"), BURST),
    "short messages in pieces": (fragmented([b"x" * 31, b"x" * 31]), BURST // 2),
}


@pytest.mark.parametrize("name", PAID)
async def test_what_carries_no_audio_is_paid_for(name: str) -> None:
    unit, most = PAID[name]
    async with serving(STILL) as server:
        async with a_raw_peer(server.port) as peer:
            await peer.send(unit * most + END)
            assert (await peer.closed())[0] == 1000
        async with a_raw_peer(server.port) as peer:
            await peer.send(AUDIO + unit * most + unit + unit + unit)
            assert await peer.closed() == (1008, "flooding")
            await peer.gone()
        await until(lambda: len(server.app.ended) == 2)
        assert server.app.ended[1]["cut"] == "flooding"
        assert "a" * 400 in server.app.received
        assert server.closed("flooding") == 1


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param(AUDIO, id="a media message"),
        pytest.param(frame(TEXT, b"a" * 64), id="the shortest that may carry audio"),
        pytest.param(frame(BINARY, b"a" * 9600), id="a client's frame of 200 ms"),
        pytest.param(fragmented([b"a" * 64, b"a"]), id="in two pieces"),
        pytest.param(fragmented([b"a" * 64] * FRAGMENTS), id="in as many as may be"),
        pytest.param(AUDIO + frame(TEXT), id="a blank line after each"),
        pytest.param(AUDIO + frame(PING), id="a ping after each"),
    ],
)
async def test_what_may_carry_audio_is_free(unit: bytes) -> None:
    count = 3 * BURST
    async with serving(STILL) as server:
        async with a_raw_peer(server.port) as peer:
            writing = asyncio.create_task(peer.send(unit * count + END))
            assert (await peer.closed())[0] == 1000
            await writing
        await until(lambda: bool(server.app.ended))
        heard = [said for said in server.app.received if said]
        assert len(heard) == count


async def test_a_budget_refills_with_time() -> None:
    rules = SocketRules(light_frames=Allowance(10, 1000), light_bytes=Allowance(1000, 1e6))
    async with serving(rules) as server, a_raw_peer(server.port) as peer:
        for _ in range(10):
            await peer.send(frame(PING) * 10)
            for _ in range(10):
                assert await peer.frame() == (PONG, b"")
            # What was spent is spent before this begins.
            await asyncio.sleep(0.02)
        await peer.send(END)
        assert (await peer.closed())[0] == 1000


async def test_without_budgets_a_flood_is_served() -> None:
    async with serving(NO_BUDGETS) as server, a_raw_peer(server.port) as peer:
        pieces = fragmented([b"x"] * 5000)
        writing = asyncio.create_task(peer.send(frame(PING) * 5000 + pieces + END))
        assert (await peer.closed())[0] == 1000
        await writing
        await until(lambda: server.app.received == ["x" * 5000])


@pytest.mark.parametrize("piece", [b"", b"x", b"x" * 64])
async def test_a_message_has_a_bounded_number_of_fragments(piece: bytes) -> None:
    rules = SocketRules(light_frames=NO_BUDGETS.light_frames, light_bytes=NO_BUDGETS.light_bytes)
    pieces = fragmented([b"x" * 64] * FRAGMENTS)
    endless = frame(TEXT, b"x" * 64, fin=False) + frame(CONT, piece, fin=False) * FRAGMENTS
    async with serving(rules) as server, a_raw_peer(server.port) as peer:
        await peer.send(pieces + endless)
        assert await peer.closed() == (1008, "flooding")
        await until(lambda: server.app.received == ["x" * 64 * FRAGMENTS])


async def test_a_burst_is_parsed_as_the_application_follows_and_loses_nothing() -> None:
    app = Listener(holds=asyncio.Event())
    assert app.holds is not None
    async with serving(app=app) as server, a_raw_peer(server.port) as peer:
        sent = b"".join(frame(TEXT, b"%06d" % number * 50) for number in range(3000))
        writing = asyncio.create_task(peer.send(sent + END))
        (socket,) = server.connections
        await until(lambda: socket.queue.qsize())
        await asyncio.sleep(0.1)  # in which all of it would be parsed
        assert socket.queue.qsize() < 10
        app.holds.set()
        assert (await peer.closed())[0] == 1000
        await writing
        await until(lambda: bool(app.ended))
    assert app.received == [f"{number:06}" * 50 for number in range(3000)]


def a_read_parsed_at_once() -> float:
    """Tell how long that takes here: a whole read of pings, in this thread's own time."""
    pings = frame(PING) * (256 * 1024 // len(frame(PING)))
    parser = Protocol(SERVER, state=OPEN)
    began = time.thread_time()
    parser.receive_data(pings)
    parser.events_received()
    return time.thread_time() - began


@pytest.mark.parametrize("unit", [frame(PING), frame(TEXT, b"{}"), frame(TEXT, b"x" * 60_000)])
async def test_no_flood_holds_the_event_loop(unit: bytes) -> None:
    """Measured in this thread's own time, so that a busy machine does not matter."""
    turns = []
    async with serving() as server:
        target = Target("127.0.0.1", server.port, upgrade_request("/"))
        flooding = asyncio.create_task(asyncio.to_thread(flood, target, Attack("", unit), 0.5))
        last = time.thread_time()
        while not flooding.done():
            await asyncio.sleep(0.001)
            now = time.thread_time()
            turns.append(now - last)
            last = now
    assert max(turns) < a_read_parsed_at_once() / 5


async def test_frames_before_the_handshake_is_answered_wait_for_it() -> None:
    app = Listener(accepts=asyncio.Event())
    assert app.accepts is not None
    async with serving(app=app) as server, a_connection(server.port) as peer:
        await peer.send(upgrade_request("/"))
        await asyncio.sleep(0.1)
        await peer.send(frame(PING, b"early") + AUDIO + bytes([0xFF, 0x80, 0, 0, 0, 0]))
        await asyncio.sleep(0.1)
        app.accepts.set()
        answer = await peer.reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert await peer.frame() == (PONG, b"early")
        assert (await peer.closed())[0] == 1002
        await until(lambda: app.received == ["a" * 400])


async def test_a_peer_that_leaves_its_pongs_unread_is_closed() -> None:
    rules = SocketRules(light_frames=NO_BUDGETS.light_frames, light_bytes=NO_BUDGETS.light_bytes)
    async with serving(rules) as server, a_raw_peer(server.port) as peer:
        await asyncio.wait_for(peer.flood(frame(PING, b"p" * 125)), WAIT_SECONDS)
        await until(lambda: bool(server.app.ended))
        assert server.app.ended[0]["cut"] == "peer_not_reading"
        assert server.closed("peer_not_reading") == 1


async def test_after_our_close_frame_a_flood_is_cut_too() -> None:
    async with serving() as server, a_raw_peer(server.port) as peer:
        (socket,) = server.connections
        socket.close_timeout = 2 * WAIT_SECONDS
        await peer.send(frame(TEXT, b"close"))
        assert await peer.closed() == (1000, "asked")
        await asyncio.wait_for(peer.flood(AUDIO), WAIT_SECONDS)


async def test_after_our_close_frame_what_was_on_its_way_does_no_harm() -> None:
    async with serving() as server, a_raw_peer(server.port) as peer:
        await peer.send(frame(TEXT, b"close") + AUDIO * 100)
        assert await peer.closed() == (1000, "asked")
        await peer.send(AUDIO * 10 + END)
        assert await peer.gone() == b""


async def test_a_peer_that_never_answers_our_close_frame_is_left() -> None:
    async with serving() as server, a_raw_peer(server.port) as peer:
        (socket,) = server.connections
        socket.close_timeout = 0.1
        await peer.send(frame(TEXT, b"close"))
        await peer.closed()
        assert await peer.gone() == b""


async def test_a_peer_that_does_not_read_its_last_messages_is_left() -> None:
    async with serving() as server, a_raw_peer(server.port) as peer:
        (socket,) = server.connections
        socket.close_timeout = 0.1
        await peer.send(frame(TEXT, b"shout"))
        await until(lambda: not server.connections)


async def test_after_a_cut_nothing_more_is_read() -> None:
    app = Listener(holds=asyncio.Event())
    assert app.holds is not None
    async with serving(STILL, app) as server, a_raw_peer(server.port) as peer:
        (socket,) = server.connections
        await peer.send(AUDIO + frame(PING) * 2000)
        app.holds.set()
        await until(lambda: bool(app.ended))
        assert not socket.transport.is_reading()
        assert len(socket._unparsed) == 0


async def test_what_was_read_before_the_connection_died_is_handed_on() -> None:
    app = Listener(holds=asyncio.Event())
    assert app.holds is not None
    async with serving(app=app) as server, a_raw_peer(server.port) as peer:
        (socket,) = server.connections
        await peer.send(AUDIO * 50)
        await until(lambda: len(socket._unparsed) > 40 * len(AUDIO))
        socket.transport.abort()
        await until(lambda: not server.connections)
        app.holds.set()
        await until(lambda: bool(app.ended))
    assert app.received == ["a" * 400] * 50


async def test_a_fault_of_ours_ends_one_connection_and_no_other() -> None:
    def broken(data: bytes) -> None:
        raise RuntimeError("broken")

    async with serving() as server, a_raw_peer(server.port) as other:
        (healthy,) = server.connections
        async with a_raw_peer(server.port) as peer:
            (socket,) = server.connections - {healthy}
            socket.conn.receive_data = broken
            await peer.send(AUDIO * 50)
            assert await peer.gone() == b""
        await until(lambda: len(server.app.ended) == 1)
        await other.send(AUDIO + END)
        assert (await other.closed())[0] == 1000


async def test_text_that_is_not_utf8_before_the_peers_own_close_frame(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as server:
        async with a_raw_peer(server.port) as peer:
            await peer.send(AUDIO + frame(TEXT, b"\xff" * 100) + END)
            await peer.gone()
        await until(lambda: bool(server.app.ended))
        assert server.app.received == ["a" * 400]
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_a_real_client_is_told_why_it_is_closed() -> None:
    async with serving(STILL) as server:
        async with connect(f"ws://127.0.0.1:{server.port}/", compression=None) as socket:
            with suppress(ConnectionClosed):
                for _ in range(BURST + 50):
                    await socket.send("{}")
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (1008, "flooding")
