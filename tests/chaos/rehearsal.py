"""One fault under a load of live calls, from the first word to the judgement."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.processes import queued_seconds
from tests.chaos.exactness import Tally, judge_all
from tests.chaos.faults import Fault
from tests.chaos.load import live_calls
from tests.chaos.reading import Drain, following, watching
from tests.chaos.stage import Stage, ready

BEFORE_SECONDS = 1.5
AFTER_SECONDS = 1.0
RECOVERY_SECONDS = 30.0
DRAIN_SECONDS = 30.0

Until = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: the frames, the broker's errors, and how it recovered.

    `first_new` is how many seconds after the fault's end the slowest stream had a
    new entry; None when it took too long. So is `drain` where the backlog stayed.
    `kept_waiting` is the share of that time in which others had the service's core.
    """

    tally: Tally
    errors: Counter[str]
    first_new: float | None
    drain: Drain | None
    kept_waiting: float
    caution: str


def lasting(seconds: float) -> Until:
    """Let a fault last for so long."""

    async def last(stage: Stage) -> None:
        await asyncio.sleep(seconds)

    return last


async def rehearse(
    stage: Stage,
    fault: Fault,
    *,
    calls: int,
    seed: int,
    seconds: float,
    until: Until | None = None,
    both: bool = False,
    before_seconds: float = BEFORE_SECONDS,
    after_seconds: float = AFTER_SECONDS,
) -> Outcome:
    """Let calls speak, play a fault for `seconds` (or `until`), and judge every frame.

    A live reader follows every stream meanwhile.
    """
    # After an earlier fault the service calls its store away for a second more.
    await ready(stage.service)
    before, pid = await stage.broker_errors(), stage.service.process.pid
    async with live_calls(stage.service, calls, seed=seed, both=both) as load:
        async with following(stage.connect, load) as follower:
            async with watching(stage.connect, load) as watch:
                await asyncio.sleep(before_seconds)
                async with fault.inject(stage, seconds):
                    await (until or lasting(seconds))(stage)
                ended, queued = time.perf_counter(), queued_seconds(pid) or 0.0
                first_new = await watch.wait_for_new(ended, RECOVERY_SECONDS)
                drain = await watch.wait_for_drain(ended, DRAIN_SECONDS)
                queued = (queued_seconds(pid) or 0.0) - queued
                waited = queued / (time.perf_counter() - ended)
                await asyncio.sleep(after_seconds)
            await load.hang_up()
        tally = await judge_all(stage.connect, load.callers, follower=follower)
        errors = await stage.broker_errors() - before
        return Outcome(tally, errors, first_new, drain, waited, load.caution)
