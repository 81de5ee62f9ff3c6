"""How strong a secret that somebody typed must be: one table for variables and stored secrets."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

# The release from which a floor that is new in 0.2.0 stops the start.
ENFORCED_FROM: Final = "0.3.0"


@dataclass(frozen=True, slots=True)
class Floor:
    """The fewest characters a secret may have, and why that many.

    `is_new`: version 0.1 accepted less, so a variable that has less only causes a
    warning until ENFORCED_FROM, and a stored secret stays usable until it is replaced.
    """

    characters: int
    reason: str
    is_new: bool = False


_GENERATED: Final = "`openssl rand -hex 32` makes one that cannot be guessed"
FLOORS: Final[Mapping[str, Floor]] = {
    "SECRET_KEY": Floor(32, "it signs tickets and encrypts secrets; " + _GENERATED),
    "ADMIN_TOKEN": Floor(32, "it opens every business; " + _GENERATED),
    "JWT_SECRET": Floor(32, "HS256 needs a key as long as its hash (RFC 7518, 3.2)"),
    "TWILIO_AUTH_TOKEN": Floor(32, "auth tokens of Twilio have 32 characters", is_new=True),
    "EXOTEL_API_KEY": Floor(16, "with its token it admits every call of Exotel", is_new=True),
    "EXOTEL_API_TOKEN": Floor(16, "with its key it admits every call of Exotel", is_new=True),
    "METRICS_TOKEN": Floor(16, _GENERATED, is_new=True),
    "twilio_auth_tokens": Floor(32, "auth tokens of Twilio have 32 characters", is_new=True),
    "usage_webhook_secret": Floor(16, "it signs notices; " + _GENERATED),
}
PLACEHOLDER_REFUSED: Final = "must not be a placeholder from an example, which anyone can guess"
_PLACEHOLDER: Final = re.compile(
    r"""change[-_ ]?(me|this|it)
    | placeholder | example[-_ ]?(key|token|secret|password)
    | \b(your|my)[-_ ]([a-z]+[-_ ])*(token|key|secret|password)
    | ^(current|older|new|old)-(token|key)$
    | ^\$[({] | ^<.*>$
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_placeholder(text: str) -> bool:
    """Return whether a text was copied from an example instead of being generated."""
    return _PLACEHOLDER.search(text) is not None


def weakness_of(name: str, texts: Iterable[str]) -> str:
    """Return what is wrong with the secrets of this name, or an empty string.

    The answer follows the name in a sentence and holds nothing of the secrets.
    """
    floor = FLOORS[name]
    for text in texts:
        if is_placeholder(text):
            return PLACEHOLDER_REFUSED
        if len(text) < floor.characters:
            return f"must have at least {floor.characters} characters: {floor.reason}"
    return ""
