"""A request's body, read whole and never further than a limit, and the fields of a form."""

from urllib.parse import parse_qsl

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.errors import MalformedRequest

# More than any carrier sends.
MAX_FIELDS = 200


async def bounded_body(request: Request, limit: int) -> bytes:
    """Read the body; raise MalformedRequest when it passes `limit` bytes or is cut short."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise MalformedRequest(f"the body is longer than {limit} bytes")
    except ClientDisconnect:
        raise MalformedRequest("the peer went before its body had come whole") from None
    return bytes(body)


def first_values(encoded: bytes) -> dict[str, str]:
    """Return the first value of each field of a query or form; none where it has too many.

    Which of several values counts is decided here for every reader, so that none can check
    one value and another use the next.
    """
    try:
        pairs = parse_qsl(
            encoded.decode("ascii", "replace"),
            keep_blank_values=True,
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        return {}
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found
