"""All of a business's data as JSON lines, or as a ZIP file with its recordings."""

import asyncio
import logging
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager, aclosing
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import msgspec

from app.admin.audit_log import MOST_ON_A_PAGE, AuditLog
from app.admin.principal import Principal
from app.admin.roles import Permission
from app.administration.businesses import Businesses
from app.administration.records import as_json
from app.administration.usage import MOST_MONTHS, UsageBook
from app.archive.base import MAX_PAGE, CallFilter
from app.archive.calls import Call
from app.archive.library import Library
from app.archive.recording import Recording
from app.businesses.shares import PoolLimits, Shares
from app.errors import ArchiveBusy, NotThere
from app.store.access import Access

RECORDS: Final = "records.jsonl"
# No file of a ZIP is newer than this constant, so that two exports of the same are the same.
_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)

# For how long one recording waits until the archive has room, and how often it asks.
PATIENCE_SECONDS: Final = 60.0
ASK_AGAIN_SECONDS: Final = 0.25

# Each is much work in every turn of the event loop, for which new connections wait.
MAX_EXPORTS: Final = PoolLimits(total=8, of_business=2, of_businesses=6)

Line = dict[str, Any]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ExportTally:
    """What became of each recording: in the file, or missing and why."""

    written: set[str] = field(default_factory=set)
    missing: dict[str, str] = field(default_factory=dict)

    def knows(self, stream_sid: str) -> bool:
        """Return whether a recording was come to."""
        return stream_sid in self.written or stream_sid in self.missing


class BusinessExport:
    """Export what is kept of a business; secrets and keys themselves are kept nowhere."""

    def __init__(
        self,
        businesses: Businesses,
        access: Access,
        library: Library,
        usage: UsageBook,
        audit: AuditLog,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._businesses = businesses
        self._access = access
        self._library = library
        self._usage = usage
        self._audit = audit
        self._patience_seconds = patience_seconds
        self._exports = Shares("too many exports are being read", MAX_EXPORTS, ArchiveBusy)

    def counted(self, who: Principal) -> AbstractContextManager[None]:
        """Return what counts one who exports; entering it may raise ArchiveBusy.

        An export of the audit log counts, too. A business has a share, and none of the
        operators' reserve.
        """
        return self._exports.use(who.business_id or None)

    async def begin(self, who: Principal, business_id: str, what: str) -> None:
        """Check that they may export a business, and record that they do.

        Raises:
            NotThere: there is no such business, or it is another's.
            Forbidden: their role does not permit it.
        """
        await self._businesses.get(who, business_id, Permission.EXPORT)
        await self._audit.note(who, "business.exported", business_id, business_id, {"what": what})

    async def lines(self, who: Principal, business_id: str) -> AsyncGenerator[bytes, None]:
        """Return JSON lines: settings, usage, access keys, calls with events, and the audit log.

        Each has a `kind`. The last is `end`, with how many calls there were: without it the file
        is not whole.
        """
        async for line in self._lines(who, business_id):
            yield msgspec.json.encode(line) + b"\n"

    async def zipped(
        self, who: Principal, business_id: str, tally: ExportTally | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Return a ZIP file of each stream's recording as WAV, and of the JSON lines.

        A recording that is not in the file has a line of the kind `missing` with the reason, and
        `end` counts both. `tally` is told of each, too.
        """
        out, tally = _Pieces(), tally or ExportTally()
        with zipfile.ZipFile(out, "w") as file:  # type: ignore[call-overload]
            async for call in self._calls(business_id):
                for stream_sid in call.records:
                    name = f"audio/{call.summary.call_sid}/{stream_sid}.wav"
                    wav = zipfile.ZipInfo(name, _ZIP_DATE)
                    pieces = self._recorded(who, call, stream_sid, tally)
                    async with aclosing(pieces):
                        first = await anext(pieces, None)
                        if first is not None:
                            with file.open(wav, "w", force_zip64=True) as audio:
                                audio.write(first)
                                yield out.take()
                                async for piece in pieces:
                                    audio.write(piece)
                                    yield out.take()
            entry = zipfile.ZipInfo(RECORDS, _ZIP_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with file.open(entry, "w") as records:
                async for line in self._lines(who, business_id, tally):
                    records.write(msgspec.json.encode(line) + b"\n")
                    yield out.take()
        yield out.take()

    async def _recorded(
        self, who: Principal, call: Call, stream_sid: str, tally: ExportTally
    ) -> AsyncGenerator[bytes, None]:
        """Return a recording's bytes; without any, or where they break off, note why."""
        whose = call.summary.business_id, call.summary.call_sid
        begun = False
        try:
            recording = await self._when_there_is_room(who, *whose, stream_sid)
            async with aclosing(recording.read()) as pieces:
                async for piece in pieces:
                    begun = True
                    yield piece
        except NotThere:
            # It had no audio, or that was erased or expired.
            tally.missing[stream_sid] = "incomplete" if begun else "no_audio"
        except ArchiveBusy:
            log.warning("[admin] An export lacks the recording %s: busy", stream_sid)
            tally.missing[stream_sid] = "busy"
        else:
            tally.written.add(stream_sid)

    async def _when_there_is_room(
        self, who: Principal, business_id: str, call_sid: str, stream_sid: str
    ) -> Recording:
        """Return a recording, for which others may have to be waited for; or raise ArchiveBusy."""
        for _ in range(int(self._patience_seconds / ASK_AGAIN_SECONDS)):
            try:
                return await self._recording(who, business_id, call_sid, stream_sid)
            except ArchiveBusy:
                await asyncio.sleep(ASK_AGAIN_SECONDS)
        return await self._recording(who, business_id, call_sid, stream_sid)

    async def _recording(
        self, who: Principal, business_id: str, call_sid: str, stream_sid: str
    ) -> Recording:
        asker = who.business_id or None
        return await self._library.recording(
            business_id, call_sid, stream_sid=stream_sid, asker=asker, is_counted=True
        )

    async def _calls(self, business_id: str) -> AsyncIterator[Call]:
        """Return every call that is kept."""
        cursor = ""
        while True:
            page = await self._library.calls(business_id, CallFilter(), cursor, MAX_PAGE)
            for summary in page.calls:
                try:
                    yield await self._library.call(business_id, summary.call_sid)
                except NotThere:
                    continue
            if page.next is None:
                return
            cursor = page.next

    async def _lines(
        self, who: Principal, business_id: str, tally: ExportTally | None = None
    ) -> AsyncIterator[Line]:
        stored = await self._businesses.get(who, business_id, Permission.EXPORT)
        settings = as_json(stored.record)
        del settings["exotel_pairs"]
        yield {"kind": "business", "id": business_id, **settings}
        use = await self._usage.of(who, business_id, MOST_MONTHS)
        for month in use.months:
            if month.calls or month.ms:
                yield {
                    "kind": "usage",
                    "month": month.month,
                    "calls": month.calls,
                    "minutes": round(month.minutes, 1),
                }
        for key in await self._access.keys_of(business_id):
            about = {"id": key.id, "label": key.label, "created_at": key.created_at}
            yield {"kind": "access_key", **about, "last_used_at": key.last_used_at or None}
        count = 0
        async for call in self._calls(business_id):
            count += 1
            yield _call_line(call)
            if tally is None:
                continue
            for stream_sid in call.records:
                if not tally.knows(stream_sid):
                    tally.missing[stream_sid] = "began_during_export"
                if stream_sid in tally.missing:
                    yield _missing_line(call, stream_sid, tally.missing[stream_sid])
        before = ""
        while found := await self._audit.page(who, business_id, before, MOST_ON_A_PAGE):
            for entry in found:
                yield {"kind": "audit", **asdict(entry)}
            before = found[-1].id
        end: Line = {"kind": "end", "calls": count}
        if tally is not None:
            end |= {"recordings": len(tally.written), "missing": len(tally.missing)}
        yield end


def _call_line(call: Call) -> Line:
    summary = call.summary
    return {
        "kind": "call",
        "call_sid": summary.call_sid,
        "state": summary.state,
        "plan": summary.plan,
        "carrier": summary.carrier,
        "from": summary.from_number,
        "to": summary.to_number,
        "first_at": summary.first_at,
        "ended_at": summary.ended_at,
        "events": [
            {"event": one.name, "at": one.at, "stream_sid": one.call.stream_sid, "data": one.data}
            for one in call.events
        ],
        "recorded": list(call.records),
    }


def _missing_line(call: Call, stream_sid: str, reason: str) -> Line:
    about = {"call_sid": call.summary.call_sid, "stream_sid": stream_sid}
    return {"kind": "missing", **about, "reason": reason}


class _Pieces:
    """What a ZIP file is written to: kept until it is taken, and never seen as a whole."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def write(self, data: bytes) -> int:
        """Keep more."""
        self._waiting += data
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is kept is there already."""

    def take(self) -> bytes:
        """Return what was written since."""
        taken = bytes(self._waiting)
        self._waiting.clear()
        return taken
