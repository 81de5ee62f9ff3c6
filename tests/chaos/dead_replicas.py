"""A replica is killed, with Redis there and while Redis hangs: what becomes of its calls."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from app.store.base import LIVE_SECONDS
from tests.chaos.registry import Row
from tests.chaos.replicas import FLOODING, HANG_SECONDS, a_desk, two_replicas
from tests.service import Peer, Service, a_call, a_peer, entries_of
from tests.web.test_voice import parameters

FRAME_SECONDS = 0.02


@dataclass
class Speaker:
    """A live call that sends a frame every 20 ms; `sent` is when each was on its way."""

    peer: Peer
    sent: list[tuple[float, int]] = field(default_factory=list)

    async def speak(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self.peer.media(1)
                self.sent.append((time.monotonic(), self.peer.seq))
                await asyncio.sleep(FRAME_SECONDS)


@dataclass(frozen=True)
class Killed:
    """What came of the calls of a replica that was killed, and of one that lives.

    `seconds` until the last of the dead one's streams was ended; `lost_ms` of
    audio is the most that any of them lost.
    """

    calls: int
    seconds: float
    lost_ms: int
    ended_once: int
    living: int
    untouched: int

    def rows(self) -> list[Row]:
        """Report it."""
        return [
            Row(
                f"SIGKILL of a replica with {self.calls} calls",
                "`end reason=lost` once each, ≤ 30 s",
                f"{self.ended_once} of {self.calls}, {self.seconds:.1f} s",
                self.ended_once == self.calls and self.seconds <= 30,
            ),
            Row(
                "audio lost with it, the most of any call",
                "≤ 100 ms",
                f"{self.lost_ms} ms",
                self.lost_ms <= 100,
            ),
            Row(
                "calls of a replica that lives",
                "untouched",
                f"{self.untouched} of {self.living}",
                self.untouched == self.living,
            ),
        ]


async def replica_killed(rng: random.Random, directory: Path, *, calls: int = 20) -> Killed:
    """Kill one of two replicas in the midst of its calls."""
    with two_replicas(directory, 2 * calls) as (_, (dying, living)):
        async with speaking(dying, calls) as doomed, speaking(living, 3) as safe:
            await asyncio.sleep(rng.uniform(2, 4))
            killed_at = time.monotonic()
            dying.process.kill()
            await until_all_end(living, [speaker.peer for speaker in doomed])
            seconds = time.monotonic() - killed_at
            stories = [await entries_of(living, speaker.peer.stream_sid) for speaker in doomed]
            others = [await entries_of(living, speaker.peer.stream_sid) for speaker in safe]
    lost = [
        max(seq for at, seq in speaker.sent if at < killed_at) - last_audio(entries)
        for speaker, entries in zip(doomed, stories, strict=True)
    ]
    ends = [[entry for entry in entries if "reason" in entry] for entries in stories]
    return Killed(
        calls,
        seconds,
        max(0, *lost) * int(FRAME_SECONDS * 1000),
        sum(found == [{"event": b"end", "reason": b"lost"}] for found in ends),
        len(safe),
        sum(all("audio" in entry for entry in entries) for entries in others),
    )


def last_audio(entries: Sequence[dict[str, bytes]]) -> int:
    return max(int(entry["seq"]) for entry in entries if "audio" in entry)


@asynccontextmanager
async def speaking(service: Service, count: int) -> AsyncIterator[list[Speaker]]:
    """Hold live calls that speak until the block ends, or their replica does."""
    speakers: list[Speaker] = []
    opened: list[Any] = []
    async with a_desk() as desk:
        for _ in range(count):
            answer = await desk.post(service, "/twilio-voice", a_call(FLOODING))
            said = parameters(answer.text)
            socket = a_peer(service, call_sid=said["callSid"])
            speakers.append(Speaker(await socket.__aenter__()))
            opened.append(socket)
            await speakers[-1].peer.start(said)
    tasks = [asyncio.create_task(speaker.speak()) for speaker in speakers]
    try:
        yield speakers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for socket in opened:
            with suppress(ConnectionClosed):
                await socket.__aexit__(None, None, None)


async def until_all_end(service: Service, peers: Sequence[Peer]) -> None:
    """Wait until each stream's record says that it has ended."""
    deadline = time.monotonic() + HANG_SECONDS
    waiting = [f"stream:{{{peer.stream_sid}}}" for peer in peers]
    async with Redis.from_url(service.redis_url) as redis:
        while waiting and time.monotonic() < deadline:
            waiting = [key for key in waiting if not await redis.hexists(key, "endedAt")]
            await asyncio.sleep(0.1)


# ------------------------------------------- a replica is killed while Redis hangs


@dataclass(frozen=True)
class KilledInOutage:
    """What came of two replicas' calls when Redis hung, and one was killed meanwhile.

    `seconds` run from the end of the outage to the first stream that was ended.
    """

    outage: float
    calls: int
    seconds: float
    ended: int
    living: int
    untouched: int

    def rows(self) -> list[Row]:
        """Report it."""
        return [
            Row(
                f"Redis frozen for {self.outage:g} s, a replica killed meanwhile",
                "its streams ended a full lease later, ≤ 30 s",
                f"{self.ended} of {self.calls}, from {self.seconds:.1f} s on",
                self.ended == self.calls and LIVE_SECONDS <= self.seconds <= 30,
            ),
            Row(
                "calls of the replica that lives",
                "untouched",
                f"{self.untouched} of {self.living}",
                self.untouched == self.living,
            ),
        ]


async def killed_in_outage(
    rng: random.Random, directory: Path, *, calls: int = 5, outage: float = 25.0
) -> KilledInOutage:
    """Freeze Redis for longer than a lease, and kill one of two replicas meanwhile."""
    with two_replicas(directory, 2 * calls) as (redis, (dying, living)):
        async with speaking(dying, calls) as doomed, speaking(living, calls) as safe:
            await asyncio.sleep(2)
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(outage / 2)
                dying.process.kill()
                await asyncio.sleep(outage / 2)
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            thawed_at = time.monotonic()
            await until_all_end(living, [doomed[0].peer])
            seconds = time.monotonic() - thawed_at
            await until_all_end(living, [speaker.peer for speaker in doomed])
            stories = [
                [await entries_of(living, speaker.peer.stream_sid) for speaker in speakers]
                for speakers in (doomed, safe)
            ]
    ended, untouched = (
        [not any(entry.get("reason") == b"lost" for entry in entries) for entries in story]
        for story in stories
    )
    return KilledInOutage(outage, calls, seconds, ended.count(False), calls, untouched.count(True))
