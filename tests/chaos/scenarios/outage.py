"""Redis is away longer than the buffer is long: the calls stay, and the books are right."""

import asyncio
import time
from collections.abc import Sequence

from tests.chaos.exactness import judge_all
from tests.chaos.faults import killed
from tests.chaos.load import FRAMES_PER_SECOND, live_calls
from tests.chaos.reading import watching
from tests.chaos.registry import Context, Row, scenario
from tests.chaos.stage import Stage, staged

AWAY_SECONDS = 60.0
# Default of BROKER_BUFFER_SECONDS.
BUFFER_SECONDS = 30.0
BEFORE_SECONDS = 3.0
RECOVERY_SECONDS = 30.0
TOLERANCE = 0.05
# What a queued frame may cost in memory, its 320 bytes of PCM16 included.
BYTES_PER_FRAME = 1024
MIB = 1024 * 1024


class Memory:
    """The service's resident memory, a few times a second."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._samples: list[tuple[float, int]] = []

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            self._samples.append((time.perf_counter(), self._stage.memory))
            await asyncio.sleep(0.25)

    def highest(self, since: float, until: float) -> int:
        """Give the highest between two moments, in bytes."""
        return max(size for at, size in self._samples if since <= at <= until)


@scenario("outage")
async def outage(context: Context) -> Sequence[Row]:
    """Take Redis away for a minute, and bring it back."""
    seed = context.seeds[0]
    rng = context.rng(seed, "outage")
    async with (
        staged(context.directory / "outage", rng) as stage,
        live_calls(stage.service, context.calls, seed=seed) as load,
    ):
        memory = Memory(stage)
        sampling = asyncio.create_task(memory.run())
        async with watching(stage.connect, load) as watch:
            await asyncio.sleep(BEFORE_SECONDS)
            readable = watch.samples[-1].total
            left = time.perf_counter()
            async with killed(stage, AWAY_SECONDS):
                await asyncio.sleep(AWAY_SECONDS)
                back, sent = time.perf_counter(), load.sent
                closed = len(load.closed_early)
            drain = await watch.wait_for_drain(back, RECOVERY_SECONDS)
        await load.hang_up()
        sampling.cancel()
        tally = await judge_all(stage.connect, load.callers)
    full = left + BUFFER_SECONDS + 2
    at_rest = memory.highest(left - 2, left)
    when_full = memory.highest(full, full + 3)
    in_the_end = memory.highest(back - 3, back)
    kept = sent - readable - tally.dropped.total()
    budget = int(BUFFER_SECONDS * FRAMES_PER_SECOND * context.calls)
    context.say(
        f"resident: {at_rest / MIB:.0f} MiB before, {when_full / MIB:.0f} when the buffer was full,"
        f" {in_the_end / MIB:.0f} at the end; {drain}"
    )
    for problem in tally.problems[:3]:
        context.say(f"  {problem}")
    each = (in_the_end - at_rest) / max(1, kept)
    growth = in_the_end / when_full - 1
    return [
        Row(
            "Redis away 60 s: calls",
            "0 closed",
            f"{closed} of {context.calls} closed",
            not closed,
        ),
        Row(
            "Redis away 60 s: receipts and gap entries",
            "account for every frame",
            f"{tally}; {dict(tally.dropped)} dropped and marked"
            + (f"; {load.caution}" if load.caution else ""),
            tally.adds_up and tally.dropped.total() == tally.lost > 0,
        ),
        Row(
            "Redis away 60 s: audio kept",
            f"the buffer, {budget:,} frames, +- 5 %",
            f"{kept:,} frames, {kept / budget:.1%}",
            abs(kept / budget - 1) <= TOLERANCE,
        ),
        Row(
            "Redis away 60 s: resident memory, once the buffer is full",
            "grows <= 5 %",
            f"{growth:+.1%} in {AWAY_SECONDS - BUFFER_SECONDS - 2:.0f} s",
            growth <= TOLERANCE,
        ),
        Row(
            "Redis away 60 s: resident memory a queued frame",
            f"<= {BYTES_PER_FRAME} B",
            f"{each:.0f} B",
            each <= BYTES_PER_FRAME,
        ),
    ]
