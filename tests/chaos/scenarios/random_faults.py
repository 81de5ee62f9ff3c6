"""Two hundred faults of every kind, in an order that the seed decides."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random

from tests.chaos.exactness import Tally, judge_all
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.load import Load, live_calls
from tests.chaos.reading import Watch, following, watching
from tests.chaos.registry import Context, Row, scenario
from tests.chaos.stage import Stage, staged

COUNT = 200
# Each round has fresh calls, and an empty append-only file: a Redis that is
# started again should not spend its time on yesterday's audio.
ROUND = 20
RECOVERY_SECONDS = 2.0
PATIENCE_SECONDS = 30.0


class Diary:
    """What each kind of fault came to."""

    def __init__(self) -> None:
        self.played: Counter[str] = Counter()
        self.recovery: defaultdict[str, float] = defaultdict(float)
        self.recognised: Counter[str] = Counter()
        self.unrecognised: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.stuck: Counter[str] = Counter()

    def note(
        self, fault: Fault, seconds: float, errors: Counter[str], took: float | None
    ) -> str | None:
        """Note a fault; say so if it was not as it should be."""
        self.played[fault.name] += 1
        self.errors += errors
        if took is None:
            self.stuck[fault.name] += 1
        else:
            self.recovery[fault.name] = max(self.recovery[fault.name], took)
        is_due = bool(fault.kinds) and seconds >= fault.shown_after
        if is_due and fault.kinds & errors.keys():
            self.recognised[fault.name] += 1
        elif is_due:
            self.unrecognised[fault.name] += 1
            return f"{fault.name} for {seconds:.1f} s was counted as {dict(errors)}"
        if took is None or took > RECOVERY_SECONDS:
            return f"{fault.name} for {seconds:.1f} s: recovered after {took} s"
        return None


@scenario("random")
async def random_faults(context: Context) -> Sequence[Row]:
    """Play them one after another, and judge every frame of every round."""
    seed = context.seeds[0]
    rng = context.rng(seed, "random")
    order = _order(rng)
    diary, total = Diary(), Tally()
    async with staged(context.directory / "random", rng) as stage:
        for first in range(0, COUNT, ROUND):
            faults = order[first : first + ROUND]
            tally = await _round(context, stage, faults, seed + first, diary)
            total.add(tally)
            context.say(f"{first + len(faults)} of {COUNT}: {total}")
            for problem in tally.problems[:3]:
                context.say(f"  {problem}")
            await asyncio.to_thread(stage.redis.command, "BGREWRITEAOF")
    return _rows(context, diary, total)


def _order(rng: Random) -> list[Fault]:
    """Draw the faults; each kind comes, and none is left to luck."""
    rest = [rng.choice(FAULTS) for _ in range(COUNT - len(FAULTS))]
    order = [*FAULTS, *rest]
    rng.shuffle(order)
    return order


async def _round(
    context: Context, stage: Stage, faults: Sequence[Fault], seed: int, diary: Diary
) -> Tally:
    async with live_calls(stage.service, context.calls, seed=seed) as load:
        async with following(stage.connect, load) as follower:
            async with watching(stage.connect, load) as watch:
                await asyncio.sleep(1.0)
                for fault in faults:
                    complaint = await _play(stage, fault, watch, diary)
                    if complaint:
                        context.say(complaint)
                await watch.wait_for_drain(time.perf_counter(), PATIENCE_SECONDS)
            await load.hang_up()
        tally = await judge_all(stage.connect, load.callers, follower=follower)
        if load.caution:
            context.say(load.caution)
        await _forget(stage, load)
    return tally


async def _play(stage: Stage, fault: Fault, watch: Watch, diary: Diary) -> str | None:
    seconds = stage.rng.uniform(fault.shortest, fault.longest)
    before = await stage.broker_errors()
    async with fault.inject(stage, seconds):
        await asyncio.sleep(seconds)
    took = await watch.wait_for_new(time.perf_counter(), PATIENCE_SECONDS)
    errors = await stage.broker_errors() - before
    await asyncio.sleep(stage.rng.uniform(0.0, 0.5))
    return diary.note(fault, seconds, errors, took)


async def _forget(stage: Stage, load: Load) -> None:
    client = stage.connect()
    await client.unlink(*(f"audio:{{{stream}}}" for stream in load.streams))
    await client.aclose()


def _rows(context: Context, diary: Diary, total: Tally) -> Sequence[Row]:
    worst = max(diary.recovery, key=lambda name: diary.recovery[name])
    within = diary.recovery[worst] <= RECOVERY_SECONDS and not diary.stuck
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(diary.errors.items()))
    context.say(
        "recovered at worst: "
        + ", ".join(f"{name} {took:.2f} s" for name, took in sorted(diary.recovery.items()))
    )
    stranger = diary.errors.keys() & {"unexpected", "error", "write_rejected"}
    return [
        Row(
            f"{COUNT} random faults: received = published + dropped + rejected + duplicates",
            "to the frame",
            f"{total}; {total.received:,} = {total.published:,} + {total.dropped.total():,}",
            total.adds_up,
        ),
        Row(
            f"{COUNT} random faults: each kind recognised in broker_errors",
            # A server that says nothing while it loads cannot be told from one that hangs.
            f"all of {len(FAULTS)} kinds of fault",
            f"{kinds}; single faults by another name: {dict(diary.unrecognised) or 'none'}",
            diary.recognised.keys() >= diary.unrecognised.keys() and not stranger,
        ),
        Row(
            f"{COUNT} random faults: recovery once cleared",
            f"<= {RECOVERY_SECONDS:g} s",
            f"{diary.recovery[worst]:.2f} s at worst ({worst})"
            + (f"; stuck: {dict(diary.stuck)}" if diary.stuck else ""),
            within,
        ),
    ]
