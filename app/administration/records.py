"""Plans and businesses as tables of JSON's values, edited field by field."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Final

from app.plans import BUSINESS_FIELDS, PLAN_FIELDS, Business, Field, Plan, as_text, from_texts

FIELDS: Final[Mapping[type[Plan] | type[Business], Mapping[str, Field]]] = {
    Plan: PLAN_FIELDS,
    Business: BUSINESS_FIELDS,
}
# Fields that may have no limit: infinite here, null in JSON, which knows no infinity.
UNLIMITED: Final = frozenset(field.name for field in fields(Plan) if field.default == math.inf)
# Fields that a record need not be given.
OPTIONAL: Final = frozenset(
    field.name
    for kind in (Plan, Business)
    for field in fields(kind)
    if field.default is not MISSING and field.name != "numbers"
)


def table_of(record: Plan | Business) -> dict[str, Any]:
    """Give a record's fields as `make_plan` and `make_business` take them."""
    return from_texts(record.as_fields(), FIELDS[type(record)])


def without_limits(table: Mapping[str, Any]) -> dict[str, Any]:
    """Read a table as JSON gives it: null is no limit, where there may be none."""
    return {
        name: math.inf if name in UNLIMITED and value in (None, "inf") else value
        for name, value in table.items()
    }


def as_json(record: Plan | Business) -> dict[str, Any]:
    """Give a record's fields as JSON writes them: no limit is null."""
    return {
        name: None if name in UNLIMITED and value == math.inf else value
        for name, value in table_of(record).items()
    }


def changed(before: Plan | Business, after: Plan | Business) -> list[str]:
    """Name the fields in which two records differ."""
    return [field.name for field in fields(before) if _differs(field.name, before, after)]


def told(before: Plan | Business, after: Plan | Business, shown: Sequence[str]) -> dict[str, str]:
    """Say for the audit log which fields changed, and how those that may be `shown` did."""
    names = changed(before, after)
    steps = {
        name: f"{as_text(getattr(before, name))} → {as_text(getattr(after, name))}"
        for name in names
        if name in shown
    }
    return {"fields": ", ".join(names), **steps}


def _differs(name: str, before: Plan | Business, after: Plan | Business) -> bool:
    return bool(getattr(before, name) != getattr(after, name))
