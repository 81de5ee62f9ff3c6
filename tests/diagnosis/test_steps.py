"""Checks one after the other: what stops what, and how long any may take."""

import asyncio
import time
from collections.abc import Sequence

from app.diagnosis.findings import Cause, Finding, Level, well
from app.diagnosis.steps import Look, Step, examine
from app.errors import StoreUnavailable

BROKEN = Cause("broken", "dns", Level.FAILED, "It is broken.", "Mend it.")
ODD = Cause("odd", "dns", Level.WARNING, "It is odd.", "Look at it.")


def finding(*found: Finding) -> Look:
    async def look() -> Sequence[Finding]:
        return found

    return look


def step(check: str, look: Look, *needs: str, seconds: float = 30.0) -> Step:
    return Step(check, look, BROKEN.finding("It is late."), needs, seconds)


async def examined(*steps: Step, whole_seconds: float = 30.0) -> dict[str, Finding]:
    told: list[Finding] = []
    found = await examine(steps, told.append, time.monotonic, whole_seconds=whole_seconds)
    assert told == found
    return {one.check: one for one in found}


async def never() -> Sequence[Finding]:
    await asyncio.Event().wait()
    raise AssertionError


async def test_what_needs_a_check_that_failed_is_skipped_and_so_is_what_needs_that() -> None:
    found = await examined(
        step("dns", finding(BROKEN.finding("It is gone."))),
        step("tcp", finding(well("tcp", "It is there.")), "dns"),
        step("tls", finding(well("tls", "It is good.")), "tcp"),
        step("redis", finding(well("redis", "It answers."))),
    )
    levels = {check: one.level for check, one in found.items()}
    assert levels == {
        "dns": Level.FAILED,
        "tcp": Level.SKIPPED,
        "tls": Level.SKIPPED,
        "redis": Level.OK,
    }
    assert "dns" in found["tcp"].found


async def test_a_warning_stops_nothing() -> None:
    found = await examined(
        step("dns", finding(ODD.finding("It is odd."))),
        step("tcp", finding(well("tcp", "It is there.")), "dns"),
    )
    assert found["tcp"].level is Level.OK


async def test_a_check_that_never_ends_is_given_up() -> None:
    found = await examined(step("dns", never, seconds=0.01))
    assert found["dns"] == BROKEN.finding("It is late.")


async def test_a_check_that_breaks_off_says_why() -> None:
    async def broken() -> Sequence[Finding]:
        raise StoreUnavailable("Redis is away")

    found = await examined(step("dns", broken))
    assert (found["dns"].cause, found["dns"].found) == ("broken", "It broke off: Redis is away.")


async def test_the_whole_is_given_up_when_its_time_is_over() -> None:
    found = await examined(
        step("dns", never), step("tcp", finding(well("tcp", "It is there."))), whole_seconds=0.01
    )
    assert found["dns"].level is Level.FAILED
    assert found["tcp"].level is Level.SKIPPED
