"""The fields of plans and businesses: what each may hold, does, and is as text."""

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.media import Encoding
from app.plans import checks

# Twilio sends 20 ms a message: the shortest entry there can be.
CARRIER_FRAME_MS = 20
SAMPLE_RATES = (8000, 16000, 24000)
MOST_A_MONTH = 1_000_000_000


class TrackPlan(StrEnum):
    """Whom a plan lets be heard: the caller alone, or both parties."""

    INBOUND = "inbound"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Field:
    """A field: what it does in a sentence, its check, and how text becomes what TOML would give.

    `check` raises ValueError with what is wrong and what would do.
    """

    effect: str
    check: Callable[[Any], Any]
    from_text: Callable[[str], Any] = str


def _whole_or_inf(text: str) -> float:
    return float(text) if text == "inf" else int(text)


def _sentence(effect: str) -> Field:
    return Field(effect, checks.sentence, checks.cleaned)


def _monthly(effect: str) -> Field:
    return Field(effect, checks.whole_or_inf(MOST_A_MONTH), _whole_or_inf)


PLAN_FIELDS: Mapping[str, Field] = {
    "max_concurrent_calls": Field(
        "So many calls may be under way at a time; one more hears the busy message.",
        checks.whole(1, 100_000),
        int,
    ),
    # Twilio ends a call after four hours, unless an account asks for more.
    "max_call_seconds": Field(
        "A call's stream ends after so many seconds, and the call with it.",
        checks.whole(1, 14_400),
        int,
    ),
    "tracks": Field(
        "Whose audio is published: the caller's alone (inbound), or both parties' (both).",
        checks.one_of(TrackPlan),
    ),
    "encoding": Field(
        "How audio is published: pcm16 (16 bits, little-endian) or mulaw (8 bits, half the size).",
        checks.one_of(Encoding),
    ),
    "sample_rate": Field(
        "Audio is published with so many samples a second (Hz).",
        checks.one_of_numbers(SAMPLE_RATES, "Hz"),
        int,
    ),
    "frame_ms": Field(
        "Shorter frames of the carrier are joined up to so many milliseconds: "
        "longer ones cost less, and come later.",
        checks.whole(CARRIER_FRAME_MS, 1_000),
        int,
    ),
    "retention_seconds": Field(
        "So many seconds of audio are kept, and for so long after the call.",
        checks.whole(1, 604_800),
        int,
    ),
    "return_audio": Field(
        "Whether workers may speak into the call, end it and transfer it.",
        checks.flag,
        lambda text: {"true": True, "false": False}.get(text, text),
    ),
    "max_calls_per_second": Field(
        "New calls may come so fast (0.5 is one in two seconds; inf is no limit); "
        "one that comes faster hears the busy message.",
        checks.rate(0.01, 1_000),
        float,
    ),
    "calls_per_month_soft": _monthly(
        "When a month (UTC) has had so many calls, the business is told; calls go on."
    ),
    "calls_per_month_hard": _monthly(
        "When a month (UTC) has had so many calls, new ones are refused until the next."
    ),
    "minutes_per_month_soft": _monthly(
        "When a month (UTC) has had so many minutes, the business is told; calls go on."
    ),
    "minutes_per_month_hard": _monthly(
        "When a month (UTC) has had so many minutes, new calls are refused until the next; "
        "live ones go on."
    ),
    "allowed_destinations": Field(
        "Where calls may be forwarded or transferred: own (the countries of the business's "
        "numbers), countries (CA), prefixes (+4420), sip or sip:HOST, https://HOST for more TwiML, "
        "or any. Premium-rate and satellite numbers are never called.",
        checks.allowed_destinations,
        lambda text: text.split(",") if text else [],
    ),
}
BUSINESS_FIELDS: Mapping[str, Field] = {
    "name": Field("What people call the business.", checks.title, checks.cleaned),
    "plan": Field("What the business may use; takes effect on its next call.", checks.plan_name),
    "numbers": Field(
        "A call to one of these numbers (E.164) is this business's.",
        checks.numbers,
        lambda text: text.split(",") if text else [],
    ),
    "forward_to": Field(
        "Calls are connected to this number or SIP address; empty: they are only listened to.",
        checks.destination,
    ),
    "greeting": _sentence("Callers hear this first; empty: nothing."),
    "consent_notice": _sentence(
        "Callers hear this after the greeting, before any of their audio is taken; empty: nothing."
    ),
    "busy_message": _sentence(
        "A caller who finds no free line hears this; empty: the busy tone, which costs nothing."
    ),
    "not_answered": _sentence(
        "A caller hears this when the forwarded call is not answered; empty: nothing."
    ),
    "after_stream": _sentence(
        "A caller who is only listened to hears this when the stream ends first; empty: nothing."
    ),
    "country": Field(
        "Numbers are known in this country's national form too (two letters, such as IN).",
        checks.country,
    ),
    "usage_webhook_url": Field(
        "When a soft limit of the plan is reached, this https URL is told; empty: none is.",
        checks.https_url,
    ),
    "twilio_account_sid": Field(
        "The business's own Twilio account, whose auth tokens sign its calls; "
        "empty: the service's.",
        checks.account_sid,
    ),
    "capture_calls": Field(
        "Operators may capture its calls as they come, audio and all, to place them again "
        "when something is to be tried or mended.",
        checks.flag,
        lambda text: {"true": True, "false": False}.get(text, text),
    ),
    "exotel_pairs": Field(
        "The business's own Exotel credentials, KEY:TOKEN; only their digests are kept.",
        checks.pairs,
        lambda text: [f"sha256-{one}" for one in text.split(",")] if text else [],
    ),
}
BUSINESS_REQUIRED = ("name", "plan", "numbers")


def problems_of(
    table: Mapping[str, Any], known: Mapping[str, Field], required: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a table's fields: the values that are good, and the problems of all others.

    A problem says what is wrong and what would do. A name that is not known is
    one, and so is a `required` one that is not there.
    """
    good: dict[str, Any] = {}
    problems = {name: f"is unknown{meant(name, known)}" for name in table if name not in known} | {
        name: "is missing" for name in required if name not in table
    }
    for name, field in known.items():
        if name in table:
            try:
                good[name] = field.check(table[name])
            except ValueError as error:
                problems[name] = str(error)
    return good, problems


def as_text(value: object) -> str:
    """Write a field's value as a store keeps it, and a form shows it."""
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return ",".join(value)
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return str(value)


def from_texts(texts: Mapping[str, str], known: Mapping[str, Field]) -> dict[str, Any]:
    """Read known fields from text, of a store or a form; the inverse of `as_text`.

    A text that cannot be read stays as it is, for its check to refuse.
    """
    return {name: _read(field, texts[name]) for name, field in known.items() if name in texts}


def _read(field: Field, text: str) -> Any:
    try:
        return field.from_text(text)
    except ValueError:
        return text


def meant(name: str, known: Collection[str]) -> str:
    """Say which known name is close to this one, if any is."""
    close = difflib.get_close_matches(name[:100], known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
