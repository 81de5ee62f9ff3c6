"""A deploy while the broker hangs, in short."""

import asyncio
import random
import signal
from pathlib import Path

from tests.chaos.exactness import judge_all
from tests.chaos.load import live_calls
from tests.chaos.reading import watching
from tests.chaos.stage import staged
from tests.service import lines_with
from tests.waiting import WAIT_SECONDS

CALLS = 6


async def test_audio_that_waited_for_the_broker_is_published_within_the_drain(
    tmp_path: Path,
) -> None:
    async with (
        staged(tmp_path, random.Random(4), DRAIN_SECONDS="3") as stage,
        live_calls(stage.service, CALLS, seed=4) as load,
    ):
        await asyncio.sleep(0.5)
        stage.redis.freeze()
        await asyncio.sleep(0.5)
        stage.service.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(1.0)
        stage.redis.thaw()
        assert await asyncio.to_thread(stage.service.process.wait, WAIT_SECONDS) == 0
        await load.wait_until_closed()
        tally = await judge_all(stage.connect, load.callers, end_reason="drain")
    assert tally.received == tally.published
    assert tally.lost == tally.not_received
    assert not tally.problems


async def test_a_broker_that_hangs_for_good_does_not_hold_the_process(tmp_path: Path) -> None:
    async with (
        staged(tmp_path, random.Random(4), DRAIN_SECONDS="0.5", LOG_LEVEL="INFO") as stage,
        live_calls(stage.service, CALLS, seed=4) as load,
        watching(stage.connect, load),
    ):
        await asyncio.sleep(0.5)
        stage.redis.freeze()
        await asyncio.sleep(0.5)
        stage.service.process.send_signal(signal.SIGTERM)
        try:
            status = await asyncio.to_thread(stage.service.process.wait, WAIT_SECONDS)
        finally:
            stage.redis.thaw()
        receipts = lines_with(stage.service.logged(), "receipt:", '"end_reason": "drain"')
    assert status == 0
    assert len(receipts) == CALLS


async def test_a_service_that_was_stopped_for_a_while_loses_nothing(
    tmp_path: Path,
) -> None:
    async with (
        staged(tmp_path, random.Random(4)) as stage,
        live_calls(stage.service, CALLS, seed=4) as load,
    ):
        await asyncio.sleep(0.5)
        stage.service.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.3)
        stage.service.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.5)
        await load.hang_up()
        tally = await judge_all(stage.connect, load.callers)
    assert tally.is_exact, (tally, tally.problems)
