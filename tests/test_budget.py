"""Budgets: what may be spent at once, over time, and after earning."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.budget import NO_LIMIT, Allowance, Budget


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("steps", "answers"),
    [
        pytest.param("1 1 1 1", "yes yes yes no", id="at once"),
        pytest.param("3 0.5s 1 1", "yes yes no", id="half a second is one"),
        pytest.param("4 3", "no yes", id="what is refused costs nothing"),
        pytest.param("3 60s 3 1", "yes yes no", id="time fills no further than the allowance"),
        pytest.param("3 earn 1 1", "yes yes no", id="earned"),
        pytest.param("earn 3 1", "yes no", id="nothing is earned above the allowance"),
        pytest.param("0 3 0 1", "yes yes yes no", id="nothing costs nothing"),
    ],
)
def test_a_budget_of_three_at_once_and_two_a_second(steps: str, answers: str) -> None:
    clock = Clock()
    budget = Budget(Allowance(3, 2), clock)
    given = []
    for step in steps.split():
        if step == "earn":
            budget.earn()
        elif step.endswith("s"):
            clock.now += float(step[:-1])
        else:
            given.append("yes" if budget.spend(int(step)) else "no")
    assert " ".join(given) == answers


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 50)), max_size=200),
    st.floats(0, 100),
    st.floats(0, 100),
)
def test_no_more_is_ever_spent_than_the_allowance_and_its_time(
    steps: list[tuple[float, float]], at_once: float, a_second: float
) -> None:
    clock = Clock()
    budget = Budget(Allowance(at_once, a_second), clock)
    spent = 0.0
    for seconds, amount in steps:
        clock.now += seconds
        spent += amount if budget.spend(amount) else 0.0
        assert spent <= at_once + (clock.now - 100) * a_second + 1e-6


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 20)), max_size=200))
def test_who_stays_below_the_rate_is_never_refused(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    budget = Budget(Allowance(20, 10), clock)
    for seconds, amount in steps:
        clock.now += max(seconds, amount / 10 + 1e-6)
        assert budget.spend(amount)


def test_without_a_limit_nothing_is_refused() -> None:
    budget = Budget(NO_LIMIT, Clock())
    assert all(budget.spend(amount) for amount in (1, 1e9, inf))
