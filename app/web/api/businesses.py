"""`/businesses`, and their numbers."""

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from app.administration import Administration
from app.errors import AlreadyThere, BusinessDeleted, BusinessHasCalls, NotThere, NumberTaken
from app.plans import Business
from app.records.business_erasure import BusinessErasure
from app.store.configuration import Stored
from app.web.api.call_models import Part
from app.web.api.models import (
    BusinessChanges,
    BusinessList,
    BusinessModel,
    NewBusiness,
    body_of,
    business_model,
)
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


class Number(BaseModel):
    """A number, and what its carrier is told: where its calls and their ends are announced.

    The URLs are null where PUBLIC_URL is not set.
    """

    number: str
    webhook_url: str | None
    status_callback_url: str | None


class Numbers(BaseModel):
    """A business's numbers."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "items": [
                    {
                        "number": "+15005550006",
                        "webhook_url": "https://bridge.example.com/twilio-voice",
                        "status_callback_url": "https://bridge.example.com/twilio-status",
                    }
                ],
                "next": None,
            }
        }
    )
    items: list[Number]
    next: None = None


class DeletedBusiness(BaseModel):
    """What was erased of a business, for each kind."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "business_id": "business-1",
                "erased": {"calls": {"count": 12, "bytes": 0}},
            }
        }
    )
    business_id: str
    erased: dict[str, Part]


class NewNumbers(BaseModel):
    """All the numbers that a business is to have, each in E.164."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"numbers": ["+15005550006", "+15005550017"]}}
    )
    numbers: list[str]


def businesses_router(desk: Administration, erasure: BusinessErasure, http_base: str) -> APIRouter:
    """Make the routes of businesses; `http_base` is PUBLIC_URL, or empty."""
    router = api_router("businesses")

    @router.get(
        "/businesses",
        operation_id="list-businesses",
        response_model=BusinessList,
        response_description="By id.",
        responses=answers(),
        openapi_extra=secured(),
    )
    async def list_businesses(who: Asking, after: After = "", limit: Limit = 50) -> object:
        """List every business; to a business's admin, their own."""
        found = await desk.businesses.all(who)
        page, following = page_of(found, lambda one: one.record.id, after, limit)
        return BusinessList(items=[business_model(one) for one in page], next=following)

    @router.post(
        "/businesses",
        operation_id="create-business",
        status_code=201,
        response_model=BusinessModel,
        response_description="Stored; its ETag is what an edit sends as If-Match.",
        responses=answers(AlreadyThere, BusinessDeleted, NumberTaken),
        openapi_extra=secured(requestBody=body_of(NewBusiness)),
    )
    async def create_business(who: Asking, body: JsonObject) -> Response:
        """Create a business (operators)."""
        table = {name: value for name, value in body.items() if name != "id"}
        stored = await desk.businesses.create(who, body.get("id"), table)
        where = {"Location": f"/api/v1/businesses/{stored.record.id}"}
        return versioned(business_model(stored), stored.version, 201, where)

    @router.get(
        "/businesses/{business_id}",
        operation_id="get-business",
        response_model=BusinessModel,
        response_description="The business, and as ETag its version.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def get_business(who: Asking, business_id: str) -> Response:
        """Give a business; none of its secrets."""
        stored = await desk.businesses.get(who, business_id)
        return versioned(business_model(stored), stored.version)

    @router.patch(
        "/businesses/{business_id}",
        operation_id="edit-business",
        response_model=BusinessModel,
        response_description="As it is now stored; it holds for the business's next call.",
        responses=answers(NotThere, NumberTaken, *OF_EDITS),
        openapi_extra=secured(requestBody=body_of(BusinessChanges)),
    )
    async def edit_business(
        who: Asking, business_id: str, body: JsonObject, if_match: IfMatch = None
    ) -> Response:
        """Change fields of a business; its admin: all but plan, numbers and country."""
        stored = await desk.businesses.edit(who, business_id, body, version_of(if_match))
        return versioned(business_model(stored), stored.version)

    @router.delete(
        "/businesses/{business_id}",
        operation_id="delete-business",
        response_description="It is gone, and so is all that it had; what was erased.",
        responses=answers(NotThere, BusinessHasCalls, *OF_EDITS),
        openapi_extra=secured(),
    )
    async def delete_business(
        who: Asking, business_id: str, if_match: IfMatch = None
    ) -> DeletedBusiness:
        """Delete a business that has no live calls, with all its data (operators).

        Its calls, recordings, usage, numbers, secrets and access keys are erased, and its id
        cannot be used again. Export its data first. A deletion that was interrupted is finished
        by sending it again.
        """
        erased = await erasure.delete(who, business_id, version_of(if_match))
        return DeletedBusiness(
            business_id=business_id,
            erased={
                kind: Part(count=count, bytes=erased.bytes.get(kind, 0))
                for kind, count in erased.counts.items()
            },
        )

    @router.get(
        "/businesses/{business_id}/numbers",
        operation_id="list-numbers",
        response_model=Numbers,
        response_description="Its numbers, and as ETag the business's version.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def list_numbers(who: Asking, business_id: str) -> Response:
        """List a business's numbers, with the URLs to paste into Twilio."""
        stored = await desk.businesses.get(who, business_id)
        return versioned(_numbers(stored, http_base), stored.version)

    @router.put(
        "/businesses/{business_id}/numbers",
        operation_id="set-numbers",
        response_model=Numbers,
        response_description="Its numbers as they are now.",
        responses=answers(NotThere, NumberTaken, *OF_EDITS),
        openapi_extra=secured(requestBody=body_of(NewNumbers)),
    )
    async def set_numbers(
        who: Asking, business_id: str, body: JsonObject, if_match: IfMatch = None
    ) -> Response:
        """Give a business these numbers, and no others (operators)."""
        version = version_of(if_match)
        stored = await desk.businesses.set_numbers(who, business_id, body, version)
        return versioned(_numbers(stored, http_base), stored.version)

    return router


def _numbers(stored: Stored[Business], http_base: str) -> Numbers:
    def url(path: str) -> str | None:
        return f"{http_base}{path}" if http_base else None

    items = [
        Number(
            number=number,
            webhook_url=url("/twilio-voice"),
            status_callback_url=url("/twilio-status"),
        )
        for number in stored.record.numbers
    ]
    return Numbers(items=items)
