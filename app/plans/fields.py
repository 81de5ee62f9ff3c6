"""The fields of plans and businesses: what each may hold, and how text becomes it."""

import difflib
import hashlib
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import phonenumbers

from app.errors import ConfigurationError
from app.media import Encoding

IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,128}")
# A business's id and a plan's name travel together in a stream's ticket, and
# Twilio takes less than 500 characters for it.
PLAN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# ITU-T E.164: a country code, which never begins with 0; 15 digits at most.
E164 = re.compile(r"\+[1-9][0-9]{1,14}")
# A number as a carrier names it: E.164, or digits alone.
DIALLED = re.compile(r"\+?[0-9]{2,15}")
# twilio.com/docs/voice/twiml/sip: a SIP URI, "must be less than 255 characters".
SIP_ADDRESS = re.compile(r"(?!.{255})sips?:[!#-;=?A-~]+@[!#-;=?A-~]+")
PAIR_DIGEST = re.compile(r"sha256-[0-9a-f]{64}")
SENTENCE_MAX_CHARS = 500
# Twilio sends 20 ms a message: the shortest entry there can be.
CARRIER_FRAME_MS = 20
SAMPLE_RATES = (8000, 16000, 24000)


class TrackPlan(StrEnum):
    """Whom a plan lets be heard: the caller alone, or both parties."""

    INBOUND = "inbound"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Field:
    """How a field is checked, and how stored text becomes what TOML would give."""

    check: Callable[[Any], Any]
    from_text: Callable[[str], Any] = str


def _whole(lowest: int, highest: int) -> Field:
    def check(value: object) -> int:
        # A TOML boolean is a Python int too.
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("must be a whole number")
        if not lowest <= value <= highest:
            raise ValueError(f"must be {lowest} to {highest}, is {value}")
        return value

    return Field(check, int)


def _rate(lowest: float, highest: float) -> Field:
    def check(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError("must be a number")
        if not (lowest <= value <= highest or value == math.inf):
            raise ValueError(f"must be {lowest:g} to {highest:g}, or inf, is {value}")
        return float(value)

    return Field(check, float)


def _one_of(choices: type[StrEnum]) -> Field:
    def check(value: object) -> StrEnum:
        for choice in choices:
            if choice == value:
                return choice
        raise ValueError(f"must be one of: {', '.join(choices)}")

    return Field(check)


def _sample_rate(value: object) -> int:
    for rate in SAMPLE_RATES:
        if type(value) is int and value == rate:
            return rate
    raise ValueError(f"must be one of: {', '.join(map(str, SAMPLE_RATES))} (Hz)")


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text in quotes")
    return value


def _sentence(value: object) -> str:
    if len(text := _text(value)) > SENTENCE_MAX_CHARS:
        raise ValueError(f"must be at most {SENTENCE_MAX_CHARS} characters, has {len(text)}")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ValueError("must be valid Unicode")
    return text


def _title(value: object) -> str:
    if not (text := _sentence(value)).strip():
        raise ValueError("must not be empty")
    return text


def _matching(pattern: re.Pattern[str], wanted: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not pattern.fullmatch(text := _text(value)):
            raise ValueError(f"must be {wanted}")
        return text

    return check


identifier = _matching(IDENTIFIER, "1 to 128 of A-Z a-z 0-9 _ . -")
plan_name = _matching(PLAN_NAME, "1 to 64 of A-Z a-z 0-9 _ . -")
_number = _matching(E164, "a number in E.164 form, such as +15005550006")


def _numbers(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError('must be a list, such as ["+15005550006"]')
    numbers = tuple(_number(item) for item in value)
    if len(set(numbers)) < len(numbers):
        raise ValueError("names a number twice")
    return numbers


def _destination(value: object) -> str:
    text = _text(value)
    if text and not E164.fullmatch(text) and not SIP_ADDRESS.fullmatch(text):
        raise ValueError("must be a number such as +15005550006, or sip:name@host")
    return text


def _country(value: object) -> str:
    text = _text(value)
    if text and text not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError("must be two capital letters of a country, such as IN")
    return text


def _pairs(value: object) -> tuple[str, ...]:
    """Take pairs as a person writes them, `KEY:TOKEN`, and digests as they are stored."""
    if not isinstance(value, list):
        raise ValueError('must be a list, such as ["KEY:TOKEN"]')
    digests = []
    for item in value:
        text = _text(item)
        if PAIR_DIGEST.fullmatch(text):
            digests.append(text.removeprefix("sha256-"))
        elif all(text.partition(":")[::2]) and text.isascii():
            digests.append(hashlib.sha256(text.encode()).hexdigest())
        else:
            raise ValueError("must hold pairs of the form KEY:TOKEN")
    return tuple(digests)


PLAN_FIELDS: Mapping[str, Field] = {
    "max_concurrent_calls": _whole(1, 100_000),
    # Twilio ends a call after four hours, unless an account asks for more.
    "max_call_seconds": _whole(1, 14_400),
    "tracks": _one_of(TrackPlan),
    "encoding": _one_of(Encoding),
    "sample_rate": Field(_sample_rate, int),
    "frame_ms": _whole(CARRIER_FRAME_MS, 1_000),
    "retention_seconds": _whole(1, 604_800),
    "return_audio": Field(_flag, {"true": True, "false": False}.get),
    "max_calls_per_second": _rate(0.01, 1_000),
}
BUSINESS_FIELDS: Mapping[str, Field] = {
    "name": Field(_title),
    "plan": Field(plan_name),
    "numbers": Field(_numbers, lambda text: text.split(",") if text else []),
    "forward_to": Field(_destination),
    "greeting": Field(_sentence),
    "busy_message": Field(_sentence),
    "after_stream": Field(_sentence),
    "country": Field(_country),
    "exotel_pairs": Field(
        _pairs, lambda text: [f"sha256-{one}" for one in text.split(",")] if text else []
    ),
}
BUSINESS_REQUIRED = ("name", "plan", "numbers")


def values(
    place: str,
    table: Mapping[str, Any],
    known: Mapping[str, Field],
    required: Collection[str] = (),
) -> dict[str, Any]:
    """Read the fields of a table that are known; `required` ones must be there.

    Raises:
        ConfigurationError: names the place, the field and the problem.
    """
    for name in required:
        if name not in table:
            raise ConfigurationError(f"{place} {name}: is missing")
    return {
        name: checked(place, name, field.check, table[name])
        for name, field in known.items()
        if name in table
    }


def checked(place: str, name: str, check: Callable[[Any], Any], value: object) -> Any:
    """Give a value as its check has it, or raise ConfigurationError with its place."""
    try:
        return check(value)
    except ValueError as error:
        raise ConfigurationError(f"{place} {name}: {error}") from error


def as_text(value: object) -> str:
    """Write a field's value as a store keeps it."""
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return ",".join(value)
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return str(value)


def read_stored(
    place: str, stored: Mapping[str, str], known: Mapping[str, Field]
) -> dict[str, Any]:
    """Read a record's fields from a store's text; the inverse of `as_text`."""
    return {
        name: checked(place, name, field.from_text, stored[name])
        for name, field in known.items()
        if name in stored
    }


def refuse_unknown(place: str, table: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise ConfigurationError for a name that is not known, with the one that was meant."""
    for name in table:
        if name not in known:
            raise ConfigurationError(f"{place} {name}: is unknown{meant(name, known)}".lstrip())


def meant(name: str, known: Collection[str]) -> str:
    """Say which known name is close to this one, if any is."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
