"""A bounded pool: nobody's share is another's, and operators always find room."""

from contextlib import ExitStack

import pytest

from app.archive import library
from app.businesses.shares import PoolLimits, Shares
from app.errors import TooManyWatchers
from app.watchers import MAX_WATCHERS

LIMITS = PoolLimits(total=10, of_business=3, of_businesses=8)


def fill(shares: Shares, stack: ExitStack, *users: str | None) -> list[str]:
    """Let these use the pool, and return what is said to those that may not."""
    refused = []
    for user in users:
        try:
            stack.enter_context(shares.use(user))
        except TooManyWatchers as error:
            refused.append(str(error))
    return refused


@pytest.mark.parametrize(
    ("users", "refused"),
    [
        (["a"] * 3, []),
        (["a"] * 4, ["many watch: 3 of one business in a process are the limit"]),
        (["a"] * 3 + ["b"] * 3 + ["c"] * 2, []),
        (
            ["a"] * 3 + ["b"] * 3 + ["c"] * 3,
            ["many watch: 8 of all businesses in a process are the limit"],
        ),
        (["a"] * 3 + ["b"] * 3 + ["c"] * 2 + [None] * 2, []),
        (["a"] * 3 + [None] * 8, ["many watch: 10 in this process are the limit"]),
        ([None] * 10, []),
        ([None] * 10 + ["a"], ["many watch: 10 in this process are the limit"]),
        ([None] * 9 + ["a"], []),
    ],
)
def test_a_pool_is_shared(users: list[str | None], refused: list[str]) -> None:
    shares = Shares("many watch", LIMITS, TooManyWatchers)
    with ExitStack() as stack:
        assert fill(shares, stack, *users) == refused
    with ExitStack() as stack:  # all of it is free again
        assert fill(shares, stack, *users) == refused


def test_a_share_is_free_as_soon_as_one_leaves() -> None:
    shares = Shares("many watch", LIMITS, TooManyWatchers)
    with shares.use("a"), shares.use("a"):
        with shares.use("a"):
            with pytest.raises(TooManyWatchers):
                shares.check("a")
        shares.check("a")


@pytest.mark.parametrize(
    "limits",
    [MAX_WATCHERS, library.MAX_LISTENERS, library.MAX_DOWNLOADS, library.MAX_WAITING],
)
def test_no_business_takes_more_than_a_quarter_and_some_are_kept(limits: PoolLimits) -> None:
    assert limits.of_business * 4 <= limits.total
    assert limits.of_businesses < limits.total
