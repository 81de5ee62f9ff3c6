"""What a form of ours sends: read whole, bounded, its first values by name."""

from dataclasses import dataclass
from urllib.parse import parse_qsl

from fastapi import Request

from app.errors import MalformedRequest
from app.web.body import bounded_body

MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 200


@dataclass(frozen=True, slots=True)
class Submitted:
    """A form's fields, in order."""

    pairs: tuple[tuple[str, str], ...] = ()

    def text(self, name: str) -> str:
        """Give a field's first value, empty where there is none."""
        return next((value for one, value in self.pairs if one == name), "")

    def all(self, name: str) -> list[str]:
        """Give each value of a field."""
        return [value for one, value in self.pairs if one == name]

    def has(self, name: str) -> bool:
        """Tell whether a field was sent."""
        return any(one == name for one, _ in self.pairs)

    def version(self) -> int | None:
        """Give the version that an edit is of; None where there is none that can be."""
        text = self.text("version")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


async def read_form(request: Request) -> Submitted:
    """Read a form's body.

    Raises:
        MalformedRequest: it is too long, no form, or not UTF-8.
    """
    body = await bounded_body(request, MAX_BODY_BYTES)
    try:
        pairs = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            max_num_fields=MAX_FIELDS,
            encoding="utf-8",
            errors="strict",
        )
    except (ValueError, UnicodeError):
        raise MalformedRequest("the form cannot be read; load its page again") from None
    # A browser sends line breaks as CRLF (WHATWG HTML, "normalize newlines").
    return Submitted(tuple((name, value.replace("\r\n", "\n")) for name, value in pairs))
