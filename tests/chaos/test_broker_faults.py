"""The fault suite in short: few calls, each fault once; `make chaos` has the long forms."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from app.tools.caller import Carrier, new_call
from tests.chaos.exactness import judge_all
from tests.chaos.faults import BY_NAME, CUT, Fault, frozen, killed, killed_and_forgetful, swallowing
from tests.chaos.load import NUMBER, live_calls
from tests.chaos.reading import watching
from tests.chaos.rehearsal import Outcome, Until, rehearse
from tests.chaos.stage import Stage, staged
from tests.service import TOKEN, http_client
from tests.waiting import until

CALLS = 6
SWALLOWED = 25


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    # With `everysec`, a busy disk lets a killed Redis forget what it had confirmed.
    directory = tmp_path_factory.mktemp("stage")
    async with staged(directory, random.Random(4), fsync="always") as running:
        yield running


async def played(
    stage: Stage, fault: Fault, seconds: float, until: Until | None = None, *, both: bool = False
) -> Outcome:
    return await rehearse(
        *(stage, fault),
        calls=CALLS,
        seed=4,
        seconds=seconds,
        until=until,
        both=both,
        before_seconds=0.5,
        after_seconds=0.2,
    )


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("frozen", 2.5),
        ("killed", 1.0),
        ("clients killed", 1.0),
        ("blackhole", 0.5),
        ("latency 500 ms", 0.6),
        ("64 kB/s", 0.6),
        ("sliced", 0.5),
        ("LOADING", 1.0),
    ],
)
async def test_no_frame_is_lost_doubled_or_moved(stage: Stage, name: str, seconds: float) -> None:
    outcome = await played(stage, BY_NAME[name], seconds)
    assert outcome.tally.is_exact, (outcome.tally, outcome.tally.problems)
    assert outcome.first_new is not None


async def test_no_frame_of_two_tracks_is_lost_doubled_or_moved(stage: Stage) -> None:
    outcome = await played(stage, BY_NAME["killed"], 1.0, both=True)
    assert outcome.tally.is_exact, (outcome.tally, outcome.tally.problems)


async def test_a_write_whose_reply_was_lost_is_not_written_again(stage: Stage) -> None:
    begun = stage.proxy.injected["swallow"]

    async def swallowed(stage: Stage) -> None:
        await until(lambda: stage.proxy.injected["swallow"] >= begun + SWALLOWED)

    fault = Fault("half of the replies swallowed", swallowing(0.5), CUT)
    outcome = await played(stage, fault, 0.0, swallowed)
    assert outcome.tally.is_exact, (outcome.tally, outcome.tally.problems)
    assert outcome.errors.keys() & CUT


@pytest.mark.parametrize("name", ["READONLY", "OOM", "NOPERM", "MISCONF", "wrong password"])
async def test_a_refusal_is_recognised_and_outlived(stage: Stage, name: str) -> None:
    before = await stage.broker_errors()

    async def recognised(stage: Stage) -> None:
        async def is_counted() -> bool:
            return bool((await stage.broker_errors() - before).keys() & BY_NAME[name].kinds)

        await until(is_counted)

    outcome = await played(stage, BY_NAME[name], 0.5, recognised)
    assert outcome.tally.is_exact, (outcome.tally, outcome.tally.problems)
    assert outcome.first_new is not None


async def test_beyond_the_buffer_the_books_account_for_every_frame(tmp_path: Path) -> None:
    async with (
        staged(tmp_path, random.Random(4), fsync="always", BROKER_BUFFER_SECONDS="1") as stage,
        live_calls(stage.service, CALLS, seed=4, both=True) as load,
        watching(stage.connect, load) as watch,
    ):
        await asyncio.sleep(0.5)
        async with killed(stage, 2.0):
            await asyncio.sleep(2.0)
        await until(lambda: watch.samples and watch.samples[-1].total >= load.sent / 4)
        assert not load.closed_early
        await load.hang_up()
        tally = await judge_all(stage.connect, load.callers)
    assert tally.adds_up, (tally, tally.problems)
    assert set(tally.dropped) == {"overflow"}
    assert tally.dropped["overflow"] == tally.lost > 0


async def test_a_call_whose_end_meets_a_broken_connection_has_its_receipt(stage: Stage) -> None:
    async with live_calls(stage.service, CALLS, seed=4) as load:
        await asyncio.sleep(0.5)
        stage.proxy.reset()
        await load.hang_up()
        tally = await judge_all(stage.connect, load.callers)
    assert tally.is_exact, (tally, tally.problems)


async def test_a_call_that_meets_a_broken_connection_is_answered(stage: Stage) -> None:
    async with http_client() as client:
        carrier = Carrier(stage.service.url, TOKEN)
        await carrier.ring(client, new_call(NUMBER))
        stage.proxy.reset()
        # An idle connection in the pool is reset now.
        await asyncio.sleep(0.2)
        await carrier.ring(client, new_call(NUMBER))


async def test_a_connection_that_was_reset_is_no_surprise_to_the_writer(stage: Stage) -> None:
    async def again_and_again(stage: Stage) -> None:
        # Some of them meet a connection that waits, some one that is written to.
        for _ in range(20):
            await asyncio.sleep(0.05)
            stage.proxy.reset()

    outcome = await played(stage, BY_NAME["connections reset"], 0.1, again_and_again)
    assert outcome.tally.is_exact, (outcome.tally, outcome.tally.problems)
    assert set(outcome.errors) <= CUT


async def test_audio_that_waits_is_seen_in_the_metrics(stage: Stage) -> None:
    async with live_calls(stage.service, CALLS, seed=4) as load:
        await asyncio.sleep(0.5)
        async with frozen(stage, 1.0):
            # A tenth of what comes in a second.
            await until(lambda: is_queued(stage, CALLS * 1600))
        await load.hang_up()


async def is_queued(stage: Stage, size: int) -> bool:
    text = await stage.metrics()
    [line] = [line for line in text.splitlines() if line.startswith("bridge_queued_bytes ")]
    return float(line.split()[1]) > size


async def test_what_a_crash_took_with_it_is_written_again(stage: Stage) -> None:
    fault = Fault("killed, and forgetful", killed_and_forgetful, CUT)
    outcome = await played(stage, fault, 0.5)
    tally = outcome.tally
    assert (tally.lost, tally.duplicated, tally.reordered, tally.corrupted) == (0, 0, 0, 0)
