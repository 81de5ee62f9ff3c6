"""Lifecycle events: stamped, given an id, and put on their way."""

from collections.abc import Callable, Mapping
from typing import Any

from app.events import CallIdentity, LifecycleEvent


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
        """Announce `name` about `call` now; `data` is JSON-ready."""
        at = int(self._wall_clock() * 1000)
        self._publish(LifecycleEvent(name, self._new_id(), at, call, data))
