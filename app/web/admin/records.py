"""The audit log, as a page."""

from fastapi.responses import Response

from app.admin.audit_entries import AuditEntry
from app.admin.audit_log import AuditLog
from app.web.admin.entry import Entry, Visit, quoted
from app.web.admin.views import AuditRow

ROWS = 50


def add_audit(entry: Entry, audit: AuditLog) -> None:
    """Add the audit log."""

    @entry.get("/admin/audit")
    async def log(visit: Visit) -> Response:
        found = await audit.page(visit.who, None, visit.asked("before"), ROWS)
        onward = f"?before={quoted(found[-1].id)}" if len(found) == ROWS else ""
        rows = [_row(one) for one in found]
        return visit.page("audit.html", here="audit", rows=rows, next=onward)


def _row(entry: AuditEntry) -> AuditRow:
    return AuditRow(
        entry.at,
        entry.actor,
        entry.action.replace(".", " ").replace("_", " "),
        entry.target,
        entry.business_id,
        [(name.replace("_", " "), str(value)) for name, value in entry.data.items()],
        entry.address,
    )
