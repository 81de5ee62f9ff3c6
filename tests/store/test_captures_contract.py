"""What every store promises to those who record calls: memory, a real Redis, a cluster."""

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from app.errors import StoreUnavailable
from app.store import memory_captures, redis_captures
from app.store.captures import (
    ANY,
    Asked,
    Batch,
    Captured,
    Captures,
    Message,
    Opening,
    capture_keys,
)
from app.store.memory_captures import MemoryCaptures
from app.store.redis_captures import RedisCaptures
from tests.redis_groups import Cluster
from tests.store.conftest import PATIENT, emptied
from tests.waiting import until


@pytest.fixture(params=["memory", "redis", "cluster"])
async def captures(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Captures]:
    """Give empty captures, once of each kind."""
    adapter: Captures
    if request.param == "memory":
        adapter = MemoryCaptures(time.monotonic)
    elif request.param == "redis":
        adapter = RedisCaptures.from_url(await emptied(redis_url), timeout_seconds=PATIENT)
    else:
        running: Cluster = request.getfixturevalue("nodes")
        for node in running.masters:
            node.command("FLUSHALL")
        adapter = RedisCaptures.from_url(running.url, timeout_seconds=PATIENT)
    await adapter.open()
    yield adapter
    await adapter.close()


ONE, TWO = Captured("MZ1", "shop"), Captured("MZ2", "shop")


def opening(stream_sid: str = "MZ1", *, from_first: bool = True) -> Opening:
    start = Message(0, '{"event":"start"}')
    whose = stream_sid, "CA1", "shop", "twilio"
    began = 1_700_000_000_000
    return Opening(*whose, {"businessId": "shop"}, began, began, [start], from_first)


def batch(first: int, *messages: str | bytes, ended: bool = False) -> Batch:
    return Batch(first, [Message(20 * n, one) for n, one in enumerate(messages)], ended)


def shorten(monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> None:
    for module in (memory_captures, redis_captures):
        monkeypatch.setattr(module, name, value)


async def found(captures: Captures, after: str = "", count: int = 100) -> list[Batch]:
    return [one for _, one in await captures.batches(ONE, after, count)]


# ---------------------------------------------------------------------------- asking


async def test_nothing_is_asked_where_nobody_records(captures: Captures) -> None:
    assert list(await captures.asked()) == []


async def test_a_holder_hears_what_is_asked_for_once_each(captures: Captures) -> None:
    wanted = [Asked(), Asked("shop"), Asked("shop", "CA1"), Asked(ANY, "CA2")]
    for one in [*wanted, *wanted]:
        await captures.ask(one)
    assert set(await captures.asked()) == set(wanted)
    assert len(await captures.asked()) == 4


async def test_what_is_not_asked_for_again_is_asked_no_more(
    captures: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    await captures.ask(Asked("bank"))
    shorten(monkeypatch, "ASK_SECONDS", 0.05)
    await captures.ask(Asked("shop"))

    async def only_the_bank() -> bool:
        return list(await captures.asked()) == [Asked("bank")]

    await until(only_the_bank)


async def test_of_very_many_recorders_the_latest_count(
    captures: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "MAX_ASKED", 2)
    for number in range(3):
        await captures.ask(Asked("shop", f"CA{number}"))
    assert len(await captures.asked()) == 2


@pytest.mark.parametrize(
    ("asked", "takes"),
    [
        (Asked(), True),
        (Asked("shop"), True),
        (Asked(ANY, "CA1"), True),
        (Asked("shop", "CA1"), True),
        (Asked("bank"), False),
        (Asked("shop", "CA2"), False),
        (Asked("bank", "CA1"), False),
    ],
)
def test_a_call_is_meant_by_its_business_and_its_id(asked: Asked, takes: bool) -> None:
    assert asked.takes("shop", "CA1") is takes


# --------------------------------------------------------------------------- putting


async def test_what_is_put_is_read_in_order_and_from_any_place(captures: Captures) -> None:
    await captures.begin(opening())
    put = [batch(0, "a", b"\x00\xff"), batch(2, "é"), batch(5, ended=True)]
    for one in put:
        assert await captures.put(ONE, one)
    assert await found(captures) == put
    assert await found(captures, count=2) == put[:2]
    read = await captures.batches(ONE, "", 1)
    assert await found(captures, read[-1][0]) == put[1:]
    last = await captures.batches(ONE, "", 100)
    assert await found(captures, last[-1][0]) == []
    assert await captures.opening("MZ1") == opening()


async def test_nothing_is_put_where_nothing_has_begun(captures: Captures) -> None:
    assert not await captures.put(ONE, batch(0, "a"))
    assert await found(captures) == []
    assert await captures.opening("MZ1") is None


async def test_a_capture_that_begins_anew_has_nothing_of_the_one_before(captures: Captures) -> None:
    await captures.begin(opening())
    await captures.put(ONE, batch(0, "old"))
    await captures.begin(opening(from_first=False))
    assert await found(captures) == []
    await captures.put(ONE, batch(0, "new"))
    assert await found(captures) == [batch(0, "new")]
    assert await captures.opening("MZ1") == opening(from_first=False)


async def test_streams_that_begin_are_named_to_those_who_wait(captures: Captures) -> None:
    await captures.begin(opening("MZ0"))
    await asyncio.sleep(0.005)  # what began in the same millisecond is not after it
    now, found = await captures.begun(None)
    assert found == []
    await asyncio.sleep(0.005)
    await captures.begin(opening("MZ1"))
    await captures.begin(opening("MZ2"))
    later, found = await captures.begun(now)
    assert sorted(found) == ["MZ1", "MZ2"]
    assert later >= now


async def test_streams_are_apart(captures: Captures) -> None:
    await captures.begin(opening())
    await captures.begin(opening("MZ2"))
    await captures.put(TWO, batch(0, "of two"))
    assert await found(captures) == []


async def test_no_more_batches_are_kept_than_may_be(
    captures: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "MAX_BATCHES", 3)
    await captures.begin(opening())
    for number in range(10):
        await captures.put(ONE, batch(number, "a"))
    assert [one.first for one in await found(captures)] == [7, 8, 9]


async def test_what_nobody_puts_to_is_soon_gone(
    captures: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "KEEP_SECONDS", 0.05)
    await captures.begin(opening())
    await captures.put(ONE, batch(0, "a"))

    async def is_gone() -> bool:
        return await captures.opening("MZ1") is None and not await found(captures)

    await until(is_gone)
    assert not await captures.put(ONE, batch(1, "b"))


# ---------------------------------------------------------------------------- Redis


async def test_every_key_expires_and_lies_with_its_stream(redis_url: str) -> None:
    url = await emptied(redis_url)
    captures = RedisCaptures.from_url(url, timeout_seconds=PATIENT)
    await captures.begin(opening())
    await captures.put(ONE, batch(0, "a"))
    for key in capture_keys("MZ1"):
        assert "{MZ1}" in key
        assert 0 < await captures._ask("PTTL", key) <= 60_000
    await captures.close()


async def test_what_another_version_has_begun_is_none(redis_url: str) -> None:
    captures = RedisCaptures.from_url(await emptied(redis_url), timeout_seconds=PATIENT)
    await captures._ask("SET", capture_keys("MZ1")[1], b"\x93\x01")
    assert await captures.opening("MZ1") is None
    await captures.close()


async def test_a_redis_that_is_away_is_an_error() -> None:
    captures = RedisCaptures.from_url("redis://127.0.0.1:1")
    with pytest.raises(StoreUnavailable):
        await captures.asked()
    await captures.close()


async def test_messages_of_another_business_are_neither_replaced_nor_read(
    captures: Captures,
) -> None:
    assert await captures.begin(opening())
    await captures.put(ONE, batch(0, "a"))
    theirs = msgspec.structs.replace(opening(), business_id="bank")
    assert not await captures.begin(theirs)
    assert not await captures.put(theirs.captured, batch(1, "b"))
    assert await captures.batches(theirs.captured, "", 10) == []
    assert await found(captures) == [batch(0, "a")]
    assert await captures.opening("MZ1") == opening()
