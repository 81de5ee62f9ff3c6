"""`/plans`."""

from fastapi import APIRouter
from fastapi.responses import Response

from app.administration import Administration
from app.errors import AlreadyThere, NotThere, PlanInUse
from app.web.api.models import NewPlan, PlanChanges, PlanList, PlanModel, body_of, plan_model
from app.web.api.route import (
    OF_EDITS,
    After,
    Asking,
    IfMatch,
    JsonObject,
    Limit,
    answers,
    api_router,
    page_of,
    secured,
    version_of,
    versioned,
)


def plans_router(desk: Administration) -> APIRouter:
    """Make the routes of plans."""
    router = api_router("plans")

    @router.get(
        "/plans",
        operation_id="list-plans",
        response_model=PlanList,
        response_description="By name.",
        responses=answers(),
        openapi_extra=secured(),
    )
    async def list_plans(who: Asking, after: After = "", limit: Limit = 50) -> object:
        """List every plan; to a business's admin, their own."""
        found = await desk.plans.all(who)
        page, following = page_of(found, lambda one: one.record.name, after, limit)
        return PlanList(items=[plan_model(one) for one in page], next=following)

    @router.post(
        "/plans",
        operation_id="create-plan",
        status_code=201,
        response_model=PlanModel,
        response_description="Stored; its ETag is what an edit sends as If-Match.",
        responses=answers(AlreadyThere),
        openapi_extra=secured(requestBody=body_of(NewPlan)),
    )
    async def create_plan(who: Asking, body: JsonObject) -> Response:
        """Create a plan (operators)."""
        table = {name: value for name, value in body.items() if name != "name"}
        stored = await desk.plans.create(who, body.get("name"), table)
        where = {"Location": f"/api/v1/plans/{stored.record.name}"}
        return versioned(plan_model(stored), stored.version, 201, where)

    @router.get(
        "/plans/{name}",
        operation_id="get-plan",
        response_model=PlanModel,
        response_description="The plan, and as ETag its version.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def get_plan(who: Asking, name: str) -> Response:
        """Give a plan."""
        stored = await desk.plans.get(who, name)
        return versioned(plan_model(stored), stored.version)

    @router.patch(
        "/plans/{name}",
        operation_id="edit-plan",
        response_model=PlanModel,
        response_description="As it is now stored; it holds for each business's next call.",
        responses=answers(NotThere, *OF_EDITS),
        openapi_extra=secured(requestBody=body_of(PlanChanges)),
    )
    async def edit_plan(
        who: Asking, name: str, body: JsonObject, if_match: IfMatch = None
    ) -> Response:
        """Change fields of a plan (operators); live calls keep the plan they began with."""
        stored = await desk.plans.edit(who, name, body, version_of(if_match))
        return versioned(plan_model(stored), stored.version)

    @router.delete(
        "/plans/{name}",
        operation_id="delete-plan",
        status_code=204,
        response_description="It is gone.",
        responses=answers(NotThere, PlanInUse, *OF_EDITS),
        openapi_extra=secured(),
    )
    async def delete_plan(who: Asking, name: str, if_match: IfMatch = None) -> None:
        """Delete a plan that no business has (operators)."""
        await desk.plans.delete(who, name, version_of(if_match))

    return router
