"""Several replicas: who admits how many, and what becomes of a dead one's calls."""

from collections.abc import Sequence

from tests.chaos.admission import storm, without_redis
from tests.chaos.dead_replicas import killed_in_outage, replica_killed
from tests.chaos.registry import Context, Row, scenario


@scenario("admission")
async def admission(context: Context) -> Sequence[Row]:
    """Offer two replicas three times what they may take, with Redis there, then hung."""
    rows: list[Row] = []
    for seed in context.seeds:
        directory = context.directory / f"admission-{seed}"
        met = await storm(context.rng(seed, "storm"), directory / "storm")
        alone = await without_redis(context.rng(seed, "without"), directory / "without")
        rows += [*met.rows(), *alone.rows()]
    return rows


@scenario("replica-killed")
async def killed(context: Context) -> Sequence[Row]:
    """Kill a replica in the midst of its calls, then one while Redis hangs."""
    rng = context.rng(context.seeds[0], "killed")
    met = await replica_killed(rng, context.directory / "killed")
    during = await killed_in_outage(rng, context.directory / "outage")
    return [*met.rows(), *during.rows()]
