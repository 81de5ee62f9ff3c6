"""Calls: live ones, the list, and one with its audio."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from fastapi.responses import Response

from app.admin.roles import Permission
from app.administration import Administration
from app.administration.speech import LiveSpeech
from app.archive.base import CallFilter as Wanted
from app.archive.calls import Call, CallState
from app.archive.library import Waveform
from app.errors import ArchiveBusy, CallIsLive, FieldsInvalid, NotThere
from app.web.admin.entry import Entry, Visit, quoted, see
from app.web.admin.telling import facts_of, is_whole, receipts_of, row_of, steps_of
from app.web.admin.views import CallFilter, CallPage
from app.web.admin.waveform import picture
from app.web.api.calls import CallDesk

CALLS = "/admin/calls"
ROWS = 50
BUCKETS = 800
STATES = (("", "All"), *((one.value, one.value.capitalize()) for one in CallState))


def add_calls(
    entry: Entry,
    desk: Administration,
    calls: CallDesk,
    speech: LiveSpeech,
    wall_clock: Callable[[], float],
) -> None:
    """Add the pages of calls. `wall_clock` gives Unix seconds."""
    library = calls.library

    @entry.get("/admin/live")
    async def live(visit: Visit) -> Response:
        visit.who.demand(Permission.READ_CALLS)
        return visit.page("live.html", here="live")

    @entry.get(CALLS)
    async def listed(visit: Visit) -> Response:
        narrowed = CallFilter(
            visit.asked("business"), visit.asked("state"), visit.asked("from"), visit.asked("to")
        )
        whose = visit.who.scope(Permission.READ_CALLS, narrowed.business or None)
        found = await library.calls(whose, _wanted(narrowed), visit.asked("after"), ROWS)
        names = await names_of(visit, desk)
        now_ms = int(wall_clock() * 1000)
        asked = {
            "business": narrowed.business,
            "state": narrowed.state,
            "from": narrowed.since,
            "to": narrowed.until,
            "after": found.next or "",
        }
        given = {name: value for name, value in asked.items() if value}
        return visit.page(
            "calls.html",
            here="calls",
            rows=[row_of(one, names.get(one.business_id, one.business_id), now_ms)
                  for one in found.calls],
            next=f"?{urlencode(given)}" if found.next else "",
            filter=narrowed,
            states=STATES,
            businesses=sorted(names.items(), key=lambda one: one[1].casefold()),
        )  # fmt: skip

    @entry.get(f"{CALLS}/{{sid}}")
    async def one(visit: Visit) -> Response:
        return await _one(visit)

    @entry.post(f"{CALLS}/{{sid}}/erase")
    async def erased(visit: Visit) -> Response:
        sid = visit.part("sid")
        if visit.sent.text("last4").strip() != sid[-4:]:
            return await _one(visit, f"These are not its last 4 characters, {sid[-4:]}.", 422)
        try:
            await calls.erase(visit.who, whose(visit, Permission.ERASE_CALLS), sid)
        except CallIsLive as error:
            return await _one(visit, "The call is live: end it first.", error.http_status)
        return see(CALLS, "erased")

    async def _one(visit: Visit, problem: str = "", status: int = 200) -> Response:
        call = await calls.call(visit.who, whose(visit), visit.part("sid"))
        names = await names_of(visit, desk)
        wave, note = await _wave(call, visit.who.business_id or None)
        summary = call.summary
        business = names.get(summary.business_id, summary.business_id)
        view = CallPage(
            row_of(summary, business, int(wall_clock() * 1000)),
            facts_of(summary),
            steps_of(call, wave.gaps if wave else (), wave.stream_sid if wave else ""),
            receipts_of(summary),
            is_whole(summary),
            picture(wave) if wave else None,
            has_audio=wave is not None and summary.is_over,
            audio_note=note,
            may_speak=not summary.is_over and speech.is_for(visit.who),
        )
        return visit.page(
            "call.html", status=status, here="calls", view=view, erase_problem=problem
        )

    async def _wave(call: Call, asker: str | None) -> tuple[Waveform | None, str]:
        """Give the waveform, or say why there is none."""
        summary = call.summary
        try:
            found = await library.waveform(
                summary.business_id, summary.call_sid, buckets=BUCKETS, asker=asker
            )
        except NotThere:
            if not summary.streams:
                return None, "This call never had a stream, so there is no audio."
            if not summary.is_over:
                return None, "No audio has come yet."
            return None, "Its audio is not kept any more: the plan's retention is over."
        except ArchiveBusy:
            return None, "Many waveforms are being drawn; load the page again in a moment."
        if found.trimmed:
            return found, "Its beginning is not kept any more: the call outlived the retention."
        return found, ""


def whose(visit: Visit, permission: Permission = Permission.READ_CALLS) -> str:
    """Name the business whose call is meant; an operator names it in the URL.

    Raises:
        NotThere: nobody's is, or another's.
    """
    found = visit.who.scope(permission, visit.asked("business") or None)
    if found is None:
        raise NotThere("whose call it is must stand in the address; take the link in the list")
    return found


def path_of(visit: Visit, sid: str) -> str:
    """Name a call's page."""
    query = f"?business={quoted(whose(visit))}" if visit.who.is_operator else ""
    return f"{CALLS}/{quoted(sid)}{query}"


async def names_of(visit: Visit, desk: Administration) -> dict[str, str]:
    """Return the names of the businesses whose calls somebody may read, by id."""
    found = await desk.businesses.all(visit.who, Permission.READ_CALLS)
    return {one.record.id: one.record.name for one in found}


def _wanted(narrowed: CallFilter) -> Wanted:
    try:
        state = CallState(narrowed.state) if narrowed.state else None
    except ValueError:
        raise FieldsInvalid({"state": f"must be one of: {', '.join(CallState)}"}) from None
    until = _midnight("to", narrowed.until, days=1)
    return Wanted(state, since=_midnight("from", narrowed.since), until=until)


def _midnight(name: str, text: str, days: int = 0) -> int | None:
    """Give the Unix ms at which a day (UTC) begins, or so many days later."""
    if not text:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days)
    except (ValueError, OverflowError):
        raise FieldsInvalid({name: "must be a day such as 2026-11-21"}) from None
    return round(day.timestamp() * 1000)
