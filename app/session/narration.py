"""The log lines that tell how a stream gets on, in the words the guides look for."""

import logging

from app.events import StreamStarted
from app.session.reception import EXOTEL

log = logging.getLogger(__name__)

EVERY_FRAMES = 100


class Narration:
    """Tell of one stream: its start, its first frames, and each hundredth.

    Nothing else a frame does is logged.
    """

    def __init__(self, carrier: str) -> None:
        self._carrier = carrier
        self._stream_sid = ""
        self._implied = False
        self._published = 0

    def started(self, start: StreamStarted, *, implied: bool) -> None:
        """Tell that a stream describes itself, or sends audio without a word."""
        self._stream_sid = start.stream_sid
        if self._carrier != EXOTEL:
            return
        if implied:
            self._implied = True
            log.info("[exotel] Processing binary frames with default config")
        else:
            log.info(
                "[exotel] Start event received: { stream_sid: %s, call_sid: %s }",
                *(start.stream_sid, start.call_sid),
            )

    @property
    def tells_of_frames(self) -> bool:
        """Tell whether `published` would say anything, now and then."""
        return self._carrier == EXOTEL or log.isEnabledFor(logging.DEBUG)

    def published(self, frames: int) -> None:
        """Tell that the broker has `frames` more."""
        for number in range(self._published + 1, self._published + frames + 1):
            if number <= 2 or number % EVERY_FRAMES == 0:
                self._tell(number)
        self._published += frames

    def _tell(self, number: int) -> None:
        if self._carrier == EXOTEL:
            if self._implied:
                words = "[exotel] Published binary audio frame { seq: %d, stream_sid: %s }"
                log.info(words, number, self._stream_sid)
            else:
                words = "[exotel] Published audio frame: { stream_sid: %s, seq: %d }"
                log.info(words, self._stream_sid, number)
        else:
            log.debug("< frame %d of %s published", number, self._stream_sid)
