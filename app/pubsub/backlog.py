"""The lifecycle events that wait for the broker: bounded, and shared by all businesses."""

import logging
from collections import Counter
from dataclasses import replace
from typing import Final

from app.businesses.shares import leaves_room
from app.events import CallIdentity, LifecycleEvent
from app.metrics import Metrics

log = logging.getLogger(__name__)

# An event is announced, noted in its call's log, and may list its call.
WRITES_OF_AN_EVENT: Final = 3
# They happen within a call, as often as a peer or a worker likes. What begins or ends a call
# or a stream happens once in each call that was admitted, and always waits.
DROPPABLE: Final = frozenset(
    {
        "call.status",
        "stream.cleared",
        "stream.dtmf",
        "stream.error",
        "stream.mark",
        "stream.played",
    }
)
EVENTS_DROPPED: Final = "events.dropped"


class Backlog:
    """Count the writes of events that wait: `most` events of all businesses.

    A business may have as many as are free: it gets half at most, and the next one half of
    what is left, so that a business that fills its part leaves room for all others. What is
    beyond that is dropped where it is DROPPABLE, counted, and reported by an event of its
    own when there is room again.
    """

    def __init__(self, most: int, metrics: Metrics) -> None:
        self._most = most * WRITES_OF_AN_EVENT
        self._waiting: Counter[str] = Counter()
        self._in_all = 0
        # The first event of each business that was dropped, and how many there are by name.
        self._dropped: dict[str, tuple[LifecycleEvent, Counter[str]]] = {}
        self._metrics = metrics

    def takes(self, business_id: str = "") -> bool:
        """Return whether one more event of a business may wait; of nobody's, by default.

        Events of calls that are nobody's have a part of their own, as a business has.
        """
        return leaves_room(self._waiting[business_id], self._in_all, self._most)

    def enter(self, event: LifecycleEvent) -> bool:
        """Count an event with all its writes; False, and counted as dropped, without room."""
        business_id = event.call.business_id
        if event.name in DROPPABLE and not self.takes(business_id):
            self._drop(event)
            return False
        self._waiting[business_id] += WRITES_OF_AN_EVENT
        self._in_all += WRITES_OF_AN_EVENT
        return True

    def leave(self, business_id: str, writes: int = 1) -> None:
        """Count writes of an event no more: they are settled, or are not needed."""
        self._in_all -= writes
        self._waiting[business_id] -= writes
        if self._waiting[business_id] <= 0:
            del self._waiting[business_id]

    def take_reports(self) -> list[LifecycleEvent]:
        """Return once what was dropped of each business of which half its part is free again."""
        ready = [business_id for business_id in self._dropped if self._has_recovered(business_id)]
        return [_report(*self._dropped.pop(business_id)) for business_id in ready]

    def _has_recovered(self, business_id: str) -> bool:
        own = self._waiting[business_id]
        return not own or leaves_room(2 * own, self._in_all, self._most)

    def _drop(self, event: LifecycleEvent) -> None:
        business_id = event.call.business_id
        self._metrics.events_dropped.labels(event.name).inc()
        if business_id not in self._dropped:
            log.warning(
                "[Broker] ⚠️ Events of business %s are dropped: too many of them wait for Redis",
                business_id or "(unknown)",
            )
        _, names = self._dropped.setdefault(business_id, (event, Counter()))
        names[event.name] += 1


def _report(first: LifecycleEvent, names: Counter[str]) -> LifecycleEvent:
    return replace(
        first,
        name=EVENTS_DROPPED,
        event_id=f"{first.event_id}-dropped",
        call=CallIdentity(business_id=first.call.business_id),
        data={"count": names.total(), "events": dict(names)},
    )
