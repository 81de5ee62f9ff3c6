"""What the API's document says of plans and businesses, made from the fields themselves."""

from collections.abc import Collection, Mapping
from typing import Any, Final, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from app import plans
from app.administration.businesses import SECRET
from app.administration.records import FIELDS, UNLIMITED, as_json
from app.plans import Business, Plan
from app.store.configuration import Stored

_SCHEMAS: Final = "#/components/schemas/{model}"
PLAN_EXAMPLE: Final = {
    "name": "standard",
    "max_concurrent_calls": 30,
    "max_call_seconds": 3600,
    "tracks": "both",
    "calls_per_month_soft": 9000,
    "calls_per_month_hard": None,
}
BUSINESS_EXAMPLE: Final = {
    "id": "dental-clinic",
    "name": "The Dental Clinic",
    "plan": "premium",
    "numbers": ["+15005550019"],
    "forward_to": "+14155550199",
    "greeting": "Welcome to the Dental Clinic.",
}
_NAMES: Final = {
    Plan: ("name", "Its name, 1 to 64 of A-Z a-z 0-9 _ . -"),
    Business: ("id", "Its id, 1 to 128 of A-Z a-z 0-9 _ . -"),
}


def _fields(
    kind: type[Plan] | type[Business], *, left_out: Collection[str] = (), optional: bool
) -> dict[str, Any]:
    """Describe a record's fields, each with what it does."""
    hints = get_type_hints(kind)
    made: dict[str, Any] = {}
    for name, field in FIELDS[kind].items():
        if name in left_out:
            continue
        hint: Any = hints[name]
        if hint == tuple[str, ...]:
            hint = list[str]
        elif name in UNLIMITED:
            hint = float | None if name == "max_calls_per_second" else int | None
        effect = field.effect.replace("inf is no limit", "null is no limit")
        made[name] = (hint, Field(default=None if optional else ..., description=effect))
    return made


def _named(kind: type[Plan] | type[Business]) -> dict[str, Any]:
    name, description = _NAMES[kind]
    return {name: (str, Field(description=description))}


_VERSION: Final[dict[str, Any]] = {
    "version": (int, Field(description="What the ETag says too; an edit is of one."))
}


def _model(name: str, doc: str, fields: Mapping[str, Any], example: Any) -> type[BaseModel]:
    made: type[BaseModel] = create_model(
        name,
        __doc__=doc,
        __config__=ConfigDict(json_schema_extra={"example": example}),
        **fields,
    )
    return made


def _shown(kind: type[Plan] | type[Business]) -> dict[str, Any]:
    return {**_named(kind), **_fields(kind, left_out=SECRET, optional=False), **_VERSION}


def _whole_example(record: Plan | Business) -> dict[str, Any]:
    name = _NAMES[type(record)][0]
    shown = {key: value for key, value in as_json(record).items() if key not in SECRET}
    return {name: getattr(record, name), **shown, "version": 3}


PlanModel = _model(
    "Plan",
    "What a business may use, and the form in which its audio is published.",
    _shown(Plan),
    _whole_example(Plan("premium", max_concurrent_calls=30)),
)
BusinessModel = _model(
    "Business",
    "Who owns a call: its numbers, its plan, and what its callers hear.",
    _shown(Business),
    _whole_example(Business("business-1", "Business One", "premium", ("+15005550006",))),
)
NewPlan = _model(
    "NewPlan",
    "A plan to be; what is not given has its default.",
    {**_named(Plan), **_fields(Plan, optional=True)},
    PLAN_EXAMPLE,
)
PlanChanges = _model(
    "PlanChanges",
    "What is to be otherwise; the rest stays.",
    _fields(Plan, optional=True),
    {"max_concurrent_calls": 40},
)
NewBusiness = _model(
    "NewBusiness",
    "A business to be; what is not given has its default.",
    {
        **_named(Business),
        **_fields(Business, left_out=SECRET, optional=True),
        **{
            name: (str, Field(description=plans.BUSINESS_FIELDS[name].effect))
            for name in ("name", "plan")
        },
    },
    BUSINESS_EXAMPLE,
)
BusinessChanges = _model(
    "BusinessChanges",
    "What is to be otherwise; the rest stays.",
    _fields(Business, left_out=SECRET, optional=True),
    {"greeting": "Welcome back.", "forward_to": "sip:desk@example.com"},
)


def _list_of(name: str, model: type[BaseModel]) -> type[BaseModel]:
    items = list[model]  # type: ignore[valid-type]
    doc = "A page, in order; `next` is the `after` of the one that follows, null for the last."
    return create_model(name, __doc__=doc, items=(items, ...), next=(str | None, None))


PlanList = _list_of("PlanList", PlanModel)
BusinessList = _list_of("BusinessList", BusinessModel)


def plan_model(stored: Stored[Plan]) -> BaseModel:
    """Give a plan as it is answered."""
    return PlanModel(**_answered(stored.record, stored.version))


def business_model(stored: Stored[Business]) -> BaseModel:
    """Give a business as it is answered; none of its secrets."""
    return BusinessModel(**_answered(stored.record, stored.version))


def _answered(record: Plan | Business, version: int) -> dict[str, Any]:
    name = _NAMES[type(record)][0]
    shown = {key: value for key, value in as_json(record).items() if key not in SECRET}
    return {name: getattr(record, name), **shown, "version": version}


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a request's body, which the route itself reads and checks."""
    schema = model.model_json_schema(ref_template=_SCHEMAS)
    schema.pop("$defs", None)  # each is among the answers' schemas
    return {"required": True, "content": {"application/json": {"schema": schema}}}
