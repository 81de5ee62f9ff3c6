"""The watching port: figures of live calls while somebody watches, and calls to be ended.

Who watches renews a lease by each look. Who holds streams asks which businesses are
watched, and publishes their figures while they are. Every method raises StoreUnavailable
when the store cannot be reached in time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from app.media import Track

# In place of a business: whoever watches it watches all.
EVERYBODY: Final = "*"
# A watcher that dies is watched for so long after.
WATCH_SECONDS: Final = 3.0
# Figures of a process that has fallen silent are of no use any more.
FRESH_SECONDS: Final = 1.5
# A holder looks twice a second; one that cannot reach the store for longer misses it.
END_SECONDS: Final = 10.0
# Calls that are to be ended at once; beyond that the oldest are forgotten.
MAX_ENDING: Final = 1_000


class StreamFigures(msgspec.Struct, frozen=True):
    """How a live stream gets on.

    `started_at` is Unix ms; `duration_ms` how long it has been live. `received` counts
    the carrier's media messages, `published` those the broker has; `missing` never came,
    `dropped` were given up here. `lag_ms` is for how long the oldest frame that the broker
    has not confirmed has waited. `levels` has, for each track, the level of its newest
    audio in dBFS, None where none has come since the last figures.
    """

    stream_sid: str
    call_sid: str
    business_id: str
    plan: str
    carrier: str
    from_number: str
    to_number: str
    started_at: int
    duration_ms: int
    received: int
    published: int
    lag_ms: int
    missing: int
    dropped: int
    levels: Mapping[Track, float | None]

    def is_for(self, watched: str) -> bool:
        """Return whether who watches this business, or EVERYBODY, may see it."""
        return watched in (EVERYBODY, self.business_id)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a holder of streams is asked for: figures of these, and these calls' end.

    `watched` are businesses' ids, or EVERYBODY; `ending` are pairs of a business's id and
    a CallSid.
    """

    watched: frozenset[str] = frozenset()
    ending: frozenset[tuple[str, str]] = frozenset()


class Watching(Protocol):
    """Bring those who watch live calls and those who hold them together."""

    async def watch(self, whom: Collection[str]) -> dict[str, list[StreamFigures]]:
        """Watch these businesses, or EVERYBODY, for WATCH_SECONDS more; give their figures.

        Of each stream the newest; what no holder has published for FRESH_SECONDS is
        left out.
        """

    async def wanted(self) -> Wanted:
        """Tell a holder what it is asked for; one command, however many businesses there are."""

    async def publish_figures(
        self, holder: str, figures: Mapping[str, Sequence[StreamFigures]]
    ) -> None:
        """Replace a holder's figures for those who watch these businesses, or EVERYBODY."""

    async def ask_to_end(self, business_id: str, call_sid: str) -> None:
        """Ask whoever holds a stream of this call to end it, within END_SECONDS."""
