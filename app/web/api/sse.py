"""Server-sent events (WHATWG HTML, 9.2): what watchers are fed, as an answer that goes on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from fastapi.responses import StreamingResponse

from app.errors import AdminError, StoreUnavailable, TooManyWatchers
from app.watchers import Feed, Message, Watchers

# Proxies cut an answer that is silent for a minute.
HEARTBEAT_SECONDS: Final = 15.0
# Whoever watches may have been signed out, or their key revoked.
CHECK_SECONDS: Final = 2.0
EVENT_STREAM: Final = "text/event-stream"
# How long a browser waits before it asks again when an answer has ended.
RETRY_MS: Final = 1_000
DESCRIBED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events without an end; a comment in a silence of 15 s.",
        "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
    }
}
_HEADERS: Final = {
    "Cache-Control": "no-store",
    # nginx would hold back what is small.
    "X-Accel-Buffering": "no",
}


def event_stream(
    watchers: Watchers,
    business_id: str | None,
    check: Callable[[], Awaitable[object]],
    *,
    asker: str | None = None,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    check_seconds: float = CHECK_SECONDS,
) -> StreamingResponse:
    """Answer with all that happens, until the watcher leaves or the process drains.

    `asker` is the business whose key watches, None for an operator.
    It ends as well when `check` raises an AdminError: whoever watches may no more.

    Raises:
        TooManyWatchers: as many watch as may.
    """
    watchers.check_room(asker)  # while there is still a status to answer with

    async def written() -> AsyncIterator[bytes]:
        try:
            with watchers.feed(business_id, asker) as feed:
                yield b"retry: %d\n\n" % RETRY_MS
                async for part in _parts(feed, check, heartbeat_seconds, check_seconds):
                    yield part
        except (AdminError, TooManyWatchers):
            return  # the next request hears why

    return StreamingResponse(written(), media_type=EVENT_STREAM, headers=_HEADERS)


async def _parts(
    feed: Feed,
    check: Callable[[], Awaitable[object]],
    heartbeat_seconds: float,
    check_seconds: float,
) -> AsyncIterator[bytes]:
    now = asyncio.get_running_loop().time
    said = checked = now()
    async for message in feed.messages(min(heartbeat_seconds, check_seconds)):
        if now() - checked >= check_seconds:
            try:
                await check()
            except StoreUnavailable:
                pass  # nobody can tell: then what was known holds
            checked = now()
        if message is not None:
            yield as_event(message)
        elif now() - said >= heartbeat_seconds:
            yield b": still here\n\n"
        else:
            continue
        said = now()


def as_event(message: Message) -> bytes:
    """Write one event; JSON has no line ends of its own."""
    id_line = f"id: {message.id}\n".encode() if message.id else b""
    return b"%sevent: %s\ndata: %s\n\n" % (id_line, message.kind.encode(), message.data)
