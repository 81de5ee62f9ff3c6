"""Messages of an admitted stream: past the queue, all of them, in order, however they look."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from app.server import NO_BUDGETS, SocketRules
from app.server.frames import whole_message, wire_bytes
from app.server.rounds import Rounds
from app.wire.base import SOCKET_EXTENSION
from benchmarks.attacks import BINARY, CONT, PING, TEXT
from benchmarks.attacks import frame as plain_frame
from tests.server.instance import Instance, Listener, serving, until
from tests.server.raw import CLOSE, a_raw_peer

Unit = tuple[bytes, str | bytes | None]
KEY = bytes([0x9C, 0x01, 0xF3, 0x5A])


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Write one frame, as a client, with a mask that shows (RFC 6455, 5.3)."""
    plain = plain_frame(opcode, payload, fin=fin)
    begin = len(plain) - len(payload)
    masked = bytes(byte ^ KEY[place % 4] for place, byte in enumerate(payload))
    return plain[: begin - 4] + KEY + masked


AUDIO = frame(TEXT, b"a" * 400)
ADMIT = frame(TEXT, b"admit")
END = frame(CLOSE, (1000).to_bytes(2))


def text(said: str) -> Unit:
    return frame(TEXT, said.encode()), said


def in_pieces(said: bytes, opcode: int, between: bytes = b"") -> bytes:
    third = len(said) // 3
    return b"".join(
        [
            frame(opcode, said[:third], fin=False),
            between,
            frame(CONT, said[third : 2 * third], fin=False),
            between,
            frame(CONT, said[2 * third :]),
        ]
    )


def units(seed: int) -> Iterator[Unit]:
    """Give frames of every legal kind, each with the message that it brings, if any."""
    chance = random.Random(seed)
    for number in range(200):
        said = f"{number:05}" * chance.choice((1, 13, 20, 66, 100, 3000))
        kinds: list[Unit] = [
            text(said),
            text(said),
            text(said.replace("0", "ö")),
            (frame(BINARY, said.encode()), said.encode()),
            (in_pieces(said.encode(), TEXT), said),
            (in_pieces(said.encode(), BINARY, frame(PING, b"p")), said.encode()),
            (frame(PING), None),
        ]
        yield chance.choice(kinds)


def chunks(sent: bytes, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    at = 0
    while at < len(sent):
        size = chance.choice((1, 2, 7, 100, 330, 660, 5000, 60_000))
        yield sent[at : at + size]
        at += size


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("in_rounds", [True, False])
async def test_however_it_is_cut_all_of_it_comes_in_order(seed: int, in_rounds: bool) -> None:
    sent = list(units(seed))
    async with serving(NO_BUDGETS) as server, a_raw_peer(server.port) as peer:
        server.config.door.rounds.are_possible = in_rounds and Rounds.are_possible
        await peer.send(ADMIT)
        await until(lambda: server.app.received == ["admit"])
        for number, chunk in enumerate(chunks(b"".join(unit for unit, _ in sent), seed)):
            await peer.send(chunk)
            if number % 10 == 0:
                await asyncio.sleep(0.003)
        await peer.send(END)
        assert (await peer.closed())[0] == 1000
        await until(lambda: bool(server.app.ended))
    expected = [said for _, said in sent if said is not None]
    assert server.app.received[1:] == expected


async def test_what_waits_for_the_application_comes_before_what_passes_the_queue() -> None:
    app = Listener(holds=asyncio.Event())
    assert app.holds is not None
    async with serving(app=app) as server, a_raw_peer(server.port) as peer:
        first, second, third = (text(str(number) * 100) for number in range(3))
        await peer.send(ADMIT + first[0] + second[0])
        await asyncio.sleep(0.05)
        app.holds.set()
        await until(lambda: len(app.received) == 3)
        await peer.send(third[0] + END)
        assert (await peer.closed())[0] == 1000
    assert app.received == ["admit", first[1], second[1], third[1]]


def line_of(server: Instance) -> Any:
    (socket,) = server.connections
    extensions: Any = socket.scope["extensions"]
    return extensions[SOCKET_EXTENSION]["line"]


@pytest.mark.parametrize("lost", [False, True])
async def test_a_paused_line_hands_over_nothing_and_loses_nothing(lost: bool) -> None:
    said = [f"{number:05}" * 20 for number in range(300)]
    async with serving() as server, a_raw_peer(server.port) as peer:
        await peer.send(ADMIT)
        await until(lambda: server.app.received == ["admit"])
        line = line_of(server)
        line.pause()
        await peer.send(b"".join(frame(TEXT, one.encode()) for one in said))
        if lost:
            peer.writer.close()
        else:
            await peer.send(END)
        await asyncio.sleep(0.05)
        assert server.app.received == ["admit"]
        line.resume()
        await until(lambda: bool(server.app.ended))
    assert server.app.received[1:] == said


async def test_a_pause_in_the_midst_of_what_was_read_holds_at_once() -> None:
    heard: list[Any] = []
    async with serving() as server, a_raw_peer(server.port) as peer:
        await until(lambda: len(server.connections) == 1)
        line = line_of(server)

        def take(message: str | bytes) -> None:
            heard.append(message)
            line.pause()

        (socket,) = server.connections
        socket.scope["extensions"][SOCKET_EXTENSION]["admitted"](take)
        await peer.send(AUDIO * 5)
        for count in range(1, 6):
            await until(lambda: len(heard) == count)  # noqa: B023
            await asyncio.sleep(0.02)
            assert len(heard) == count
            line.resume()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(frame(TEXT, b"\xff" * 400), 1007, id="text that is not UTF-8"),
        pytest.param(frame(TEXT, b"\xff" * 400, fin=False) + frame(CONT), 1007, id="in pieces"),
        pytest.param(bytes([0xC1]) + AUDIO[1:], 1002, id="an extension nobody agreed on"),
        pytest.param(bytes([0x81, 0x7E, 1, 0x90]) + b"a" * 400, 1002, id="not masked"),
        pytest.param(bytes([0x80]) + AUDIO[1:], 1002, id="a continuation of nothing"),
        pytest.param(frame(TEXT, b"a" * 70_000), 1009, id="too long"),
        pytest.param(frame(TEXT, b"a" * 100, fin=False) + AUDIO, 1002, id="within another"),
    ],
)
async def test_a_fault_after_good_messages_closes_as_ever(sent: bytes, code: int) -> None:
    async with serving() as server, a_raw_peer(server.port) as peer:
        await peer.send(ADMIT)
        await until(lambda: server.app.received == ["admit"])
        await peer.send(AUDIO * 3 + sent + AUDIO)
        assert (await peer.closed())[0] == code
        await until(lambda: bool(server.app.ended))
    assert server.app.received == ["admit", *["a" * 400] * 3]


async def test_what_carries_no_audio_is_paid_for_past_the_queue_too() -> None:
    async with serving(SocketRules()) as server, a_raw_peer(server.port) as peer:
        await peer.send(ADMIT)
        await until(lambda: server.app.received == ["admit"])
        await peer.send(AUDIO + frame(PING) * 1000)
        assert await peer.closed() == (1008, "flooding")
    assert server.app.received == ["admit", "a" * 400]


async def test_a_taker_that_fails_ends_its_own_connection_and_no_other() -> None:
    def take(message: str | bytes) -> None:
        raise ZeroDivisionError

    async with serving() as server, a_raw_peer(server.port) as healthy:
        await healthy.send(ADMIT)
        await until(lambda: server.app.received == ["admit"])
        (first,) = server.connections
        async with a_raw_peer(server.port) as peer:
            await until(lambda: len(server.connections) == 2)
            (socket,) = server.connections - {first}
            socket.scope["extensions"][SOCKET_EXTENSION]["admitted"](take)
            await peer.send(AUDIO)
            assert await peer.gone() == b""
        await healthy.send(AUDIO)
        await until(lambda: server.app.received == ["admit", "a" * 400])


# ---------------------------------------------------------------- frames as bytes


@pytest.mark.parametrize("size", [64, 125, 126, 400, 65_535])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_whole_message_is_read_wherever_it_lies(size: int, opcode: int) -> None:
    sent = frame(opcode, b"a" * size)
    expected = "a" * size if opcode == TEXT else b"a" * size
    assert whole_message(sent, 0) == (expected, len(sent))
    assert whole_message(memoryview(b"xyz" + sent + b"xyz"), 3) == (expected, 3 + len(sent))


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(AUDIO[:-1], id="in part"),
        pytest.param(AUDIO[:3], id="hardly begun"),
        pytest.param(b"", id="nothing"),
        pytest.param(frame(TEXT, b"a" * 63), id="too short to carry audio"),
        pytest.param(frame(TEXT, b"a" * 400, fin=False), id="the first of some pieces"),
        pytest.param(frame(CONT, b"a" * 400), id="a later piece"),
        pytest.param(frame(PING, b"a" * 100), id="a ping"),
        pytest.param(bytes([0x81, 0x7E, 1, 0x90]) + b"a" * 400, id="not masked"),
        pytest.param(bytes([0xC1]) + AUDIO[1:], id="with an extension"),
        pytest.param(frame(TEXT, b"\xff" * 400), id="text that is not UTF-8"),
        pytest.param(frame(TEXT, b"a" * 65_536), id="longer than 16 bits tell"),
    ],
)
def test_all_else_is_left_to_the_parser(sent: bytes) -> None:
    assert whole_message(sent, 0) is None


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_frame_is_as_long_as_it_was_sent(size: int) -> None:
    assert wire_bytes(Frame(Opcode.BINARY, b"a" * size)) == len(frame(BINARY, b"a" * size))
    assert wire_bytes("no frame") == 0


async def admitted_and_sent(parts: list[bytes]) -> list[Any]:
    """Send an admitted stream's bytes, each part in a round of its own; give what was heard."""
    async with serving() as server, a_raw_peer(server.port) as peer:
        await peer.send(ADMIT)
        await until(lambda: server.app.received == ["admit"])
        for part in parts:
            await peer.send(part)
            await asyncio.sleep(0.05)
        await until(lambda: bool(server.app.ended))
        return server.app.received[1:]


async def test_what_looks_like_a_frame_within_a_frame_is_none() -> None:
    payload = bytes(byte ^ KEY[place % 4] for place, byte in enumerate(b"wxyz" + AUDIO))
    sent = frame(BINARY, payload)
    assert sent.endswith(AUDIO)
    cut = len(sent) - len(AUDIO)
    assert await admitted_and_sent([sent[:cut], sent[cut:], END]) == [payload]


async def test_a_message_within_the_pieces_of_another_is_a_fault_and_no_message() -> None:
    begun = frame(TEXT, b"a" * 100, fin=False)
    assert await admitted_and_sent([AUDIO, begun, AUDIO]) == ["a" * 400]
