"""A request's body, read whole and never further than a limit."""

from fastapi import Request

from app.errors import MalformedRequest


async def bounded_body(request: Request, limit: int) -> bytes:
    """Read the body, or raise MalformedRequest when it is longer than `limit` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise MalformedRequest(f"the body is longer than {limit} bytes")
    return bytes(body)
