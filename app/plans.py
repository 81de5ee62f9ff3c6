"""Businesses and their plans: what they may use, and how they are read.

Two sources, one set of rules: the businesses file (TOML, `parse_directory`) and
a store's text fields (`as_fields`, `from_fields`).
"""

import difflib
import hashlib
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import phonenumbers

from app.errors import ConfigurationError
from app.media import Encoding, MediaFormat, Track

IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,128}")
# A business's id and a plan's name travel together in a stream's ticket, and
# Twilio takes less than 500 characters for it.
PLAN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# ITU-T E.164: a country code, which never begins with 0; 15 digits at most.
E164 = re.compile(r"\+[1-9][0-9]{1,14}")
# twilio.com/docs/voice/twiml/sip: a SIP URI, "must be less than 255 characters".
# A number as a carrier names it: E.164, or digits alone.
DIALLED = re.compile(r"\+?[0-9]{2,15}")
SIP_ADDRESS = re.compile(r"(?!.{255})sips?:[!#-;=?A-~]+@[!#-;=?A-~]+")
PAIR_DIGEST = re.compile(r"sha256-[0-9a-f]{64}")
SENTENCE_MAX_CHARS = 500
# Twilio sends 20 ms a message: the shortest entry there can be.
CARRIER_FRAME_MS = 20
SAMPLE_RATES = (8000, 16000, 24000)

AFTER_STREAM = "We are sorry, we cannot continue this call. Please call again later. Goodbye."


class TrackPlan(StrEnum):
    """Whom a plan lets be heard: the caller alone, or both parties."""

    INBOUND = "inbound"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a business may use, and the form in which its audio is published.

    `sample_rate` is in Hz; `frame_ms` is the length up to which carrier frames
    of one track are joined into one entry.
    """

    name: str
    max_concurrent_calls: int = 10
    max_call_seconds: int = 3600
    tracks: TrackPlan = TrackPlan.INBOUND
    encoding: Encoding = Encoding.PCM16
    sample_rate: int = 8000
    frame_ms: int = 20
    retention_seconds: int = 3600
    return_audio: bool = False

    @property
    def published_tracks(self) -> tuple[Track, ...]:
        """Name the tracks that may be published."""
        return tuple(Track) if self.tracks is TrackPlan.BOTH else (Track.INBOUND,)

    @property
    def published_format(self) -> MediaFormat:
        """Describe the published audio of one track."""
        return MediaFormat(self.encoding, self.sample_rate)

    @property
    def max_entries(self) -> int:
        """Count the entries of one stream that hold `retention_seconds` of audio.

        Whole carrier frames are joined, so an entry may be shorter than `frame_ms`.
        """
        entry_ms = self.frame_ms - self.frame_ms % CARRIER_FRAME_MS
        return -(-self.retention_seconds * 1000 // entry_ms) * len(self.published_tracks)

    def as_fields(self) -> dict[str, str]:
        """Give the plan as text fields; the inverse of `from_fields`."""
        return _as_fields(self)

    @staticmethod
    def from_fields(stored: Mapping[str, str]) -> "Plan":
        """Read a plan from text fields; fields of a later version are ignored.

        Raises:
            ConfigurationError: a field is missing or out of range.
        """
        name = stored.get("name", "")
        return _read_plan(name, _from_text(f"[plans.{name}]", stored, _PLAN_FIELDS))


@dataclass(frozen=True, slots=True)
class Business:
    """Who owns a call: its numbers (E.164), and what its callers hear.

    `forward_to` is an E.164 number or a SIP address. A text that is empty is
    left out of the call. `after_stream` is said when the stream ends first.
    `country` (ISO 3166-1, two letters) is where its numbers are also dialled in
    national form. `exotel_pairs` are SHA-256 digests of its own `KEY:TOKEN`
    pairs, in hexadecimal: the pairs themselves are kept nowhere.
    """

    id: str
    name: str
    plan: str
    numbers: tuple[str, ...] = ()
    forward_to: str = ""
    greeting: str = ""
    busy_message: str = ""
    after_stream: str = AFTER_STREAM
    country: str = ""
    exotel_pairs: tuple[str, ...] = ()

    @property
    def dialled_forms(self) -> tuple[str, ...]:
        """Give every form in which a carrier may name one of its numbers.

        E.164; and with a country, the national number with its trunk prefix and
        without, and E.164 without its plus.
        """
        forms = list(self.numbers)
        if self.country:
            for number in self.numbers:
                parsed = phonenumbers.parse(number)
                written = phonenumbers.format_number(
                    parsed, phonenumbers.PhoneNumberFormat.NATIONAL
                )
                with_trunk = "".join(filter(str.isdigit, written))
                forms += [number[1:], with_trunk, phonenumbers.national_significant_number(parsed)]
        return tuple(dict.fromkeys(forms))

    def as_fields(self) -> dict[str, str]:
        """Give the business as text fields; the inverse of `from_fields`."""
        return _as_fields(self)

    @staticmethod
    def from_fields(stored: Mapping[str, str]) -> "Business":
        """Read a business from text fields; fields of a later version are ignored.

        Raises:
            ConfigurationError: a field is missing or out of range.
        """
        id_ = stored.get("id", "")
        return _read_business(id_, _from_text(f"[businesses.{id_}]", stored, _BUSINESS_FIELDS))


@dataclass(frozen=True, slots=True)
class Directory:
    """Every plan and every business; each business's plan is among the plans."""

    plans: tuple[Plan, ...] = ()
    businesses: tuple[Business, ...] = ()


def parse_directory(toml_text: str, source: str) -> Directory:
    """Read the businesses file: `[plans.NAME]` and `[businesses.ID]` tables.

    `source` is the file's name, for the message.

    Raises:
        ConfigurationError: names the file, the table, the field and the problem.
    """
    try:
        document = tomllib.loads(toml_text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{source}: is not TOML: {error}") from error
    try:
        _refuse_unknown("", document, ("plans", "businesses"))
        plans = tuple(_read_plan(*table) for table in _tables(document, "plans"))
        businesses = tuple(_read_business(*table) for table in _tables(document, "businesses"))
        _check_references(plans, businesses)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from error
    return Directory(plans, businesses)


# ------------------------------------------------------------ one field's rules


@dataclass(frozen=True, slots=True)
class _Field:
    """How a field is checked, and how stored text becomes what TOML would give."""

    check: Callable[[Any], Any]
    from_text: Callable[[str], Any] = str


def _whole(lowest: int, highest: int) -> _Field:
    def check(value: object) -> int:
        # A TOML boolean is a Python int too.
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("must be a whole number")
        if not lowest <= value <= highest:
            raise ValueError(f"must be {lowest} to {highest}, is {value}")
        return value

    return _Field(check, int)


def _one_of(choices: type[StrEnum]) -> _Field:
    def check(value: object) -> StrEnum:
        for choice in choices:
            if choice == value:
                return choice
        raise ValueError(f"must be one of: {', '.join(choices)}")

    return _Field(check)


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


_identifier = _matching(IDENTIFIER, "1 to 128 of A-Z a-z 0-9 _ . -")
_plan_name = _matching(PLAN_NAME, "1 to 64 of A-Z a-z 0-9 _ . -")
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


_PLAN_FIELDS: Mapping[str, _Field] = {
    "max_concurrent_calls": _whole(1, 100_000),
    # Twilio ends a call after four hours, unless an account asks for more.
    "max_call_seconds": _whole(1, 14_400),
    "tracks": _one_of(TrackPlan),
    "encoding": _one_of(Encoding),
    "sample_rate": _Field(_sample_rate, int),
    "frame_ms": _whole(CARRIER_FRAME_MS, 1_000),
    "retention_seconds": _whole(1, 604_800),
    "return_audio": _Field(_flag, {"true": True, "false": False}.get),
}
_BUSINESS_FIELDS: Mapping[str, _Field] = {
    "name": _Field(_title),
    "plan": _Field(_plan_name),
    "numbers": _Field(_numbers, lambda text: text.split(",") if text else []),
    "forward_to": _Field(_destination),
    "greeting": _Field(_sentence),
    "busy_message": _Field(_sentence),
    "after_stream": _Field(_sentence),
    "country": _Field(_country),
    "exotel_pairs": _Field(
        _pairs, lambda text: [f"sha256-{one}" for one in text.split(",")] if text else []
    ),
}
_BUSINESS_REQUIRED = ("name", "plan", "numbers")


# ------------------------------------------------------------- whole tables


def _tables(document: Mapping[str, Any], kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    tables = document.get(kind, {})
    if not isinstance(tables, dict):
        raise ConfigurationError(f"{kind}: must be tables, written [{kind}.NAME]")
    for key, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigurationError(f"[{kind}] {key}: must be a table, written [{kind}.{key}]")
    return list(tables.items())


def _read_plan(name: str, table: Mapping[str, Any]) -> Plan:
    place = f"[plans.{name}]"
    _refuse_unknown(place, table, _PLAN_FIELDS)
    return Plan(
        name=_checked(place, "name", _plan_name, name), **_values(place, table, _PLAN_FIELDS)
    )


def _read_business(business_id: str, table: Mapping[str, Any]) -> Business:
    place = f"[businesses.{business_id}]"
    _refuse_unknown(place, table, _BUSINESS_FIELDS)
    checked = _values(place, table, _BUSINESS_FIELDS, _BUSINESS_REQUIRED)
    return Business(id=_checked(place, "id", _identifier, business_id), **checked)


def _values(
    place: str,
    table: Mapping[str, Any],
    known: Mapping[str, _Field],
    required: Collection[str] = (),
) -> dict[str, Any]:
    for name in required:
        if name not in table:
            raise ConfigurationError(f"{place} {name}: is missing")
    return {
        name: _checked(place, name, field.check, table[name])
        for name, field in known.items()
        if name in table
    }


def _checked(place: str, name: str, check: Callable[[Any], Any], value: object) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise ConfigurationError(f"{place} {name}: {error}") from error


def _refuse_unknown(place: str, table: Mapping[str, Any], known: Collection[str]) -> None:
    for name in table:
        if name not in known:
            raise ConfigurationError(f"{place} {name}: is unknown{_meant(name, known)}".lstrip())


def _check_references(plans: Collection[Plan], businesses: Collection[Business]) -> None:
    names = {plan.name for plan in plans}
    owners: dict[str, str] = {}
    for business in businesses:
        place = f"[businesses.{business.id}]"
        if business.plan not in names:
            hint = _meant(business.plan, names)
            raise ConfigurationError(f"{place} plan: there is no plan {business.plan!r}{hint}")
        for number in business.dialled_forms:
            if (owner := owners.setdefault(number, business.id)) != business.id:
                raise ConfigurationError(f"{place} numbers: {number} belongs to {owner!r} already")
        for pair in business.exotel_pairs:
            if (owner := owners.setdefault(pair, business.id)) != business.id:
                raise ConfigurationError(f"{place} exotel_pairs: one belongs to {owner!r} already")


def _meant(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


# ------------------------------------------------------------- stored text


def _as_fields(record: Plan | Business) -> dict[str, str]:
    return {field.name: _as_text(getattr(record, field.name)) for field in fields(record)}


def _as_text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return ",".join(value)
        case _:
            return str(value)


def _from_text(
    place: str, stored: Mapping[str, str], known: Mapping[str, _Field]
) -> dict[str, Any]:
    return {
        name: _checked(place, name, field.from_text, stored[name])
        for name, field in known.items()
        if name in stored
    }
