"""The Redis contract, version 1, to the letter, read by a client of its own."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from app.errors import BrokerRefused
from app.events import AudioEntry, EndEntry, GapEntry, HeldStream
from app.media import Track
from app.metrics import Metrics
from app.pubsub.base import Announce, Append, CloseStream, OpenStream, Outcome
from app.pubsub.outbox import Outbox
from app.pubsub.redis_streams import RedisStreams
from tests.pubsub.test_outbox import entries, flushed, opened, put, running, seqs_of
from tests.samples import CALL, a_receipt, a_record, an_event

START = 1_700_000_000_000


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def streams(redis_url: str) -> AsyncIterator[RedisStreams]:
    adapter = RedisStreams(redis_url)
    yield adapter
    await adapter.close()


async def test_keys_ids_and_fields_are_those_of_the_contract(
    redis: Redis, streams: RedisStreams
) -> None:
    await streams.write(
        [
            OpenStream("MZ1", a_record(START), 7200),
            Append("MZ1", START, 1, AudioEntry(1, 2, 0, Track.INBOUND, b"\x00\xff"), 100),
            Append("MZ1", START, 2, GapEntry(2, Track.INBOUND, 2, 3, 4, 20, "carrier"), 100),
            Append("MZ1", START, 3, AudioEntry(3, 7, 60, Track.OUTBOUND, b"ab", frames=3), 100),
            Append("MZ1", START, 4, EndEntry(4, "stop"), 100),
            CloseStream("MZ1", START + 60, a_receipt(), 3600, "business-1", START),
            Announce(an_event("e1", "stream.stopped")),
        ]
    )
    keys = [b"audio:{MZ1}", b"calls", b"control:{MZ1}", b"stream:{MZ1}"]
    assert sorted(await redis.keys()) == keys
    entries = await redis.xrange("audio:{MZ1}")
    assert entries == [
        (
            f"{START}-1".encode(),
            {b"seq": b"2", b"ts": b"0", b"track": b"inbound", b"audio": b"\x00\xff"},
        ),
        (
            f"{START}-2".encode(),
            {
                b"event": b"gap",
                b"track": b"inbound",
                b"frames": b"2",
                b"first_seq": b"3",
                b"last_seq": b"4",
                b"ts": b"20",
                b"reason": b"carrier",
            },
        ),
        (
            f"{START}-3".encode(),
            {
                b"seq": b"7",
                b"ts": b"60",
                b"track": b"outbound",
                b"frames": b"3",
                b"audio": b"ab",
            },
        ),
        (f"{START}-4".encode(), {b"event": b"end", b"reason": b"stop"}),
    ]


async def test_the_record_has_the_contracts_fields_and_expires(
    redis: Redis, streams: RedisStreams
) -> None:
    await streams.write([OpenStream("MZ1", a_record(START), 7200)])
    assert 7190 < await redis.ttl("stream:{MZ1}") <= 7200
    await streams.write(
        [
            Append("MZ1", START, 1, EndEntry(1, "stop"), 100),
            CloseStream("MZ1", START + 60, a_receipt(), 3600, "business-1", START),
        ]
    )
    record = {
        name.decode(): value.decode()
        for name, value in (await redis.hgetall("stream:{MZ1}")).items()
    }
    receipt = json.loads(record.pop("receipt"))
    assert json.loads(record.pop("params")) == {"a": "b"}
    assert record == {
        "callSid": "CA1",
        "businessId": "business-1",
        "plan": "premium",
        "carrier": "twilio",
        "from": "+15005550009",
        "to": "+15005550006",
        "encoding": "pcm16",
        "sampleRate": "8000",
        "channels": "1",
        "tracks": "inbound",
        "carrierEncoding": "mulaw",
        "carrierSampleRate": "8000",
        "startedAt": str(START),
        "endedAt": str(START + 60),
    }
    names = "received published dropped rejected duplicates carrier_gaps seq_resets"
    names += " format_mismatch bytes audio_ms wall_ms first_seq last_seq max_lag_ms end_reason"
    assert list(receipt) == names.split()
    for key in ("audio:{MZ1}", "stream:{MZ1}"):
        assert 3590 < await redis.ttl(key) <= 3600


async def test_a_lifecycle_event_has_the_contracts_fields(
    redis: Redis, streams: RedisStreams
) -> None:
    await streams.write([Announce(an_event("e1", "call.incoming"))])
    [(_, fields)] = await redis.xrange("calls")
    assert fields == {
        b"event": b"call.incoming",
        b"eventId": b"e1",
        b"callSid": b"CA1",
        b"streamSid": b"MZ1",
        b"businessId": b"business-1",
        b"plan": b"premium",
        b"carrier": b"twilio",
        b"at": str(START).encode(),
        b"data": b'{"from":"+15005550009"}',
    }


async def test_audio_is_trimmed_at_about_the_plans_retention(
    redis: Redis, streams: RedisStreams
) -> None:
    await streams.write([OpenStream("MZ1", a_record(START), 600)])
    for first in range(1, 3001, 500):
        await streams.write(
            [
                Append("MZ1", START, n, AudioEntry(n, n, 0, Track.INBOUND, b"x"), 200)
                for n in range(first, first + 500)
            ]
        )
    # "~": whole macro nodes of 100 entries are removed.
    assert 200 <= await redis.xlen("audio:{MZ1}") <= 400


async def test_opening_again_what_is_open_leaves_its_audio_alone(
    redis: Redis, streams: RedisStreams
) -> None:
    opened = OpenStream("MZ1", a_record(START), 7200)
    await streams.write([opened])
    await streams.write([Append("MZ1", START, 1, EndEntry(1, "stop"), 100)])
    await streams.write([opened])
    assert await redis.xlen("audio:{MZ1}") == 1


async def test_a_stream_without_an_entry_expires_too(redis: Redis, streams: RedisStreams) -> None:
    # Its writer may be killed at any moment.
    await streams.write([OpenStream("MZ1", a_record(START), 7200)])
    assert 7190 < await redis.ttl("audio:{MZ1}") <= 7200
    assert await redis.xlen("audio:{MZ1}") == 0


async def test_a_holder_that_was_taken_for_dead_takes_its_stream_back(
    redis: Redis, streams: RedisStreams
) -> None:
    outbox = Outbox(streams, Metrics(), clock=time.monotonic, jitter=lambda: 0.0)
    writer = asyncio.create_task(outbox.run())
    queue = outbox.queue("MZ1", START, bytes_per_second=16000, tracks=1, retained=100)
    outbox.open_stream(queue, a_record(START), 7200)
    queue.put_audio(1, 0, Track.INBOUND, b"a", 1, time.monotonic())
    await queue.wait_until_flushed()
    assert await streams.end_lost(HeldStream(CALL, START, 60))
    assert await redis.ttl("audio:{MZ1}") <= 60
    assert await redis.hexists("stream:{MZ1}", "endedAt")
    queue.put_audio(2, 20, Track.INBOUND, b"b", 1, time.monotonic())
    await queue.wait_until_flushed()
    assert await redis.ttl("audio:{MZ1}") > 7000
    assert await redis.ttl("stream:{MZ1}") > 7000
    assert not await redis.hexists("stream:{MZ1}", "endedAt")
    assert not await redis.hexists("stream:{MZ1}", "receipt")
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)


async def test_opening_again_leaves_a_true_receipt_alone(
    redis: Redis, streams: RedisStreams
) -> None:
    opened = OpenStream("MZ1", a_record(START), 7200)
    await streams.write(
        [opened, CloseStream("MZ1", START + 60, a_receipt(), 3600, "business-1", START)]
    )
    await streams.write([opened])
    assert await redis.hexists("stream:{MZ1}", "receipt")


async def test_a_batch_that_the_server_refuses_is_refused_whole(
    redis: Redis, streams: RedisStreams
) -> None:
    await redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(BrokerRefused, match="oom"):
            await streams.write([Append("MZ1", START, n, EndEntry(n, "stop"), 100) for n in (1, 2)])
    finally:
        await redis.config_set("maxmemory", "0")
    assert await redis.exists("audio:{MZ1}") == 0


async def test_a_wrong_password_is_told_apart(redis_url: str) -> None:
    streams = RedisStreams(redis_url.replace("redis://", "redis://nobody:wrong@"))
    with pytest.raises(BrokerRefused, match="auth"):
        await streams.write([Announce(an_event("x"))])
    await streams.close()


async def test_an_entry_of_a_stream_that_is_gone_is_not_written(
    redis: Redis, streams: RedisStreams
) -> None:
    end = Append("MZ1", START, 1, EndEntry(1, "stop"), 100)
    audio = Append("MZ2", START, 1, AudioEntry(1, 1, 0, Track.INBOUND, b"ab"), 100)
    assert list(await streams.write([end, audio])) == [Outcome.NOT_OPEN] * 2
    assert await redis.keys() == []
    await streams.write([OpenStream("MZ1", a_record(START), 600)])
    assert list(await streams.write([end, audio])) == [Outcome.WRITTEN, Outcome.NOT_OPEN]
    assert 0 < await redis.ttl("audio:{MZ1}") <= 600


async def test_a_live_stream_whose_keys_were_removed_is_opened_again_and_expires(
    redis: Redis, streams: RedisStreams
) -> None:
    async with running(streams) as outbox:
        queue, other = opened(outbox, "MZ1"), opened(outbox, "MZ2")
        put(queue, range(10))
        put(other, range(10))
        await flushed(queue)
        await redis.delete("audio:{MZ1}", "control:{MZ1}", "stream:{MZ1}")
        put(queue, range(10, 20))
        put(other, range(10, 20))
        queue.put_end("stop")
        other.put_end("stop")
        await flushed(queue)
        await flushed(other)
    assert seqs_of(await entries(streams, "MZ1")) == list(range(10, 20))
    assert seqs_of(await entries(streams, "MZ2")) == list(range(20))
    for key in ("audio:{MZ1}", "control:{MZ1}", "stream:{MZ1}", "audio:{MZ2}"):
        assert await redis.ttl(key) > 0, key
    assert not queue.dropped
    assert not other.dropped
