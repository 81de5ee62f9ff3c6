"""What a capture must not hold: tickets and other secrets, digits pressed, phone numbers.

Texts are replaced where they stand, so that the rest of a message stays byte for byte
as it came, whether it is good JSON or not. Audio is not touched: it has no such names.
"""

import re
from collections.abc import Callable
from typing import Final

from app.log import HIDDEN

# A digit that carriers do send, so that a replayed capture still presses a key.
HIDDEN_DIGIT: Final = "0"
_VALUE: Final = r'(?:"(?:[^"\\]|\\.)*"?|[^\s,}\]"]+)'
_NAMED: Final = re.compile(
    r'("(?:[a-z_.-]{0,64}(?:ticket|token|secret|password|passwd|authorization|signature|api_?key)'
    rf'[a-z_.-]{{0,64}})"\s*:\s*){_VALUE}',
    re.IGNORECASE | re.DOTALL,
)
_DIGIT: Final = re.compile(rf'("digits?"\s*:\s*){_VALUE}', re.IGNORECASE | re.DOTALL)
_NUMBER: Final = re.compile(
    r'("(?:from|to|caller|called|callfrom|callto|phone|number)"\s*:\s*)'
    r'(?:"([^"\\]*)"?|(\+?[0-9]{6,20}))',
    re.IGNORECASE,
)
_E164: Final = re.compile(r'"(\+[0-9][0-9 ().-]{5,24})(?=")')
# Nearly every message has none of these, and needs no closer look.
_HINTS: Final = (
    *("ticket", "token", "secret", "passw", "authorization", "signature", "api_key", "apikey"),
    *('"digit', '"from"', '"to"', '"call', '"phone"', '"number"', '"+'),
)


def masked_message(message: str, mask_phone: Callable[[str], str]) -> str:
    """Give a message without what must stay secret.

    The value of a name with `ticket`, `token`, `secret`, `password`, `authorization`,
    `signature` or `api_key` in it becomes `***`, of `digit` and `digits` `0`; numbers, by
    name or by the form of E.164, are what `mask_phone` makes of them.
    """
    lowered = message.lower()
    if not any(hint in lowered for hint in _HINTS):
        return message
    masked = _NAMED.sub(rf'\1"{HIDDEN}"', message)
    masked = _DIGIT.sub(rf'\1"{HIDDEN_DIGIT}"', masked)
    masked = _NUMBER.sub(
        lambda found: f'{found[1]}"{mask_phone(found[2] or found[3] or "")}"', masked
    )
    return _E164.sub(lambda found: '"' + mask_phone(found[1]), masked)
