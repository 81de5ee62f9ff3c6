"""What the doctor sees from inside, as a page for operators."""

from fastapi.responses import Response

from app.admin.roles import Permission
from app.diagnosis.checkup import Checkup
from app.diagnosis.findings import worst
from app.web.admin.entry import Entry, Visit

HEALTH = "/admin/health"


def add_health(entry: Entry, checkup: Checkup) -> None:
    """Add the page of the checks, and the form that makes them."""

    @entry.get(HEALTH)
    async def before(visit: Visit) -> Response:
        visit.who.demand(Permission.READ_SERVICE)
        return visit.page("health.html", here="health", findings=(), worst="")

    @entry.post(HEALTH)
    async def after(visit: Visit) -> Response:
        visit.who.demand(Permission.READ_SERVICE)
        findings = await checkup.run()
        return visit.page("health.html", here="health", findings=findings, worst=worst(findings))
