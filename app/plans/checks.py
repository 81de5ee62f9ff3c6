"""What a field of a plan or business may hold: checks that give a value, or say what would do.

Each takes anything, and gives the value as a record has it, or raises
ValueError with a sentence fit for whoever typed it.
"""

import hashlib
import math
import re
import unicodedata
from collections.abc import Callable
from enum import StrEnum
from urllib.parse import urlsplit

import phonenumbers

# Dots alone are a step in a path: no address and no name of a file could have such an id.
IDENTIFIER = re.compile(r"(?!\.+\Z)[A-Za-z0-9_.-]{1,128}")
# A business's id and a plan's name travel together in a stream's ticket, and
# Twilio takes less than 500 characters for it.
PLAN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# ITU-T E.164: a country code, which never begins with 0; 15 digits at most.
E164 = re.compile(r"\+[1-9][0-9]{1,14}")
E164_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}")
# A number as a carrier names it: E.164, or digits alone.
DIALLED = re.compile(r"\+?[0-9]{2,15}")
# twilio.com/docs/voice/twiml/sip: a SIP URI, "must be less than 255 characters".
SIP_ADDRESS = re.compile(r"(?!.{255})sips?:[!#-;=?A-~]+@[!#-;=?A-~]+")
# twilio.com/docs/iam/api/account: "^AC[0-9a-fA-F]{32}$".
ACCOUNT_SID = re.compile(r"AC[0-9a-fA-F]{32}")
PAIR_DIGEST = re.compile(r"sha256-[0-9a-f]{64}")
SENTENCE_MAX_CHARS = 500
URL_MAX_CHARS = 500
# Bounds of a record: each number, in each of its dialled forms, is a key of its own.
MOST_NUMBERS = 500
MOST_PAIRS = 10
MOST_DESTINATIONS = 300
# Entries of a plan's `allowed_destinations`, beside countries and prefixes of numbers.
OWN_COUNTRIES = "own"
SIP_ANYWHERE = "sip"
ANYWHERE = "any"
SIP_PREFIX = "sip:"
URL_PREFIX = "https://"
# Marks that turn the direction of the text around them: what is seen is not what stands there.
_DIRECTION_MARKS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LINE_SEPARATORS = frozenset("\u2028\u2029")


def whole(lowest: int, highest: int) -> Callable[[object], int]:
    """Check for a whole number within these."""

    def check(value: object) -> int:
        # A TOML boolean is a Python int too.
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("must be a whole number")
        if not lowest <= value <= highest:
            raise ValueError(f"must be {lowest} to {highest}, is {shown(value)}")
        return value

    return check


def whole_or_inf(highest: int) -> Callable[[object], float]:
    """Check for a whole number from 1, or infinity, which is no limit."""

    def check(value: object) -> float:
        if isinstance(value, bool) or not (isinstance(value, int) or value == math.inf):
            raise ValueError("must be a whole number, or inf for no limit")
        if value != math.inf and not 1 <= value <= highest:
            raise ValueError(f"must be 1 to {highest}, or inf for no limit, is {shown(value)}")
        return value

    return check


def rate(lowest: float, highest: float) -> Callable[[object], float]:
    """Check for a number within these, or infinity."""

    def check(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError("must be a number")
        if not (lowest <= value <= highest or value == math.inf):
            raise ValueError(f"must be {lowest:g} to {highest:g}, or inf, is {shown(value)}")
        return float(value)

    return check


def shown(number: float) -> str:
    """Write a number that is refused; one of very many digits is only called that."""
    return "far from it" if 10**18 <= abs(number) < math.inf else str(number)


def one_of(choices: type[StrEnum]) -> Callable[[object], StrEnum]:
    """Check for one of these words."""

    def check(value: object) -> StrEnum:
        for choice in choices:
            if choice == value:
                return choice
        raise ValueError(f"must be one of: {', '.join(choices)}")

    return check


def one_of_numbers(choices: tuple[int, ...], unit: str) -> Callable[[object], int]:
    """Check for one of these numbers."""

    def check(value: object) -> int:
        if type(value) is not int or value not in choices:
            raise ValueError(f"must be one of: {', '.join(map(str, choices))} ({unit})")
        return value

    return check


def flag(value: object) -> bool:
    """Check for a yes or no."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def sentence(value: object) -> str:
    """Check for one line of text that shows what it says, without space around it."""
    if len(text := _text(value).strip()) > SENTENCE_MAX_CHARS:
        raise ValueError(f"must be at most {SENTENCE_MAX_CHARS} characters, has {len(text)}")
    for character in text:
        if fault := _fault(character):
            raise ValueError(fault)
    return text


def cleaned(text: str) -> str:
    """Take out of stored text what `sentence` refuses; an earlier version stored it."""
    kept = (" " if _is_control(character) else character for character in text)
    return "".join(one for one in kept if one not in _DIRECTION_MARKS).strip()


def _fault(character: str) -> str:
    if 0xD800 <= ord(character) <= 0xDFFF:
        return "must be valid Unicode"
    if _is_control(character):
        return "must be one line without control characters; take out line breaks and tabs"
    if character in _DIRECTION_MARKS:
        return "must not hold marks that change the direction of text; type it anew without them"
    return ""


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc" or character in _LINE_SEPARATORS


def title(value: object) -> str:
    """Check for a sentence that says something."""
    if not (text := sentence(value)):
        raise ValueError("must not be empty")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def _matching(pattern: re.Pattern[str], wanted: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not pattern.fullmatch(text := _text(value)):
            raise ValueError(f"must be {wanted}")
        return text

    return check


identifier = _matching(IDENTIFIER, "1 to 128 of A-Z a-z 0-9 _ . -, and not of dots alone")
plan_name = _matching(PLAN_NAME, "1 to 64 of A-Z a-z 0-9 _ . -")
_number = _matching(E164, "a number in E.164 form, such as +15005550006")


def numbers(value: object) -> tuple[str, ...]:
    """Check for a list of E.164 numbers, none of them twice."""
    if not isinstance(value, list | tuple):
        raise ValueError('must be a list, such as ["+15005550006"]')
    if len(value) > MOST_NUMBERS:
        raise ValueError(f"must be at most {MOST_NUMBERS} numbers, are {len(value)}")
    found = tuple(_number(item) for item in value)
    if len(set(found)) < len(found):
        raise ValueError("names a number twice")
    return found


def destination(value: object) -> str:
    """Check for a number or SIP address, or nothing."""
    text = _text(value).strip()
    if text and not E164.fullmatch(text) and not SIP_ADDRESS.fullmatch(text):
        raise ValueError("must be a number such as +15005550006, or sip:name@host")
    return text


def allowed_destinations(value: object) -> tuple[str, ...]:
    """Check for a list of where calls may go, or the same as text with commas."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple):
        raise ValueError('must be a list, such as ["own", "sip", "CA"]')
    if len(given) > MOST_DESTINATIONS:
        raise ValueError(f"must be at most {MOST_DESTINATIONS} entries, are {len(given)}")
    entries = [_text(one).strip() for one in given]
    for entry in filter(None, entries):
        if not _is_allowed_destination(entry):
            if E164_PREFIX.fullmatch(entry):
                raise ValueError(
                    f"holds {entry}, which {_shared_by(entry)} countries share; name the "
                    "countries, or a longer prefix"
                )
            raise ValueError(
                f"holds {entry[:60]!r}; an entry is own, sip, any, a country such as CA, a prefix "
                "such as +4420, sip:HOST or https://HOST"
            )
    return tuple(dict.fromkeys(filter(None, entries)))


def _is_allowed_destination(entry: str) -> bool:
    if entry in (OWN_COUNTRIES, SIP_ANYWHERE, ANYWHERE) or entry in phonenumbers.SUPPORTED_REGIONS:
        return True
    for prefix in (SIP_PREFIX, URL_PREFIX):
        if entry.startswith(prefix):
            return re.fullmatch(_HOST, entry.removeprefix(prefix)) is not None
    return E164_PREFIX.fullmatch(entry) is not None and _shared_by(entry) == 1


def _shared_by(prefix: str) -> int:
    """Return how many countries a prefix covers, where it is no longer than a country code."""
    digits = prefix[1:]
    codes = phonenumbers.COUNTRY_CODE_TO_REGION_CODE
    covered = [regions for code, regions in codes.items() if str(code).startswith(digits)]
    return len({region for regions in covered for region in regions}) if covered else 1


def country(value: object) -> str:
    """Check for a country of ISO 3166-1 that has telephone numbers, or nothing."""
    text = _text(value).strip()
    if text and text not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError("must be two capital letters of a country, such as IN")
    return text


def https_url(value: object) -> str:
    """Check for an https URL without a user or fragment, or nothing."""
    text = _text(value).strip()
    if len(text) > URL_MAX_CHARS:
        raise ValueError(f"must be at most {URL_MAX_CHARS} characters, has {len(text)}")
    if text and not host_of_https_url(text):
        raise ValueError("must be an https URL, such as https://example.com/usage")
    return text


def host_of_https_url(text: str) -> str:
    """Return the host of an https URL without a user or fragment; empty for anything else."""
    # RFC 3986, 2: a URL has no other characters.
    if not re.fullmatch(r"[!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+", text):
        return ""
    try:
        parts = urlsplit(text)
        has_a_port = parts.port != 0
    except ValueError:
        return ""
    host, named = parts.hostname or "", "@" not in parts.netloc and "#" not in text
    is_good = parts.scheme == "https" and bool(re.fullmatch(_HOST, host)) and named and has_a_port
    return host if is_good else ""


# Labels of letters, digits and hyphens (RFC 1123, 2.1), or an IPv6 address.
_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
    r"|[0-9a-f:.]*:[0-9a-f:.]*"
)


def account_sid(value: object) -> str:
    """Check for a Twilio account's SID, or nothing."""
    text = _text(value).strip()
    if text and not ACCOUNT_SID.fullmatch(text):
        raise ValueError("must be AC and 32 of 0-9 a-f, as Twilio's console shows it")
    return text


def pairs(value: object) -> tuple[str, ...]:
    """Take pairs as a person writes them, `KEY:TOKEN`, and digests as they are stored."""
    if not isinstance(value, list | tuple):
        raise ValueError('must be a list, such as ["KEY:TOKEN"]')
    if len(value) > MOST_PAIRS:
        raise ValueError(f"must be at most {MOST_PAIRS} pairs, are {len(value)}")
    digests = []
    for item in value:
        text = _text(item)
        if PAIR_DIGEST.fullmatch(text):
            digests.append(text.removeprefix("sha256-"))
        elif all(text.partition(":")[::2]) and text.isascii() and text.isprintable():
            digests.append(hashlib.sha256(text.encode()).hexdigest())
        else:
            raise ValueError("must hold pairs of the form KEY:TOKEN")
    return tuple(dict.fromkeys(digests))
