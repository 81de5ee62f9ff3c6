"""A part of a file, as a Range header asks for it (RFC 9110, 14)."""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,15})-(?P<last>[0-9]{0,15})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `first` to `last`, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """Count the bytes."""
        return self.last - self.first + 1


class Unsatisfiable(ValueError):
    """Raised when no byte of the file is asked for."""


def asked_span(header: str | None, size: int) -> Span | None:
    """Read a Range header for a file of `size` bytes; None where the whole is to be sent.

    One that asks for several parts, or cannot be read, may be ignored (14.2), and is.

    Raises:
        Unsatisfiable: it begins behind the end, or asks for the last 0 bytes.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not (found["first"] or found["last"]):
        return None
    if not found["first"]:
        first, last = max(0, size - int(found["last"])), size - 1
        if not int(found["last"]):
            raise Unsatisfiable
    else:
        first = int(found["first"])
        last = min(int(found["last"] or size - 1), size - 1)
        if found["last"] and int(found["last"]) < first:
            return None
    if first >= size:
        raise Unsatisfiable
    return Span(first, last)
