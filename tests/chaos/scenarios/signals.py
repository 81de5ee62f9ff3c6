"""A deploy in the middle of fifty calls; and a service that is not run for a while."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Sequence

import httpx

from app.lifecycle import FLUSH_SECONDS
from tests.chaos.exactness import Tally, judge_all
from tests.chaos.load import Load, live_calls
from tests.chaos.reading import watching
from tests.chaos.registry import Context, Row, scenario
from tests.chaos.stage import Stage, staged
from tests.service import http_client

DRAIN_SECONDS = 5.0
GRACE_SECONDS = 2.0
EXIT_SECONDS = 60.0
READY_MS = 100.0
SPEAK_SECONDS = 3.0
PAUSES = (0.3, 2.0)


@scenario("sigterm")
async def sigterm(context: Context) -> Sequence[Row]:
    """SIGTERM, twice, while all speak: half hang up by themselves, half are ended."""
    seed = context.seeds[0]
    async with (
        staged(
            context.directory / "sigterm",
            context.rng(seed, "sigterm"),
            DRAIN_SECONDS=f"{DRAIN_SECONDS:g}",
        ) as stage,
        live_calls(stage.service, context.calls, seed=seed) as load,
    ):
        await asyncio.sleep(SPEAK_SECONDS)
        told = time.perf_counter()
        ready_ms = await _told_to_stop(stage)
        await asyncio.sleep(DRAIN_SECONDS / 2)
        polite = load.callers[: len(load.callers) // 2]
        await load.hang_up(polite)
        status, took = await _exit_of(stage, told)
        await load.wait_until_closed()
        tally = await _judge_drained(stage, load, len(polite))
    held = f"0 lost, exit 0 within {DRAIN_SECONDS + GRACE_SECONDS:g} s"
    exited = f"exit {status} after {took:.1f} s"
    in_time = status == 0 and took <= DRAIN_SECONDS + GRACE_SECONDS
    return [
        Row(
            f"SIGTERM with {context.calls} live calls, repeated",
            held,
            f"{_received(tally)}, {exited}",
            in_time and _kept(tally),
        ),
        Row(
            "SIGTERM: readiness is 503",
            f"<= {READY_MS:g} ms",
            f"{ready_ms:.0f} ms",
            ready_ms <= READY_MS,
        ),
    ]


@scenario("sigterm-hung")
async def sigterm_while_redis_hangs(context: Context) -> Sequence[Row]:
    """SIGTERM while Redis is frozen: it thaws within the drain, or not at all."""
    seed = context.seeds[0]
    rows: list[Row] = []
    for thaws in (True, False):
        what = "thaws in the drain" if thaws else "stays frozen"
        async with (
            staged(
                context.directory / f"sigterm-{thaws}",
                context.rng(seed, what),
                DRAIN_SECONDS=f"{DRAIN_SECONDS:g}",
            ) as stage,
            live_calls(stage.service, context.calls, seed=seed) as load,
        ):
            await asyncio.sleep(SPEAK_SECONDS)
            stage.redis.freeze()
            await asyncio.sleep(0.5)
            told = time.perf_counter()
            stage.service.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(DRAIN_SECONDS / 2)
            if thaws:
                stage.redis.thaw()
            status, took = await _exit_of(stage, told)
            stage.redis.thaw()
            await load.wait_until_closed()
            exited = f"exit {status} after {took:.1f} s"
            limit = DRAIN_SECONDS + GRACE_SECONDS + (0.0 if thaws else FLUSH_SECONDS)
            in_time = status == 0 and took <= limit
            if thaws:
                tally = await _judge_drained(stage, load, 0)
                exited = f"{_received(tally)}, {exited}"
                in_time = in_time and _kept(tally)
        held = "0 lost, " if thaws else ""
        held += f"exit 0 within {limit:g} s"
        rows.append(Row(f"SIGTERM while Redis hangs, which {what}", held, exited, in_time))
    return rows


@scenario("paused")
async def paused_service(context: Context) -> Sequence[Row]:
    """SIGSTOP the service itself: frames are late, none is lost."""
    seed = context.seeds[0]
    rows: list[Row] = []
    async with staged(context.directory / "paused", context.rng(seed, "paused")) as stage:
        for seconds in PAUSES:
            async with live_calls(stage.service, context.calls, seed=seed) as load:
                async with watching(stage.connect, load) as watch:
                    await asyncio.sleep(1.5)
                    os.kill(stage.service.process.pid, signal.SIGSTOP)
                    await asyncio.sleep(seconds)
                    os.kill(stage.service.process.pid, signal.SIGCONT)
                    first = await watch.wait_for_new(time.perf_counter(), 10.0)
                    await asyncio.sleep(1.5)
                await load.hang_up()
                tally = await judge_all(stage.connect, load.callers)
            shown = f"{first:.2f} s" if first is not None else "never"
            rows.append(
                Row(
                    f"the service itself stopped for {seconds:g} s",
                    "0 lost, 0 duplicated, 0 reordered",
                    f"{tally}; first new frame after {shown}",
                    tally.is_exact and first is not None,
                )
            )
    return rows


async def _told_to_stop(stage: Stage) -> float:
    """Send SIGTERM, and again a while later; give the ms until readiness was 503."""
    url = f"{stage.service.url}/health/ready"
    async with http_client() as client:
        await client.get(url)
        stage.service.process.send_signal(signal.SIGTERM)
        told = time.perf_counter()
        while (await client.get(url)).status_code != httpx.codes.SERVICE_UNAVAILABLE:
            await asyncio.sleep(0.001)
        took = (time.perf_counter() - told) * 1000
    await asyncio.sleep(0.3)
    stage.service.process.send_signal(signal.SIGTERM)
    return took


async def _exit_of(stage: Stage, told: float) -> tuple[int | None, float]:
    """Wait for the service's exit; give its status and the seconds since it was told."""
    try:
        status = await asyncio.to_thread(stage.service.process.wait, EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        return None, EXIT_SECONDS
    return status, time.perf_counter() - told


async def _judge_drained(stage: Stage, load: Load, polite: int) -> Tally:
    total = await judge_all(stage.connect, load.callers[:polite])
    total.add(await judge_all(stage.connect, load.callers[polite:], end_reason="drain"))
    return total


def _kept(tally: Tally) -> bool:
    """Tell whether all that was received is readable, whatever was still on its way."""
    wrong = tally.duplicated + tally.reordered + tally.corrupted + len(tally.problems)
    return not wrong and tally.received == tally.published and tally.lost == tally.not_received


def _received(tally: Tally) -> str:
    lost = tally.lost - tally.not_received
    problems = f", {tally.problems[:2]}" if tally.problems else ""
    return (
        f"{lost} lost of {tally.received:,} received"
        f" ({tally.not_received} more on the way at the close){problems}"
    )
