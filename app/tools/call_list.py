"""`media-bridge calls`: live calls and past ones, as a table or as JSON."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from app.archive.base import MAX_PAGE, Archive, CallFilter
from app.archive.calls import LONGEST_CALL_MS, CallState, CallSummary
from app.log import safe

Which = Literal["all", "live", "ended"]

_HEADINGS: Final = ("began (UTC)", "length", "state", "business", "from", "to", "call")


async def listed(
    archive: Archive, business_id: str, which: Which, limit: int, now_ms: int
) -> list[CallSummary]:
    """Give up to `limit` calls of a business, or with "" of all, the latest first.

    Raises:
        StoreUnavailable: what keeps them cannot be reached.
    """
    wanted = CallFilter()
    if which == "live":
        wanted = CallFilter(CallState.LIVE, since=now_ms - LONGEST_CALL_MS)
    found: list[CallSummary] = []
    cursor: str | None = ""
    while cursor is not None and len(found) < limit:
        page = await archive.calls(business_id or None, wanted, cursor, MAX_PAGE)
        found += [call for call in page.calls if which != "ended" or call.is_over]
        cursor = page.next
    return found[:limit]


def table(calls: Sequence[CallSummary], mask: Callable[[str], str], now_ms: int) -> list[str]:
    """Write calls as lines in columns, numbers masked."""
    rows = [
        (
            _moment(call.first_at),
            _length(call, now_ms),
            f"{call.state} ({call.refused})" if call.refused else str(call.state),
            call.business_id,
            mask(call.from_number),
            mask(call.to_number),
            call.call_sid,
        )
        for call in calls
    ]
    shown = [tuple(map(safe, row)) for row in (_HEADINGS, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in shown]


def as_data(call: CallSummary, mask: Callable[[str], str]) -> dict[str, Any]:
    """Give a call JSON-ready, numbers masked."""
    return {
        "call_sid": call.call_sid,
        "business_id": call.business_id,
        "state": call.state,
        "plan": call.plan,
        "carrier": call.carrier,
        "from": mask(call.from_number),
        "to": mask(call.to_number),
        "began_at": call.first_at,
        "ended_at": call.ended_at,
        "refused": call.refused,
        "streams": [
            {
                "stream_sid": stream.stream_sid,
                "peer_stream_sid": stream.peer_stream_sid,
                "started_at": stream.started_at,
                "ended_at": stream.ended_at,
                "end_reason": (stream.receipt or {}).get("end_reason"),
            }
            for stream in call.streams
        ],
    }


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _length(call: CallSummary, now_ms: int) -> str:
    """Tell for how long a call has streamed; nothing where it never did."""
    if not call.streams:
        return ""
    ends_at = call.streams[-1].ended_at or (call.ended_at if call.is_over else now_ms)
    seconds = max(0, (ends_at or now_ms) - call.streams[0].started_at) // 1000
    return f"{seconds // 60}:{seconds % 60:02}"
