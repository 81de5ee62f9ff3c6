"""Custom parameters, as every carrier sends them: a flat map of short texts."""

from collections.abc import Mapping
from itertools import islice
from typing import Final

MAX_PARAMS: Final = 64
# "The combined length of each <Parameter> name and value attributes must be under 500
# characters" (twilio.com/docs/voice/twiml/stream).
MAX_PARAM_CHARACTERS: Final = 500


def params_of(declared: object) -> dict[str, str]:
    """Read custom parameters as text; what is no mapping holds none.

    One that is too long or not flat is left out, as are those beyond 64; the call
    goes on without them.
    """
    if not isinstance(declared, Mapping):
        return {}
    texts = ((name, text_of(value)) for name, value in declared.items())
    fitting = (
        (name, text)
        for name, text in texts
        if text is not None and len(name) + len(text) <= MAX_PARAM_CHARACTERS
    )
    return dict(islice(fitting, MAX_PARAMS))


def text_of(value: object) -> str | None:
    """Read a flat JSON value as text; None when it is not one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return value if isinstance(value, str) else None
