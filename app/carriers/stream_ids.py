"""The ids under which streams are published: each can only be produced for one business.

A Twilio stream keeps Twilio's own id, `MZ…`. Any other stream gets an id that is derived
from its carrier, its business and the name that its peer uses:

    {carrier}-{first 32 hexadecimal digits of SHA-256("{carrier}\\n{business}\\n{name}")}

The id is the same each time, so that a second socket for a stream that is live is
recognised, on any replica. None of the parts can hold a newline, so no two combinations of
business and name are hashed as the same text. A peer cannot choose a derived id: what it
sends is hashed, and no derived id begins with `MZ`.
"""

import hashlib
import re
from typing import Final

TWILIO: Final = "twilio"
CARRIERS: Final = (TWILIO, "exotel", "client")
DIGEST_DIGITS: Final = 32

_TWILIO_ID = re.compile(r"MZ[A-Za-z0-9_.-]{0,126}")
_PART = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def stream_id(carrier: str, business_id: str, name: str) -> str:
    """Return the id of the stream that a peer of this business calls `name`.

    Development sockets may send shorter Twilio ids than Twilio itself does, such as `MZ1`;
    they are kept too. An id without the prefix is derived, also on a Twilio socket.

    Raises:
        ValueError: the business's id or the name is not of the form `[A-Za-z0-9_.-]{1,128}`.
    """
    for part in (carrier, business_id, name):
        if _PART.fullmatch(part) is None:
            raise ValueError(f"{part!r} is not of the form [A-Za-z0-9_.-]{{1,128}}")
    if carrier == TWILIO and _TWILIO_ID.fullmatch(name):
        return name
    digest = hashlib.sha256(f"{carrier}\n{business_id}\n{name}".encode()).hexdigest()
    return f"{carrier}-{digest[:DIGEST_DIGITS]}"
