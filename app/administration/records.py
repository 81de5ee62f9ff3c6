"""Plans and businesses as tables of JSON's values, edited field by field."""

import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final
from urllib.parse import urlsplit

from app.log import HIDDEN
from app.plans import BUSINESS_FIELDS, PLAN_FIELDS, Business, Field, Plan, as_text, from_texts

FIELDS: Final[Mapping[type[Plan] | type[Business], Mapping[str, Field]]] = {
    Plan: PLAN_FIELDS,
    Business: BUSINESS_FIELDS,
}
# Of a value, so much is in the audit log.
MOST_SHOWN: Final = 300
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


def told(
    before: Plan | Business,
    after: Plan | Business,
    *,
    secret: Collection[str] = (),
    personal: Collection[str] = (),
) -> tuple[dict[str, str | int], dict[str, str]]:
    """Return what the audit log is told of an edit: the fields that changed, old and new.

    Of `secret` ones only the name. Those that are `personal` come apart, as values that can be
    erased, each as `NAME_before` and `NAME_after`.
    """
    names = changed(before, after)
    data: dict[str, str | int] = {"fields": ", ".join(names)}
    values: dict[str, str] = {}
    for name in names:
        old, new = (_short(name, as_text(getattr(one, name))) for one in (before, after))
        if name in personal:
            values |= {f"{name}_before": old, f"{name}_after": new}
        elif name not in secret:
            data[name] = f"{old} → {new}"
    return data, {name: value for name, value in values.items() if value}


def _short(name: str, value: str) -> str:
    """Cut a long value, and of a URL what may hold a secret."""
    if name.endswith("_url"):
        url = urlsplit(value)
        hidden = f"?{HIDDEN}" if url.query or url.fragment else ""
        value = f"{url.scheme}://{url.hostname}{url.path}{hidden}" if url.hostname else ""
    return value if len(value) <= MOST_SHOWN else value[: MOST_SHOWN - 1] + "…"


def _differs(name: str, before: Plan | Business, after: Plan | Business) -> bool:
    return bool(getattr(before, name) != getattr(after, name))
