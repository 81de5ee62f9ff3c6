"""How long the texts may be that a carrier or a client names and that are kept.

A text beyond its bound is cut, and ends in an ellipsis. No number, status or id contains
one: a text that was cut equals none that is stored, and is no valid id.
"""

from collections.abc import Mapping
from typing import Final

ELLIPSIS: Final = "…"
# A phone number, or the SIP address that is in its place.
MAX_NUMBER_CHARACTERS: Final = 128
MAX_STATUS_CHARACTERS: Final = 64
MAX_COUNT_CHARACTERS: Final = 20
MAX_ERROR_CHARACTERS: Final = 1000
# Ids have 128 at most.
MAX_FIELD_CHARACTERS: Final = 129

# Of the fields of Twilio's forms; any other has MAX_FIELD_CHARACTERS.
FORM_FIELDS: Final[Mapping[str, int]] = {
    "From": MAX_NUMBER_CHARACTERS,
    "To": MAX_NUMBER_CHARACTERS,
    "CallStatus": MAX_STATUS_CHARACTERS,
    "DialCallStatus": MAX_STATUS_CHARACTERS,
    "StreamEvent": MAX_STATUS_CHARACTERS,
    "CallDuration": MAX_COUNT_CHARACTERS,
    "SequenceNumber": MAX_COUNT_CHARACTERS,
    "StreamError": MAX_ERROR_CHARACTERS,
}


def cut(text: str, most: int) -> str:
    """Return a text of at most `most` characters; one that was longer ends in an ellipsis."""
    return text if len(text) <= most else text[: most - len(ELLIPSIS)] + ELLIPSIS


def form_field(form: Mapping[str, str], name: str) -> str:
    """Return a field of one of Twilio's forms, cut to its bound; empty where it is missing."""
    return cut(form.get(name, ""), FORM_FIELDS.get(name, MAX_FIELD_CHARACTERS))
