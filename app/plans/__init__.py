"""Businesses and their plans: what they may use, and how they are read.

Two sources, one set of rules (`fields`): the businesses file (`file`) and a
store's text fields (`model`).
"""

from app.plans.fields import DIALLED, E164, IDENTIFIER, PLAN_NAME, TrackPlan
from app.plans.file import parse_directory
from app.plans.model import AFTER_STREAM, Business, Directory, Plan

__all__ = [
    "AFTER_STREAM",
    "DIALLED",
    "E164",
    "IDENTIFIER",
    "PLAN_NAME",
    "Business",
    "Directory",
    "Plan",
    "TrackPlan",
    "parse_directory",
]
