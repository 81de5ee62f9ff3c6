"""Server-sent events (WHATWG HTML, 9.2): what watchers are fed, as an answer that goes on."""

from collections.abc import AsyncGenerator
from typing import Any, Final

from app.errors import TooManyWatchers
from app.watchers import Message, Watchers
from app.web.api.lasting import CHECK_SECONDS, Check, LastingResponse

# Proxies cut an answer that is silent for a minute.
HEARTBEAT_SECONDS: Final = 15.0
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
    check: Check,
    *,
    asker: str | None = None,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    check_seconds: float = CHECK_SECONDS,
) -> LastingResponse:
    """Answer with all that happens, until the watcher leaves or the process drains.

    `asker` is the business whose key watches, None for an operator.
    It ends as well when `check` raises an AdminError: whoever watches may no more.

    Raises:
        TooManyWatchers: as many watch as may.
    """
    watchers.check_room(asker)  # while there is still a status to answer with

    async def written() -> AsyncGenerator[bytes, None]:
        try:
            with watchers.feed(business_id, asker) as feed:
                yield b"retry: %d\n\n" % RETRY_MS
                async for message in feed.messages(heartbeat_seconds):
                    yield b": still here\n\n" if message is None else as_event(message)
        except TooManyWatchers:
            return  # the next request hears why

    return LastingResponse(
        written(),
        check,
        headers=_HEADERS,
        media_type=EVENT_STREAM,
        check_seconds=check_seconds,
    )


def as_event(message: Message) -> bytes:
    """Write one event; JSON has no line ends of its own."""
    id_line = f"id: {message.id}\n".encode() if message.id else b""
    return b"%sevent: %s\ndata: %s\n\n" % (id_line, message.kind.encode(), message.data)
