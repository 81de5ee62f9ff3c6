"""A request's body, read whole and never further than a limit."""

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.errors import MalformedRequest


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
