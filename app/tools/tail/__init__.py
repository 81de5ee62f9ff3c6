"""`media-bridge tail`: what happens in calls, how loud they are, and how they sound."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from app.archive.base import Archive
from app.consumer import Call, Calls, Choice, Frame, Gap
from app.errors import CommandFailed, NotThere, StoreUnavailable
from app.events import LifecycleEvent
from app.tools.tail.display import Display
from app.tools.tail.meter import Meter
from app.tools.tail.sound import SideBySide, Sound

# How often meters are shown: on a terminal, and as lines.
DRAWN_SECONDS: Final = 0.25
LINES_SECONDS: Final = 1.0
NEWS_SECONDS: Final = 0.05
# Events that wait for a terminal that does not keep up; the oldest goes.
MAX_NEWS: Final = 1000
# A call that began longer ago is heard from now on, not from its beginning.
JUST_BEGUN_SECONDS: Final = 5.0
# The announcement of a stream's end follows its last entry.
STOPPED_SECONDS: Final = 2.0
# Calls that are measured at a time; the rest is only told of.
MAX_METERED: Final = 200


@dataclass
class Tail:
    """Show calls as they go on; with `call_id` one alone, which `sounds` are given too."""

    display: Display
    every_seconds: float
    call_id: str = ""
    business_id: str = ""
    sounds: Sequence[Sound] = ()
    _meters: dict[Call, Meter] = field(default_factory=dict)
    _news: deque[LifecycleEvent | tuple[Call, Gap]] = field(
        default_factory=partial(deque, maxlen=MAX_NEWS)
    )
    _has_stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, redis_url: str) -> None:
        """Show until cancelled; one call, until it has ended.

        Raises:
            StoreUnavailable: Redis cannot be reached at the start.
            CommandFailed: its audio cannot be written, or played.
        """
        choice = Choice("live", self.business_id, call_id=self.call_id)
        async with Calls(redis_url, choice=choice, on_event=self._hear_of) as calls:
            following = asyncio.create_task(self._follow_what_is_wanted(calls))
            showing = asyncio.create_task(self._show())
            try:
                await asyncio.wait({following, showing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (following, showing):
                    task.cancel()
                await asyncio.wait({following, showing})
                if showing.cancelled():  # else there is nobody to show anything to
                    self._show_news()
                    if following.cancelled() or following.exception() is None:
                        self.display.meters(list(self._meters.values()))
                    self.display.close()
            for task in (showing, following):
                if not task.cancelled():
                    task.result()

    async def _follow_what_is_wanted(self, calls: Calls) -> None:
        if not self.call_id:
            await self._follow_all(calls)
        await self._follow(await calls.next())
        with suppress(TimeoutError):
            async with asyncio.timeout(STOPPED_SECONDS):
                await self._has_stopped.wait()

    def _hear_of(self, event: LifecycleEvent) -> None:
        self._news.append(event)
        if event.name == "stream.stopped":
            self._has_stopped.set()

    async def _follow_all(self, calls: Calls) -> None:
        room = asyncio.Semaphore(MAX_METERED)
        async with asyncio.TaskGroup() as tasks:
            while True:
                await room.acquire()
                call = await calls.next()

                async def follow(call: Call = call) -> None:
                    try:
                        await self._follow(call)
                        await calls.done(call)
                    finally:
                        self._meters.pop(call, None)
                        room.release()

                tasks.create_task(follow())

    async def _follow(self, call: Call) -> None:
        """Measure a call to its end."""
        if time.time() - call.started_at / 1000 > JUST_BEGUN_SECONDS:
            with suppress(StoreUnavailable):
                await call.skip_to_newest()
        meter = self._meters[call] = Meter(call)
        together = SideBySide(call)
        async with AsyncExitStack() as open_sounds:
            for sound in self.sounds:
                open_sounds.push_async_callback(sound.close)
                await sound.open(together.sample_rate, together.channels)
            async for item in call:
                meter.hear(item)
                if isinstance(item, Gap):
                    self._news.append((call, item))
                elif self.sounds:
                    await self._sound(together, item)
            for block in together.rest():
                for sound in self.sounds:
                    await sound.write(block)

    async def _sound(self, together: SideBySide, frame: Frame) -> None:
        for block in together.add(frame):
            for sound in self.sounds:
                await sound.write(block)

    async def _show(self) -> None:
        """Show events soon, and meters now and then, until cancelled."""
        shown_at = time.monotonic()
        while True:
            await asyncio.sleep(NEWS_SECONDS)
            self._show_news()
            if time.monotonic() - shown_at >= self.every_seconds:
                shown_at = time.monotonic()
                self.display.meters(list(self._meters.values()))

    def _show_news(self) -> None:
        while self._news:
            match self._news.popleft():
                case LifecycleEvent() as event:
                    self.display.event(event)
                case (call, gap):
                    self.display.gap(call, gap)


async def check_call(archive: Archive, call_id: str, business_id: str) -> None:
    """Raise CommandFailed where there is no such call, or it is over.

    Raises:
        AmbiguousCall: calls of several businesses have this id, and none is named.
        StoreUnavailable: Redis cannot be reached.
    """
    record = await archive.record(call_id)
    if record is not None:  # a stream's id
        owner, is_over = record.stream.call.business_id, record.ended_at is not None
    else:
        owner, is_over = await _owner_and_end(archive, call_id, business_id)
    if not owner or business_id not in ("", owner):
        raise CommandFailed(f"there is no call {call_id}, or it is not kept any more")
    if is_over:
        call_sid = record.stream.call.call_sid if record else call_id
        how = f"`media-bridge export {call_sid} --format wav` writes what is kept of it"
        raise CommandFailed(f"the call {call_id} is over; {how}")


async def _owner_and_end(archive: Archive, call_sid: str, business_id: str) -> tuple[str, bool]:
    """Return whose call it is, empty where there is none, and whether it is over."""
    owner = business_id or await archive.owner_of(call_sid)
    if not owner:
        return "", False
    try:
        return owner, (await archive.call(owner, call_sid)).summary.is_over
    except NotThere:
        return "", False
