"""Live calls recorded at the wire, each into a file of its own.

Those who hold the calls are asked, through Redis, to put there what their peers send; what
they put is read ten times a second. They do so for businesses that allow it and no others.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from app.errors import CommandFailed, StoreUnavailable
from app.events import CallIdentity, HeldStream
from app.plans import Business
from app.store.captures import ANY, MAX_BATCHES, Asked, Captured, Captures, Opening
from app.store.configuration import Stored
from app.tools.capture.files import CaptureFile
from app.wire.capture import CaptureFacts, CarrierName

READ_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.5
BATCHES: Final = 50
# A holder looks twice a second, and says at least every 20 s that it is there.
PATIENCE_SECONDS: Final = 3.0
SILENCE_SECONDS: Final = 45.0
CARRIERS: Final[dict[str, CarrierName]] = {
    "twilio": "twilio",
    "exotel": "exotel",
    "client": "client",
}
# A stream's id, and when it started: an id that starts again is another stream.
_Name = tuple[str, int]


class Streams(Protocol):
    """Know which streams are live, and what their businesses allow."""

    async def held_streams(self) -> list[HeldStream]:
        """Give every live stream."""

    async def stored_business(self, business_id: str) -> Stored[Business] | None:
        """Give a business."""


class Take:
    """One stream's messages, on their way into a file."""

    def __init__(self, opening: Opening, file: CaptureFile, now: float) -> None:
        self.opening = opening
        self.file = file
        self.after = ""
        self.left_out = 0
        self.ended = False
        self.heard_at = now
        self._next: int | None = None
        self._begins_midway = False

    async def read(self, captures: Captures, now: float) -> None:
        """Write what has come since."""
        captured = self.opening.captured
        while found := await captures.batches(captured, self.after, BATCHES):
            self.heard_at = now
            for self.after, batch in found:
                if self._next is None:
                    self._begin(batch.first)
                elif batch.first > self._next:
                    self.left_out += batch.first - self._next
                for one in batch.messages:
                    self.file.add(one.message, one.at_ms)
                self._next = batch.after
                self.ended = self.ended or batch.ended
            if len(found) < BATCHES:
                return

    def _begin(self, first: int) -> None:
        """Begin with what opened the stream, where its first messages are not there."""
        if self.opening.from_first and first == 0:
            return
        self._begins_midway = True
        for one in self.opening.messages:
            self.file.add(one.message, one.at_ms)

    def keep(self) -> None:
        """Put the file in its place."""
        opening = self.opening
        self.file.keep(
            CaptureFacts(
                carrier=CARRIERS[opening.carrier],
                business_id=opening.business_id,
                call_sid=opening.call_sid,
                stream_sid=opening.stream_sid,
                query=opening.query,
                began_at=opening.began_at,
                begins_midway=self._begins_midway,
                left_out=self.left_out,
                ended=self.ended,
            )
        )

    @property
    def words(self) -> str:
        """Say what it holds, and what it lacks."""
        said = f"{self.file.path}: {self.file.count:,} messages"
        if self._begins_midway:
            said += ", from the middle of the call"
        if self.left_out:
            said += f", {self.left_out:,} left out"
        return said if self.ended else f"{said}, and not to the stream's end"


class Recorder:
    """Record the calls that are asked for, until they are over, or `stop` is set.

    Of all calls, those whose business allows it; at most `calls` of them. `say` hears what
    becomes of each.
    """

    def __init__(
        self,
        captures: Captures,
        streams: Streams,
        asked: Asked,
        directory: Path,
        say: Callable[[str], None],
        *,
        calls: int | None = None,
        force: bool = False,
    ) -> None:
        self._captures = captures
        self._streams = streams
        self._asked = asked
        self._directory = directory
        self._say = say
        self._calls = calls
        self._force = force
        self._clock = time.monotonic
        self._takes: dict[_Name, Take] = {}
        self._first_seen: dict[_Name, float] = {}
        self._over: set[_Name] = set()
        self._numbers: Counter[str] = Counter()
        self._kept = 0
        self._is_whole = True
        self._was_reached = False
        self._begun_after: int | None = None

    async def run(self, stop: asyncio.Event) -> bool:
        """Record; tell whether each call was recorded, and none of its messages left out.

        Raises:
            CommandFailed: the one call that is asked for is not live, or not recorded.
            StoreUnavailable: Redis cannot be reached in the beginning.
        """
        looked = float("-inf")
        try:
            while not stop.is_set() and not self._is_over:
                now = self._clock()
                try:
                    if now - looked >= LOOK_SECONDS:
                        looked = now
                        if not self._was_reached:  # before anything begins for our asking
                            self._begun_after, _ = await self._captures.begun(None)
                        await self._captures.ask(self._asked)
                        self._was_reached = True
                        await self._look(now)
                    for name, take in list(self._takes.items()):
                        await self._read(name, take, now)
                except StoreUnavailable:
                    if not self._was_reached:
                        raise
                    await asyncio.sleep(LOOK_SECONDS)  # it may be back in time
                await asyncio.sleep(READ_SECONDS)
            for name in list(self._takes):
                self._keep(name)
        finally:
            for take in self._takes.values():
                take.file.discard()
        return self._is_whole and self._kept > 0

    @property
    def _is_of_one(self) -> bool:
        return self._asked.call_sid != ANY

    @property
    def _is_over(self) -> bool:
        """Tell whether all is recorded that was asked for."""
        if self._takes:
            return False
        return self._kept == self._calls or (self._is_of_one and bool(self._over))

    async def _look(self, now: float) -> None:
        """Find the streams that are live, and begin to take those that are put there."""
        self._begun_after, begun = await self._captures.begun(self._begun_after)
        for stream_sid in begun:
            await self._find(stream_sid, now, is_new=True)
        found = 0
        for held in await self._streams.held_streams():
            call, name = held.call, (held.call.stream_sid, held.started_at)
            if not self._asked.takes(call.business_id, call.call_sid):
                continue
            found += 1
            if name in self._takes or name in self._over or not self._has_room:
                continue
            since = self._first_seen.setdefault(name, now)
            is_found = await self._find(call.stream_sid, now, is_new=False)
            if not is_found and now - since > PATIENCE_SECONDS:
                await self._pass_over(name, call)
        if self._is_of_one and not found and not self._takes:
            since = self._first_seen.setdefault(("", 0), now)
            if now - since > PATIENCE_SECONDS:
                raise CommandFailed(f"there is no live call {self._asked.call_sid}")

    @property
    def _has_room(self) -> bool:
        return self._calls is None or len(self._takes) + self._kept < self._calls

    async def _find(self, stream_sid: str, now: float, *, is_new: bool) -> bool:
        """Begin to take a stream's messages if they are put there and asked for.

        One that is not new, since others recorded it before, may be over already.
        """
        opening = await self._captures.opening(stream_sid)
        if opening is None or not self._asked.takes(opening.business_id, opening.call_sid):
            return False
        name = stream_sid, opening.started_at
        if name not in self._takes and name not in self._over and self._has_room:
            if is_new or not await self._has_ended(opening.captured):
                self._begin(name, opening, now)
            elif self._is_of_one:
                raise CommandFailed(f"the call {opening.call_sid} is over")
            else:
                self._over.add(name)
        return True

    async def _has_ended(self, captured: Captured) -> bool:
        found = await self._captures.batches(captured, "", MAX_BATCHES)
        return any(batch.ended for _, batch in found)

    def _begin(self, name: _Name, opening: Opening, now: float) -> None:
        self._numbers[opening.call_sid] += 1
        number = self._numbers[opening.call_sid]
        again = f"-{number}" if number > 1 else ""
        path = self._directory / f"{opening.call_sid}{again}.jsonl"
        try:
            file = CaptureFile(path, force=self._force)
        except CommandFailed as error:
            self._fail(name, error)
            return
        self._takes[name] = Take(opening, file, now)
        self._say(f"{opening.call_sid} of {opening.business_id} is being recorded")

    async def _read(self, name: _Name, take: Take, now: float) -> None:
        try:
            await take.read(self._captures, now)
            if take.ended or now - take.heard_at > SILENCE_SECONDS:
                self._keep(name)
        except CommandFailed as error:
            take.file.discard()
            self._takes.pop(name, None)
            self._fail(name, error)

    def _keep(self, name: _Name) -> None:
        take = self._takes[name]
        take.keep()
        del self._takes[name]
        self._over.add(name)
        self._kept += 1
        self._is_whole = self._is_whole and take.ended and not take.left_out
        self._say(take.words)

    async def _pass_over(self, name: _Name, call: CallIdentity) -> None:
        """Say why a live stream is not recorded."""
        stored = await self._streams.stored_business(call.business_id)
        if stored is not None and stored.record.capture_calls:
            why = "it began before its business allowed it, or who holds it does not answer"
        else:
            why = f"{call.business_id} does not allow it; set its field capture_calls"
        failed = CommandFailed(f"{call.call_sid} is not recorded: {why}")
        if self._is_of_one:
            raise failed
        self._over.add(name)
        self._say(str(failed))

    def _fail(self, name: _Name, error: CommandFailed) -> None:
        """Give a call up, and go on with the others."""
        if self._is_of_one:
            raise error
        self._over.add(name)
        self._is_whole = False
        self._say(str(error))
