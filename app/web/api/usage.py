"""`/businesses/{business_id}/usage`, as JSON and as CSV."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from app.administration.usage import (
    DEFAULT_MONTHS,
    MOST_MONTHS,
    BusinessUse,
    State,
    UsageBook,
    as_csv,
    state_of,
)
from app.errors import NotThere
from app.store.usage import Limit, MonthOfUse
from app.web.api.route import Asking, answers, api_router, secured

Months = Annotated[int, Query(ge=1, le=MOST_MONTHS, description="How many, this one included.")]


class Reached(BaseModel):
    """A limit that was reached: what it allowed then, and when (Unix ms)."""

    limit: Limit
    allowed: float
    at: int


class Month(BaseModel):
    """A month (UTC): its calls, and the minutes that their streams were live."""

    month: str
    calls: int
    minutes: float
    first_call_at: int | None
    last_call_at: int | None
    state: State
    reached: list[Reached]

    @classmethod
    def of(cls, use: MonthOfUse) -> "Month":
        """Give a month as it is answered."""
        return cls(
            month=use.month,
            calls=use.calls,
            minutes=round(use.minutes, 1),
            first_call_at=use.first_at or None,
            last_call_at=use.last_at or None,
            state=state_of(use),
            reached=[
                Reached(limit=one.limit, allowed=one.allowed, at=one.at) for one in use.crossed
            ],
        )


class Use(BaseModel):
    """A business's months, the newest first. `limits` are its plan's now; null is none."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "plan": "standard",
                "limits": {
                    "calls_per_month_soft": 9000,
                    "calls_per_month_hard": None,
                    "minutes_per_month_soft": None,
                    "minutes_per_month_hard": 30000,
                },
                "items": [
                    {
                        "month": "2026-11",
                        "calls": 9120,
                        "minutes": 21004.5,
                        "first_call_at": 1793491200000,
                        "last_call_at": 1795000000000,
                        "state": "soft_limit_reached",
                        "reached": [
                            {"limit": "calls_per_month_soft", "allowed": 9000, "at": 1794990000000}
                        ],
                    }
                ],
                "next": None,
            }
        }
    )
    plan: str
    limits: dict[Limit, float | None]
    items: list[Month]
    next: None = None

    @classmethod
    def of(cls, use: BusinessUse) -> "Use":
        """Give a business's use as it is answered."""
        return cls(
            plan=use.plan,
            limits={limit: use.limits.get(limit) for limit in Limit},
            items=[Month.of(month) for month in use.months],
        )


def usage_router(book: UsageBook) -> APIRouter:
    """Make the routes of usage."""
    router = api_router("usage")

    @router.get(
        "/businesses/{business_id}/usage",
        operation_id="usage",
        response_description="The newest month first.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def usage(who: Asking, business_id: str, months: Months = DEFAULT_MONTHS) -> Use:
        """Give a business's calls and minutes by month, with its limits."""
        return Use.of(await book.of(who, business_id, months))

    @router.get(
        "/businesses/{business_id}/usage.csv",
        operation_id="usage-csv",
        response_class=Response,
        responses={
            **answers(NotThere),
            200: {"description": "CSV.", "content": {"text/csv": {"schema": {"type": "string"}}}},
        },
        openapi_extra=secured(),
    )
    async def usage_csv(who: Asking, business_id: str, months: Months = MOST_MONTHS) -> Response:
        """Give a business's calls and minutes by month as a file for a spreadsheet."""
        text = as_csv(await book.of(who, business_id, months))
        headers = {
            "Content-Disposition": f'attachment; filename="usage-{business_id}.csv"',
            "Cache-Control": "no-store",
        }
        return Response(text, media_type="text/csv", headers=headers)

    return router
