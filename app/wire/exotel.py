"""Exotel AgentStream: read its messages, and write them as Exotel does.

Source: developer.exotel.com/docs/agentstream/websocket-protocol, where every message is
JSON in a text frame, and stream-voicebot-extension (beta), which differs. Keys come in
either spelling and with capitals (`Event`, `Payload`), numbers as text or not, bodies
nested or flat. JSON in a binary frame is read as if it were text; any other binary frame
is audio of the stream.

    what comes                                        event
    blank text                                        Ignored empty_message
    clear, which only we may send                     Ignored clear
    silence, which the beta page describes            Ignored silence
    any other event that is not below                 Ignored unknown_event
    text that is not JSON, nested too deep included   Unreadable broken_json
    JSON that is not an object                        Unreadable not_an_object
    no `event`, or one that is not text               Unreadable no_event
    media without text `payload`                      MediaRejected bad_media
    media of a track that is neither of the two       MediaRejected bad_track
    a payload that is not strict base64               MediaRejected bad_base64
    a payload or a binary frame of no bytes           MediaRejected empty_payload
    half a sample, where samples have two bytes       MediaRejected odd_length
    dtmf without one key's digit                      Ignored bad_dtmf
    mark without a name of at most 500 characters     Ignored bad_mark
    closed                                            as stop

`app.wire.base` adds the order, and says what a `start` may raise. A message's own
`stream_sid` is not compared with that of `start`.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from app.events import (
    Connected,
    DtmfReceived,
    Ignored,
    MarkReceived,
    StreamStarted,
    StreamStopped,
    Unreadable,
    WireEvent,
)
from app.media import Track
from app.wire.base import Integer, StreamOrder, StreamState, int_of
from app.wire.exotel_start import assumed_start, read_start, value_of
from app.wire.params import params_of
from app.wire.reading import UNDECODABLE, frame_of, media_of, object_of
from app.wire.twilio_start import track_of

MAX_MARK_CHARACTERS: Final = 500
MAX_REASON_CHARACTERS: Final = 128

_DIGITS: Final = frozenset("0123456789*#ABCD")
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_OBJECT_BEGINS: Final = re.compile(rb"[ \t\r\n]*\{")


class _Media(msgspec.Struct):
    payload: bytes
    track: Track = Track.INBOUND
    timestamp: Integer | None = None


class _MediaMessage(msgspec.Struct):
    event: Literal["media"]
    media: _Media
    sequence_number: Integer | None = None
    camel_number: Integer | None = msgspec.field(name="sequenceNumber", default=None)


# Nearly every message is media without fault, so it has a decoder of its own, base64
# included. Whatever that decoder refuses is read again, slowly, to find out why.
_decode_media = msgspec.json.Decoder(_MediaMessage, strict=False).decode


class ExotelWire:
    """One Exotel stream. Implements `app.wire.base.Wire`.

    `query` is the URL's, first values only. `default_sample_rate` (Hz) is for binary
    audio that no `start` describes. `new_id` gives the ids of streams that have none,
    in the letters of an identifier and at most 100 of them.
    """

    def __init__(
        self,
        *,
        new_id: Callable[[], str],
        default_sample_rate: int = 24000,
        query: Mapping[str, str] = _NOTHING,
    ) -> None:
        self._new_id = new_id
        self._default_sample_rate = default_sample_rate
        self._query = query
        self._greeting: Mapping[str, str] = _NOTHING
        self._order = StreamOrder()
        self._sample_bytes = 1

    @property
    def state(self) -> StreamState:
        """Tell how far the stream has come."""
        return self._order.state

    def implied_start(self, message: str | bytes) -> StreamStarted | None:
        """Give the start that binary audio implies when it comes before any other.

        A frame of whole PCM16 samples is needed: one that is empty or odd starts nothing.
        """
        if self._order.state is not StreamState.CONNECTING:
            return None
        if isinstance(message, str) or not message or len(message) % 2 or _is_json(message):
            return None
        started = assumed_start(self._query, self._default_sample_rate, self._new_id)
        self._sample_bytes = started.format.encoding.bytes_per_sample
        self._order.admit(started)
        return started

    def started_reply(self) -> str | None:
        """Give None: Exotel expects no answer."""
        return None

    def ack(self, seq: int) -> str | None:
        """Give None: Exotel expects no answer."""
        return None

    def receive(self, message: str | bytes) -> WireEvent:
        """Read one message, as `Wire.receive` promises and the table above says."""
        if isinstance(message, bytes) and not _is_json(message):
            return self._order.admit(frame_of(message, Track.INBOUND, self._sample_bytes))
        try:
            decoded = _decode_media(message)
        except UNDECODABLE:
            return self._order.admit(self._read(message))
        media = decoded.media
        seq = decoded.sequence_number
        if seq is None:
            seq = decoded.camel_number
        frame = frame_of(media.payload, media.track, self._sample_bytes, seq, media.timestamp)
        return self._order.admit(frame)

    def _read(self, message: str | bytes) -> WireEvent:
        fields = object_of(message)
        if not isinstance(fields, dict):
            return fields
        event = _event_of(fields)
        if event is None:
            return Unreadable("no_event")
        seq = int_of(value_of(fields, "sequence_number", "sequenceNumber"))
        match event:
            case "media":
                return self._read_media(_body_of(fields, "media"), seq)
            case "start":
                return self._read_start(fields, seq)
            case "connected":
                return self._read_connected(_body_of(fields, "connected"))
            case "clear" | "silence":
                return Ignored(event, seq)
        read = _READERS.get(event)
        return read(fields, seq) if read else Ignored("unknown_event", seq)

    def _read_media(self, media: Mapping[str, Any], seq: int | None) -> WireEvent:
        name = media.get("track")
        track = Track.INBOUND if name is None else track_of(name)
        payload = value_of(media, "payload", "Payload")
        # Some write ISO 8601 where the pages have ms: such a time is none.
        ts = int_of(media.get("timestamp"))
        return media_of(payload, track, self._sample_bytes, seq, ts)

    def _read_start(self, fields: Mapping[str, Any], seq: int | None) -> WireEvent:
        refusal = self._order.refusal(StreamStarted)
        if refusal is not None:
            return Ignored(refusal, seq)
        started = read_start(
            fields, seq, url=self._query, greeting=self._greeting, new_id=self._new_id
        )
        self._sample_bytes = started.format.encoding.bytes_per_sample
        return started

    def _read_connected(self, greeting: Mapping[str, Any]) -> WireEvent:
        # The beta page puts the custom parameters here; `start` may bring them again.
        params = params_of(value_of(greeting, "custom_parameters", "customParameters"))
        if self._order.state is StreamState.CONNECTING and params:
            self._greeting = params
        return Connected(_text(greeting.get("protocol")), _text(greeting.get("version")))


def _event_of(fields: Mapping[str, Any]) -> str | None:
    event = value_of(fields, "event", "Event")
    return event.lower() if isinstance(event, str) else None


def _is_json(message: bytes) -> bool:
    """Tell a JSON message in a binary frame from audio that begins with the same byte."""
    if not _OBJECT_BEGINS.match(message):
        return False
    fields = object_of(message)
    return isinstance(fields, dict) and _event_of(fields) is not None


def _body_of(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Give a message's body: the object of this name, or where none is the message itself."""
    body = fields.get(name)
    return body if isinstance(body, dict) else fields


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _read_dtmf(fields: Mapping[str, Any], seq: int | None) -> WireEvent:
    digit = str(_body_of(fields, "dtmf").get("digit"))
    return DtmfReceived(digit, seq) if digit in _DIGITS else Ignored("bad_dtmf", seq)


def _read_mark(fields: Mapping[str, Any], seq: int | None) -> WireEvent:
    name = _text(_body_of(fields, "mark").get("name"))
    if not 0 < len(name) <= MAX_MARK_CHARACTERS:
        return Ignored("bad_mark", seq)
    return MarkReceived(name, seq)


def _read_stop(fields: Mapping[str, Any], seq: int | None) -> WireEvent:
    reason = _text(_body_of(fields, "stop").get("reason"))
    return StreamStopped(seq, reason if len(reason) <= MAX_REASON_CHARACTERS else "")


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], int | None], WireEvent]]] = {
    "dtmf": _read_dtmf,
    "mark": _read_mark,
    "stop": _read_stop,
    "closed": _read_stop,
}


# ------------------------------------------------- messages as Exotel writes them
# Order of keys and the use of text for numbers are those of websocket-protocol. They
# feed the simulator and the tests: `ExotelWire.receive` reads each of them back.


class _SentMedia(msgspec.Struct):
    chunk: str
    timestamp: str
    payload: bytes


class _SentMediaMessage(msgspec.Struct, tag_field="event", tag="media"):
    sequence_number: str
    stream_sid: str
    media: _SentMedia


_encode = msgspec.json.Encoder().encode


def connected_message() -> str:
    """Write `connected`."""
    return _encode({"event": "connected"}).decode()


def start_message(
    stream_sid: str,
    call_sid: str,
    *,
    account_sid: str = "",
    from_number: str = "",
    to_number: str = "",
    seq: int = 1,
    params: Mapping[str, str] = _NOTHING,
    sample_rate: int = 8000,
    encoding: str = "audio/x-raw",
) -> str:
    """Write `start`; `encoding` is the name that stands in the message."""
    start = {
        "stream_sid": stream_sid,
        "call_sid": call_sid,
        "account_sid": account_sid,
        "from": from_number,
        "to": to_number,
        "custom_parameters": dict(params),
        "media_format": {"encoding": encoding, "sample_rate": str(sample_rate), "bit_rate": "16"},
    }
    return _write("start", seq, stream_sid, start)


def media_message(stream_sid: str, payload: bytes, *, seq: int, chunk: int, timestamp: int) -> str:
    """Write one frame; `chunk` counts from 1, `timestamp` is in ms since the start."""
    media = _SentMedia(str(chunk), str(timestamp), payload)
    return _encode(_SentMediaMessage(str(seq), stream_sid, media)).decode()


def dtmf_message(stream_sid: str, digit: str, *, seq: int, duration_ms: int = 100) -> str:
    """Write a key press of the caller."""
    return _write("dtmf", seq, stream_sid, {"digit": digit, "duration": str(duration_ms)})


def mark_message(stream_sid: str, name: str, *, seq: int) -> str:
    """Write that a mark was reached."""
    return _write("mark", seq, stream_sid, {"name": name})


def stop_message(
    stream_sid: str, call_sid: str, *, seq: int, account_sid: str = "", reason: str = "callended"
) -> str:
    """Write `stop`; `reason` is `callended` or `stopped`."""
    stop = {"call_sid": call_sid, "account_sid": account_sid, "reason": reason}
    return _write("stop", seq, stream_sid, stop)


def _write(event: str, seq: int, stream_sid: str, body: Mapping[str, Any]) -> str:
    message = {"event": event, "sequence_number": str(seq), "stream_sid": stream_sid, event: body}
    return _encode(message).decode()
