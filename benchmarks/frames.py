"""Load of live calls: media in real time, and what became of every frame."""

import asyncio
import gc
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from app.pubsub.base import audio_key
from app.tools.caller import FRAME_MS
from app.wire import twilio
from benchmarks.dialing import dial
from benchmarks.exact import FIRST_SEQ, Found, Tally, compare_all
from benchmarks.host import Service, Usage
from benchmarks.latency import Latencies
from benchmarks.line import TEXT, Line, client_frame
from benchmarks.processes import memory_bytes
from benchmarks.reader import Arrivals, Reader, reader
from benchmarks.speech import Speech, speeches_to

FRAME_SECONDS = FRAME_MS / 1000
SETTLE_SECONDS = 0.5
# How many calls the reader follows: it is to tell latencies, not to be a load itself.
FOLLOWED = 20
# A reader has to catch up first: what is written meanwhile does not count.
CATCH_UP_SECONDS = 0.3
# So long after the last frame that counts the reader reads on.
LATE_SECONDS = 0.5
# A service that has fallen behind gets so long for the rest, while it goes on.
REST_SECONDS = 30.0
STALLED_SECONDS = 3.0
END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the load: CPU and time, and the frames in it.

    `frames` are those that Redis took, or with a service that publishes nothing
    those that were sent to it.
    """

    usage: Usage
    frames: int

    @property
    def service_micros(self) -> float:
        """Give the µs of CPU a frame of all the service's processes; NaN when not known."""
        return self._micros(self.usage.service)

    @property
    def redis_micros(self) -> float:
        """Give Redis' µs of CPU a frame; NaN when not known."""
        return self._micros(self.usage.redis)

    def _micros(self, seconds: float | None) -> float:
        return math.nan if seconds is None or not self.frames else seconds / self.frames * 1e6


@dataclass(frozen=True, slots=True)
class FramesLoad:
    """What became of the frames.

    `counted` is all of it after the warm-up; in `quiet`, its beginning, nobody read
    from Redis. `latencies` run from a frame's write to the socket to the reply that
    brought it to the reader, for the calls it followed: `samples` of them. `late` is
    by how much the generator missed its own schedule. `offered` frames were sent
    during `counted`. `call_bytes` is the memory that a live call took. Where entries were
    still coming when the wait for them was over, it is `unfinished`, and what is lost
    is not known. `hung_up` calls were ended by the service before they said `stop`, or
    otherwise than in good order.
    """

    calls: int
    tally: Tally
    counted: Stretch
    quiet: Stretch
    offered: int
    latencies: Latencies
    samples: int
    late: Latencies
    call_bytes: float | None
    hung_up: int
    unfinished: bool
    warnings: int

    @property
    def lost(self) -> int:
        """Count the frames that were sent and never became readable."""
        return self.tally.lost

    @property
    def usage(self) -> Usage:
        """Give the clocks of all that was counted."""
        return self.counted.usage


@dataclass(frozen=True, slots=True)
class Timing:
    """When each frame was written, by its call's place and its number; when the first was due."""

    begin: float
    written: list[list[float]]

    def due(self, place: int, number: int) -> float:
        """Give a frame's time: call i of N has its own i/N of a frame's time after the first."""
        return self.begin + FRAME_SECONDS * (number + place / len(self.written))

    def late(self, first: float, last: float) -> Iterator[float]:
        """Tell by how much each frame was late that was written between two times."""
        for place, of_call in enumerate(self.written):
            for number, written in enumerate(of_call):
                if first <= written < last:
                    yield written - self.due(place, number)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen while the calls spoke; `ended` is when the reader did."""

    counted: Stretch
    quiet: Stretch
    arrivals: Arrivals
    ended: float


async def load_frames(
    service: Service,
    *,
    calls: int,
    seconds: float,
    warm_up: float = 1.0,
    quiet: float = 0.5,
    hold: float = 0.0,
    publishes: bool = True,
) -> FramesLoad:
    """Hold `calls` calls for `warm_up` and then `seconds`, spread evenly over a frame's time.

    Nobody reads during the first part `quiet` of the counted time, so that Redis'
    CPU is that of the writing alone. The calls then go on, uncounted, until they have
    lasted `hold` seconds, when their memory is read.

    Raises:
        LocalError: a call could not be placed.
    """
    lasts = max(warm_up + seconds, hold)
    speeches = list(speeches_to(service.number, calls, round(lasts / FRAME_SECONDS)))
    followed = range(0, calls, max(1, calls // FOLLOWED)) if publishes else ()
    keys = [audio_key(speech.call.stream_sid) for speech in speeches]
    with reader(service.redis_url, [keys[place] for place in followed]) as reading:
        empty = memory_bytes(service.pid)
        lines = await dial(service, speeches)
        # What the calls' beginnings left to do is not the frames' cost.
        await asyncio.sleep(SETTLE_SECONDS)
        collecting = gc.isenabled()
        gc.disable()
        begin = time.monotonic() + FRAME_SECONDS
        timing = Timing(begin, [[] for _ in speeches])
        marks = [begin + warm_up, begin + warm_up + quiet * seconds, begin + warm_up + seconds]
        try:
            _, seen = await asyncio.gather(
                speak(lines, speeches, timing), _watch(service, marks, reading, publishes)
            )
        finally:
            if collecting:
                gc.enable()
        full = memory_bytes(service.pid)
    tally, unfinished = Tally(), False
    if publishes:
        tally, unfinished = await _ended(service, lines, speeches, keys, timing.written)
    took = [
        taken
        for place in followed
        for taken in latencies(
            seen.arrivals.get(keys[place], ()),
            timing.written[place],
            first=marks[1] + CATCH_UP_SECONDS,
            last=marks[2],
            ended=seen.ended,
        )
    ]
    late = list(timing.late(marks[0], marks[2]))
    return FramesLoad(
        calls=calls,
        tally=tally,
        counted=seen.counted if publishes else Stretch(seen.counted.usage, len(late)),
        quiet=seen.quiet,
        offered=len(late),
        latencies=Latencies.of(took),
        samples=len(took),
        late=Latencies.of(late),
        call_bytes=None if empty is None or full is None else (full - empty) / calls,
        hung_up=sum(
            line.was_cut or len(of_call) < len(speech.messages)
            for line, of_call, speech in zip(lines, timing.written, speeches, strict=True)
        ),
        unfinished=unfinished,
        warnings=service.warnings(),
    )


# ---------------------------------------------------------------------- the calls


async def speak(lines: Sequence[Line], speeches: Sequence[Speech], timing: Timing) -> None:
    """Write every frame at its time.

    A look at the clock every millisecond: what has become due since is written then.
    """
    calls = len(lines)
    frames = len(speeches[0].messages)
    number = place = 0
    while number < frames:
        now = time.monotonic()
        while timing.due(place, number) <= now:
            line = lines[place]
            if line.is_open:
                line.write(speeches[place].messages[number])
                timing.written[place].append(now)
            place += 1
            if place == calls:
                place, number = 0, number + 1
                if number == frames:
                    return
        await asyncio.sleep(0.001)


async def _watch(
    service: Service, marks: Sequence[float], reading: Reader, publishes: bool
) -> Seen:
    """Look at the clocks at three times; read from Redis from the second to after the third."""
    async with Redis.from_url(service.redis_url, protocol=2) as client:

        async def look() -> tuple[Usage, int]:
            statistics: Any = await client.info("commandstats")
            xadds = statistics.get("cmdstat_xadd", {}).get("calls", 0)
            return Usage.now(service), xadds

        looks = []
        for mark in marks:
            await asyncio.sleep(max(0.0, mark - time.monotonic()))
            looks.append(await look())
            if len(looks) == 2 and publishes:
                reading.begin()
    await asyncio.sleep(LATE_SECONDS)
    ended = time.monotonic()
    first, middle, last = looks
    return Seen(
        counted=Stretch(last[0].since(first[0]), last[1] - first[1]),
        quiet=Stretch(middle[0].since(first[0]), middle[1] - first[1]),
        arrivals=reading.end(),
        ended=ended,
    )


async def _ended(
    service: Service,
    lines: Sequence[Line],
    speeches: Sequence[Speech],
    keys: Sequence[str],
    written: Sequence[Sequence[float]],
) -> tuple[Tally, bool]:
    """End the calls; compare what they left with what was sent, and tell if more may come."""
    for line, speech in zip(lines, speeches, strict=True):
        seq = FIRST_SEQ + len(speech.messages)
        stop = twilio.stop_message(speech.call.stream_sid, speech.call.call_sid, seq=seq)
        line.write(client_frame(TEXT, stop.encode()))
    sent = [len(of_call) for of_call in written]
    async with Redis.from_url(service.redis_url, protocol=2) as client:
        unfinished = await _rest(client, keys, sum(sent))
        for line in lines:
            line.close()
        await asyncio.wait([line.closed for line in lines], timeout=END_SECONDS)
        for line in lines:
            line.abort()
        found = [await _entries(client, key) for key in keys]
    heard = [speech.heard[:count] for speech, count in zip(speeches, sent, strict=True)]
    return compare_all(zip(found, heard, strict=True)), unfinished


async def _rest(client: "Redis", keys: Sequence[str], expected: int) -> bool:
    """Wait until as many entries are there, or no more come; tell if some came to the last."""
    count, grew = 0, time.monotonic()
    until = grew + REST_SECONDS
    while (now := time.monotonic()) < until and now - grew < STALLED_SECONDS:
        async with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.xlen(key)
            present = sum(await pipeline.execute())
        if present >= expected:
            return False
        if present > count:
            count, grew = present, now
        await asyncio.sleep(0.2)
    return now - grew < STALLED_SECONDS


async def _entries(client: "Redis", key: str) -> list[Found]:
    entries: Any = await client.xrange(key)
    return [
        Found(int(fields[b"seq"]) if b"seq" in fields else None, fields[b"audio"])
        for _, fields in entries
        if b"audio" in fields
    ]


def latencies(
    arrivals: Sequence[tuple[int | None, float]],
    written: Sequence[float],
    *,
    first: float,
    last: float,
    ended: float,
) -> Iterator[float]:
    """Tell for each frame of one call, written between two times, how long it took to come.

    One that had not come when the reader ended took at least so long: to leave it out
    would flatter whoever falls behind.
    """
    came: dict[int, float] = {}
    for position, (seq, arrival) in enumerate(arrivals):
        came.setdefault(position if seq is None else seq - FIRST_SEQ, arrival)
    for number, begun in enumerate(written):
        if first <= begun < last:
            yield came.get(number, ended) - begun
