"""A call as a worker has it: whose it is, what is heard, what is acknowledged."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Final

from app.consumer.course import Course, Source
from app.consumer.items import End, Item
from app.consumer.sharing import Claim, Sharing, StreamName
from app.consumer.speaking import Speaking
from app.consumer.speech import Speech
from app.errors import CallTakenOver, StoreUnavailable
from app.events import StreamPolicy, StreamRecord
from app.media import MediaFormat, Track

# How soon a worker notices that a call is another's, where nothing comes of it.
NOTICE_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.5


class Call(Speech):
    """One stream of a call: iterate over its frames and gaps, up to its end; speak into it.

    Each item is acknowledged when the next one is asked for, or, without `auto_ack`,
    by `ack` alone. `end` is None until all was given.
    """

    def __init__(
        self,
        claim: Claim,
        record: StreamRecord,
        source: Source,
        sharing: Sharing,
        speaking: Speaking,
        *,
        auto_ack: bool,
    ) -> None:
        super().__init__(claim.name, speaking)
        self.is_continued = claim.is_continued
        self.is_settled = False
        self.acked = claim.position
        self._stream = record
        self._sharing = sharing
        self._auto_ack = auto_ack
        self._is_taken_over = False
        self._course = Course(claim.name, claim.position, record.published, source)

    # ------------------------------------------------------------------ whose it is

    @property
    def call_sid(self) -> str:
        """Give the carrier's id of the call."""
        return self._stream.call.call_sid

    @property
    def stream_sid(self) -> str:
        """Give the id of the stream; a call may have several, one after the other."""
        return self.name.stream_sid

    @property
    def business_id(self) -> str:
        """Give the id of the business that is called."""
        return self._stream.call.business_id

    @property
    def plan(self) -> str:
        """Name the business's plan at the time."""
        return self._stream.call.plan

    @property
    def peer_stream_sid(self) -> str:
        """Return the name that the carrier or client uses for the stream.

        Empty where the service that wrote the stream is older than this field.
        """
        return self._stream.peer_stream_sid

    @property
    def policy(self) -> StreamPolicy | None:
        """Return what the business's name, country and plan allowed as the call began.

        None where the service that wrote the stream is older than this field.
        """
        return self._stream.policy

    @property
    def carrier(self) -> str:
        """Name who brings it: `twilio`, `exotel`, or `pcm` for a client of one's own."""
        return self._stream.call.carrier

    @property
    def from_number(self) -> str:
        """Give the caller's number, which is personal data."""
        return self._stream.from_number

    @property
    def to_number(self) -> str:
        """Give the number that was called."""
        return self._stream.to_number

    @property
    def params(self) -> Mapping[str, str]:
        """Give the custom parameters that came with the stream."""
        return self._stream.params

    @property
    def format(self) -> MediaFormat:
        """Give the format of each track's audio."""
        return self._stream.published

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Give the tracks, inbound first."""
        return self._stream.tracks

    @property
    def started_at(self) -> int:
        """Give when the stream began, Unix ms."""
        return self._stream.started_at

    @property
    def end(self) -> End | None:
        """Give how it ended; None while there is more to come."""
        return self._course.end

    # ------------------------------------------------------------------ its content

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        """Give the next frame or gap, for as long as it takes.

        Raises:
            CallTakenOver: another worker has the call, since this one did not renew its
                lease in time. What this one did meanwhile may be done twice.
        """
        if self._auto_ack:
            self.acked = self._course.position
        while self.end is None:
            self._check_ours()
            try:
                item = await self._course.next(NOTICE_SECONDS)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if item is not None:
                return item
        self._course.close()
        raise StopAsyncIteration

    async def ack(self, item: Item) -> None:
        """Acknowledge all up to an item: when this returns, nobody is given it again.

        Raises:
            CallTakenOver: another worker has the call.
            StoreUnavailable: Redis could not be reached; ack again.
        """
        self._check_ours()
        self.acked = item.id
        self.note_others(await self._sharing.hold({self.name: item.id}))
        self._check_ours()

    async def skip_to_newest(self) -> None:
        """Leave out what has come so far, but for the newest entry.

        Raises:
            StoreUnavailable: Redis could not be reached; nothing is left out.
        """
        await self._course.skip_to_newest()

    # ------------------------------------------------------------------ its group

    async def finish(self) -> None:
        """Be done with the call: nobody of the group is given the rest.

        Raises:
            StoreUnavailable: Redis could not be reached; finish again.
        """
        self._course.close()
        if not self._is_taken_over:
            is_lost = self.end is not None and self.end.provisional
            await self._sharing.finish(self.name, self._course.position, is_lost=is_lost)
        self.is_settled = True

    async def release(self, *, has_failed: bool = False) -> bool:
        """Let another worker go on behind what is acknowledged; False when none is to.

        Raises:
            StoreUnavailable: Redis could not be reached; the lease will run out.
        """
        self._course.close()
        self.is_settled = True
        if self._is_taken_over:
            return True
        return await self._sharing.release(self.name, self.acked, has_failed=has_failed)

    def note_others(self, others: Collection[StreamName]) -> None:
        """Learn which streams are another worker's."""
        if self.name in others:
            self._is_taken_over = True

    def _check_ours(self) -> None:
        if self._is_taken_over:
            self._course.close()
            self.is_settled = True
            raise CallTakenOver(f"another worker has taken over {self.call_sid}")
