"""What a carrier does with what it is sent: it plays audio in real time, and echoes marks."""

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from app.media import MediaFormat

# Marks that wait to be reached; of whoever sends more, these are echoed.
MAX_MARKS: Final = 1000


class _Media(msgspec.Struct):
    payload: str = ""


class _Mark(msgspec.Struct):
    name: str = ""


class _Message(msgspec.Struct):
    event: str = ""
    media: _Media = msgspec.field(default_factory=_Media)
    mark: _Mark = msgspec.field(default_factory=_Mark)


class Playing:
    """Tell when the marks in what is sent to a call are reached, without playing it.

    A mark is reached when the audio before it has been played, or at once when it is
    cleared (twilio.com/docs/voice/media-streams/websocket-messages, "Send a clear
    message"). `clock` gives monotonic seconds.
    """

    def __init__(self, form: MediaFormat, clock: Callable[[], float]) -> None:
        self._form = form
        self._clock = clock
        self._played_until = clock()
        self._marks: deque[tuple[float, str]] = deque()

    def take(self, message: str | bytes) -> None:
        """Take a message of the service; what is none, is passed over."""
        try:
            said = msgspec.json.decode(message, type=_Message)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return
        now = self._clock()
        if said.event == "media":
            size = len(said.media.payload.rstrip("=")) * 3 // 4  # base64
            seconds = self._form.duration_ms(size) / 1000
            self._played_until = max(now, self._played_until) + seconds
        elif said.event == "mark" and len(self._marks) < MAX_MARKS:
            self._marks.append((self._played_until, said.mark.name))
        elif said.event == "clear":
            self._played_until = now
            self._marks = deque((now, name) for _, name in self._marks)

    def reached(self) -> list[str]:
        """Give the marks that were reached since the last time."""
        names = []
        while self._marks and self._marks[0][0] <= self._clock():
            names.append(self._marks.popleft()[1])
        return names
