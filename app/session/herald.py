"""Lifecycle events: stamped, given an id, and put on their way."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from app.events import CallIdentity, LifecycleEvent

# Of an event's data as JSON, as in its call's log.
MAX_DATA_BYTES: Final = 4096


class Herald:
    """Announce what happens to calls.

    `publish` takes an event without waiting; `wall_clock` gives Unix seconds;
    `new_id` gives an id that no other event has.
    """

    def __init__(
        self,
        publish: Callable[[LifecycleEvent], None],
        wall_clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._publish = publish
        self._wall_clock = wall_clock
        self._new_id = new_id

    def tell(self, name: str, call: CallIdentity, data: Mapping[str, Any]) -> None:
        """Announce `name` about `call` now; `data` is JSON-ready, and bounded here."""
        at = int(self._wall_clock() * 1000)
        self._publish(LifecycleEvent(name, self._new_id(), at, call, bounded_data(data)))


def bounded_data(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an event's data without the longest fields that make it more than MAX_DATA_BYTES.

    `omitted` names the fields that are missing.
    """
    if len(msgspec.json.encode(data)) <= MAX_DATA_BYTES:
        return data
    kept = dict(data)
    longest_first = sorted(kept, key=lambda name: len(msgspec.json.encode(kept[name])))[::-1]
    for place, name in enumerate(longest_first, 1):
        del kept[name]
        bounded = {**kept, "omitted": longest_first[:place]}
        if len(msgspec.json.encode(bounded)) <= MAX_DATA_BYTES:
            return bounded
    return {"omitted": True}
