"""All of a business's data as JSON lines, or as a ZIP file with its recordings."""

import zipfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
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
from app.errors import ArchiveBusy, NotThere
from app.store.access import Access

RECORDS: Final = "records.jsonl"
# No file of a ZIP is newer than this constant, so that two exports of the same are the same.
_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)

Line = dict[str, Any]


class BusinessExport:
    """Export what is kept of a business; secrets and keys themselves are kept nowhere."""

    def __init__(
        self,
        businesses: Businesses,
        access: Access,
        library: Library,
        usage: UsageBook,
        audit: AuditLog,
    ) -> None:
        self._businesses = businesses
        self._access = access
        self._library = library
        self._usage = usage
        self._audit = audit

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

    async def zipped(self, who: Principal, business_id: str) -> AsyncGenerator[bytes, None]:
        """Return a ZIP file of the JSON lines, and each stream's recording as WAV."""
        out = _Pieces()
        with zipfile.ZipFile(out, "w") as file:  # type: ignore[call-overload]
            entry = zipfile.ZipInfo(RECORDS, _ZIP_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            calls: list[tuple[str, str]] = []
            with file.open(entry, "w") as records:
                async for line in self._lines(who, business_id):
                    records.write(msgspec.json.encode(line) + b"\n")
                    if line["kind"] == "call":
                        calls += [(line["call_sid"], sid) for sid in line["recorded"]]
                    yield out.take()
            for call_sid, stream_sid in calls:
                wav = zipfile.ZipInfo(f"audio/{call_sid}/{stream_sid}.wav", _ZIP_DATE)
                try:
                    recording = await self._library.recording(
                        business_id, call_sid, stream_sid=stream_sid
                    )
                except (NotThere, ArchiveBusy):
                    continue  # retention took it meanwhile
                async with aclosing(recording.read()) as pieces:
                    with file.open(wav, "w", force_zip64=True) as audio:
                        async for piece in pieces:
                            audio.write(piece)
                            yield out.take()
        yield out.take()

    async def _lines(self, who: Principal, business_id: str) -> AsyncIterator[Line]:
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
        count, cursor = 0, ""
        while True:
            page = await self._library.calls(business_id, CallFilter(), cursor, MAX_PAGE)
            for summary in page.calls:
                try:
                    call = await self._library.call(business_id, summary.call_sid)
                except NotThere:
                    continue
                count += 1
                yield _call_line(call)
            if page.next is None:
                break
            cursor = page.next
        before = ""
        while found := await self._audit.page(who, business_id, before, MOST_ON_A_PAGE):
            for entry in found:
                yield {"kind": "audit", **asdict(entry)}
            before = found[-1].id
        yield {"kind": "end", "calls": count}


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
