"""The archive in process, of what `memory` keeps; for tests, and for trying things."""

import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable

from app.archive.base import (
    MAX_PAGE,
    CallFilter,
    CallPage,
    Entries,
    Erased,
    Extent,
    Witness,
    only_owner,
    read_cursor,
    write_cursor,
)
from app.archive.calls import Call, CallSummary, summarize
from app.errors import CallIsLive, NotThere
from app.pubsub.base import parse_entry
from app.pubsub.call_log import index_member, parse_logged
from app.pubsub.memory import Fields, Id, MemoryPubSub
from app.pubsub.records import KeptStream, StoredRecord, parse_record

IDLE_SECONDS = 1.0


class MemoryArchive:
    """Read and erase what a `MemoryPubSub` keeps; `wall_clock` gives Unix seconds."""

    def __init__(
        self, pubsub: MemoryPubSub, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._pubsub = pubsub
        self._wall_clock = wall_clock
        self._surveys: dict[str, bytes] = {}

    async def open(self) -> None:
        """Do nothing; there is nothing to connect to."""

    async def close(self) -> None:
        """Do nothing; there is nothing to let go of."""

    async def calls(
        self, business_id: str | None, wanted: CallFilter, cursor: str = "", limit: int = 50
    ) -> CallPage:
        """Give a page of calls; see `Archive.calls`."""
        limit = min(limit, MAX_PAGE)
        after = read_cursor(cursor) if cursor else None
        listed = sorted(
            (
                (at, sid if business_id is not None else index_member(owner, sid), owner, sid)
                for (owner, sid), (at, _) in self._pubsub.log.calls.items()
                if business_id in (None, owner)
                and (wanted.since is None or at >= wanted.since)
                and (wanted.until is None or at < wanted.until)
            ),
            reverse=True,
        )
        found: list[CallSummary] = []
        for at, member, owner, sid in listed:
            if after is not None and (at, member) >= after:
                continue
            call = (await self.call(owner, sid)).summary
            if wanted.takes(call):
                found.append(call)
            if len(found) == limit:
                is_last = (at, member) == listed[-1][:2]
                return CallPage(tuple(found), None if is_last else write_cursor(at, member))
        return CallPage(tuple(found), None)

    async def call(self, business_id: str, call_sid: str) -> Call:
        """Give a business's call; see `Archive.call`."""
        _, lines = self._pubsub.log.calls.get((business_id, call_sid), (0, []))
        events = parse_logged(lines, business_id, call_sid)
        if not events:
            raise NotThere("there is no such call, or it is not kept any more")
        summary = summarize(events, self._now_ms())
        records: dict[str, StoredRecord] = {}
        for stream in summary.streams:
            record = await self.record(stream.stream_sid)
            if record is not None and record.is_of(business_id, call_sid):
                records[stream.stream_sid] = record
        return Call(summary, tuple(events), records)

    async def owner_of(self, call_sid: str) -> str | None:
        """Name the business whose call this is."""
        return only_owner({owner for owner, sid in self._pubsub.log.calls if sid == call_sid})

    async def record(self, stream_sid: str) -> StoredRecord | None:
        """Give what a stream's record says; see `Archive.record`."""
        return parse_record(stream_sid, await self._pubsub.record(stream_sid))

    async def extent(self, stream: KeptStream) -> Extent | None:
        """Tell what stands of a stream's audio; see `Archive.extent`."""
        stored = self._stored(stream)
        if not stored:
            return None
        return Extent(_id(stored[0][0]), _id(stored[-1][0]), len(stored))

    async def entries(self, stream: KeptStream, after: str, count: int) -> Entries:
        """Give entries that follow an id; see `Archive.entries`."""
        stored = self._stored(stream)
        ms, _, n = after.partition("-")
        first = bisect_right(stored, (int(ms), int(n)), key=lambda one: one[0])
        return [
            (_id(place), parse_entry(place[1], fields))
            for place, fields in stored[first : first + count]
        ]

    async def latest(self, stream: KeptStream, count: int) -> Entries:
        """Give the last entries; see `Archive.latest`."""
        return [
            (_id(place), parse_entry(place[1], fields))
            for place, fields in self._stored(stream)[-count:]
        ]

    async def follow(
        self, stream: KeptStream, after: str, count: int
    ) -> AsyncGenerator[Entries, None]:
        """Give what follows an id as it comes; see `Archive.follow`."""
        while True:
            if not self._is_still(stream):
                return
            found = await self.entries(stream, after, count)
            if found:
                after = found[-1][0]
                yield found
            elif not await self._pubsub.wait_for_write(IDLE_SECONDS):
                yield ()

    async def keep_survey(self, stream: KeptStream, survey: bytes) -> None:
        """Keep a survey as long as the audio; see `Archive.keep_survey`."""
        self._surveys = {
            sid: kept for sid, kept in self._surveys.items() if self._pubsub.stored(sid)
        }
        if self._is_still(stream):
            self._surveys[stream.stream_sid] = survey

    async def kept_survey(self, stream: KeptStream) -> bytes | None:
        """Give a survey that was kept."""
        return self._surveys.get(stream.stream_sid) if self._is_still(stream) else None

    def _is_still(self, stream: KeptStream) -> bool:
        record = self._pubsub.known(stream.stream_sid)
        whose = record.get("businessId"), record.get("startedAt")
        return whose == (stream.business_id, stream.started_at)

    def _stored(self, stream: KeptStream) -> list[tuple[Id, Fields]]:
        return self._pubsub.stored(stream.stream_sid) if self._is_still(stream) else []

    async def erase_stream(self, business_id: str, call_sid: str, stream_sid: str) -> Erased:
        """Erase all that is kept of a stream; see `Archive.erase_stream`."""
        record = await self.record(stream_sid)
        erased = Erased()
        if record is not None and record.is_of(business_id, call_sid):
            self._erase_stream(erased, stream_sid)
        return erased

    async def erase(
        self, business_id: str, call_sid: str, witness: Witness, *, even_live: bool = False
    ) -> Erased:
        """Erase all that is kept of a call; see `Archive.erase`."""
        call = await self.call(business_id, call_sid)
        live = [record for record in call.records.values() if record.ended_at is None]
        if not even_live and (live or not call.summary.is_over):
            raise CallIsLive("the call is live: end it, or wait for its end")
        erased = Erased()
        for sid in call.records:
            self._erase_stream(erased, sid)
        erased.add("events", *self._pubsub.erase_events(business_id, call_sid))
        lines = self._pubsub.log.calls[business_id, call_sid][1]
        erased.add("log", len(lines), sum(map(len, lines)))
        await witness(erased)
        self._pubsub.log.erase(business_id, call_sid, self._now_ms())
        return erased

    def _erase_stream(self, erased: Erased, stream_sid: str) -> None:
        size = sum(_size(fields) for _, fields in self._pubsub.stored(stream_sid))
        erased.add("records", 1, 0)
        erased.add("audio", self._pubsub.erase_stream(stream_sid), size)
        survey = self._surveys.pop(stream_sid, None)
        erased.add("waveforms", int(survey is not None), len(survey or b""))

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000)


def _id(place: tuple[int, int]) -> str:
    return f"{place[0]}-{place[1]}"


def _size(fields: dict[str, str | int | bytes]) -> int:
    return sum(len(value) if isinstance(value, bytes | str) else 0 for value in fields.values())
