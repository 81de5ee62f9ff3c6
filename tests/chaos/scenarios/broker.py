"""Redis hangs, crashes, cuts and forgets to answer: no frame is lost, doubled or moved."""

import asyncio
from collections.abc import Sequence

from tests.chaos.exactness import Tally
from tests.chaos.faults import BY_NAME
from tests.chaos.registry import Context, Row, scenario
from tests.chaos.rehearsal import Outcome, Until, rehearse
from tests.chaos.stage import Stage, staged

SWALLOWED = 1000
SWALLOW_SECONDS = 300.0
FIRST_NEW_SECONDS = 1.0
DRAIN_SPEED = 10.0
# Below, a backlog is gone between two looks of the watch.
SHORTEST_BACKLOG_SECONDS = 2.0


def _until_swallowed(count: int) -> Until:
    async def swallowed(stage: Stage) -> None:
        async with asyncio.timeout(SWALLOW_SECONDS):
            while stage.proxy.injected["swallow"] < count:
                await asyncio.sleep(0.05)

    return swallowed


CASES: Sequence[tuple[str, str, float]] = (
    ("Redis frozen 3 s", "frozen", 3.0),
    ("Redis frozen 7 s", "frozen", 7.0),
    ("Redis frozen 25 s", "frozen", 25.0),
    ("Redis killed, back after 2 s (AOF)", "killed", 2.0),
    ("connections killed every 100 ms for 10 s", "clients killed", 10.0),
    (f"replies swallowed {SWALLOWED:,} times in all", "replies swallowed", 0.0),
)


@scenario("broker")
async def broker(context: Context) -> Sequence[Row]:
    """Play each fault once for each seed, with calls of its own."""
    swallowed = _until_swallowed(-(-SWALLOWED // len(context.seeds)))
    outcomes: dict[str, list[Outcome]] = {what: [] for what, *_ in CASES}
    for seed in context.seeds:
        for what, fault, seconds in CASES:
            directory = context.directory / f"broker-{seed}-{fault}-{seconds}"
            async with staged(directory, context.rng(seed, what)) as stage:
                outcome = await rehearse(
                    *(stage, BY_NAME[fault]),
                    calls=context.calls,
                    seed=seed,
                    seconds=seconds,
                    until=None if seconds else swallowed,
                )
            outcomes[what].append(outcome)
            context.say(f"{what}, seed {seed}: {outcome.tally} {_recovery([outcome])}")
            for problem in outcome.tally.problems[:3]:
                context.say(f"  {problem}")
    rows = [_exactness(context, what, found) for what, found in outcomes.items()]
    # The proxy's cuts and the killed connections have no one moment at which they end.
    dead = [found for what, found in outcomes.items() if what.startswith("Redis")]
    every = [outcome for found in dead for outcome in found]
    return [*rows, _first_new(every), _drain(every)]


def _exactness(context: Context, what: str, outcomes: Sequence[Outcome]) -> Row:
    total = Tally()
    for outcome in outcomes:
        total.add(outcome.tally)
    held = f"0 lost, 0 duplicated, 0 reordered; {context.calls} calls, {len(outcomes)} seeds"
    cautions = "".join(f"; {outcome.caution}" for outcome in outcomes if outcome.caution)
    return Row(what, held, f"{total}{cautions}", total.is_exact)


def _first_new(outcomes: Sequence[Outcome]) -> Row:
    took = [outcome.first_new for outcome in outcomes]
    worst = max((value for value in took if value is not None), default=0.0)
    missing = took.count(None)
    measured = f"{worst:.2f} s at worst" + (f", {missing} times never" if missing else "")
    return Row(
        "first frame after recovery, slowest stream",
        f"<= {FIRST_NEW_SECONDS:g} s",
        measured,
        not missing and worst <= FIRST_NEW_SECONDS,
    )


def _drain(outcomes: Sequence[Outcome]) -> Row:
    known = [
        (outcome.drain.speed, outcome.kept_waiting)
        for outcome in outcomes
        if outcome.drain is not None and outcome.drain.backlog >= SHORTEST_BACKLOG_SECONDS
    ]
    slowest, waited = min(known, default=(0.0, 0.0))
    missing = sum(outcome.drain is None for outcome in outcomes)
    measured = f"{slowest:.1f} x at worst of {len(known)}, kept off its core {waited:.0%} of it"
    measured += f", {missing} times never" if missing else ""
    ok = bool(known) and not missing and slowest >= DRAIN_SPEED
    return Row("backlog drains", f">= {DRAIN_SPEED:g} x real time", measured, ok)


def _recovery(outcomes: Sequence[Outcome]) -> str:
    return "; ".join(
        f"first new after {outcome.first_new:.2f} s"
        + (
            f", {outcome.drain.backlog:.1f} s of backlog at {outcome.drain.speed:.1f} x,"
            f" kept off its core {outcome.kept_waiting:.0%} of it"
            if outcome.drain
            else ", backlog stays"
        )
        for outcome in outcomes
        if outcome.first_new is not None
    )
