"""What admins read, hear and erase of calls, each within its bounds."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing
from typing import Final

import msgspec

from app.archive.base import Archive, CallFilter, CallPage, Erased, Extent, Witness
from app.archive.calls import Call
from app.archive.listening import LiveAudio
from app.archive.placing import Placing
from app.archive.recording import Recording
from app.archive.survey import CHUNK_ENTRIES, FIRST, Gap, Survey, survey_of
from app.archive.timeline import resampled
from app.businesses.shares import PoolLimits, Shares
from app.errors import ArchiveBusy, NotThere
from app.pubsub.records import KeptStream, StoredRecord

MAX_LISTENERS: Final = PoolLimits(total=32, of_business=8, of_businesses=26)
# Files that are being read, and waveforms that wait: one is computed at a time.
MAX_DOWNLOADS: Final = PoolLimits(total=64, of_business=16, of_businesses=52)
MAX_WAITING: Final = PoolLimits(total=16, of_business=4, of_businesses=12)
REMEMBERED: Final = 16
MAX_BUCKETS: Final = 2000


class TrackPeaks(msgspec.Struct, frozen=True):
    """How loud one track is: peaks from 0 to 32767, at equal steps over the whole."""

    track: str
    peaks: list[int]


class WaveformGap(msgspec.Struct, frozen=True):
    """Audio that is missing, in ms from the waveform's beginning; `track` empty: either's."""

    track: str
    from_ms: int
    to_ms: int
    frames: int
    reason: str


class Waveform(msgspec.Struct, frozen=True):
    """A stream's audio to look at; `begins_at_ms` is the media time of its beginning."""

    stream_sid: str
    live: bool
    sample_rate: int
    duration_ms: int
    begins_at_ms: int
    trimmed: bool
    tracks: list[TrackPeaks]
    gaps: list[WaveformGap]
    more_gaps: int


class Library:
    """Give what is kept of calls to who may see it; whose a call is, is always named.

    One waveform is computed at a time, and `max_listeners` listen at once. Where a method
    takes an `asker`, it is the business whose key asks, None for an operator: no business
    takes more than its share.
    """

    def __init__(self, archive: Archive, *, max_listeners: PoolLimits = MAX_LISTENERS) -> None:
        self.archive = archive
        self._listeners = Shares("too many listen", max_listeners, ArchiveBusy)
        self._downloads = Shares("too many recordings are being read", MAX_DOWNLOADS, ArchiveBusy)
        self._waiting = Shares("too many wait for a waveform", MAX_WAITING, ArchiveBusy)
        self._is_closed = False
        self._one_at_a_time = asyncio.Lock()
        self._surveys: OrderedDict[KeptStream, Survey] = OrderedDict()

    async def calls(
        self, business_id: str | None, wanted: CallFilter, cursor: str = "", limit: int = 50
    ) -> CallPage:
        """Give a page of calls; see `Archive.calls`."""
        return await self.archive.calls(business_id, wanted, cursor, limit)

    async def call(self, business_id: str, call_sid: str) -> Call:
        """Give a business's call, or raise NotThere."""
        return await self.archive.call(business_id, call_sid)

    async def owner_of(self, call_sid: str) -> str:
        """Name the business whose call this is, for an operator.

        Raises:
            NotThere: there is no such call.
            AmbiguousCall: calls of several businesses have this id.
        """
        owner = await self.archive.owner_of(call_sid)
        if owner is None:
            raise NotThere("there is no such call, or it is not kept any more")
        return owner

    async def waveform(
        self,
        business_id: str,
        call_sid: str,
        *,
        stream_sid: str = "",
        buckets: int = 800,
        asker: str | None = None,
    ) -> Waveform:
        """Give the waveform of a call's audio so far, or raise NotThere or ArchiveBusy.

        Without `stream_sid`, that of its latest stream that is kept.
        """
        sid, record, extent = await self._audio_of(business_id, call_sid, stream_sid)
        survey = await self._survey(record, extent, asker)
        buckets = max(1, min(buckets, MAX_BUCKETS))
        named = zip(survey.tracks, survey.peaks, strict=True)
        return Waveform(
            sid,
            record.ended_at is None,
            survey.sample_rate,
            _ms(survey, survey.total),
            survey.origin_ms,
            _is_trimmed(record, extent),
            [TrackPeaks(track, resampled(peaks, buckets)) for track, peaks in named],
            [_gap(survey, gap) for gap in survey.gaps],
            survey.more_gaps,
        )

    async def recording(
        self,
        business_id: str,
        call_sid: str,
        *,
        stream_sid: str = "",
        asker: str | None = None,
        is_counted: bool = False,
    ) -> Recording:
        """Give a call's audio as a file, or raise NotThere or ArchiveBusy.

        `is_counted` says that the caller is within `downloading` already.
        """
        if not is_counted:
            self._downloads.check(asker)
        sid, record, extent = await self._audio_of(business_id, call_sid, stream_sid)
        if record.ended_at is None:
            placing, survey = Placing(record), None
            placing.begin_with(await self.archive.entries(record.kept, FIRST, CHUNK_ENTRIES))
            begins_at = placing.origin_ms
        else:
            survey = await self._survey(record, extent, asker)
            begins_at = survey.origin_ms
        is_trimmed = _is_trimmed(record, extent)
        return Recording(self.archive, sid, record, survey, begins_at, is_trimmed)

    def downloading(self, asker: str | None = None) -> AbstractContextManager[None]:
        """Return what counts one who reads a recording; entering it may raise ArchiveBusy."""
        return self._downloads.use(asker)

    def listening(self, asker: str | None = None) -> AbstractContextManager[None]:
        """Return what counts one who listens live; entering it may raise ArchiveBusy."""
        return self._listeners.use(asker)

    async def live_audio(
        self, business_id: str, call_sid: str, *, stream_sid: str = "", asker: str | None = None
    ) -> LiveAudio:
        """Give a live call to listen to by `listen`, or raise NotThere or ArchiveBusy."""
        if self._is_closed:
            raise ArchiveBusy("this process is about to end; ask again")
        self._listeners.check(asker)
        call = await self.archive.call(business_id, call_sid)
        for stream in reversed(call.summary.streams):
            record = call.records.get(stream.stream_sid)
            if record is None or record.ended_at is not None:
                continue
            if stream_sid in ("", stream.stream_sid):
                return LiveAudio(self.archive, stream.stream_sid, record)
        raise NotThere("the call has no live stream")

    async def listen(self, live: LiveAudio) -> AsyncGenerator[bytes, None]:
        """Give live audio until its stream ends, or `close` is called; within `listening`."""
        async with aclosing(live.blocks()) as blocks:
            async for block in blocks:
                if self._is_closed:
                    return
                yield block

    async def erase(
        self, business_id: str, call_sid: str, witness: Witness, *, even_live: bool = False
    ) -> Erased:
        """Erase all that is kept of a call; see `Archive.erase`."""
        erased = await self.archive.erase(business_id, call_sid, witness, even_live=even_live)
        self._surveys.clear()
        return erased

    async def erase_stream(self, business_id: str, call_sid: str, stream_sid: str) -> Erased:
        """Erase all that is kept of a stream; see `Archive.erase_stream`."""
        for stream in [one for one in self._surveys if one.stream_sid == stream_sid]:
            del self._surveys[stream]
        return await self.archive.erase_stream(business_id, call_sid, stream_sid)

    def close(self) -> None:
        """End all listening, for good: the service is told to stop."""
        self._is_closed = True

    async def _audio_of(
        self, business_id: str, call_sid: str, stream_sid: str
    ) -> tuple[str, StoredRecord, Extent]:
        """Find the audio of a call's stream: the one that is named, else the latest kept."""
        call = await self.archive.call(business_id, call_sid)
        for stream in reversed(call.summary.streams):
            record = call.records.get(stream.stream_sid)
            if record is None or stream_sid not in ("", stream.stream_sid):
                continue
            extent = await self.archive.extent(record.kept)
            if extent is not None:
                return stream.stream_sid, record, extent
        raise NotThere("no audio of the call is kept: it had none, or its retention is over")

    async def _survey(self, record: StoredRecord, extent: Extent, asker: str | None) -> Survey:
        """Give the survey of what stands; an ended stream's is kept."""
        known = self._remembered(record.kept, extent)
        if known is not None:
            return known
        with self._waiting.use(asker):
            async with self._one_at_a_time:
                return self._remembered(record.kept, extent) or await self._surveyed(record, extent)

    def _remembered(self, stream: KeptStream, extent: Extent) -> Survey | None:
        known = self._surveys.get(stream)
        return known if known is not None and known.is_of(extent) else None

    async def _surveyed(self, record: StoredRecord, extent: Extent) -> Survey:
        if record.ended_at is None:
            return await survey_of(self.archive, record)
        kept = await self.archive.kept_survey(record.kept)
        survey = _read_survey(kept) if kept else None
        if survey is None or not survey.is_of(extent):
            survey = await survey_of(self.archive, record)
            await self.archive.keep_survey(record.kept, msgspec.msgpack.encode(survey))
        self._surveys[record.kept] = survey
        if len(self._surveys) > REMEMBERED:
            self._surveys.popitem(last=False)
        return survey


def _read_survey(kept: bytes) -> Survey | None:
    """Read a survey that was kept; None where another version of this program wrote it."""
    try:
        return msgspec.msgpack.decode(kept, type=Survey)
    except msgspec.DecodeError:
        return None


def _is_trimmed(record: StoredRecord, extent: Extent) -> bool:
    return extent.first_id != f"{record.stream.started_at}-1"


def _ms(survey: Survey, samples: int) -> int:
    return round(samples * 1000 / survey.sample_rate)


def _gap(survey: Survey, gap: Gap) -> WaveformGap:
    start, end = _ms(survey, gap.start), _ms(survey, gap.end)
    return WaveformGap(gap.track, start, end, gap.frames, gap.reason)
