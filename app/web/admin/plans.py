"""Plans: the list, one plan, and a new one."""

from fastapi.responses import Response

from app.admin.roles import Permission
from app.administration.businesses import Businesses
from app.administration.plans import Plans
from app.errors import AlreadyThere, EditedMeanwhile, FieldsInvalid, PlanInUse
from app.plans import PLAN_FIELDS, Plan
from app.store.configuration import Stored
from app.web.admin.entry import Entry, Visit, quoted, see
from app.web.admin.forms import (
    changes,
    edited_meanwhile,
    filled,
    new_plan_inputs,
    plan_inputs,
    refused,
    table,
)
from app.web.admin.views import BusinessRow, Form, PlanRow
from app.web.admin.words import clock

PLANS = "/admin/plans"
NEW = "/admin/new-plan"


def add_plans(entry: Entry, plans: Plans, businesses: Businesses) -> None:
    """Add the plans' pages."""

    @entry.get(PLANS)
    async def listed(visit: Visit) -> Response:
        found = await plans.all(visit.who)
        if not visit.who.is_operator and len(found) == 1:
            return see(f"{PLANS}/{quoted(found[0].record.name)}")
        having = await businesses.all(visit.who)
        rows = [
            _row(one.record, [b.record.name for b in having if b.record.plan == one.record.name])
            for one in found
        ]
        return visit.page("plans.html", here="plans", rows=rows)

    @entry.get(NEW)
    async def new(visit: Visit) -> Response:
        visit.who.demand(Permission.EDIT_PLANS)
        return _new(visit, Form(new_plan_inputs()))

    @entry.post(NEW)
    async def create(visit: Visit) -> Response:
        inputs = filled(new_plan_inputs(), visit.sent)
        try:
            made = await plans.create(
                visit.who, visit.sent.text("name").strip(), table(inputs, PLAN_FIELDS)
            )
        except FieldsInvalid as error:
            return _new(visit, refused(new_plan_inputs(), visit.sent, error.problems), 422)
        except AlreadyThere as error:
            problems = {"name": "is taken by another plan; choose another name"}
            return _new(visit, refused(new_plan_inputs(), visit.sent, problems), error.http_status)
        return see(f"{PLANS}/{quoted(made.record.name)}", "created")

    @entry.get(f"{PLANS}/{{name}}")
    async def one(visit: Visit) -> Response:
        stored = await plans.get(visit.who, visit.part("name"))
        fixed = not visit.who.is_operator
        return await _one(
            visit, stored, Form(plan_inputs(stored.record, fixed=fixed), stored.version)
        )

    @entry.post(f"{PLANS}/{{name}}")
    async def save(visit: Visit) -> Response:
        name, version = visit.part("name"), visit.sent.version() or 0
        stored = await plans.get(visit.who, name)
        inputs = plan_inputs(stored.record)
        try:
            await plans.edit(
                visit.who, name, changes(inputs, visit.sent, PLAN_FIELDS), version or 0
            )
        except FieldsInvalid as error:
            form = refused(inputs, visit.sent, error.problems, version)
            return await _one(visit, stored, form, status=422)
        except EditedMeanwhile as error:
            stored = await plans.get(visit.who, name)
            form = edited_meanwhile(plan_inputs(stored.record), visit.sent, stored.version)
            return await _one(visit, stored, form, status=error.http_status)
        return see(f"{PLANS}/{quoted(name)}", "saved")

    @entry.post(f"{PLANS}/{{name}}/delete")
    async def delete(visit: Visit) -> Response:
        name = visit.part("name")
        try:
            await plans.delete(visit.who, name, visit.sent.version() or 0)
        except (PlanInUse, EditedMeanwhile) as error:
            stored = await plans.get(visit.who, name)
            words = (
                "Businesses still have this plan: give them another one first."
                if isinstance(error, PlanInUse)
                else "Somebody else has just changed it: look again before it goes."
            )
            form = Form(plan_inputs(stored.record), stored.version)
            return await _one(visit, stored, form, words, error.http_status)
        return see(PLANS, "deleted")

    async def _one(
        visit: Visit, stored: Stored[Plan], form: Form, problem: str = "", status: int = 200
    ) -> Response:
        name = stored.record.name
        having = [
            BusinessRow(one.record.id, one.record.name, name, one.record.numbers)
            for one in await businesses.all(visit.who)
            if one.record.plan == name
        ]
        shown = {"name": name, "businesses": having, "form": form, "problem": problem}
        return visit.page("plan.html", status=status, here="plans", **shown)


def _new(visit: Visit, form: Form, status: int = 200) -> Response:
    return visit.page("new.html", status=status, here="plans", kind="plan", form=form)


def _row(plan: Plan, businesses: list[str]) -> PlanRow:
    return PlanRow(
        plan.name,
        f"{plan.max_concurrent_calls:,}",
        clock(plan.max_call_seconds),
        f"{plan.tracks}, {plan.encoding}, {plan.sample_rate:,} Hz",
        clock(plan.retention_seconds),
        businesses,
    )
