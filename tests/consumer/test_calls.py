"""A worker's calls: what it is given, in which order, and how they end."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
from redis.asyncio import Redis

from app.audio import mulaw_to_pcm16
from app.consumer import Calls, End, Frame, Start, StoreUnavailable, calls, course
from app.consumer.reader import MAX_WAITING, READ_ENTRIES
from app.errors import BrokerError
from app.events import CallIdentity
from app.media import Track
from tests.consumer.bridge import MULAW, START, Bridge, gap, sound
from tests.consumer.reading import all_of, gaps, next_call, numbers, some, worker
from tests.redis_groups import cluster, sentinel_group
from tests.redis_process import RedisProcess
from tests.waiting import until

GROUPS = pytest.mark.parametrize("group", ["", "transcribe"])


@GROUPS
async def test_a_call_is_given_whole_in_order_with_its_end(
    bridge: Bridge, redis_url: str, group: str
) -> None:
    async with worker(redis_url, group) as mine:
        call = await bridge.begin("MZ1")
        heard = await next_call(mine)
        assert (heard.call_sid, heard.stream_sid) == (call.call_sid, "MZ1")
        assert (heard.business_id, heard.from_number) == ("business-1", "+15005550009")
        assert (heard.params, heard.tracks) == ({"a": "b"}, (Track.INBOUND,))
        assert (heard.started_at, heard.is_continued, heard.end) == (START, False, None)
        reading = asyncio.create_task(all_of(heard))
        await bridge.say("MZ1", 1, 700)
        receipt = await bridge.end(call, 701)
        items = await reading
    assert numbers(items) == list(range(1, 701))
    assert [item.ts for item in items] == [n * 20 for n in range(700)]
    assert heard.end == End("stop", START + 5000, receipt.as_data(), False)


async def test_a_frame_gives_its_samples_its_length_and_its_level(
    bridge: Bridge, redis_url: str
) -> None:
    await bridge.whole("MZ1", 1)
    await bridge.begin("MZ2", published=MULAW, at=START + 1)
    await bridge.say("MZ2", 1, 1, at=START + 1)
    async with worker(redis_url, start="kept") as mine:
        [pcm] = await some(await next_call(mine), 1)
        [mulaw] = await some(await next_call(mine), 1)
    assert isinstance(pcm, Frame)
    assert isinstance(mulaw, Frame)
    assert (pcm.pcm16, pcm.duration_ms, pcm.seq, pcm.frames) == (sound(1), 20, 2, 1)
    assert (mulaw.pcm16, mulaw.duration_ms) == (mulaw_to_pcm16(sound(1)), 40)
    assert pcm.level == -96 < mulaw.level < 0


async def test_gaps_stand_where_audio_is_missing(bridge: Bridge, redis_url: str) -> None:
    call = await bridge.begin("MZ1")
    await bridge.say("MZ1", 1, 3)
    async with worker(redis_url) as mine:
        heard = await next_call(mine)
        items = await some(heard, 3)
        # Of what the bridge gives up the numbers are missing, and a gap says so.
        await bridge.put("MZ1", gap(10, 6, "overflow"))
        await bridge.say("MZ1", 11, 12)
        await bridge.end(call, 13)
        items += await all_of(heard)
    assert numbers(items) == [1, 2, 3, 11, 12]
    assert gaps(items) == [("overflow", 6)]


async def test_what_retention_took_before_a_worker_came_is_a_gap(
    bridge: Bridge, redis: Redis, redis_url: str
) -> None:
    await bridge.whole("MZ1", 900)
    await redis.xtrim("audio:{MZ1}", 301, approximate=False)
    async with worker(redis_url, start="kept") as mine:
        items = await all_of(await next_call(mine))
    assert numbers(items) == list(range(601, 901))
    assert gaps(items) == [("retention", 600)]
    assert not isinstance(items[0], Frame)


async def test_what_retention_took_from_a_slow_worker_is_a_gap(
    bridge: Bridge, redis: Redis, redis_url: str
) -> None:
    call = await bridge.begin("MZ1")
    await bridge.say("MZ1", 1, 3000)
    async with worker(redis_url) as mine:
        heard = await next_call(mine)
        items = await some(heard, 1)
        # Only so much is read ahead of a worker that is slow.
        await bridge.end(call, 3001)
        await redis.xtrim("audio:{MZ1}", 101, approximate=False)
        items += await all_of(heard)
    heard_numbers = numbers(items)
    [(reason, missing)] = gaps(items)
    assert heard_numbers[-100:] == list(range(2901, 3001))
    assert len(heard_numbers) <= MAX_WAITING + READ_ENTRIES + 101
    assert (reason, missing) == ("retention", 3000 - len(heard_numbers))


async def test_an_entry_that_cannot_be_read_is_a_gap(
    bridge: Bridge, redis: Redis, redis_url: str
) -> None:
    call = await bridge.begin("MZ1")
    await redis.xadd("audio:{MZ1}", {"event": "smell", "of": "roses"}, f"{START}-1")
    await bridge.say("MZ1", 2, 3)
    await redis.xadd("calls", {"event": "stream.started", "data": "{"})
    await bridge.end(call, 4)
    async with worker(redis_url, start="kept") as mine:
        items = await all_of(await next_call(mine))
    assert (numbers(items), gaps(items)) == ([2, 3], [("unreadable", 1)])


@pytest.mark.parametrize(
    ("start", "given"),
    [("new", ["MZ4"]), ("live", ["MZ3", "MZ4"]), ("kept", ["MZ1", "MZ3", "MZ4"])],
)
@GROUPS
async def test_a_worker_begins_where_it_chooses(
    bridge: Bridge, redis_url: str, group: str, start: Start, given: list[str]
) -> None:
    await bridge.whole("MZ1", 0)
    await bridge.whole("MZ2", 0, business="business-2")
    live = await bridge.begin("MZ3", at=START + 1)
    async with worker(redis_url, group, start=start, business_id="business-1") as mine:
        new = await bridge.begin("MZ4", at=START + 2)
        await bridge.end(live, 1, at=START + 1, began=START + 1)
        await bridge.end(new, 1, at=START + 2, began=START + 2)
        found = [await next_call(mine) for _ in given]
        assert [call.stream_sid for call in found] == given
        for call in found:
            assert await all_of(call) == []
            await mine.done(call)
        assert await mine._sharing.claim(9) == []


@GROUPS
async def test_a_stream_that_is_announced_and_not_held_yet_is_live(
    bridge: Bridge, redis: Redis, redis_url: str, group: str
) -> None:
    await bridge.whole("MZ1", 0)
    await bridge.begin("MZ2", at=START + 1)
    await redis.delete("held:{streams}:facts")
    async with worker(redis_url, group) as mine:
        assert (await next_call(mine)).stream_sid == "MZ2"
        assert await mine._sharing.claim(9) == []


@GROUPS
async def test_a_stream_that_is_held_and_not_opened_yet_is_given_when_it_is(
    bridge: Bridge, redis: Redis, redis_url: str, group: str
) -> None:
    await bridge.begin("MZ1", is_told=False)
    await redis.delete("stream:{MZ1}", "audio:{MZ1}")
    async with worker(redis_url, group) as mine:
        assert await mine._sharing.claim(9) == []
        await bridge.begin("MZ1")
        assert (await next_call(mine)).stream_sid == "MZ1"


def test_there_are_no_other_choices() -> None:
    assert get_args(Start) == ("new", "live", "kept")


async def test_streams_that_ended_while_no_worker_was_there_are_given_once(
    bridge: Bridge, redis_url: str
) -> None:
    async with worker(redis_url, "g"):
        pass
    for n in range(3):
        await bridge.whole(f"MZ{n}", 5, business="b")
    async with worker(redis_url, "g") as mine:
        for n in range(3):
            call = await next_call(mine)
            assert (call.stream_sid, numbers(await all_of(call))) == (f"MZ{n}", [1, 2, 3, 4, 5])
            await mine.done(call)
    async with worker(redis_url, "g") as mine:
        await bridge.whole("MZ9", 1)
        assert (await next_call(mine)).stream_sid == "MZ9"


async def test_a_stream_of_which_nothing_is_kept_is_left_out(
    bridge: Bridge, redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await bridge.whole("MZ1", 1)
    await redis.delete("audio:{MZ1}", "stream:{MZ1}")
    await bridge.whole("MZ2", 1)
    async with worker(redis_url, start="kept") as mine:
        assert (await next_call(mine)).stream_sid == "MZ2"
    assert f"Nothing is kept of stream MZ1@{START}" in caplog.text


async def test_a_stream_that_expires_under_a_worker_ends(
    bridge: Bridge, redis: Redis, redis_url: str
) -> None:
    await bridge.begin("MZ1")
    await bridge.say("MZ1", 1, 2)
    async with worker(redis_url) as mine:
        call = await next_call(mine)
        items = await some(call, 2)
        await redis.delete("audio:{MZ1}", "stream:{MZ1}")
        items += await all_of(call)
    assert numbers(items) == [1, 2]
    assert call.end == End("expired")


async def test_an_id_that_starts_again_is_another_call(bridge: Bridge, redis_url: str) -> None:
    later = START + 60_000
    await bridge.begin("MZ1")
    await bridge.say("MZ1", 1, 2)
    async with worker(redis_url) as mine:
        old = await next_call(mine)
        await some(old, 2)
        again = await bridge.begin("MZ1", at=later)
        await bridge.say("MZ1", 1, 4, at=later)
        await bridge.end(again, 5, at=later, began=later)
        new = await next_call(mine)
        assert numbers(await all_of(new)) == [1, 2, 3, 4]
        assert await all_of(old) == []
    assert (old.end, new.end and new.end.reason) == (End("replaced"), "stop")


# -------------------------------------------------------------------- a replica dies


async def test_a_holder_that_lives_on_after_its_provisional_end_is_heard_on(
    bridge: Bridge, redis_url: str
) -> None:
    call = await bridge.begin("MZ1")
    await bridge.say("MZ1", 1, 3)
    async with worker(redis_url, "g", lost_seconds=30.0) as mine:
        heard = await next_call(mine)
        await some(heard, 3)
        ms = await bridge.lose(call)
        reading = asyncio.create_task(all_of(heard))
        await bridge.say("MZ1", 4, 6, at=ms)
        receipt = await bridge.end(call, 7, at=ms)
        assert numbers(await reading) == [4, 5, 6]
    assert heard.end == End("stop", START + 5000, receipt.as_data(), False)


@GROUPS
async def test_a_lost_stream_ends_and_goes_on_should_its_holder_live(
    bridge: Bridge, redis_url: str, group: str
) -> None:
    call = await bridge.begin("MZ1")
    await bridge.say("MZ1", 1, 3)
    async with worker(redis_url, group, lost_seconds=0.1) as mine:
        heard = await next_call(mine)
        ms = await bridge.lose(call)
        assert numbers(await all_of(heard)) == [1, 2, 3]
        assert heard.end is not None
        assert (heard.end.reason, heard.end.provisional) == ("lost", True)
        await mine.done(heard)
        await bridge.say("MZ1", 4, 6, at=ms)
        await bridge.end(call, 7, at=ms)
        rest = await next_call(mine)
        assert (rest.stream_sid, rest.is_continued) == ("MZ1", True)
        assert (numbers(await all_of(rest)), gaps(await all_of(rest))) == ([4, 5, 6], [])
    assert rest.end is not None
    assert (rest.end.reason, rest.end.provisional) == ("stop", False)


async def test_a_true_end_is_not_told_before_all_was_read(
    bridge: Bridge, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "LOOK_SECONDS", 0.0)
    call = await bridge.begin("MZ1")
    await bridge.say("MZ1", 1, 3)
    async with worker(redis_url, lost_seconds=60.0) as mine:
        heard = await next_call(mine)
        await some(heard, 3)
        ms = await bridge.lose(call)
        reading = asyncio.create_task(all_of(heard))
        await until(lambda: heard._course._ending == "lost")
        # The record can be looked up, and the stream is not read for a while.
        mine._tasks[0].cancel()
        await bridge.say("MZ1", 4, 6, at=ms)
        await bridge.end(call, 7, at=ms)
        for _ in range(2):
            now = time.monotonic()
            await until(lambda now=now: reading.done() or heard._course._looked_at > now)
        mine._tasks[0] = asyncio.create_task(mine._reader.run())
        assert numbers(await reading) == [4, 5, 6]


# ------------------------------------------------------------------ positions, bounds


async def test_what_is_not_acknowledged_is_given_again(bridge: Bridge, redis_url: str) -> None:
    await bridge.whole("MZ1", 10)
    async with worker(redis_url, "g", start="kept", auto_ack=False) as mine:
        call = await next_call(mine)
        items = await some(call, 7)
        await call.ack(items[3])
    async with worker(redis_url, "g", auto_ack=False) as mine:
        call = await next_call(mine)
        assert call.is_continued
        assert numbers(await all_of(call)) == [5, 6, 7, 8, 9, 10]


async def test_an_item_is_acknowledged_when_the_next_is_asked_for(
    bridge: Bridge, redis_url: str
) -> None:
    await bridge.whole("MZ1", 10)
    async with worker(redis_url, "g", start="kept") as mine:
        await some(await next_call(mine), 4)
    async with worker(redis_url, "g") as mine:
        assert numbers(await all_of(await next_call(mine))) == [4, 5, 6, 7, 8, 9, 10]


async def test_a_slow_worker_of_one_call_holds_up_no_other(bridge: Bridge, redis_url: str) -> None:
    for n in (1, 2):
        await bridge.begin(f"MZ{n}", at=START + n)
        await bridge.say(f"MZ{n}", 1, 3000, at=START + n)
    async with worker(redis_url) as mine:
        slow, quick = await next_call(mine), await next_call(mine)
        assert numbers(await some(quick, 3000)) == list(range(1, 3001))
        assert slow._course._inbox._count <= MAX_WAITING + READ_ENTRIES
        assert numbers(await some(slow, 3000)) == list(range(1, 3001))


async def test_whoever_skips_goes_on_with_the_newest(bridge: Bridge, redis_url: str) -> None:
    call = await bridge.begin("MZ1")
    await bridge.say("MZ1", 1, 500)
    async with worker(redis_url) as mine:
        heard = await next_call(mine)
        await heard.skip_to_newest()
        await bridge.say("MZ1", 501, 503)
        await bridge.end(call, 504)
        items = await all_of(heard)
    assert (numbers(items), gaps(items)) == ([500, 501, 502, 503], [])


async def test_fifty_calls_at_a_time_come_whole_over_one_connection(
    bridge: Bridge, redis: Redis, redis_url: str
) -> None:
    begun = [await bridge.begin(f"MZ{n}", at=START + n) for n in range(50)]

    async def write(call: CallIdentity, at: int) -> None:
        for first in range(1, 101, 10):
            await bridge.say(call.stream_sid, first, first + 9, at=at)
        await bridge.end(call, 101, at=at, began=at)

    async with worker(redis_url, "g") as mine:
        heard = [await next_call(mine) for _ in begun]
        reading = [asyncio.create_task(all_of(call)) for call in heard]
        await asyncio.gather(*(write(call, START + n) for n, call in enumerate(begun)))

        async def readers() -> int:
            return sum(one["cmd"] == "xread" for one in await redis.client_list())

        assert await readers() == 1
        for items in await asyncio.gather(*reading):
            assert numbers(items) == list(range(1, 101))
    assert {call.end and call.end.reason for call in heard} == {"stop"}


# ------------------------------------------------------------------ brokers, and none


async def test_a_broker_that_restarts_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with RedisProcess(tmp_path, fsync="always") as server:
        bridge = Bridge.at(server.url)
        call = await bridge.begin("MZ1")
        await bridge.say("MZ1", 1, 50)
        async with worker(server.url, "g") as mine:
            heard = await next_call(mine)
            items = await some(heard, 40)
            await asyncio.to_thread(server.kill)
            reading = asyncio.create_task(all_of(heard))
            await asyncio.sleep(0)
            await asyncio.to_thread(server.start)
            await bridge.close()
            bridge = Bridge.at(server.url)
            await bridge.say("MZ1", 51, 60)
            await bridge.end(call, 61)
            items += await reading
            assert numbers(items) == list(range(1, 61))
            await mine.done(heard)
            await bridge.whole("MZ2", 2)
            assert (await next_call(mine)).stream_sid == "MZ2"
        await bridge.close()


async def test_calls_come_through_a_cluster(tmp_path: Path) -> None:
    with cluster(tmp_path, fsync=None) as nodes:
        await _some_calls_through(nodes.url)


async def test_calls_come_through_sentinel_across_a_failover(tmp_path: Path) -> None:
    with sentinel_group(tmp_path) as group:
        await _some_calls_through(group.url)
        bridge = Bridge.at(group.url)
        await bridge.begin("MZ9", at=START + 9)
        await bridge.say("MZ9", 1, 20, at=START + 9)
        master = group.master()
        # What a failover loses, the bridge writes again; here nothing is to be lost.
        assert await asyncio.to_thread(master.command, "WAIT", 1, 5000) == 1
        async with worker(group.url, "g") as mine:
            call = await next_call(mine)
            items = await some(call, 20)
            await asyncio.to_thread(master.kill)
            await asyncio.to_thread(group.wait_for_failover, master)
            after = Bridge.at(group.url)

            async def is_written() -> bool:
                with suppress(BrokerError):  # the sentinels may not agree yet
                    await after.say("MZ9", 21, 30, at=START + 9)
                    return True
                return False

            await until(is_written)
            items += await some(call, 10)
            assert numbers(items) == list(range(1, 31))
        for one in (bridge, after):
            await one.close()


async def _some_calls_through(url: str) -> None:
    bridge = Bridge.at(url)
    async with worker(url, "g") as mine:
        for n in range(5):
            await bridge.whole(f"MZ{n}", 20)
        for _ in range(5):
            call = await next_call(mine)
            assert numbers(await all_of(call)) == list(range(1, 21))
            await mine.done(call)
    await bridge.close()


async def test_a_worker_is_told_at_once_that_it_cannot_reach_redis(
    unused_tcp_port: int, tmp_path: Path
) -> None:
    for url, why in ((f"redis://127.0.0.1:{unused_tcp_port}/0", "ConnectionError"),):
        with pytest.raises(StoreUnavailable, match=why):
            await anext(calls(url, group="g"))
    with RedisProcess(tmp_path, fsync=None, password="right") as server:
        url = server.url.replace("right", "wrong")
        with pytest.raises(StoreUnavailable, match="AuthenticationError"):
            await anext(calls(url))
    with pytest.raises(ValueError, match="must begin with"):
        await anext(calls("http://localhost"))


async def test_calls_gives_one_call_after_the_other_and_is_done_with_each(
    bridge: Bridge, redis_url: str, redis: Redis
) -> None:
    for n in range(3):
        await bridge.whole(f"MZ{n}", 2)
    heard = []
    async for call in calls(redis_url, group="g", start="kept"):
        heard.append((call.stream_sid, numbers(await all_of(call))))
        if len(heard) == 3:
            break
    assert heard == [(f"MZ{n}", [1, 2]) for n in range(3)]
    done = [name.decode() for name in await redis.zrange("consumer:{g}:done", 0, -1)]
    assert sorted(done) == [f"MZ{n}@{START}" for n in range(2)]


async def test_each_event_is_told_to_who_asks(bridge: Bridge, redis_url: str) -> None:
    told: list[str] = []
    async with Calls(redis_url, on_event=lambda event: told.append(event.name)):
        await bridge.whole("MZ1", 1)
        await until(lambda: len(told) == 2)
    assert told == ["stream.started", "stream.stopped"]
