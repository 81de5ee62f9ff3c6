"""Audio back into live calls: how soon it comes, how soon it stops, and how evenly it goes."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from app.pubsub.base import audio_key, control_key
from app.tools.caller import speech_frames
from app.wire import twilio
from benchmarks.beside import beside
from benchmarks.dialing import dial
from benchmarks.frames import END_SECONDS, FRAME_SECONDS, SETTLE_SECONDS, Timing, speak
from benchmarks.hearing import Ear, drift_of, first_after, round_trips
from benchmarks.host import TALKING_NUMBER, Service, Usage
from benchmarks.latency import Latencies
from benchmarks.line import TEXT, Line, client_frame
from benchmarks.speech import Speech, speeches_to
from benchmarks.table import markdown, word

FIRST_BYTE_P99_MS = 20
SILENCE_MS = 40
DRIFT_MS_A_MINUTE = 1.0
ECHO_P99_MS = 100
# Calls whose worker repeats what it hears.
ECHOED = 10
# What is played: shorter than the time between two of them, so that the line is silent.
TURN_SECONDS = 1.0
PLAYED_SECONDS = 0.2
# What a `clear` cuts short, and after how long.
CUT_SECONDS = 5.0
CUT_AFTER_SECONDS = 0.4
BYTES_A_SECOND = 16_000


@dataclass(frozen=True, slots=True)
class PlaybackLoad:
    """What was measured while `calls` callers spoke, in seconds.

    `missed` commands had no effect in their time; `after_clear` messages of audio came
    behind a `clear`; `drifts` are of calls that heard one long recording, in ms a minute;
    `echoes` are of frames that a worker repeated.
    """

    calls: int
    first_bytes: Sequence[float]
    silences: Sequence[float]
    missed: int
    after_clear: int
    drifts: Sequence[float]
    paced_seconds: float
    echoes: Sequence[float]
    late: Latencies
    usage: Usage
    warnings: int


async def load_playback(service: Service, *, calls: int, seconds: float) -> PlaybackLoad:
    """Hold `calls` calls that speak, and speak into them in four ways, one after the other.

    Each way lasts `seconds`, pacing four times as long and at most a minute.

    Raises:
        LocalError: a call could not be placed.
    """
    paced = min(60.0, 4 * seconds)
    lasts = 3 * seconds + paced + 8 * SETTLE_SECONDS + CUT_SECONDS
    speeches = list(speeches_to(TALKING_NUMBER, calls, round(lasts / FRAME_SECONDS)))
    lines = await dial(service, speeches)
    ears = [Ear(line, speech.call.stream_sid) for line, speech in zip(lines, speeches, strict=True)]
    for ear in ears:
        ear.line.on_text = ear.take
    await asyncio.sleep(SETTLE_SECONDS)
    timing = Timing(time.monotonic() + FRAME_SECONDS, [[] for _ in speeches])
    speaking = asyncio.create_task(speak(lines, speeches, timing))
    began, begun = Usage.now(service), time.monotonic()
    async with Redis.from_url(service.redis_url, protocol=2) as redis:
        first_bytes, missed = await _first_bytes(redis, ears, seconds)
        silences, unheard, after_clear = await _silences(redis, ears, seconds)
        drifts = await _drifts(redis, ears, paced)
        echoes = await _echoes(redis, service, ears, timing, seconds)
    usage = Usage.now(service).since(began)
    speaking.cancel()
    await asyncio.gather(speaking, return_exceptions=True)
    await _end(lines, speeches)
    return PlaybackLoad(
        calls=calls,
        first_bytes=first_bytes,
        silences=silences,
        missed=missed + unheard,
        after_clear=after_clear,
        drifts=drifts,
        paced_seconds=paced,
        echoes=echoes,
        late=Latencies.of(list(timing.late(begun, time.monotonic()))),
        usage=usage,
        warnings=service.warnings(),
    )


async def _command(redis: "Redis", ear: Ear, command: str, **fields: Any) -> float:
    """Write a command; give the time before."""
    begun = time.monotonic()
    given: Any = {"command": command, **fields}
    await redis.xadd(control_key(ear.stream_sid), given, nomkstream=True)
    return begun


def _noise(seconds: float) -> bytes:
    return np.random.default_rng(1).bytes(round(seconds * BYTES_A_SECOND / 2) * 2)


async def _in_turn(
    ears: Sequence[Ear], seconds: float, act: Callable[[Ear], Coroutine[Any, Any, None]]
) -> None:
    """Act on one call after the other, on each once in a turn, as long as there is time."""
    begin = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(seconds / TURN_SECONDS) * len(ears)):
            due = begin + number * TURN_SECONDS / len(ears)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.create_task(act(ears[number % len(ears)]))
    await asyncio.sleep(SETTLE_SECONDS)


async def _first_bytes(
    redis: "Redis", ears: Sequence[Ear], seconds: float
) -> tuple[list[float], int]:
    """Play something short into one silent call after the other."""
    audio = _noise(PLAYED_SECONDS)
    asked: list[tuple[Ear, float]] = []

    async def play(ear: Ear) -> None:
        asked.append((ear, await _command(redis, ear, "play", audio=audio, id="short")))

    await _in_turn(ears, seconds, play)
    came = [(first_after((at for at, _ in ear.heard), begun), begun) for ear, begun in asked]
    took = [at - begun for at, begun in came if at is not None]
    return took, len(came) - len(took)


async def _silences(
    redis: "Redis", ears: Sequence[Ear], seconds: float
) -> tuple[list[float], int, int]:
    """Clear one call after the other in the midst of something long."""
    audio = _noise(CUT_SECONDS)
    asked: list[tuple[Ear, float]] = []

    async def cut(ear: Ear) -> None:
        await _command(redis, ear, "play", audio=audio, id="long")
        await asyncio.sleep(CUT_AFTER_SECONDS)
        asked.append((ear, await _command(redis, ear, "clear")))

    await _in_turn(ears, seconds, cut)
    took: list[float] = []
    late = 0
    for ear, begun in asked:
        cleared = first_after(ear.cleared, begun)
        if cleared is not None:
            took.append(cleared - begun)
            quiet = cleared + TURN_SECONDS - CUT_AFTER_SECONDS - SETTLE_SECONDS / 2
            late += sum(cleared < at < quiet for at, _ in ear.heard)
    return took, len(asked) - len(took), late


async def _drifts(redis: "Redis", ears: Sequence[Ear], seconds: float) -> list[float]:
    """Play something long into all calls; tell by how many ms a minute each goes wrong."""
    audio = _noise(seconds)
    before = [len(ear.heard) for ear in ears]
    for ear in ears:
        await _command(redis, ear, "play", audio=audio, id="paced")
    await asyncio.sleep(seconds + SETTLE_SECONDS)
    return [drift_of(ear.heard[count:]) for ear, count in zip(ears, before, strict=True)]


async def _echoes(
    redis: "Redis", service: Service, ears: Sequence[Ear], timing: Timing, seconds: float
) -> list[float]:
    """Let a worker, a process of its own, repeat what some callers say."""
    repeated = ears[:ECHOED]
    with beside(_repeat, service.redis_url, [ear.stream_sid for ear in repeated]) as pipe:
        await asyncio.to_thread(pipe.recv)
        await asyncio.sleep(SETTLE_SECONDS)
        # What a worker was late with while it began would stay late for ever.
        for ear in repeated:
            await _command(redis, ear, "clear")
        await asyncio.sleep(SETTLE_SECONDS)
        before = [len(ear.heard) for ear in repeated]
        await asyncio.sleep(seconds)
        pipe.send(None)
    speech = speech_frames()
    return [
        took
        for place, (ear, count) in enumerate(zip(repeated, before, strict=True))
        for took in round_trips(speech, place, timing.written[place], ear.heard[count:])
    ]


def _repeat(redis_url: str, streams: list[str], pipe: "Connection[Any, Any]") -> None:
    """Play each frame of these streams back into its call, until told to stop."""
    try:
        with SyncRedis.from_url(redis_url, protocol=2, socket_timeout=5) as client:
            controls = {audio_key(one).encode(): control_key(one) for one in streams}
            places: dict[Any, Any] = {}
            for key in controls:
                newest: Any = client.xrevrange(key, count=1)
                places[key] = newest[0][0] if newest else "0"
            pipe.send(True)
            while not pipe.poll():
                answer: Any = client.xread(places, block=100)
                with client.pipeline(transaction=False) as pipeline:
                    for key, entries in answer or ():
                        places[key] = entries[-1][0]
                        for _, fields in entries:
                            if b"audio" in fields:
                                played = {"command": "play", "audio": fields[b"audio"]}
                                pipeline.xadd(controls[key], played, nomkstream=True)
                    pipeline.execute()
    except (EOFError, BrokenPipeError):
        # The parent has given up.
        return


async def _end(lines: Sequence[Line], speeches: Sequence[Speech]) -> None:
    for line, speech in zip(lines, speeches, strict=True):
        call = speech.call
        stop = twilio.stop_message(call.stream_sid, call.call_sid, seq=1)
        line.write(client_frame(TEXT, stop.encode()))
        line.close()
    await asyncio.wait([line.closed for line in lines], timeout=END_SECONDS)
    for line in lines:
        line.abort()


# ------------------------------------------------------------------------- the table


def playback_lines(load: PlaybackLoad) -> Iterator[str]:
    """Draw how soon, how evenly, and what holds."""
    first, silence, echo = map(Latencies.of, (load.first_bytes, load.silences, load.echoes))
    rows = [
        ("command in Redis to first byte at the carrier", load.first_bytes, first),
        ("`clear` in Redis to `clear` at the carrier", load.silences, silence),
        (f"a frame to its echo by a worker ({ECHOED} calls)", load.echoes, echo),
    ]
    yield from markdown(
        (f"{load.calls} live calls, spoken into", "samples", "p50 ms", "p99 ms", "max ms"),
        [
            (name, f"{len(took):,}", *(f"{ms:,.1f}" for ms in (all_.p50, all_.p99, all_.longest)))
            for name, took, all_ in rows
        ],
    )
    drift = max(map(abs, load.drifts))
    yield ""
    yield (
        f"- {load.missed} commands without effect; {load.after_clear} messages of audio behind a "
        f"`clear`; {load.warnings:,} warnings of the service."
    )
    yield (
        f"- pacing: {load.calls} calls heard {load.paced_seconds:.0f} s each; the callers' frames "
        f"were sent late by {load.late.p99:.1f} ms (p99)."
    )
    if load.usage.service is not None:
        share = load.usage.service / load.usage.wall
        yield f"- the service used {share:.0%} of its core."
    yield ""
    whole = not load.missed
    yield from markdown(
        ("to hold", "measured", ""),
        [
            (
                f"command to first byte: p99 at most {FIRST_BYTE_P99_MS} ms",
                f"{first.p99:.1f} ms",
                word(first.p99 <= FIRST_BYTE_P99_MS and whole),
            ),
            (
                f"`clear` to silence: at most {SILENCE_MS} ms",
                f"{silence.p99:.1f} ms (p99), {silence.longest:.1f} ms at most",
                word(silence.longest <= SILENCE_MS and not load.after_clear),
            ),
            (
                f"pacing error: at most {DRIFT_MS_A_MINUTE:g} ms a minute",
                f"{drift:.2f} ms",
                word(drift <= DRIFT_MS_A_MINUTE),
            ),
            (
                f"an echo's round trip: p99 at most {ECHO_P99_MS} ms",
                f"{echo.p99:.1f} ms",
                word(echo.p99 <= ECHO_P99_MS),
            ),
        ],
    )
