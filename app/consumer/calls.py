"""The calls of a worker: taken one by one, held by leases, let go in good order."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Self, TypeVar

from app.consumer.beginnings import begun_by, events_in, live_at
from app.consumer.call import Call
from app.consumer.course import LOST_SECONDS, Source
from app.consumer.kept import BEGINNING, Kept
from app.consumer.memory import MemorySharing
from app.consumer.reader import Inbox, Reader
from app.consumer.redis import RedisSharing
from app.consumer.sharing import LEASE_SECONDS, Claim, Sharing, StreamName
from app.consumer.speaking import Speaking
from app.errors import StoreUnavailable
from app.events import CallIdentity, LifecycleEvent
from app.pubsub.base import CALLS_KEY
from app.redis_url import parse_redis_url

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Streams whose worker died, or failed, are looked for so often.
LOOK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.5
RENEWALS_A_LEASE: Final = 5
CLOSE_SECONDS: Final = 3.0

# Which calls a worker, or a group at its first start, is given: those that begin from now
# on; those that are live too, from what is kept of them; or all that are kept.
Start = Literal["new", "live", "kept"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which calls are wanted, and how they are worked on."""

    start: Start = "live"
    business_id: str = ""
    auto_ack: bool = True
    lease_seconds: float = LEASE_SECONDS
    lost_seconds: float = LOST_SECONDS
    call_id: str = ""

    def wants(self, call: CallIdentity) -> bool:
        """Tell whether a call is wanted; `call_id` is its CallSid, or its stream's id."""
        ids = ("", call.call_sid, call.stream_sid)
        return self.business_id in ("", call.business_id) and self.call_id in ids


class Calls:
    """Give a worker its calls, as an async context manager.

    `on_event` is told each lifecycle event that is read of the calls that are wanted; with
    a group, what another worker of it has read first is left out.
    """

    def __init__(
        self,
        redis_url: str,
        group: str = "",
        choice: Choice | None = None,
        on_event: Callable[[LifecycleEvent], None] = lambda event: None,
    ) -> None:
        self._choice = choice or Choice()
        self._reader = Reader(parse_redis_url(redis_url))
        self._kept = Kept.at(redis_url)
        lease = self._choice.lease_seconds
        self._sharing: Sharing = (
            RedisSharing(redis_url, group, lease) if group else MemorySharing(time.monotonic)
        )
        self._speaking = Speaking(redis_url, self._kept)
        self._source = Source(self._reader, self._kept, self._choice.lost_seconds)
        self._on_event = on_event
        self._mine: dict[StreamName, Call] = {}
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Join the group, or found it.

        Raises:
            StoreUnavailable: Redis cannot be reached, or does not let us in.
        """
        try:
            cursor = await self._sharing.cursor()
            if cursor is None:
                cursor = await self._found()
        except StoreUnavailable:
            await self._close()
            raise
        self._tasks = [
            asyncio.create_task(_forever(self._reader.run)),
            asyncio.create_task(_forever(lambda: self._list(cursor))),
            asyncio.create_task(_forever(self._renew)),
        ]
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Let others go on with what is not finished."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                for call in list(self._mine.values()):
                    await self.leave(call)
        await self._close()

    async def next(self) -> Call:
        """Take the next call, for as long as it takes until there is one."""
        while True:
            self._news.clear()
            try:
                claims = await self._sharing.claim(1)
                for claim in claims:
                    call = await self._take(claim)
                    if call is not None:
                        return call
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if not claims:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._news.wait()

    async def done(self, call: Call) -> None:
        """Be done with a call, as soon as Redis can be told."""
        while not call.is_settled:
            try:
                await call.finish()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
        self._mine.pop(call.name, None)

    async def leave(self, call: Call, *, has_failed: bool = False) -> bool:
        """Let another worker go on with a call; False when nobody is to."""
        self._mine.pop(call.name, None)
        return call.is_settled or await call.release(has_failed=has_failed)

    def heard_out(self) -> Sequence[Call]:
        """Give the calls whose end was reached and that are not done with."""
        return [call for call in self._mine.values() if call.end or call.is_settled]

    async def _found(self) -> str:
        """Found the group: from here on, and with these calls, it gets what comes."""
        if self._choice.start == "kept":
            return await self._sharing.begin(BEGINNING, ())
        newest = await self._kept.newest_event()
        live: list[StreamName] = []
        if self._choice.start == "live":
            live = await live_at(self._kept, newest, self._choice.wants)
        return await self._sharing.begin(newest, live)

    async def _take(self, claim: Claim) -> Call | None:
        """Open a stream that is ours now; None where nothing of it is kept."""
        found = await self._kept.record(claim.name.stream_sid)
        if found is None or found.stream.started_at != claim.name.started_at:
            log.warning("[consumer] Nothing is kept of stream %s any more", claim.name)
            await self._sharing.finish(claim.name, claim.position)
            return None
        auto_ack = self._choice.auto_ack
        ways = self._source, self._sharing, self._speaking
        call = Call(claim, found.stream, *ways, auto_ack=auto_ack)
        self._mine[claim.name] = call
        return call

    async def _close(self) -> None:
        await self._speaking.close()
        await self._sharing.close()
        await self._kept.close()

    # ------------------------------------------------------------------ in the background

    async def _list(self, cursor: str) -> None:
        """Read which calls begin, and let the group know, until cancelled."""
        while True:
            inbox = self._reader.follow(CALLS_KEY, cursor)
            try:
                cursor = await self._list_from(inbox, cursor)
            finally:
                self._reader.drop(inbox)

    async def _list_from(self, inbox: Inbox, cursor: str) -> str:
        """Read on from a cursor, until it turns out to stand elsewhere; give where."""
        while True:
            entries = await inbox.take(LOOK_SECONDS)
            if not entries:
                continue
            upto, events = entries[-1][0], events_in(entries)
            stands = await _patiently(partial(self._enlist, cursor, upto, events))
            self._news.set()
            if stands != upto:
                # Another worker has read on, or the broker has forgotten: go on from there.
                return stands
            cursor = stands
            for event in filter(lambda event: self._choice.wants(event.call), events):
                self._on_event(event)

    async def _enlist(self, after: str, upto: str, events: Sequence[LifecycleEvent]) -> str:
        ours = [event for event in events if self._choice.wants(event.call)]
        names = [begun for event in ours if (begun := begun_by(event))]
        lives = [
            event.call.stream_sid
            for event in ours
            if event.name == "stream.stopped" and not event.data.get("provisional")
        ]
        return await self._sharing.enlist(after, upto, names, lives)

    async def _renew(self) -> None:
        """Hold what is ours, and note what is acknowledged, until cancelled."""
        while True:
            await asyncio.sleep(self._choice.lease_seconds / RENEWALS_A_LEASE)
            ours = {name: call for name, call in self._mine.items() if not call.is_settled}
            positions = {name: call.acked for name, call in ours.items()}
            # Without calls too: a worker that waits shows that workers reach Redis.
            others = await _patiently(partial(self._sharing.hold, positions))
            for call in ours.values():
                call.note_others(others)


async def calls(
    redis_url: str,
    *,
    group: str = "",
    start: Start = "live",
    business_id: str = "",
    auto_ack: bool = True,
    lease_seconds: float = LEASE_SECONDS,
) -> AsyncGenerator[Call, None]:
    """Give calls as they begin, each to one worker of a group; without one, all of them.

    A call whose end was read counts as done when the next call is asked for; to be sure
    that what follows its end was done, use `work`. What is not done when the generator
    is closed, another worker goes on with.

    Raises:
        StoreUnavailable: Redis cannot be reached at the start; later it is waited for.
        ValueError: this is no Redis URL.
    """
    choice = Choice(start, business_id, auto_ack, lease_seconds)
    async with Calls(redis_url, group, choice) as mine:
        while True:
            for heard in mine.heard_out():
                await mine.done(heard)
            yield await mine.next()


async def _forever(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a task of the worker's until cancelled, whatever it meets."""
    while True:
        try:
            await run()
        except Exception:
            log.exception("[consumer] Something went wrong as it never should; going on")
        await asyncio.sleep(LOOK_SECONDS)


async def _patiently(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask until Redis answers."""
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(RETRY_SECONDS)
