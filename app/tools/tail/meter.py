"""How a call is getting on, as its frames come."""

from dataclasses import dataclass, field

from app.audio import SILENCE_DBFS
from app.consumer import Call, Gap, Item
from app.media import Track


@dataclass
class Meter:
    """What was heard of a call: `at_ms` is its media time, a level the loudest of late, in dBFS.

    `frames` counts those heard, `missing` those that gaps stand for.
    """

    call: Call
    at_ms: int = 0
    frames: int = 0
    missing: int = 0
    levels: dict[Track, float] = field(default_factory=dict)

    def hear(self, item: Item) -> None:
        """Take a frame or a gap into account."""
        if isinstance(item, Gap):
            self.missing += item.frames
            return
        self.at_ms = item.ts + round(item.duration_ms)
        self.frames += item.frames
        self.levels[item.track] = max(self.levels.get(item.track, SILENCE_DBFS), item.level)

    def shown(self) -> dict[Track, float]:
        """Give each track's level since it was last shown; silence where nothing came."""
        levels = {track: self.levels.get(track, SILENCE_DBFS) for track in self.call.tracks}
        self.levels.clear()
        return levels
