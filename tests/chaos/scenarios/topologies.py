"""A failover under Sentinel, slots that move and a node that dies in a Cluster, under load."""

import asyncio
import time
from collections.abc import Sequence
from typing import cast

from redis.asyncio import Redis, RedisCluster

from app.pubsub.base import CALLS_KEY, audio_key
from tests.chaos.exactness import Tally, judge_all
from tests.chaos.load import Load, live_calls
from tests.chaos.reading import Connect, connector, following, watching
from tests.chaos.registry import Context, Row, scenario
from tests.chaos.stage import serving
from tests.redis_groups import Cluster, cluster, sentinel_group
from tests.redis_process import HOST

SPEAK_SECONDS = 2.0
GAP_SECONDS = 3.5
WAIT_SECONDS = 30.0
HALFWAY_SECONDS = 0.1


@scenario("sentinel")
async def sentinel(context: Context) -> Sequence[Row]:
    """Kill the primary of a group whose sentinels wait for 1 s; every frame must be there."""
    total, worst = Tally(), 0.0
    for seed in context.seeds:
        directory = context.directory / f"sentinel-{seed}"
        with sentinel_group(directory / "group", down_after_ms=1000) as group:
            connect = connector(lambda group=group: group.master().url)  # type: ignore[misc]
            async with (
                serving(directory, group.url) as service,
                live_calls(service, context.calls, seed=seed) as load,
                following(connect, load) as follower,
            ):
                async with watching(connect, load) as watch:
                    await asyncio.sleep(SPEAK_SECONDS)
                    killed = time.perf_counter()
                    await asyncio.to_thread(group.master().kill)
                    gap = await watch.wait_for_new(killed, WAIT_SECONDS)
                    await asyncio.sleep(SPEAK_SECONDS)
                await load.hang_up()
                tally = await judge_all(connect, load.callers, follower=follower)
        total.add(tally)
        worst = max(worst, gap if gap is not None else WAIT_SECONDS)
        context.say(f"seed {seed}: {tally}, gap {gap} s")
    what = "Sentinel failover (down-after 1 s)"
    return [
        Row(what, "0 lost, 0 duplicated, 0 reordered", str(total), total.is_exact),
        Row(f"{what}: gap", f"<= {GAP_SECONDS} s", f"{worst:.2f} s", worst <= GAP_SECONDS),
    ]


@scenario("cluster")
async def in_a_cluster(context: Context) -> Sequence[Row]:
    """Move every slot in use to another node, then kill a node that has a replica."""
    rows: list[Row] = []
    for what, hurt in (("slots of a Cluster move", _migrate), ("a Cluster's node dies", _kill)):
        total = Tally()
        for seed in context.seeds:
            directory = context.directory / f"cluster-{hurt.__name__}-{seed}"
            with cluster(directory / "nodes", masters=3, replicas_each=1) as nodes:
                connect = _cluster_connector(nodes)
                async with (
                    serving(directory, nodes.url) as service,
                    live_calls(service, context.calls, seed=seed) as load,
                ):
                    await asyncio.sleep(SPEAK_SECONDS)
                    await asyncio.to_thread(hurt, nodes, load)
                    await asyncio.sleep(SPEAK_SECONDS)
                    await load.hang_up()
                    tally = await judge_all(connect, load.callers)
            total.add(tally)
            context.say(f"{what}, seed {seed}: {tally}")
        rows.append(Row(what, "0 lost, 0 duplicated, 0 reordered", str(total), total.is_exact))
    return rows


def _migrate(nodes: Cluster, load: Load) -> None:
    """Move the streams' slots and that of `calls`, each halfway for a while."""
    slots = {nodes.slot_of(key) for key in (CALLS_KEY, *map(audio_key, load.streams))}
    nodes.migrate(sorted(slots), nodes.masters[1], pause_seconds=HALFWAY_SECONDS)


def _kill(nodes: Cluster, load: Load) -> None:
    """Kill the node that has the most to do, and wait until a replica has its place."""
    owners = [nodes.owner(nodes.slot_of(audio_key(stream))) for stream in load.streams]
    dead = max(nodes.masters, key=owners.count)
    dead.kill()
    nodes.wait_for_failover(dead, WAIT_SECONDS)


def _cluster_connector(nodes: Cluster) -> Connect:
    # What is asked of it here, it answers as a client of one server does.
    return lambda: cast(Redis, RedisCluster(host=HOST, port=nodes.nodes[-1].port, protocol=2))
