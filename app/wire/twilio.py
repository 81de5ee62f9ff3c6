"""Twilio Media Streams: read its messages, and write them as Twilio does.

Source: twilio.com/docs/voice/media-streams/websocket-messages. Every message is JSON
in a text frame. There `sequenceNumber`, `chunk` and `timestamp` are strings while
`sampleRate` and `channels` are numbers; both forms are read everywhere.

    what comes                                        event
    blank text                                        Ignored empty_message
    an event that is not below                        Ignored unknown_event
    a binary frame (Twilio sends none)                Unreadable binary_frame
    text that is not JSON, nested too deep included   Unreadable broken_json
    JSON that is not an object                        Unreadable not_an_object
    no `event`, or one that is not text               Unreadable no_event
    media without `media`, or without text `payload`  MediaRejected bad_media
    media of a track that is neither of the two       MediaRejected bad_track
    a payload that is not strict base64               MediaRejected bad_base64
    a payload of no bytes                             MediaRejected empty_payload
    half a sample, where samples have two bytes       MediaRejected odd_length
    dtmf without one key's digit                      Ignored bad_dtmf
    mark without a name of at most 500 characters     Ignored bad_mark

`app.wire.base` adds the order, and says what a `start` may raise. A message's own
`streamSid` is not compared with that of `start`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from app.events import (
    Connected,
    DtmfReceived,
    Ignored,
    MarkReceived,
    MediaReceived,
    MediaRejected,
    StreamStarted,
    StreamStopped,
    Unreadable,
    WireEvent,
)
from app.media import Track
from app.wire.base import Integer, StreamOrder, StreamState, int_of
from app.wire.reading import UNDECODABLE, frame_of, media_of, object_of
from app.wire.twilio_start import read_start, track_of

MAX_MARK_CHARACTERS: Final = 500
_STARTED: Final = StreamState.STARTED

_DIGITS: Final = frozenset("0123456789*#ABCD")


class _Media(msgspec.Struct):
    payload: bytes
    track: Track = Track.INBOUND
    timestamp: Integer | None = None


class _MediaMessage(msgspec.Struct, rename="camel"):
    event: Literal["media"]
    media: _Media
    sequence_number: Integer | None = None


# Nearly every message is media without fault, so it has a decoder of its own, base64
# included. Whatever that decoder refuses is read again, slowly, to find out why.
_decode_media = msgspec.json.Decoder(_MediaMessage, strict=False).decode


class TwilioWire:
    """One Twilio stream. Implements `app.wire.base.Wire`."""

    __slots__ = ("_order", "_sample_bytes")

    def __init__(self) -> None:
        self._order = StreamOrder()
        self._sample_bytes = 1

    @property
    def state(self) -> StreamState:
        """Tell how far the stream has come."""
        return self._order.state

    def implied_start(self, message: str | bytes) -> StreamStarted | None:
        """Give None: Twilio always sends `start`."""
        return None

    def started_reply(self) -> str | None:
        """Give None: Twilio takes an unknown message for an error (31951)."""
        return None

    def ack(self, seq: int) -> str | None:
        """Give None, as `started_reply` does."""
        return None

    def receive(self, message: str | bytes) -> WireEvent:
        """Read one message, as `Wire.receive` promises and the table above says."""
        if not isinstance(message, str):
            return Unreadable("binary_frame")
        try:
            decoded = _decode_media(message)
        except UNDECODABLE:
            return self._order.admit(self._read(message))
        media = decoded.media
        payload, seq = media.payload, decoded.sequence_number
        if self._order.state is _STARTED and payload and not len(payload) % self._sample_bytes:
            return MediaReceived(payload, media.track, seq, media.timestamp)
        frame = frame_of(payload, media.track, self._sample_bytes, seq, media.timestamp)
        return self._order.admit(frame)

    def _read(self, message: str) -> WireEvent:
        fields = object_of(message)
        if not isinstance(fields, dict):
            return fields
        event = fields.get("event")
        if not isinstance(event, str):
            return Unreadable("no_event")
        seq = int_of(fields.get("sequenceNumber"))
        if event == "media":
            return self._read_media(fields, seq)
        if event == "start":
            return self._read_start(fields, seq)
        read = _READERS.get(event)
        return read(fields, seq) if read else Ignored("unknown_event", seq)

    def _read_media(self, fields: Mapping[str, Any], seq: int | None) -> WireEvent:
        media = fields.get("media")
        if not isinstance(media, dict):
            return MediaRejected("bad_media", None, seq)
        name = media.get("track")
        track = Track.INBOUND if name is None else track_of(name)
        ts = int_of(media.get("timestamp"))
        return media_of(media.get("payload"), track, self._sample_bytes, seq, ts)

    def _read_start(self, fields: Mapping[str, Any], seq: int | None) -> WireEvent:
        refusal = self._order.refusal(StreamStarted)
        if refusal is not None:
            return Ignored(refusal, seq)
        started = read_start(fields, seq)
        self._sample_bytes = started.format.encoding.bytes_per_sample
        return started


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _read_connected(fields: Mapping[str, Any], seq: int | None) -> WireEvent:
    return Connected(_text(fields.get("protocol")), _text(fields.get("version")))


def _read_dtmf(fields: Mapping[str, Any], seq: int | None) -> WireEvent:
    dtmf = fields.get("dtmf")
    digit = str(dtmf.get("digit")) if isinstance(dtmf, dict) else ""
    return DtmfReceived(digit, seq) if digit in _DIGITS else Ignored("bad_dtmf", seq)


def _read_mark(fields: Mapping[str, Any], seq: int | None) -> WireEvent:
    mark = fields.get("mark")
    name = _text(mark.get("name")) if isinstance(mark, dict) else ""
    if not 0 < len(name) <= MAX_MARK_CHARACTERS:
        return Ignored("bad_mark", seq)
    return MarkReceived(name, seq)


def _read_stop(fields: Mapping[str, Any], seq: int | None) -> WireEvent:
    return StreamStopped(seq)


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], int | None], WireEvent]]] = {
    "connected": _read_connected,
    "dtmf": _read_dtmf,
    "mark": _read_mark,
    "stop": _read_stop,
}


# ------------------------------------------------- messages as Twilio writes them
# Order of keys, strings and numbers are those of the page. They feed the simulator,
# the demo and the tests: `TwilioWire.receive` reads each of them back.


class _SentMedia(msgspec.Struct):
    track: Track
    chunk: str
    timestamp: str
    payload: bytes


class _SentMediaMessage(msgspec.Struct, rename="camel", tag_field="event", tag="media"):
    sequence_number: str
    media: _SentMedia
    stream_sid: str


_encode = msgspec.json.Encoder().encode


def connected_message() -> str:
    """Write `connected`."""
    return _write({"event": "connected", "protocol": "Call", "version": "1.0.0"})


def start_message(
    stream_sid: str,
    call_sid: str,
    *,
    account_sid: str = "",
    seq: int = 1,
    tracks: Sequence[Track] = (Track.INBOUND,),
    params: Mapping[str, str] | None = None,
    sample_rate: int = 8000,
    encoding: str = "audio/x-mulaw",
) -> str:
    """Write `start`; `encoding` is the name that stands in the message."""
    start = {
        "accountSid": account_sid,
        "streamSid": stream_sid,
        "callSid": call_sid,
        "tracks": list(tracks),
        "mediaFormat": {"encoding": encoding, "sampleRate": sample_rate, "channels": 1},
        "customParameters": dict(params or {}),
    }
    return _write(
        {"event": "start", "sequenceNumber": str(seq), "start": start, "streamSid": stream_sid}
    )


def media_message(
    stream_sid: str,
    payload: bytes,
    *,
    seq: int,
    chunk: int,
    timestamp: int,
    track: Track = Track.INBOUND,
) -> str:
    """Write one frame; `chunk` counts from 1, `timestamp` is in ms since the start."""
    media = _SentMedia(track, str(chunk), str(timestamp), payload)
    return _encode(_SentMediaMessage(str(seq), media, stream_sid)).decode()


def dtmf_message(stream_sid: str, digit: str, *, seq: int) -> str:
    """Write a key press of the caller."""
    return _write(
        {
            "event": "dtmf",
            "streamSid": stream_sid,
            "sequenceNumber": str(seq),
            "dtmf": {"track": "inbound_track", "digit": digit},
        }
    )


def mark_message(stream_sid: str, name: str, *, seq: int) -> str:
    """Write that a mark was reached."""
    return _write(
        {
            "event": "mark",
            "sequenceNumber": str(seq),
            "streamSid": stream_sid,
            "mark": {"name": name},
        }
    )


def stop_message(stream_sid: str, call_sid: str, *, seq: int, account_sid: str = "") -> str:
    """Write `stop`."""
    stop = {"accountSid": account_sid, "callSid": call_sid}
    return _write(
        {"event": "stop", "sequenceNumber": str(seq), "stop": stop, "streamSid": stream_sid}
    )


def _write(message: Mapping[str, Any]) -> str:
    return _encode(message).decode()
