"""What is said back into a stream, as each carrier reads it.

Sources: twilio.com/docs/voice/media-streams/websocket-messages, "Send WebSocket messages
to Twilio"; developer.exotel.com/docs/agentstream/websocket-protocol. A field more or less
than theirs is an error of Twilio's (31951), and so is a binary frame (31950).
"""

from typing import Final, Protocol

import msgspec

from app.events import StreamStarted
from app.media import Encoding, MediaFormat

TWILIO: Final = "twilio"
EXOTEL: Final = "exotel"

# "must be encoded audio/x-mulaw with a sample rate of 8000"
TWILIO_FORMAT: Final = MediaFormat(Encoding.MULAW, 8000)
TWILIO_FRAME_BYTES: Final = 160  # 20 ms
# "multiple of 320 B, min 3.2k, max 100k"
EXOTEL_MESSAGE_BYTES: Final = 3200


class ReturnPath(Protocol):
    """How one stream is spoken into: format, message size in bytes, and the messages.

    Where it `fills_up`, no message may be shorter.
    """

    @property
    def format(self) -> MediaFormat:
        """Tell what audio the carrier plays."""
        ...

    @property
    def message_bytes(self) -> int:
        """Tell how much audio a message has."""
        ...

    @property
    def fills_up(self) -> bool:
        """Tell whether a shorter rest needs silence after it."""
        ...

    def media(self, payload: bytes) -> str:
        """Write audio that is to be played."""
        ...

    def mark(self, name: str) -> str:
        """Write a mark, which comes back when the audio before it has been played."""
        ...

    def clear(self) -> str:
        """Write that all audio not yet played is to be forgotten."""
        ...


class _Payload(msgspec.Struct):
    payload: bytes


class _Name(msgspec.Struct):
    name: str


class _TwilioMedia(msgspec.Struct, rename="camel", tag_field="event", tag="media"):
    stream_sid: str
    media: _Payload


class _TwilioMark(msgspec.Struct, rename="camel", tag_field="event", tag="mark"):
    stream_sid: str
    mark: _Name


class _TwilioClear(msgspec.Struct, rename="camel", tag_field="event", tag="clear"):
    stream_sid: str


class _ExotelMedia(msgspec.Struct, tag_field="event", tag="media"):
    stream_sid: str
    media: _Payload


class _ExotelMark(msgspec.Struct, tag_field="event", tag="mark"):
    stream_sid: str
    mark: _Name


class _ExotelClear(msgspec.Struct, tag_field="event", tag="clear"):
    stream_sid: str


_encode = msgspec.json.Encoder().encode


class TwilioReturn:
    """Speak into a `<Connect><Stream>` of Twilio's."""

    format = TWILIO_FORMAT
    message_bytes = TWILIO_FRAME_BYTES
    fills_up = False  # "The audio can be of any size."

    def __init__(self, stream_sid: str) -> None:
        self._stream_sid = stream_sid

    def media(self, payload: bytes) -> str:
        """Write audio, mu-law without a header."""
        return _encode(_TwilioMedia(self._stream_sid, _Payload(payload))).decode()

    def mark(self, name: str) -> str:
        """Write a mark."""
        return _encode(_TwilioMark(self._stream_sid, _Name(name))).decode()

    def clear(self) -> str:
        """Write `clear`."""
        return _encode(_TwilioClear(self._stream_sid)).decode()


class ExotelReturn:
    """Speak into a stream of Exotel's Voicebot, in the format of its `start`."""

    message_bytes = EXOTEL_MESSAGE_BYTES
    fills_up = True

    def __init__(self, stream_sid: str, audio: MediaFormat) -> None:
        self._stream_sid = stream_sid
        self.format = audio

    def media(self, payload: bytes) -> str:
        """Write audio, PCM16 little-endian without a header."""
        return _encode(_ExotelMedia(self._stream_sid, _Payload(payload))).decode()

    def mark(self, name: str) -> str:
        """Write a mark."""
        return _encode(_ExotelMark(self._stream_sid, _Name(name))).decode()

    def clear(self) -> str:
        """Write `clear`."""
        return _encode(_ExotelClear(self._stream_sid)).decode()


def return_path(carrier: str, start: StreamStarted) -> ReturnPath | None:
    """Give the way back into a carrier's stream; None where its protocol has none."""
    if carrier == TWILIO:
        return TwilioReturn(start.stream_sid)
    if carrier == EXOTEL:
        return ExotelReturn(start.stream_sid, start.format)
    return None
