"""Which streams begin, and which are live: from lifecycle events, and from leases."""

from collections.abc import Callable

import msgspec

from app.consumer.kept import Kept
from app.consumer.reader import Entries
from app.consumer.sharing import StreamName
from app.events import CallIdentity, LifecycleEvent
from app.pubsub.base import parse_lifecycle


def events_in(entries: Entries) -> list[LifecycleEvent]:
    """Read lifecycle events; what this version cannot read is left out."""
    found = []
    for _, fields in entries:
        try:
            found.append(parse_lifecycle(fields))
        except (KeyError, ValueError, msgspec.MsgspecError):
            continue
    return found


def begun_by(event: LifecycleEvent) -> StreamName | None:
    """Name the stream that an event says has begun."""
    started_at = event.data.get("startedAt")
    if event.name != "stream.started" or not isinstance(started_at, int):
        return None
    return StreamName(event.call.stream_sid, started_at)


async def live_at(
    kept: Kept, newest: str, wants: Callable[[CallIdentity], bool]
) -> list[StreamName]:
    """Name the streams that are live: those held, and those announced a moment ago.

    What is announced behind the event `newest` may be missing.

    Raises:
        StoreUnavailable: Redis cannot be reached.
    """
    live: dict[StreamName, None] = {}
    for event in events_in(await kept.events_before(newest)):
        if event.name == "stream.stopped":
            live = {name: None for name in live if name.stream_sid != event.call.stream_sid}
        elif (begun := begun_by(event)) and wants(event.call):
            live[begun] = None
    for held in await kept.live_streams():
        name = StreamName.of(held)
        # Held before it is opened, it is announced after.
        if wants(held.call) and (name in live or await kept.record(name.stream_sid)):
            live[name] = None
    return list(live)
