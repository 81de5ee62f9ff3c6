"""Persons: found and erased by their number, which is in no URL."""

from typing import Final

from fastapi.responses import Response

from app.admin.roles import Permission
from app.administration import Administration
from app.errors import FieldsInvalid
from app.records.persons import PersonReport, Persons
from app.web.admin.calls import CALLS, names_of
from app.web.admin.entry import Entry, Visit, quoted
from app.web.admin.views import NamedCallRow, PersonView

PERSONS: Final = "/admin/persons"
SHOWN: Final = 100
_KINDS: Final = {
    "calls": ("call", "calls"),
    "streams": ("recording without a call", "recordings without a call"),
    "events": ("notice of a call that is not kept", "notices of calls that are not kept"),
    "audit_values": ("number in the audit log", "numbers in the audit log"),
}


def add_persons(entry: Entry, desk: Administration, persons: Persons) -> None:
    """Add the page that finds and erases a person."""

    @entry.get(PERSONS)
    async def form(visit: Visit) -> Response:
        visit.who.demand(Permission.FIND_PERSONS)
        return _page(visit)

    @entry.post(PERSONS)
    async def find(visit: Visit) -> Response:
        number = visit.sent.text("number").strip()
        try:
            report = await persons.find(visit.who, number)
        except FieldsInvalid as error:
            return _page(visit, number, problem=_sentence(error), status=422)
        return _page(visit, number, await _view(visit, report))

    @entry.post(f"{PERSONS}/erase")
    async def erase(visit: Visit) -> Response:
        number = visit.sent.text("number").strip()
        try:
            if visit.sent.text("confirm").strip() != "erase":
                found = await _view(visit, await persons.find(visit.who, number))
                words = "This is not the word erase."
                return _page(visit, number, found, confirm_problem=words, status=422)
            report = await persons.erase(visit.who, number)
        except FieldsInvalid as error:
            return _page(visit, number, problem=_sentence(error), status=422)
        return _page(visit, number, await _view(visit, report))

    async def _view(visit: Visit, report: PersonReport) -> PersonView:
        names = await names_of(visit, desk)
        rows = [
            NamedCallRow(
                call.call_sid,
                names.get(call.business_id, call.business_id),
                _path(visit, call.business_id, call.call_sid),
                call.is_live,
            )
            for call in (report.calls if report.erased is None else report.live)[:SHOWN]
        ]
        settings = [
            (names.get(id_, id_), field.replace("_", " ")) for id_, field in report.settings
        ]
        counts = report.counts
        if report.erased is None:
            title = "Nothing names this person" if report.is_empty else "Where they are named"
            lines = _lines(counts, "found")
            return PersonView(title, lines, rows, settings, can_erase=not report.is_empty)
        done = {kind: report.erased.counts.get(kind, 0) for kind in ("calls", "audit_values")}
        done |= {kind: counts[kind] for kind in ("streams", "events")}
        lines = _lines(done, "erased") or ["There was nothing to erase."]
        if rows:
            lines.append("These calls are live. Erase this person again when they are over:")
        return PersonView("Erased", lines, rows, settings, can_erase=bool(rows))


def _page(
    visit: Visit,
    number: str = "",
    found: PersonView | None = None,
    *,
    problem: str = "",
    confirm_problem: str = "",
    status: int = 200,
) -> Response:
    shown = {"number": number, "found": found, "problem": problem}
    return visit.page(
        "persons.html", status=status, here="persons", confirm_problem=confirm_problem, **shown
    )


def _lines(counts: dict[str, int], done: str) -> list[str]:
    return [
        f"{count} {_KINDS[kind][count != 1]} {done}." for kind, count in counts.items() if count
    ]


def _path(visit: Visit, business_id: str, call_sid: str) -> str:
    query = f"?business={quoted(business_id)}" if visit.who.is_operator else ""
    return f"{CALLS}/{quoted(call_sid)}{query}"


def _sentence(error: FieldsInvalid) -> str:
    return f"This {error.problems.get('number', error)}."
