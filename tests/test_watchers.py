"""Those who watch live calls: bounded, fed by one reader, and let go when the process ends."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app import watchers as module
from app.businesses.shares import PoolLimits
from app.errors import SignInRequired, StoreUnavailable, TooManyWatchers
from app.metrics import Metrics
from app.store.memory import MemoryStore
from app.store.watching import EVERYBODY, StreamFigures
from app.watchers import Board, Feed, Message, Watchers, newest
from app.web.api.sse import event_stream
from tests.store.test_watching_contract import figures
from tests.waiting import WAIT_SECONDS, until


def message(number: int, kind: str = "call", *, latest: bool = False) -> Message:
    return Message(kind, str(number).encode(), latest)


async def waiting(feed: Feed) -> list[bytes]:
    found = []
    while (next_one := await feed.next(0.01)) is not None:
        found.append(next_one.data)
    return found


class CountingStore(MemoryStore):
    """A store that counts the looks, and can be away."""

    looks = 0
    away = False

    async def watch(self, whom: Collection[str]) -> dict[str, list[StreamFigures]]:
        self.looks += 1
        if self.away:
            raise StoreUnavailable("away")
        return await super().watch(whom)


@asynccontextmanager
async def reading(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watchers]:
    for name in ("READ_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(module, name, 0.01)
    board = Board(store, Metrics())
    running = asyncio.create_task(board.run())
    yield Watchers(board)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# -------------------------------------------------------------------------- feeds


async def test_a_slow_watcher_loses_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    feed = Feed()
    for number in range(5):
        feed.put(message(number))
    assert await waiting(feed) == [b"2", b"3", b"4"]


async def test_of_figures_the_newest_alone_wait_and_other_messages_stay() -> None:
    feed = Feed()
    for number in range(4):
        feed.put(message(number, "figures", latest=True))
        feed.put(message(10 + number))
    assert await waiting(feed) == [b"10", b"11", b"12", b"3", b"13"]


async def test_a_feed_that_is_over_gives_no_more() -> None:
    feed = Feed()
    feed.put(message(1))
    feed.end()
    assert [one async for one in feed.messages(WAIT_SECONDS)] == []


# ----------------------------------------------------------------------- watchers


async def test_no_more_watch_than_may() -> None:
    watchers = Watchers(limits=PoolLimits(2, 2, 2))
    with watchers.feed("shop"), watchers.feed(None):
        with pytest.raises(TooManyWatchers), watchers.feed("shop"):
            pass
    with watchers.feed("shop"):
        watchers.check_room()


async def test_a_drain_ends_every_feed_and_begins_none() -> None:
    watchers = Watchers()
    with watchers.feed("shop") as feed:
        heard = asyncio.create_task(anext(aiter(feed.messages(WAIT_SECONDS)), "over"))
        await asyncio.sleep(0)
        watchers.end_all()
        assert await heard == "over"
    with pytest.raises(TooManyWatchers):
        watchers.check_room()


# -------------------------------------------------------------------------- board


async def test_nothing_is_asked_while_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    store = CountingStore(time.monotonic)
    async with reading(store, monkeypatch) as watchers:
        await asyncio.sleep(0.05)
        assert store.looks == 0
        with watchers.feed("shop"):
            await until(lambda: store.looks > 2)
        await until(lambda: not watchers._feeds)
        await asyncio.sleep(0.05)
        before = store.looks
        await asyncio.sleep(0.05)
        assert store.looks == before


async def test_each_watcher_is_fed_what_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    store = CountingStore(time.monotonic)
    shop, bank = figures("MZ1", "shop"), figures("MZ2", "bank")
    async with reading(store, monkeypatch) as watchers:
        with watchers.feed("shop") as of_shop, watchers.feed(None) as of_all:
            await until(lambda: store.looks > 0)
            await store.publish_figures(
                "one", {"shop": [shop], "bank": [bank], EVERYBODY: [shop, bank]}
            )

            async def seen(feed: Feed) -> set[str]:
                found = await feed.next(WAIT_SECONDS)
                assert found is not None
                assert found.kind == "figures"
                return {one["stream_sid"] for one in json.loads(found.data)["items"]}

            async def sees(feed: Feed, wanted: set[str]) -> bool:
                return await seen(feed) == wanted

            await until(lambda: sees(of_shop, {"MZ1"}))
            await until(lambda: sees(of_all, {"MZ1", "MZ2"}))


async def test_that_no_call_is_live_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = CountingStore(time.monotonic)
    async with reading(store, monkeypatch) as watchers:
        with watchers.feed("shop") as feed:
            await until(lambda: store.looks > 5)
            assert await waiting(feed) == [b'{"items":[]}']


async def test_a_store_that_was_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store = CountingStore(time.monotonic)
    store.away = True
    async with reading(store, monkeypatch) as watchers:
        with watchers.feed("shop") as feed:
            await until(lambda: store.looks > 1)
            store.away = False
            assert await feed.next(WAIT_SECONDS) is not None


def test_no_more_streams_are_shown_than_may_be_and_each_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_SHOWN", 2)
    shown = newest([figures("MZ3"), figures("MZ1"), figures("MZ2"), figures("MZ1")])
    assert [one.stream_sid for one in shown] == ["MZ1", "MZ2"]


# ----------------------------------------------------------------- an event stream


async def written(
    watchers: Watchers, check: Callable[[], object], seconds: float = WAIT_SECONDS
) -> AsyncIterator[str]:
    """Yield the parts of an event stream as they are sent, until it ends."""
    sent: asyncio.Queue[str | None] = asyncio.Queue()

    async def checked() -> object:
        return check()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            sent.put_nowait(message["body"].decode())

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def serve() -> None:
        response = event_stream(
            watchers, "shop", checked, heartbeat_seconds=seconds, check_seconds=0.01
        )
        await response({"type": "http", "path": "/live/events"}, receive, send)

    serving = asyncio.create_task(serve())
    serving.add_done_callback(lambda _: sent.put_nowait(None))
    try:
        while (part := await sent.get()) is not None:
            yield part
        await serving
    finally:
        serving.cancel()


async def test_a_silence_has_comments_in_it() -> None:
    parts = written(Watchers(), lambda: None, 0.05)
    assert await anext(parts) == "retry: 1000\n\n"
    assert await anext(parts) == ": still here\n\n"


async def test_an_event_stream_ends_when_whoever_watches_may_no_more() -> None:
    def revoked() -> None:
        raise SignInRequired("it was revoked")

    watchers = Watchers(limits=PoolLimits(1, 1, 1))
    # A stream that went on would now say so, as often as it is read.
    parts = written(watchers, revoked, 0.05)
    assert await anext(parts) == "retry: 1000\n\n"
    assert await anext(parts, "the end") == "the end"
    watchers.check_room()


async def test_an_event_stream_goes_on_while_the_store_is_away() -> None:
    def away() -> None:
        raise StoreUnavailable("away")

    parts = written(Watchers(), away, 0.05)
    assert [await anext(parts) for _ in range(2)] == ["retry: 1000\n\n", ": still here\n\n"]


async def test_one_watcher_too_many_is_refused_before_an_answer_begins() -> None:
    with pytest.raises(TooManyWatchers):
        await anext(written(Watchers(limits=PoolLimits(0, 0, 0)), lambda: None))
