"""Businesses and their plans, as values."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import phonenumbers

from app.errors import ConfigurationError, FieldsInvalid
from app.media import Encoding, MediaFormat, Track
from app.plans.checks import OWN_COUNTRIES, SIP_ANYWHERE, identifier, plan_name
from app.plans.fields import (
    BUSINESS_FIELDS,
    BUSINESS_REQUIRED,
    CARRIER_FRAME_MS,
    PLAN_FIELDS,
    TrackPlan,
    as_text,
    from_texts,
    problems_of,
)

AFTER_STREAM = "We are sorry, we cannot continue this call. Please call again later. Goodbye."
NOT_ANSWERED = "We are sorry, nobody can take your call right now. Please call later. Goodbye."


@dataclass(frozen=True, slots=True)
class _Record:
    """What a store keeps as text fields."""

    def as_fields(self) -> dict[str, str]:
        """Give the record as text fields; the inverse of `from_fields`."""
        return {field.name: as_text(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class Plan(_Record):
    """What a business may use, and the form in which its audio is published.

    `sample_rate` is in Hz; `frame_ms` is the length up to which carrier frames
    of one track are joined into one entry. `max_calls_per_second` is infinite
    where calls may come as fast as they like, and 0.5 where one in two seconds.
    What a month may have is a whole number, or infinite where it has no limit.
    `allowed_destinations` is where calls may be forwarded or transferred to
    (`businesses.destinations`).
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
    max_calls_per_second: float = math.inf
    calls_per_month_soft: float = math.inf
    calls_per_month_hard: float = math.inf
    minutes_per_month_soft: float = math.inf
    minutes_per_month_hard: float = math.inf
    allowed_destinations: tuple[str, ...] = (OWN_COUNTRIES, SIP_ANYWHERE)

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

    @staticmethod
    def from_fields(stored: Mapping[str, str]) -> "Plan":
        """Read a plan from text fields; fields of a later version are ignored.

        Raises:
            ConfigurationError: a field is missing or out of range.
        """
        name = stored.get("name", "")
        return read_plan(name, from_texts(stored, PLAN_FIELDS))


@dataclass(frozen=True, slots=True)
class Business(_Record):
    """Who owns a call: its numbers (E.164), and what its callers hear.

    `forward_to` is an E.164 number or a SIP address. A text that is empty is
    left out of the call. `consent_notice` is said before the stream begins,
    `after_stream` when the stream ends first, and `not_answered` when the call to
    `forward_to` is not answered. `twilio_account_sid` is its own account's.
    `capture_calls` allows `media-bridge record`.
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
    consent_notice: str = ""
    not_answered: str = NOT_ANSWERED
    usage_webhook_url: str = ""
    twilio_account_sid: str = ""
    capture_calls: bool = False

    @property
    def dialled_forms(self) -> tuple[str, ...]:
        """Give every form in which a carrier may name one of its numbers.

        E.164; and with a country, the national number with its trunk prefix and
        without, and E.164 without its plus.
        """
        forms = list(self.numbers)
        if self.country:
            for number in self.numbers:
                forms += _national_forms(number)
        return tuple(dict.fromkeys(forms))

    @staticmethod
    def from_fields(stored: Mapping[str, str]) -> "Business":
        """Read a business from text fields; fields of a later version are ignored.

        Raises:
            ConfigurationError: a field is missing or out of range.
        """
        id_ = stored.get("id", "")
        return read_business(id_, from_texts(stored, BUSINESS_FIELDS))


def _national_forms(number: str) -> list[str]:
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return []  # no country has this code
    written = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
    with_trunk = "".join(filter(str.isdigit, written))
    return [number[1:], with_trunk, phonenumbers.national_significant_number(parsed)]


@dataclass(frozen=True, slots=True)
class Directory:
    """Every plan and every business; each business's plan is among the plans."""

    plans: tuple[Plan, ...] = ()
    businesses: tuple[Business, ...] = ()


def make_plan(name: object, table: Mapping[str, Any]) -> Plan:
    """Make a plan of a table's values, as JSON or TOML gives them.

    Raises:
        FieldsInvalid: has every field's problem; its name's is under `name`.
    """
    good, problems = problems_of(table, PLAN_FIELDS)
    _check_name(problems, "name", plan_name, name)
    for what in ("calls", "minutes"):
        soft, hard = f"{what}_per_month_soft", f"{what}_per_month_hard"
        if math.inf > good.get(soft, math.inf) > good.get(hard, math.inf):
            problems[soft] = f"must be at most {hard}, which is {good[hard]}, or inf"
    if problems:
        raise FieldsInvalid(problems)
    return Plan(name=str(name), **good)


def make_business(business_id: object, table: Mapping[str, Any]) -> Business:
    """Make a business of a table's values, as JSON or TOML gives them.

    Whether its plan is there is not known here.

    Raises:
        FieldsInvalid: has every field's problem; its id's is under `id`.
    """
    good, problems = problems_of(table, BUSINESS_FIELDS, BUSINESS_REQUIRED)
    _check_name(problems, "id", identifier, business_id)
    if problems:
        raise FieldsInvalid(problems)
    return Business(id=str(business_id), **good)


def read_plan(name: str, table: Mapping[str, Any]) -> Plan:
    """Make a plan as `make_plan`, or raise ConfigurationError with the place."""
    try:
        return make_plan(name, table)
    except FieldsInvalid as error:
        raise _placed(f"[plans.{name}]", error) from error


def read_business(business_id: str, table: Mapping[str, Any]) -> Business:
    """Make a business as `make_business`, or raise ConfigurationError with the place."""
    try:
        return make_business(business_id, table)
    except FieldsInvalid as error:
        raise _placed(f"[businesses.{business_id}]", error) from error


def _check_name(
    problems: dict[str, str], field: str, check: Callable[[object], str], value: object
) -> None:
    try:
        check(value)
    except ValueError as error:
        problems.setdefault(field, str(error))


def _placed(place: str, error: FieldsInvalid) -> ConfigurationError:
    field, problem = next(iter(error.problems.items()))
    return ConfigurationError(f"{place} {field}: {problem}")
