"""Businesses: the list, a new one, and one's settings."""

from collections.abc import Collection

from fastapi.responses import Response

from app.admin.roles import Permission
from app.administration import Administration
from app.administration.businesses import OF_ITS_ADMIN
from app.errors import (
    AlreadyThere,
    BusinessDeleted,
    BusinessHasCalls,
    EditedMeanwhile,
    FieldsInvalid,
    NumberTaken,
)
from app.plans import BUSINESS_FIELDS, Business
from app.records.business_erasure import BusinessErasure
from app.store.configuration import Stored
from app.web.admin.entry import Entry, Visit, quoted, see
from app.web.admin.forms import (
    BUSINESS_LOOKS,
    business_inputs,
    changes,
    edited_meanwhile,
    filled,
    new_business_inputs,
    refused,
    table,
)
from app.web.admin.views import BusinessRow, Form, Input

BUSINESSES = "/admin/businesses"
NEW = "/admin/new-business"
ROWS = 100


def add_businesses(entry: Entry, desk: Administration, erasure: BusinessErasure) -> None:
    """Add the pages of businesses and their settings."""

    @entry.get(BUSINESSES)
    async def listed(visit: Visit) -> Response:
        if not visit.who.is_operator:
            return see(path_of(visit.who.business_id))
        after = visit.asked("after")
        found = [one for one in await desk.businesses.all(visit.who) if one.record.id > after]
        return visit.page(
            "businesses.html",
            here="businesses",
            rows=[row_of(one.record) for one in found[:ROWS]],
            next=f"?after={quoted(found[ROWS - 1].record.id)}" if len(found) > ROWS else "",
            has_plans=bool(await desk.plans.all(visit.who)),
        )

    @entry.get(NEW)
    async def new(visit: Visit) -> Response:
        visit.who.demand(Permission.CREATE_BUSINESS)
        plans = await _plans(visit)
        return _new(visit, Form(new_business_inputs(plans))) if plans else see("/admin/new-plan")

    @entry.post(NEW)
    async def create(visit: Visit) -> Response:
        inputs = new_business_inputs(await _plans(visit))
        fields = table(filled(inputs, visit.sent), BUSINESS_FIELDS)
        number = visit.sent.text("numbers").strip()
        fields["numbers"] = [number] if number else []
        try:
            made = await desk.businesses.create(visit.who, visit.sent.text("id").strip(), fields)
        except FieldsInvalid as error:
            return _new(visit, refused(inputs, visit.sent, error.problems), 422)
        except BusinessDeleted as error:
            problems = {"id": "was a deleted business's, and is not used again; choose another id"}
            return _new(visit, refused(inputs, visit.sent, problems), error.http_status)
        except AlreadyThere as error:
            problems = {"id": "is taken by another business; choose another id"}
            return _new(visit, refused(inputs, visit.sent, problems), error.http_status)
        except NumberTaken as error:
            problems = {"numbers": f"is taken: {error}"}
            return _new(visit, refused(inputs, visit.sent, problems), error.http_status)
        return see(f"{path_of(made.record.id)}/numbers", "created")

    @entry.get(f"{BUSINESSES}/{{id}}")
    async def one(visit: Visit) -> Response:
        stored = await desk.businesses.get(visit.who, visit.part("id"))
        return _one(visit, stored, Form(await _inputs(visit, stored), stored.version))

    @entry.post(f"{BUSINESSES}/{{id}}")
    async def save(visit: Visit) -> Response:
        business_id, version = visit.part("id"), visit.sent.version() or 0
        stored = await desk.businesses.get(visit.who, business_id)
        inputs = await _inputs(visit, stored)
        changed = changes(inputs, visit.sent, BUSINESS_FIELDS)
        try:
            await desk.businesses.edit(visit.who, business_id, changed, version)
        except FieldsInvalid as error:
            return _one(visit, stored, refused(inputs, visit.sent, error.problems, version), 422)
        except EditedMeanwhile as error:
            stored = await desk.businesses.get(visit.who, business_id)
            inputs = await _inputs(visit, stored)
            form = edited_meanwhile(inputs, visit.sent, stored.version)
            return _one(visit, stored, form, error.http_status)
        return see(path_of(business_id), "saved")

    @entry.post(f"{BUSINESSES}/{{id}}/delete")
    async def delete(visit: Visit) -> Response:
        business_id = visit.part("id")
        if visit.sent.text("confirm").strip() != business_id:
            stored = await desk.businesses.get(visit.who, business_id)
            form = Form(await _inputs(visit, stored), stored.version)
            return _one(visit, stored, form, 422, f"This is not its id, {business_id}.")
        try:
            await erasure.delete(visit.who, business_id, visit.sent.version() or 0)
        except BusinessHasCalls as error:
            words, status = "It has live calls: end them, or wait for their end.", error.http_status
        except EditedMeanwhile as error:
            words = "Somebody else has just changed it: look again before it goes."
            status = error.http_status
        else:
            return see(BUSINESSES, "deleted")
        stored = await desk.businesses.get(visit.who, business_id)
        form = Form(await _inputs(visit, stored), stored.version)
        return _one(visit, stored, form, status, words)

    async def _plans(visit: Visit) -> list[str]:
        return [one.record.name for one in await desk.plans.all(visit.who)]

    async def _inputs(visit: Visit, stored: Stored[Business]) -> tuple[Input, ...]:
        fixed: Collection[str] = ()
        if not visit.who.is_operator:
            fixed = BUSINESS_LOOKS.keys() - OF_ITS_ADMIN
        return business_inputs(stored.record, await _plans(visit), fixed)


def path_of(business_id: str) -> str:
    """Name a business's page."""
    return f"{BUSINESSES}/{quoted(business_id)}"


def row_of(business: Business) -> BusinessRow:
    """Show a business in short."""
    return BusinessRow(business.id, business.name, business.plan, business.numbers)


def _new(visit: Visit, form: Form, status: int = 200) -> Response:
    return visit.page("new.html", status=status, here="businesses", kind="business", form=form)


def _one(
    visit: Visit, stored: Stored[Business], form: Form, status: int = 200, problem: str = ""
) -> Response:
    shown = {"business": row_of(stored.record), "tab": "", "form": form, "problem": problem}
    return visit.page("business.html", status=status, here="businesses", **shown)
