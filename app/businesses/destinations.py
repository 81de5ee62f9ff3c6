"""Where calls may be forwarded or transferred to: the guard against toll fraud.

Pure. A plan's `allowed_destinations` says where; a business's numbers say what `own`
means. Countries and types of numbers are those of phonenumbers (libphonenumber).
Premium-rate numbers, satellite and international networks, short codes and emergency
numbers are refused under every plan.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import phonenumbers
from phonenumbers import PhoneNumber, PhoneNumberType, ValidationResult

from app.errors import DestinationNotAllowed, FieldsInvalid
from app.plans import DIALLED, E164, Business, Plan
from app.plans.checks import (
    ANYWHERE,
    OWN_COUNTRIES,
    SIP_ADDRESS,
    SIP_ANYWHERE,
    SIP_PREFIX,
    URL_PREFIX,
)

# What calls to a type of number cost is ordinary, or nothing.
ORDINARY: Final = frozenset(
    {
        PhoneNumberType.FIXED_LINE,
        PhoneNumberType.MOBILE,
        PhoneNumberType.FIXED_LINE_OR_MOBILE,
        PhoneNumberType.TOLL_FREE,
        PhoneNumberType.VOIP,
        PhoneNumberType.UAN,
    }
)
# ITU-T E.164, "List of assigned country codes": shared cost, Inmarsat, universal personal
# numbers, satellite networks, international networks, disaster relief, premium rate.
NEVER_CODES: Final = frozenset({808, 870, 878, 881, 882, 883, 888, 979})
WORLD: Final = "001"
# Twilio's Elastic SIP Trunking: `NAME.pstn.twilio.com`, `NAME.pstn.EDGE.twilio.com`. What is
# sent there is dialled in the telephone network.
_PSTN_HOST: Final = re.compile(r"(?:.*\.)?pstn(?:\.[a-z0-9-]+)?\.twilio\.com")
_SIP_PARTS: Final = re.compile(
    r"sips?:(?P<user>[^@;?]*)(?P<user_params>;[^@?]*)?@"
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?(?P<params>[;?].*)?",
    re.IGNORECASE,
)
_INTERNATIONAL_PREFIXES: Final = ("011", "00")


@dataclass(frozen=True, slots=True)
class DialRules:
    """Where one business's calls may go. `is_anywhere`: wherever is not refused to all."""

    countries: frozenset[str]
    prefixes: tuple[str, ...] = ()
    sip_hosts: frozenset[str] = frozenset()
    url_hosts: frozenset[str] = frozenset()
    is_sip_anywhere: bool = False
    is_anywhere: bool = False


NOWHERE: Final = DialRules(frozenset())


def dial_rules(plan: Plan, business: Business) -> DialRules:
    """Return where this plan lets this business's calls go."""
    return _rules(plan.allowed_destinations, business.numbers, business.country)


def check_forwarding(plan: Plan, business: Business) -> None:
    """Raise DestinationNotAllowed where the plan does not allow the business's `forward_to`."""
    if business.forward_to:
        problem = problem_of_destination(business.forward_to, dial_rules(plan, business))
        if problem:
            raise DestinationNotAllowed(f"forward_to {problem}")


def check_forward_to_field(plan: Plan, business: Business) -> None:
    """Raise FieldsInvalid for `forward_to`, as `check_forwarding`."""
    try:
        check_forwarding(plan, business)
    except DestinationNotAllowed as error:
        raise FieldsInvalid({"forward_to": str(error).removeprefix("forward_to ")}) from error


@lru_cache(maxsize=4096)
def problem_of_destination(text: str, rules: DialRules) -> str:
    """Return why a number or SIP address may not be called; empty where it may."""
    if text.lower().startswith(("sip:", "sips:")):
        return problem_of_sip(text, rules)
    return problem_of_number(text, rules)


def problem_of_number(text: str, rules: DialRules) -> str:
    """Return why a number may not be called; empty where it may."""
    number = _parsed(text)
    if number is None:
        return "is not a complete number in E.164 form, such as +14155550100"
    if problem := _problem_for_everybody(number):
        return problem
    if text in rules.prefixes:
        return ""
    kind = phonenumbers.number_type(number)
    if kind == PhoneNumberType.UNKNOWN:
        return "is in no range of numbers that is known to be in use"
    if text.startswith(rules.prefixes):
        return ""
    if kind not in ORDINARY:
        name = PhoneNumberType.to_string(kind).lower().replace("_", " ")
        return f"is a {name} number, which a plan allows only by its prefix"
    region = phonenumbers.region_code_for_number(number) or WORLD
    if rules.is_anywhere or region in rules.countries or _is_toll_free_in(number, kind, rules):
        return ""
    where = "an international range" if region == WORLD else region
    return f"is in {where}; the plan allows {_allowed(rules)}"


def problem_of_sip(text: str, rules: DialRules) -> str:
    """Return why a SIP address may not be called; empty where it may."""
    parts = _SIP_PARTS.fullmatch(text) if SIP_ADDRESS.fullmatch(text) else None
    if parts is None:
        return "is not a SIP address such as sip:name@host"
    host, params = parts["host"].lower().strip("[]."), (parts["params"] or "").lower()
    # RFC 3261, 19.1.1: both send the request to another host than the one that is named.
    if "maddr=" in params or "route=" in params:
        return "names another host in its parameters"
    number = _number_in(parts["user"], (parts["user_params"] or "") + params)
    is_telephone = _PSTN_HOST.fullmatch(host) is not None
    if is_telephone and not number:
        return "leads to the telephone network and names no number in E.164 form"
    if host in rules.sip_hosts or rules.is_anywhere:
        parsed = _parsed(number) if number else None
        if is_telephone:
            return problem_of_number(number, rules)
        return _problem_for_everybody(parsed) if parsed else ""
    if not rules.is_sip_anywhere:
        return f"is a SIP address; the plan allows {_allowed(rules)}"
    return problem_of_number(number, rules) if number else ""


@lru_cache(maxsize=1024)
def _rules(allowed: tuple[str, ...], numbers: tuple[str, ...], country: str) -> DialRules:
    countries = {one for one in allowed if one.isupper()}
    if OWN_COUNTRIES in allowed:
        countries |= _countries_of(numbers) | ({country} - {""})
    return DialRules(
        frozenset(countries),
        tuple(one for one in allowed if one.startswith("+")),
        frozenset(_without(SIP_PREFIX, allowed)),
        frozenset(_without(URL_PREFIX, allowed)),
        is_sip_anywhere=SIP_ANYWHERE in allowed or ANYWHERE in allowed,
        is_anywhere=ANYWHERE in allowed,
    )


def _without(prefix: str, allowed: Iterable[str]) -> list[str]:
    return [one.removeprefix(prefix) for one in allowed if one.startswith(prefix)]


def _countries_of(numbers: Iterable[str]) -> set[str]:
    """Return the countries of a business's own numbers, which operators connected."""
    found = set()
    for text in numbers:
        try:
            number = phonenumbers.parse(text)
        except phonenumbers.NumberParseException:
            continue
        code = number.country_code or 0
        # A range that is not known yet counts as the country that the code is mainly of.
        region = phonenumbers.region_code_for_number(number)
        found.add(region or phonenumbers.region_code_for_country_code(code))
    return found - {WORLD, phonenumbers.UNKNOWN_REGION}


def _parsed(text: str) -> PhoneNumber | None:
    """Parse E.164; None for what is no complete number."""
    if not E164.fullmatch(text):
        return None
    try:
        number = phonenumbers.parse(text)
    except phonenumbers.NumberParseException:
        return None
    if number.country_code in NEVER_CODES:
        return number
    reason = phonenumbers.is_possible_number_with_reason(number)
    return number if reason == ValidationResult.IS_POSSIBLE else None


def _problem_for_everybody(number: PhoneNumber) -> str:
    if number.country_code in NEVER_CODES:
        return f"is of +{number.country_code}, an international network, which is never called"
    kind = phonenumbers.number_type(number)
    if kind == PhoneNumberType.PREMIUM_RATE:
        return "is a premium-rate number, which is never called"
    if kind == PhoneNumberType.UNKNOWN and phonenumbers.is_valid_short_number(number):
        return "is a short code or an emergency number, which is never called"
    return ""


def _is_toll_free_in(number: PhoneNumber, kind: int, rules: DialRules) -> bool:
    """Return whether a number is free to call from a country that is allowed.

    Countries with one country code share their toll-free ranges: +1 800 is Canada's too.
    """
    return kind == PhoneNumberType.TOLL_FREE and any(
        phonenumbers.is_valid_number_for_region(number, country) for country in rules.countries
    )


def _number_in(user: str, params: str) -> str:
    """Return the number that a SIP address's user part is, in E.164 form; empty for a name."""
    digits = re.sub(r"%2b", "+", user.partition(":")[0], flags=re.IGNORECASE)
    digits = re.sub(r"[-.()]", "", digits)
    for prefix in _INTERNATIONAL_PREFIXES:
        if digits.isdecimal() and digits.startswith(prefix):
            return "+" + digits.removeprefix(prefix)
    if digits.startswith("+") and (DIALLED.fullmatch(digits) or "%" in digits):
        return digits
    return "+" + digits if "user=phone" in params.lower() and digits.isdecimal() else ""


def _allowed(rules: DialRules) -> str:
    named = [*sorted(rules.countries), *rules.prefixes]
    named += ["SIP addresses"] if rules.is_sip_anywhere else sorted(rules.sip_hosts)
    shown = ", ".join(named[:10]) + (", …" if len(named) > 10 else "")
    return shown or "no destination"
