"""What a worker is told of its commands, by a bridge that answers step by step."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from app.consumer import Call, Cleared, CommandRefused, Encoding, Played, Stopped
from app.consumer.speech import PIECE_SECONDS
from app.events import CallIdentity
from app.redis_url import parse_redis_url
from app.topology import AnyRedis, close, connect
from tests.consumer.bridge import START, Bridge
from tests.consumer.reading import next_call, worker
from tests.redis_groups import Cluster, cluster
from tests.waiting import WAIT_SECONDS, until

CONTROL = "control:{MZ1}"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster"), fsync=None) as running:
        yield running


@dataclass
class Line:
    """A live stream whose commands nobody does, and its worker's call."""

    bridge: Bridge
    redis: AnyRedis
    call: Call
    identity: CallIdentity

    async def answer(self, event: str, **data: Any) -> None:
        await self.bridge.announce(self.identity, event, **data)

    async def played(self, command_id: str, heard: bool | None = True) -> None:
        told = {"plays": 1, "durationMs": 20, "playedMs": 20, "heard": heard}
        await self.answer("stream.played", id=command_id, **told)

    async def commands(self) -> list[dict[bytes, bytes]]:
        return [
            fields for _, fields in await self.redis.execute_command("XRANGE", CONTROL, "-", "+")
        ]

    async def is_read(self) -> None:
        """Wait until the worker has read all that was told so far."""
        clear = await self.call.clear()
        await self.answer("stream.cleared", id=clear.id, plays=0, droppedMs=0, carrierMs=0)
        assert await clear.answer(WAIT_SECONDS) == Cleared(clear.id, 0, 0, 0)


@asynccontextmanager
async def a_line(url: str) -> AsyncIterator[Line]:
    redis = connect(parse_redis_url(url), connect_seconds=5, max_connections=4)
    bridge = Bridge.at(url)
    identity = await bridge.begin("MZ1")
    async with worker(url) as mine:
        yield Line(bridge, redis, await next_call(mine), identity)
    await bridge.close()
    await close(redis)


@pytest.fixture(params=["redis", "cluster"])
async def line(request: pytest.FixtureRequest, redis: Redis, redis_url: str) -> AsyncIterator[Line]:
    url = redis_url
    if request.param == "cluster":
        running: Cluster = request.getfixturevalue("nodes")
        url = running.url
    async with a_line(url) as made:
        yield made


only_redis = pytest.mark.parametrize("line", ["redis"], indirect=True)


async def test_a_command_is_written_as_the_contract_says_and_answered_by_its_id(
    line: Line,
) -> None:
    said = await line.call.play(b"\xff" * 160, encoding=Encoding.MULAW, mark="told")
    [written] = await line.commands()
    assert written == {
        b"command": b"play",
        b"id": said.id.encode(),
        b"encoding": b"mulaw",
        b"sampleRate": b"8000",
        b"audio": b"\xff" * 160,
        b"mark": b"told",
    }
    await line.played("somebody-else")
    await line.played(said.id)
    assert await said.heard(WAIT_SECONDS) is True


@only_redis
async def test_an_event_that_cannot_be_read_silences_nobody(line: Line) -> None:
    said = await line.call.play(bytes(320))
    digits = line.call.digits()
    first = asyncio.ensure_future(anext(digits))
    await asyncio.sleep(0)
    await line.answer("stream.stopped")
    await line.answer("stream.dtmf")
    await line.answer("stream.played", id=said.id)
    await line.answer("stream.error", id=said.id)
    await line.played(said.id, heard=False)
    assert await said.heard(WAIT_SECONDS) is False
    first.cancel()


@only_redis
async def test_an_answer_may_be_there_before_the_reply_to_what_it_answers(line: Line) -> None:
    await line.is_read()
    # From here on it is known which id an entry will have.
    await line.redis.execute_command("XADD", CONTROL, "9999999999999-0", "command", "mark")
    await line.played("9999999999999-2")
    await line.is_read()  # and its clear has the id before
    said = await line.call.play(bytes(320), more=True)
    assert said.id == "9999999999999-2"
    assert await said.heard(WAIT_SECONDS) is True


@only_redis
async def test_long_audio_is_not_gone_on_with_once_it_was_cleared(line: Line) -> None:
    audio = bytes(16_000 * (2 * PIECE_SECONDS + 1))
    playing = asyncio.create_task(line.call.play(audio))

    async def two_pieces() -> list[dict[bytes, bytes]]:
        found = await line.commands()
        return found if len(found) == 2 else []

    pieces = await until(two_pieces)
    assert [b"id" in piece for piece in pieces] == [False, False]
    entries = await line.redis.execute_command("XRANGE", CONTROL, "-", "+")
    await line.played(entries[0][0].decode())  # the first is over: nothing ends by that
    await line.played(entries[1][0].decode(), heard=False)
    said = await asyncio.wait_for(playing, WAIT_SECONDS)
    assert await said.heard() is False
    assert len(await line.commands()) == 2


@only_redis
async def test_long_audio_ends_with_a_piece_that_was_refused(line: Line) -> None:
    playing = asyncio.create_task(line.call.play(bytes(16_000 * (2 * PIECE_SECONDS + 1))))

    async def are_written() -> bool:
        return len(await line.commands()) == 2

    await until(are_written)
    entry, _ = (await line.redis.execute_command("XRANGE", CONTROL, "-", "+"))[0]
    error = {"id": entry.decode(), "command": "play", "reason": "queue_full"}
    await line.answer("stream.error", **error)
    said = await asyncio.wait_for(playing, WAIT_SECONDS)
    with pytest.raises(CommandRefused, match="queue_full"):
        await said.heard()
    assert len(await line.commands()) == 2


@only_redis
async def test_the_end_of_a_stream_answers_what_nobody_else_will(line: Line) -> None:
    said, ended = await line.call.play(bytes(320)), await line.call.hang_up()
    await line.bridge.end(line.identity, 1)
    assert await ended.answer(WAIT_SECONDS) == Stopped("stop")
    with pytest.raises(CommandRefused, match="stream_ended"):
        await said.answer(WAIT_SECONDS)


@only_redis
async def test_keys_are_given_once_each_up_to_the_end(line: Line) -> None:
    pressed: list[str] = []

    async def listen() -> None:
        async for digit in line.call.digits():
            pressed.append(digit)

    listening = asyncio.create_task(listen())
    await line.is_read()
    await asyncio.sleep(0)
    for digit in "12":
        await line.answer("stream.dtmf", digit=digit, seq=1)
    line.bridge._ids -= 1  # the next event repeats the last one's id
    await line.answer("stream.dtmf", digit="2", seq=1)
    await line.answer("stream.dtmf", digit="#", seq=2)
    await line.bridge.end(line.identity, 1)
    await asyncio.wait_for(listening, WAIT_SECONDS)
    assert pressed == ["1", "2", "#"]
    await asyncio.wait_for(listen(), WAIT_SECONDS)  # it is over: there are no more
    assert pressed == ["1", "2", "#"]


@only_redis
async def test_answers_to_another_stream_are_nobodys(line: Line) -> None:
    said = await line.call.play(bytes(320))
    other = await line.bridge.begin("MZ2", at=START + 1)
    told = {"plays": 1, "durationMs": 20, "playedMs": 20, "heard": True}
    await line.bridge.announce(other, "stream.played", id=said.id, **told)
    await line.is_read()
    assert not said.is_answered
    await line.played(said.id, heard=None)
    assert await said.answer(WAIT_SECONDS) == Played(said.id, 1, 20, 20, None)
