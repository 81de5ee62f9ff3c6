"""What every store promises to those who watch live calls: memory, a real Redis, a cluster."""

import pytest

from app.media import Track
from app.store import memory_watching, redis_watching
from app.store.base import Store
from app.store.redis import RedisStore
from app.store.watching import EVERYBODY, StreamFigures, Wanted
from tests.store.conftest import PATIENT, emptied
from tests.waiting import until


def figures(stream_sid: str = "MZ1", business_id: str = "shop") -> StreamFigures:
    return StreamFigures(
        stream_sid=stream_sid,
        call_sid="CA1",
        business_id=business_id,
        plan="premium",
        carrier="twilio",
        from_number="+1",
        to_number="+2",
        started_at=1_700_000_000_000,
        duration_ms=20,
        received=3,
        published=2,
        lag_ms=1,
        missing=0,
        dropped=0,
        levels={Track.INBOUND: -12.5, Track.OUTBOUND: None},
    )


def shorten(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in (memory_watching, redis_watching):
        monkeypatch.setattr(module, name, 0.05)


async def test_nothing_is_wanted_where_nobody_watches(store: Store) -> None:
    assert await store.wanted() == Wanted()


async def test_a_holder_hears_who_is_watched(store: Store) -> None:
    assert await store.watch(["shop", EVERYBODY]) == {"shop": [], EVERYBODY: []}
    assert await store.wanted() == Wanted(frozenset({"shop", EVERYBODY}))


async def test_watching_nobody_watches_nobody(store: Store) -> None:
    assert await store.watch([]) == {}
    assert await store.wanted() == Wanted()


async def test_a_watch_that_is_not_renewed_runs_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.watch(["bank"])
    shorten(monkeypatch, "WATCH_SECONDS")
    await store.watch(["shop"])

    async def only_the_bank() -> bool:
        return await store.wanted() == Wanted(frozenset({"bank"}))

    await until(only_the_bank)


async def test_a_watcher_sees_the_newest_figures_of_each_holder(store: Store) -> None:
    await store.watch(["shop"])
    await store.publish_figures("one", {"shop": [figures("MZ1")], EVERYBODY: [figures("MZ1")]})
    await store.publish_figures("two", {"shop": [figures("MZ2"), figures("MZ3")]})
    await store.publish_figures("one", {"shop": [figures("MZ4")]})
    seen = await store.watch(["shop", "bank"])
    assert seen["bank"] == []
    assert sorted(one.stream_sid for one in seen["shop"]) == ["MZ2", "MZ3", "MZ4"]
    assert figures("MZ2") in seen["shop"]
    assert await store.watch([EVERYBODY]) == {EVERYBODY: [figures("MZ1")]}


async def test_a_holder_without_streams_takes_its_figures_back(store: Store) -> None:
    await store.watch(["shop"])
    await store.publish_figures("one", {"shop": [figures()]})
    await store.publish_figures("one", {})
    assert await store.watch(["shop"]) == {"shop": [figures()]}
    await store.publish_figures("one", {"shop": []})
    assert await store.watch(["shop"]) == {"shop": []}


async def test_figures_of_a_holder_that_fell_silent_are_not_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "FRESH_SECONDS")
    await store.watch(["shop"])
    await store.publish_figures("one", {"shop": [figures()]})

    async def are_gone() -> bool:
        await store.publish_figures("two", {"shop": []})
        return await store.watch(["shop"]) == {"shop": []}

    await until(are_gone)


async def test_a_call_is_asked_to_end_for_a_while(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.ask_to_end("shop", "CA1")
    await store.ask_to_end("shop", "CA1")
    assert (await store.wanted()).ending == {("shop", "CA1")}
    shorten(monkeypatch, "END_SECONDS")
    await store.ask_to_end("bank", "CA2")

    async def only_the_first() -> bool:
        return (await store.wanted()).ending == {("shop", "CA1")}

    await until(only_the_first)


async def test_no_more_calls_are_asked_to_end_than_may_be(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (memory_watching, redis_watching):
        monkeypatch.setattr(module, "MAX_ENDING", 3)
    for number in range(5):
        await store.ask_to_end("shop", f"CA{number}")
    assert len((await store.wanted()).ending) == 3


async def test_holders_and_watchers_meet_in_redis(redis_url: str) -> None:
    url = await emptied(redis_url)
    holder, watcher = (RedisStore.from_url(url, timeout_seconds=PATIENT) for _ in range(2))
    try:
        await watcher.watch(["shop"])
        assert (await holder.wanted()).watched == {"shop"}
        await holder.publish_figures("one", {"shop": [figures()]})
        assert await watcher.watch(["shop"]) == {"shop": [figures()]}
        await holder._ask("HSET", "held:{streams}:figures:shop", "two", "9999999999999 {}")
        await holder._ask("HSET", "held:{streams}:figures:shop", "three", "unreadable")
        assert await watcher.watch(["shop"]) == {"shop": [figures()]}
    finally:
        await holder.close()
        await watcher.close()


async def test_figures_of_another_business_are_never_shown(store: Store) -> None:
    """Whoever publishes them under a business's name by mistake."""
    await store.watch(["shop", EVERYBODY])
    found = [figures("MZ1", "bank"), figures("MZ2", "shop")]
    await store.publish_figures("one", {"shop": found, EVERYBODY: found})
    seen = await store.watch(["shop", EVERYBODY])
    assert seen == {"shop": [figures("MZ2", "shop")], EVERYBODY: found}
