"""Forms of plans and businesses: a record as inputs, and what comes back as a table.

An edit is merged with what somebody else has saved meanwhile: each field keeps
who changed it; where both did, the person decides.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from app.media import Encoding
from app.plans import Business, Plan
from app.plans.fields import (
    BUSINESS_FIELDS,
    PLAN_FIELDS,
    SAMPLE_RATES,
    Field,
    TrackPlan,
    from_texts,
)
from app.web.admin.submitted import Submitted
from app.web.admin.views import Difference, Form, Input


@dataclass(frozen=True, slots=True)
class Look:
    """How a field is shown."""

    label: str
    group: str
    kind: Literal["text", "number", "long", "choice", "flag"] = "text"
    unit: str = ""
    choices: Sequence[tuple[str, str]] = ()


_CALLS, _AUDIO, _MONTH = "Calls", "Audio", "A month"
_FORWARDING = "Forwarding and transfers"
_ORDINARY, _HEARD, _CARRIER = "Business", "What callers hear", "Carrier and notices"
_OR_INF = "or inf"

PLAN_LOOKS: Mapping[str, Look] = {
    "max_concurrent_calls": Look("Calls at a time", _CALLS, "number"),
    "max_call_seconds": Look("Longest call", _CALLS, "number", "seconds"),
    "max_calls_per_second": Look("New calls a second", _CALLS, "number", _OR_INF),
    "tracks": Look(
        *("Tracks", _AUDIO, "choice"),
        choices=tuple(
            zip(TrackPlan, ("inbound: the caller", "both: caller and called party"), strict=True)
        ),
    ),
    "encoding": Look(
        *("Encoding", _AUDIO, "choice"), choices=tuple((one, one) for one in Encoding)
    ),
    "sample_rate": Look(
        *("Sample rate", _AUDIO, "choice", "Hz"),
        choices=tuple((str(one), f"{one:,}") for one in SAMPLE_RATES),
    ),
    "frame_ms": Look("Frame length", _AUDIO, "number", "ms"),
    "retention_seconds": Look("Audio is kept for", _AUDIO, "number", "seconds"),
    "return_audio": Look("Workers may speak", _AUDIO, "flag"),
    "calls_per_month_soft": Look("Calls, soft limit", _MONTH, "number", _OR_INF),
    "calls_per_month_hard": Look("Calls, hard limit", _MONTH, "number", _OR_INF),
    "minutes_per_month_soft": Look("Minutes, soft limit", _MONTH, "number", _OR_INF),
    "minutes_per_month_hard": Look("Minutes, hard limit", _MONTH, "number", _OR_INF),
    "allowed_destinations": Look("Allowed destinations", _FORWARDING),
}
BUSINESS_LOOKS: Mapping[str, Look] = {
    "name": Look("Name", _ORDINARY),
    "plan": Look("Plan", _ORDINARY, "choice"),
    "forward_to": Look("Forward to", _ORDINARY),
    "country": Look("Country", _ORDINARY),
    "greeting": Look("Greeting", _HEARD, "long"),
    "consent_notice": Look("Consent notice", _HEARD, "long"),
    "busy_message": Look("Busy message", _HEARD, "long"),
    "not_answered": Look("Not answered", _HEARD, "long"),
    "after_stream": Look("After the stream", _HEARD, "long"),
    "twilio_account_sid": Look("Twilio account SID", _CARRIER),
    "usage_webhook_url": Look("Usage webhook URL", _CARRIER),
    "capture_calls": Look("Calls may be captured", _CARRIER, "flag"),
}
PLAN_NAME_EFFECT = (
    "Businesses name their plan by it. 1 to 64 letters, digits, dots, dashes or underscores."
)
BUSINESS_ID_EFFECT = (
    "Programs know the business by it, and it never changes. "
    "1 to 128 letters, digits, dots, dashes or underscores."
)
NUMBERS_EFFECT = "The number that callers dial, in E.164 form; more can be added afterwards."


def plan_inputs(plan: Plan, *, fixed: bool = False) -> tuple[Input, ...]:
    """Show a plan's fields."""
    return _inputs(plan.as_fields(), PLAN_FIELDS, PLAN_LOOKS, {}, () if not fixed else PLAN_LOOKS)


def new_plan_inputs() -> tuple[Input, ...]:
    """Show the fields of a plan to be, with what is usual."""
    name = Input("name", "Name", PLAN_NAME_EFFECT, required=True)
    return name, *plan_inputs(Plan("new"))


def business_inputs(
    business: Business, plans: Collection[str], fixed: Collection[str] = ()
) -> tuple[Input, ...]:
    """Show a business's fields; `fixed` are not for whoever looks to change."""
    choices = {"plan": tuple((one, one) for one in sorted({*plans, business.plan} - {""}))}
    return _inputs(business.as_fields(), BUSINESS_FIELDS, BUSINESS_LOOKS, choices, fixed)


def new_business_inputs(plans: Collection[str]) -> tuple[Input, ...]:
    """Show the fields of a business to be."""
    plan = next(iter(sorted(plans)), "")
    name, *others = business_inputs(Business("new", "", plan), plans)
    return (
        name,
        Input("id", "Id", BUSINESS_ID_EFFECT, required=True, group=_ORDINARY),
        Input("numbers", "Number", NUMBERS_EFFECT, group=_ORDINARY),
        *others,
    )


def _inputs(
    values: Mapping[str, str],
    known: Mapping[str, Field],
    looks: Mapping[str, Look],
    choices: Mapping[str, Sequence[tuple[str, str]]],
    fixed: Collection[str],
) -> tuple[Input, ...]:
    return tuple(
        Input(
            name,
            look.label,
            known[name].effect,
            values[name],
            look.kind,
            choices.get(name, look.choices),
            look.unit,
            was=values[name],
            fixed=name in fixed,
            required=name in ("name", "plan"),
            group=look.group,
        )
        for name, look in looks.items()
    )


# ------------------------------------------------------------------ what comes back


def filled(inputs: Sequence[Input], sent: Submitted) -> tuple[Input, ...]:
    """Put what was sent into the inputs; one that is fixed keeps its value."""
    return tuple(one if one.fixed else replace(one, value=_sent(one, sent)) for one in inputs)


def _sent(one: Input, sent: Submitted) -> str:
    if one.kind == "flag":  # a browser does not send a box that is not ticked
        return "true" if sent.has(one.name) else "false"
    return sent.text(one.name)


def changes(inputs: Sequence[Input], sent: Submitted, known: Mapping[str, Field]) -> dict[str, Any]:
    """Give the fields that differ from those the form was filled from, as TOML would have them."""
    return table(
        [
            one
            for one in filled(inputs, sent)
            if not one.fixed and one.value != sent.text(f"was-{one.name}")
        ],
        known,
    )


def table(inputs: Sequence[Input], known: Mapping[str, Field]) -> dict[str, Any]:
    """Give fields as TOML would have them.

    Texts stay as they were typed: a stored one is read leniently, a typed one is not.
    """
    given = {one.name: one.value for one in inputs if one.name in known}
    texts = {one.name for one in inputs if one.kind in ("text", "long")}
    return from_texts(given, known) | {name: given[name] for name in texts & given.keys()}


def refused(
    inputs: Sequence[Input], sent: Submitted, problems: Mapping[str, str], version: int = 0
) -> Form:
    """Show a form again with what was sent, and beside each field what is wrong with it."""
    return Form(
        tuple(
            replace(one, was=sent.text(f"was-{one.name}"), problem=problems.get(one.name, ""))
            for one in filled(inputs, sent)
        ),
        version,
    )


def edited_meanwhile(inputs: Sequence[Input], sent: Submitted, version: int) -> Form:
    """Show what was sent over what stands now, which `inputs` and `version` are of."""
    merged = tuple(_merged(one, sent) for one in inputs)
    differing = tuple(
        Difference(one.label, sent.text(f"was-{one.name}"), stands.value, one.value)
        for stands, one in zip(inputs, merged, strict=True)
        if not stands.fixed and stands.value != sent.text(f"was-{one.name}")
    )
    return Form(merged, version, meanwhile=differing, is_edited_meanwhile=True)


def _merged(stands: Input, sent: Submitted) -> Input:
    """Keep what the person changed, and else what somebody else has saved."""
    mine, was = _sent(stands, sent), sent.text(f"was-{stands.name}")
    if stands.fixed or mine in (was, stands.value):
        return stands
    return replace(stands, value=mine, theirs=None if stands.value == was else stands.value)
