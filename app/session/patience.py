"""How long a peer is heard that sends little audio, or none."""

from collections.abc import Callable
from typing import Final

from app.budget import Allowance, Budget
from app.events import EndReason, Ignored, MediaReceived, MediaRejected, Unreadable, WireEvent

# A carrier has no reason to send even one; a broken replay should still be explained.
MAX_BAD_IN_A_ROW: Final = 100
# Keys, marks, unknown events and what cannot be used. A person presses less than ten
# keys a second; a replay brings those of ten minutes at once.
WITHOUT_AUDIO: Final = Allowance(500, 10)
# 2 ms of the thinnest audio, mu-law at 8 kHz. Shorter frames only keep us busy.
MIN_FRAME_BYTES: Final = 16

_BAD = (Unreadable, MediaRejected, Ignored)


class Patience:
    """Weigh what one peer sends; `clock` gives monotonic seconds.

    Two limits: bad messages in a row, and messages without audio over time,
    where each frame of audio makes good for one of them. So a replay with a mark
    beside each frame passes at any speed, and a good frame now and then does not
    excuse a flood. `frames` counts frames of audio since the last event that was
    none; who knows an event for one may add it there.
    """

    __slots__ = ("_bad_in_a_row", "_without_audio", "frames")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._bad_in_a_row = 0
        self.frames = 0
        self._without_audio = Budget(WITHOUT_AUDIO, clock)

    def lost_by(self, event: WireEvent) -> EndReason | None:
        """Take the next event; tell why the peer is given up on, if it is."""
        if isinstance(event, MediaReceived) and len(event.payload) >= MIN_FRAME_BYTES:
            self.frames += 1
            return None
        if self.frames:
            self._without_audio.earn(self.frames)
            self.frames = self._bad_in_a_row = 0
        self._bad_in_a_row = self._bad_in_a_row + 1 if isinstance(event, _BAD) else 0
        if self._bad_in_a_row > MAX_BAD_IN_A_ROW:
            return EndReason.BAD_MESSAGES
        return None if self._without_audio.spend() else EndReason.FLOODING
