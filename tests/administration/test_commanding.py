"""The port by which the service itself commands live calls, with every adapter."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import msgspec
import pytest
from redis.asyncio import Redis

from app.administration.commanding import (
    ChannelCommands,
    Commands,
    MemoryCommands,
    RedisCommands,
)
from app.events import CallIdentity, HeldStream, StreamRecord
from app.media import Encoding, MediaFormat, Track
from app.playback.commands import Clear, Command, Play, parse_command
from app.pubsub.base import CloseStream, OpenStream, PubSub
from app.pubsub.control import ControlFeed
from app.pubsub.memory import MemoryPubSub
from app.pubsub.memory_control import MemoryControl
from app.pubsub.redis_control import RedisControl
from app.pubsub.redis_pubsub import RedisPubSub
from app.pubsub.redis_streams import RedisStreams
from tests.samples import MULAW_8K, PCM16_8K, a_receipt

START = 1_800_000_000_000
CALL = CallIdentity("CA1", "MZ1", "business-1", "premium", "twilio")
HELD = HeldStream(CALL, START, 600)
SPEECH = Play("said-1", b"\1\0\2\0", MediaFormat(Encoding.PCM16, 16000), is_named=True)


@dataclass
class Way:
    """Who writes commands, who reads them, and who opens the stream."""

    commands: Commands
    feed: ControlFeed
    pubsub: PubSub

    async def begin(self, started_at: int = START) -> None:
        record = StreamRecord(
            CALL, "+1", "+2", {}, PCM16_8K, MULAW_8K, (Track.INBOUND,), started_at
        )
        await self.pubsub.write([OpenStream("MZ1", record, 600)])

    async def end(self) -> None:
        await self.pubsub.write(
            [CloseStream("MZ1", START + 1, a_receipt(0), 600, "business-1", START)]
        )

    async def read(self) -> list[Command]:
        found = [
            parse_command(entry.entry_id, entry.fields)
            for entry in await self.feed.read({"MZ1": "0-0"}, 0.05)
        ]
        return [one for one in found if isinstance(one, Play | Clear)]


@pytest.fixture(params=["streams", "channels", "memory"])
async def way(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Way]:
    if request.param == "memory":
        memory = MemoryPubSub(time.monotonic)
        made = Way(MemoryCommands(memory), MemoryControl(memory), memory)
    elif request.param == "streams":
        commands = RedisCommands.from_url(redis_url, 5)
        made = Way(commands, RedisControl(redis_url), RedisStreams(redis_url))
    else:
        commands = ChannelCommands.from_url(redis_url, 5)
        made = Way(commands, RedisControl(redis_url), RedisPubSub(redis_url))
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
    yield made
    for one in (made.commands, made.feed, made.pubsub):
        await one.close()


async def test_commands_are_read_in_their_order(way: Way) -> None:
    await way.begin()
    assert await way.commands.write(HELD, SPEECH)
    assert await way.commands.write(HELD, Clear("clear-1"))
    assert await way.read() == [SPEECH, Clear("clear-1")]


@pytest.mark.parametrize("way", ["streams"], indirect=True)
async def test_a_stream_that_is_over_takes_none(way: Way) -> None:
    assert not await way.commands.write(HELD, SPEECH)
    await way.begin()
    await way.end()
    assert not await way.commands.write(HELD, SPEECH)
    assert await way.read() == []


@pytest.mark.parametrize("way", ["streams"], indirect=True)
async def test_a_stream_that_began_again_is_another(way: Way) -> None:
    await way.begin(START + 1)
    assert not await way.commands.write(HELD, SPEECH)
    assert await way.read() == []


@pytest.mark.parametrize("way", ["memory"], indirect=True)
async def test_without_a_stream_there_is_nobody_to_command(way: Way) -> None:
    assert not await way.commands.write(HELD, SPEECH)


async def test_a_command_for_another_businesss_stream_is_not_written(way: Way) -> None:
    await way.begin()
    other = msgspec.structs.replace(HELD, call=replace(CALL, business_id="business-2"))
    assert not await way.commands.write(other, SPEECH)
    assert await way.read() == []
    assert await way.commands.write(HELD, SPEECH)
