"""A caller vanishes without a word: its network is gone, no FIN comes."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from app.pubsub.base import record_key
from tests.chaos.load import live_calls
from tests.chaos.registry import Context, Row, scenario
from tests.chaos.stage import staged

CALLERS = 3
SPEAK_SECONDS = 2.0
ENDED_SECONDS = 15.0
PATIENCE_SECONDS = 60.0


@scenario("vanished")
async def vanished(context: Context) -> Sequence[Row]:
    """SIGSTOP callers' processes: their sockets stay open, and nothing comes or answers."""
    async with staged(
        context.directory / "vanished", context.rng(context.seeds[0], "vanished")
    ) as stage:
        async with live_calls(stage.service, CALLERS, seed=context.seeds[0]) as load:
            await asyncio.sleep(1.0)
            await load.hang_up()
        await asyncio.sleep(1.0)
        # By now it has the connections to Redis that it keeps.
        files = stage.open_files
        callers = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.vanishing_caller", stage.service.url),
                stdout=subprocess.PIPE,
            )
            for _ in range(CALLERS)
        ]
        client = stage.connect()
        try:
            streams = [(await _line(caller)).decode().strip() for caller in callers]
            await asyncio.sleep(SPEAK_SECONDS)
            for caller in callers:
                caller.send_signal(signal.SIGSTOP)
            gone = time.perf_counter()
            reasons = [await _end_of(client, stream, gone) for stream in streams]
            took = time.perf_counter() - gone
            await asyncio.sleep(1.0)
            leaked = stage.open_files - files
        finally:
            await client.aclose()
            for caller in callers:
                caller.kill()
                await caller.wait()
    return [
        Row(
            f"{CALLERS} callers vanish",
            f"ended <= {ENDED_SECONDS:g} s, 0 files leaked",
            f"ended by {sorted(set(reasons))} within {took:.1f} s, {max(0, leaked)} files leaked",
            took <= ENDED_SECONDS and "" not in reasons and leaked <= 0,
        )
    ]


async def _line(caller: asyncio.subprocess.Process) -> bytes:
    assert caller.stdout is not None
    return await caller.stdout.readline()


async def _end_of(client: Redis, stream: str, since: float) -> str:
    """Wait for a stream's receipt; give its end reason, nothing when it never comes."""
    while time.perf_counter() - since < PATIENCE_SECONDS:
        receipt: Any = await client.hget(record_key(stream), "receipt")
        if receipt is not None:
            return str(json.loads(receipt)["end_reason"])
        await asyncio.sleep(0.05)
    return ""
