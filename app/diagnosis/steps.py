"""Checks one after the other: each in its time, and none whose ground has given way."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from app.diagnosis.findings import Finding, Level, skipped
from app.errors import BridgeError

# What a person waits for; each step has less.
WHOLE_SECONDS = 30.0
STEP_SECONDS = 6.0

Look = Callable[[], Awaitable[Sequence[Finding]]]


@dataclass(frozen=True, slots=True)
class Step:
    """One check: how to look, and the checks without which there is nothing to see.

    `late` is what is found when it takes longer than `seconds`, or breaks off.
    """

    check: str
    look: Look
    late: Finding
    needs: tuple[str, ...] = ()
    seconds: float = STEP_SECONDS


async def examine(
    steps: Iterable[Step],
    tell: Callable[[Finding], None],
    clock: Callable[[], float],
    *,
    whole_seconds: float = WHOLE_SECONDS,
) -> list[Finding]:
    """Take the steps in their order, and give all that was found; `tell` hears it at once.

    After a check that failed, those that need it are skipped: so the cause comes
    first, and what follows from it is not reported as more causes. `clock` gives
    monotonic seconds.
    """
    until = clock() + whole_seconds
    found: list[Finding] = []
    stopped: set[str] = set()
    for step in steps:
        ground = next((need for need in step.needs if need in stopped), "")
        seconds = min(step.seconds, until - clock())
        if ground:
            now: Sequence[Finding] = [
                skipped(step.check, f"Not looked at before {ground} is well.")
            ]
        elif seconds <= 0:
            now = [skipped(step.check, f"Not looked at: the {whole_seconds:g} s were over.")]
        else:
            now = await _within(step, seconds)
        if ground or any(finding.level is Level.FAILED for finding in now):
            stopped.add(step.check)
        found += now
        for finding in now:
            tell(finding)
    return found


async def _within(step: Step, seconds: float) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(seconds):
            return await step.look()
    except TimeoutError:
        return [step.late]
    except BridgeError as error:
        return [replace(step.late, found=f"It broke off: {error}.")]
