"""Businesses and their plans: what they may use, and how they are read.

Three sources, one set of rules (`checks`, `fields`): the businesses file (`file`), a
store's text fields, and what an admin sends (`model`).
"""

from app.plans.checks import DIALLED, E164, IDENTIFIER, PLAN_NAME
from app.plans.fields import (
    BUSINESS_FIELDS,
    BUSINESS_REQUIRED,
    PLAN_FIELDS,
    Field,
    TrackPlan,
    as_text,
    from_texts,
)
from app.plans.file import parse_directory
from app.plans.model import (
    AFTER_STREAM,
    NOT_ANSWERED,
    Business,
    Directory,
    Plan,
    make_business,
    make_plan,
)

__all__ = [
    "AFTER_STREAM",
    "BUSINESS_FIELDS",
    "BUSINESS_REQUIRED",
    "DIALLED",
    "E164",
    "IDENTIFIER",
    "NOT_ANSWERED",
    "PLAN_FIELDS",
    "PLAN_NAME",
    "Business",
    "Directory",
    "Field",
    "Plan",
    "TrackPlan",
    "as_text",
    "from_texts",
    "make_business",
    "make_plan",
    "parse_directory",
]
