"""Those who watch live calls: each has a bounded feed, and all share one reader."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from app.businesses.shares import PoolLimits, Shares
from app.errors import StoreUnavailable, TooManyWatchers
from app.events import LifecycleEvent
from app.metrics import Metrics
from app.pubsub.base import PubSub
from app.store.watching import EVERYBODY, StreamFigures, Watching

log = logging.getLogger(__name__)

# Of one process. Each costs some KiB, and a message four times a second.
MAX_WATCHERS: Final = PoolLimits(total=100, of_business=25, of_businesses=80)
# What waits for one watcher: the oldest goes when it does not keep up.
MAX_WAITING: Final = 100
# Streams in one message, the newest of them: a page shows no more.
MAX_SHOWN: Final = 500
READ_SECONDS: Final = 0.25
RETRY_SECONDS: Final = 1.0

# Of so many events it is known that they were told.
MAX_TOLD: Final = 1_000

FIGURES: Final = "figures"
HAPPENED: Final = "call"


@dataclass(frozen=True, slots=True)
class Message:
    """Something for a watcher: what kind, and JSON. `latest` of a kind replaces what waits."""

    kind: str
    data: bytes
    latest: bool = False
    id: str = ""


class Feed:
    """What waits for one watcher, who may be slower than what comes."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._something = asyncio.Event()
        self._is_over = False

    def put(self, message: Message) -> None:
        """Add a message, in place of what it makes old; the oldest goes where there is no room."""
        if message.latest:
            others = (other for other in self._waiting if other.kind != message.kind)
            self._waiting = deque(others)
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
        self._waiting.append(message)
        self._something.set()

    def end(self) -> None:
        """Let there be no more."""
        self._is_over = True
        self._something.set()

    async def next(self, seconds: float) -> Message | None:
        """Wait for the next message; None when none comes within `seconds`.

        Raises:
            StopAsyncIteration: there will be no more.
        """
        try:
            async with asyncio.timeout(seconds):
                while not self._waiting and not self._is_over:
                    self._something.clear()
                    await self._something.wait()
        except TimeoutError:
            return None
        if self._is_over:
            raise StopAsyncIteration
        return self._waiting.popleft()

    async def messages(self, heartbeat_seconds: float) -> AsyncIterator[Message | None]:
        """Give each message, and None in a silence, until the end."""
        while True:
            try:
                yield await self.next(heartbeat_seconds)
            except StopAsyncIteration:
                return


class Source(Protocol):
    """Something that can be watched: it puts its messages into feeds."""

    def attach(self, business_id: str | None, feed: Feed) -> Callable[[], None]:
        """Begin to feed what is of this business, or with None of all; give what ends it."""


class Watchers:
    """Let a bounded number watch, until the process is told to stop."""

    def __init__(self, *sources: Source, limits: PoolLimits = MAX_WATCHERS) -> None:
        self._sources = sources
        self._shares = Shares("too many watch live calls", limits, TooManyWatchers)
        self._feeds: set[Feed] = set()
        self._is_over = False

    @contextmanager
    def feed(self, business_id: str | None, asker: str | None = None) -> Iterator[Feed]:
        """Watch this business's calls, or with None all, for as long as the block runs.

        `asker` is the business whose key watches, None for an operator.

        Raises:
            TooManyWatchers: this process has as many as it may, or is about to end.
        """
        self.check_room(asker)
        feed = Feed()
        with self._shares.use(asker):
            self._feeds.add(feed)
            detach = [source.attach(business_id, feed) for source in self._sources]
            try:
                yield feed
            finally:
                self._feeds.discard(feed)
                for one in detach:
                    one()

    def check_room(self, asker: str | None = None) -> None:
        """Raise TooManyWatchers when this one may not watch as well; see `feed`."""
        if self._is_over:
            raise TooManyWatchers("this process is about to end; ask again")
        self._shares.check(asker)

    def end_all(self) -> None:
        """End every feed, and begin no other: the process drains."""
        self._is_over = True
        for feed in self._feeds:
            feed.end()


class Board:
    """Read the figures of live calls four times a second, once for all who watch here.

    While nobody does, nothing is asked.
    """

    def __init__(self, store: Watching, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._feeds: dict[str, set[Feed]] = {}
        self._watched = asyncio.Event()
        # Who has been told that there is no live call, and is not told again.
        self._idle: set[Feed] = set()

    def attach(self, business_id: str | None, feed: Feed) -> Callable[[], None]:
        """Feed a watcher the figures of a business, or with None of all."""
        name = business_id or EVERYBODY
        self._feeds.setdefault(name, set()).add(feed)
        self._watched.set()

        def detach() -> None:
            self._idle.discard(feed)
            self._feeds[name].discard(feed)
            if not self._feeds[name]:
                del self._feeds[name]

        return detach

    async def run(self) -> None:
        """Read for as long as anybody watches, until cancelled."""
        while True:
            if not self._feeds:
                self._watched.clear()
                await self._watched.wait()
            try:
                found = await self._store.watch(list(self._feeds))
            except StoreUnavailable:
                self._metrics.store_errors.inc()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for name in found:
                message = Message(FIGURES, as_json(newest(found[name])), latest=True)
                for feed in self._feeds.get(name, ()):
                    self._put(feed, message)
                await asyncio.sleep(0)
            await asyncio.sleep(READ_SECONDS)

    def _put(self, feed: Feed, message: Message) -> None:
        if message.data != NONE_LIVE:
            self._idle.discard(feed)
        elif feed in self._idle:
            return
        else:
            self._idle.add(feed)
        feed.put(message)


class News:
    """Tell watchers what happens to calls, from one reader for all who watch here.

    A digit that a caller pressed is not told. What happens while the broker cannot
    be read is missed; a call's log has it. While nobody watches, nothing is read.
    """

    def __init__(self, pubsub: PubSub, metrics: Metrics) -> None:
        self._pubsub = pubsub
        self._metrics = metrics
        self._feeds: dict[str | None, set[Feed]] = {}
        self._watched = asyncio.Event()
        self._left = asyncio.Event()
        # Events come at least once.
        self._told: deque[str] = deque(maxlen=MAX_TOLD)

    def attach(self, business_id: str | None, feed: Feed) -> Callable[[], None]:
        """Feed a watcher what happens to a business's calls, or with None to all."""
        self._feeds.setdefault(business_id, set()).add(feed)
        self._left.clear()
        self._watched.set()

        def detach() -> None:
            self._feeds[business_id].discard(feed)
            if not self._feeds[business_id]:
                del self._feeds[business_id]
            if not self._feeds:
                self._watched.clear()
                self._left.set()

        return detach

    async def run(self) -> None:
        """Read for as long as anybody watches, until cancelled."""
        while True:
            await self._watched.wait()
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                await self._left.wait()
                reading.cancel()

    async def _read(self) -> None:
        while True:
            try:
                async with aclosing(self._pubsub.lifecycle(from_now=True)) as events:
                    async for event in events:
                        self._tell(event)
            except Exception as error:  # the reader outlives whatever it meets
                self._metrics.broker_errors.labels("read").inc()
                log.warning("[admin] Events cannot be read: %s", type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS)

    def _tell(self, event: LifecycleEvent) -> None:
        if event.event_id in self._told:
            return
        self._told.append(event.event_id)
        message = Message(HAPPENED, _told(event), id=event.event_id)
        for business_id in {None, event.call.business_id}:
            for feed in self._feeds.get(business_id, ()):
                feed.put(message)


def newest(found: Iterable[StreamFigures]) -> list[StreamFigures]:
    """Give the newest streams, the newest first, each once, no more than are shown."""
    once = {(one.business_id, one.stream_sid): one for one in found}
    return sorted(once.values(), key=lambda one: (-one.started_at, one.stream_sid))[:MAX_SHOWN]


def as_json(figures: list[StreamFigures]) -> bytes:
    """Write figures as a watcher gets them."""
    return msgspec.json.encode({"items": figures})


NONE_LIVE: Final = as_json([])


def _told(event: LifecycleEvent) -> bytes:
    """Write an event as a watcher gets it."""
    call = event.call
    return msgspec.json.encode(
        {
            "event": event.name,
            "event_id": event.event_id,
            "at": event.at,
            "call_sid": call.call_sid,
            "stream_sid": call.stream_sid,
            "business_id": call.business_id,
            "plan": call.plan,
            "carrier": call.carrier,
            "data": {name: said for name, said in event.data.items() if name != "digit"},
        }
    )
