"""Where one Redis is outgrown: Sentinel, Cluster and TLS, on real servers.

Each stream must read back whole, once and in order, whatever happened to the
servers while it was written.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from app.events import AudioEntry, HeldStream
from app.media import Track
from app.metrics import Metrics
from app.pubsub.base import audio_key
from app.pubsub.outbox import Outbox
from app.pubsub.queue import StreamQueue
from app.pubsub.redis_pubsub import RedisPubSub
from app.pubsub.redis_streams import RedisStreams
from tests.certificates import certificates
from tests.redis_groups import Cluster, SentinelGroup, cluster, sentinel_group
from tests.redis_process import RedisProcess
from tests.samples import CALL, a_receipt, a_record, an_event
from tests.waiting import WAIT_SECONDS, until

START = 1_700_000_000_000
# More than two kernels keep of a connection (tcp(7), tcp_rmem and tcp_wmem).
WAY_BYTES = 64 * 2**20
STREAMS = [f"MZ{number}" for number in range(12)]


class Load:
    """Streams that are written at a steady pace until told to end."""

    def __init__(self, pubsub: RedisStreams) -> None:
        self.pubsub = pubsub
        self.metrics = Metrics()
        self.outbox = Outbox(pubsub, self.metrics, clock=time.monotonic, jitter=lambda: 0.5)
        self.queues: list[StreamQueue] = []
        self.count = 0

    def open(self) -> None:
        for stream in STREAMS:
            queue = self.outbox.queue(
                stream, START, bytes_per_second=16000, tracks=1, retained=100_000
            )
            self.outbox.open_stream(queue, a_record(START), 600)
            self.queues.append(queue)

    async def pace(self) -> None:
        while True:
            self.count += 1
            for queue in self.queues:
                audio = f"{queue.stream}:{self.count}".encode()
                queue.put_audio(
                    self.count, 20 * self.count, Track.INBOUND, audio, 1, time.monotonic()
                )
            await asyncio.sleep(0.01)

    async def run_for(self, frames: int) -> None:
        goal = self.count + frames
        while self.count < goal:
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        for queue in self.queues:
            queue.put_end("stop")
            async with asyncio.timeout(WAIT_SECONDS):
                await queue.wait_until_flushed()
            held = HeldStream(replace(CALL, stream_sid=queue.stream), START, 600)
            self.outbox.close_stream(held, START + 1, a_receipt(), 600)
            self.outbox.announce(an_event(queue.stream, "stream.stopped"))
        async with asyncio.timeout(WAIT_SECONDS):
            await self.outbox.wait_until_idle()

    async def is_whole(self) -> None:
        for queue in self.queues:
            async with asyncio.timeout(WAIT_SECONDS):
                found = [entry async for _, entry in self.pubsub.entries(queue.stream)]
            audio = [entry for entry in found if isinstance(entry, AudioEntry)]
            assert [entry.seq for entry in audio] == list(range(1, self.count + 1))
            assert {entry.audio for entry in audio} == {
                f"{queue.stream}:{number}".encode() for number in range(1, self.count + 1)
            }
            assert (queue.published, dict(queue.dropped)) == (self.count, {})
            # What comes last may be what a failover lost, and be written again.
            await until(lambda queue=queue: self._has_receipt(queue))

    async def _has_receipt(self, queue: StreamQueue) -> bool:
        return "receipt" in await self.pubsub.record(queue.stream)


@asynccontextmanager
async def load_on(url: str) -> AsyncIterator[Load]:
    pubsub = RedisStreams(url)
    await pubsub.open()
    load = Load(pubsub)
    writer = asyncio.create_task(load.outbox.run())
    pacer = asyncio.create_task(load.pace())
    try:
        load.open()
        await load.run_for(30)
        yield load
        await load.run_for(30)
        pacer.cancel()
        await load.end()
        await load.is_whole()
    finally:
        for task in (pacer, writer):
            task.cancel()
        await asyncio.gather(pacer, writer, return_exceptions=True)
        await pubsub.close()


# ------------------------------------------------------------------------ Sentinel


@pytest.fixture
def group(tmp_path: Path) -> Iterator[SentinelGroup]:
    with sentinel_group(tmp_path, password="pa/ss%") as running:
        yield running


async def test_a_failover_loses_nothing(group: SentinelGroup) -> None:
    async with load_on(group.url):
        old = group.master()
        await asyncio.to_thread(old.kill)
        await asyncio.to_thread(group.wait_for_failover, old)


async def test_what_was_confirmed_and_never_replicated_is_written_again(
    group: SentinelGroup,
) -> None:
    async with load_on(group.url) as load:
        old = group.master()
        replica = next(server for server in group.servers if server is not old)
        # What the master confirms when the way to the replica is full, that never sees.
        await asyncio.to_thread(replica.freeze)
        await asyncio.to_thread(old.command, "SET", "filler", bytes(WAY_BYTES))
        await load.run_for(30)
        await _flushed(load.queues)
        await asyncio.to_thread(old.kill)
        await asyncio.to_thread(replica.thaw)
        await asyncio.to_thread(group.wait_for_failover, old)
    assert _forgotten(load, "restored") > 0
    assert _forgotten(load, "lost") == 0


async def test_a_demoted_primary_is_left_at_once(group: SentinelGroup) -> None:
    async with load_on(group.url):
        old = group.master()
        await asyncio.to_thread(group.sentinels[0].command, "SENTINEL", "FAILOVER", group.name)
        await asyncio.to_thread(group.wait_for_failover, old)


# ------------------------------------------------------------------------- cluster


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, masters=3, replicas_each=1) as running:
        yield running


async def test_a_slot_that_moves_under_load_loses_nothing(nodes: Cluster) -> None:
    slots = [nodes.slot_of(audio_key(stream)) for stream in STREAMS]
    slots.append(nodes.slot_of("calls"))
    async with load_on(nodes.url) as load:
        for target in (nodes.masters[1], nodes.masters[2]):
            await asyncio.to_thread(nodes.migrate, slots, target, pause_seconds=0.1)
            await load.run_for(20)
    assert {nodes.owner(slot) for slot in slots} == {nodes.masters[2]}


async def test_a_node_that_dies_is_replaced_and_loses_nothing(nodes: Cluster) -> None:
    async with load_on(nodes.url) as load:
        dead = nodes.owner(nodes.slot_of(audio_key(STREAMS[0])))
        await asyncio.to_thread(dead.kill)
        await asyncio.to_thread(nodes.wait_for_failover, dead)
        await load.run_for(50)


async def test_a_node_that_hangs_holds_up_its_own_streams_only(nodes: Cluster) -> None:
    async with load_on(nodes.url) as load:
        frozen = nodes.masters[0]
        held = [q for q in load.queues if nodes.owner(nodes.slot_of(audio_key(q.stream))) is frozen]
        apart = {load.pubsub.lane_of(audio_key(q.stream)) for q in held}
        free = [q for q in load.queues if load.pubsub.lane_of(audio_key(q.stream)) not in apart]
        assert held
        assert free
        await asyncio.to_thread(frozen.freeze)
        try:
            before = [queue.published for queue in free]
            await load.run_for(30)
            await _flushed_once(free, before)
        finally:
            await asyncio.to_thread(frozen.thaw)


async def test_channels_reach_listeners_on_any_node(nodes: Cluster) -> None:
    pubsub = RedisPubSub(nodes.url)
    heard: list[str] = []

    async def listen() -> None:
        async for event in pubsub.lifecycle():
            heard.append(event.event_id)

    listener = asyncio.create_task(listen())
    outbox = Outbox(pubsub, Metrics(), clock=time.monotonic, jitter=lambda: 0.5)
    writer = asyncio.create_task(outbox.run())
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not heard:
                outbox.announce(an_event("e1"))
                await asyncio.sleep(0.1)
    finally:
        for task in (listener, writer):
            task.cancel()
        await asyncio.gather(listener, writer, return_exceptions=True)
        await pubsub.close()


# ----------------------------------------------------------------------------- TLS


async def test_a_server_that_speaks_tls_is_checked_by_its_authority(tmp_path: Path) -> None:
    directory = certificates(tmp_path / "tls")
    with RedisProcess(tmp_path / "redis", tls=directory) as server:
        async with load_on(server.url):
            pass
        stranger = certificates(tmp_path / "other")
        pubsub = RedisStreams(server.url.replace(str(directory), str(stranger)))
        outcome = await asyncio.gather(pubsub.check(), return_exceptions=True)
        assert "connection" in str(outcome[0])
        await pubsub.close()


# ------------------------------------------------------------------------ one server


async def test_a_server_that_comes_back_empty_gets_what_is_recent_and_a_gap_for_the_rest(
    tmp_path: Path,
) -> None:
    with RedisProcess(tmp_path, fsync=None) as server:
        pubsub = RedisStreams(server.url)
        load = Load(pubsub)
        tasks = [asyncio.create_task(load.outbox.run()), asyncio.create_task(load.pace())]
        load.open()
        await asyncio.sleep(3.0)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await load.run_for(20)
        tasks[1].cancel()
        await load.end()
        for queue in load.queues:
            found = [entry async for _, entry in pubsub.entries(queue.stream)]
            gap, *audio, _ = found
            assert gap.reason == "broker_lost"
            assert queue.dropped["broker_lost"] == gap.frames
            assert len(audio) + gap.frames == load.count == queue.published + gap.frames
            assert (await pubsub.record(queue.stream))["callSid"] == "CA1"
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await pubsub.close()


# --------------------------------------------------------------------------- waiting


async def _flushed(queues: Sequence[StreamQueue]) -> None:
    await _flushed_once(queues, [queue.published for queue in queues])


async def _flushed_once(queues: Sequence[StreamQueue], before: Sequence[int]) -> None:
    await until(lambda: all(q.published > n for q, n in zip(queues, before, strict=True)))


def _forgotten(load: Load, done: str) -> float:
    found = load.metrics.registry.get_sample_value("bridge_broker_forgot_total", {"done": done})
    return found or 0.0
