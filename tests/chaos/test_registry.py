"""`make chaos` plays what is registered, and says what failed."""

from collections.abc import Sequence

import pytest

from tests.chaos.__main__ import play
from tests.chaos.registry import Context, Row, Scenario, known

ROW = Row("what", "held", "measured", True)


def test_every_scenario_is_known_by_its_name() -> None:
    names = set(known())
    assert {"broker", "outage", "random", "webhook", "sigterm", "paused", "vanished"} <= names
    assert {"sentinel", "cluster", "admission", "replica-killed"} <= names
    assert {"hostile", "autobahn", "secrets"} <= names


def sync(context: Context) -> Sequence[Row]:
    return [ROW]


async def in_a_loop(context: Context) -> Sequence[Row]:
    return [ROW]


@pytest.mark.parametrize("run", [sync, in_a_loop])
def test_a_scenario_may_be_async_or_not(run: Scenario) -> None:
    assert play("name", run, [1], 1) == [ROW]


def test_chance_follows_the_seed() -> None:
    drawn: list[float] = []

    def draw(context: Context) -> Sequence[Row]:
        drawn.append(context.rng(context.seeds[0], "name").random())
        return []

    for seed in (1, 1, 2):
        play("name", draw, [seed], 1)
    assert drawn[0] == drawn[1] != drawn[2]


def breaks(context: Context) -> Sequence[Row]:
    raise ZeroDivisionError


async def breaks_in_a_loop(context: Context) -> Sequence[Row]:
    raise ZeroDivisionError


@pytest.mark.parametrize("run", [breaks, breaks_in_a_loop])
def test_a_scenario_that_breaks_has_failed(run: Scenario) -> None:
    [row] = play("name", run, [1], 1)
    assert (row.what, row.ok) == ("name", False)
