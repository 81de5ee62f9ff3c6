"""Businesses and their plans, as values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import phonenumbers

from app.media import Encoding, MediaFormat, Track
from app.plans.fields import (
    BUSINESS_FIELDS,
    BUSINESS_REQUIRED,
    CARRIER_FRAME_MS,
    PLAN_FIELDS,
    TrackPlan,
    as_text,
    checked,
    identifier,
    plan_name,
    read_stored,
    refuse_unknown,
    values,
)

AFTER_STREAM = "We are sorry, we cannot continue this call. Please call again later. Goodbye."


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
        return read_plan(name, read_stored(f"[plans.{name}]", stored, PLAN_FIELDS))


@dataclass(frozen=True, slots=True)
class Business(_Record):
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

    @staticmethod
    def from_fields(stored: Mapping[str, str]) -> "Business":
        """Read a business from text fields; fields of a later version are ignored.

        Raises:
            ConfigurationError: a field is missing or out of range.
        """
        id_ = stored.get("id", "")
        return read_business(id_, read_stored(f"[businesses.{id_}]", stored, BUSINESS_FIELDS))


@dataclass(frozen=True, slots=True)
class Directory:
    """Every plan and every business; each business's plan is among the plans."""

    plans: tuple[Plan, ...] = ()
    businesses: tuple[Business, ...] = ()


def read_plan(name: str, table: Mapping[str, Any]) -> Plan:
    """Make a plan of a table's values, or raise ConfigurationError with the place."""
    place = f"[plans.{name}]"
    refuse_unknown(place, table, PLAN_FIELDS)
    return Plan(name=checked(place, "name", plan_name, name), **values(place, table, PLAN_FIELDS))


def read_business(business_id: str, table: Mapping[str, Any]) -> Business:
    """Make a business of a table's values, or raise ConfigurationError with the place."""
    place = f"[businesses.{business_id}]"
    refuse_unknown(place, table, BUSINESS_FIELDS)
    known = values(place, table, BUSINESS_FIELDS, BUSINESS_REQUIRED)
    return Business(id=checked(place, "id", identifier, business_id), **known)
