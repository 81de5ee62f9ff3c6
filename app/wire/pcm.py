"""Clients of our own: a `start` in JSON, then binary frames of audio.

    client                                               answer
    text {"event":"start","interaction_id":"int-123",    {"event":"started",
          "tenant_id":"tenant-abc","sample_rate":24000,     "interaction_id":"int-123"}
          "encoding":"pcm16"}
    binary frames, about 200 ms each                     {"event":"ack","seq":10}
    text {"event":"stop"}

Frames have no numbers on the wire: every binary frame is counted from 1, those that
cannot be used included, so that both sides count alike.

    what comes                                        event
    blank text                                        Ignored empty_message
    an event that is neither start nor stop           Ignored unknown_event
    text that is not JSON, nested too deep included   Unreadable broken_json
    JSON that is not an object                        Unreadable not_an_object
    no `event`, or one that is not text               Unreadable no_event
    a frame of no bytes                               MediaRejected empty_payload
    half a sample, where samples have two bytes       MediaRejected odd_length

`app.wire.base` adds the order.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from app.errors import BusinessMismatch, InvalidIdentifier, MalformedRequest, UnsupportedFormat
from app.events import (
    Ignored,
    StreamStarted,
    StreamStopped,
    Unreadable,
    WireEvent,
)
from app.media import Encoding, MediaFormat, Track
from app.wire.base import StreamOrder, StreamState, int_of, is_identifier
from app.wire.reading import frame_of, object_of

SAMPLE_RATES: Final = frozenset({8000, 16000, 24000})

_ENCODINGS: Final[Mapping[str, Encoding]] = {
    **dict.fromkeys(("pcm16", "linear16", "l16", "audio/pcm"), Encoding.PCM16),
    **dict.fromkeys(("mulaw", "audio/x-mulaw"), Encoding.MULAW),
}

_encode = msgspec.json.Encoder().encode


class PcmWire:
    """One own client's stream. Implements `app.wire.base.Wire`.

    `business_id` and `interaction_id` are the token's, the latter None where the
    token names none; `start` may repeat them, and must not differ. Every
    `ack_interval`-th frame is acknowledged. `default_sample_rate` (Hz) is for a
    `start` that names no rate.
    """

    def __init__(
        self,
        business_id: str,
        interaction_id: str | None,
        ack_interval: int,
        default_sample_rate: int = 24000,
    ) -> None:
        self._business_id = business_id
        self._interaction_id = interaction_id
        self._ack_interval = ack_interval
        self._default_sample_rate = default_sample_rate
        self._order = StreamOrder()
        self._sample_bytes = 1
        self._frames = 0

    @property
    def state(self) -> StreamState:
        """Tell how far the stream has come."""
        return self._order.state

    def implied_start(self, message: str | bytes) -> StreamStarted | None:
        """Give None: an own client always sends `start`."""
        return None

    def started_reply(self) -> str | None:
        """Give `started` with the interaction's id; None before `start`."""
        if self._order.state is StreamState.CONNECTING:
            return None
        return _encode({"event": "started", "interaction_id": self._interaction_id}).decode()

    def ack(self, seq: int) -> str | None:
        """Give the `ack` of this frame, counted from 1, if it is one to acknowledge."""
        if seq < 1 or seq % self._ack_interval:
            return None
        return f'{{"event":"ack","seq":{seq}}}'

    def receive(self, message: str | bytes) -> WireEvent:
        """Read one message, as `Wire.receive` promises and the table above says."""
        if isinstance(message, bytes):
            return self._order.admit(self._read_frame(message))
        return self._order.admit(self._read(message))

    def _read_frame(self, payload: bytes) -> WireEvent:
        self._frames += 1
        return frame_of(payload, Track.INBOUND, self._sample_bytes, self._frames)

    def _read(self, message: str) -> WireEvent:
        fields = object_of(message)
        if not isinstance(fields, dict):
            return fields
        event = fields.get("event")
        if not isinstance(event, str):
            return Unreadable("no_event")
        if event == "start":
            return self._read_start(fields)
        return StreamStopped() if event == "stop" else Ignored("unknown_event")

    def _read_start(self, fields: Mapping[str, Any]) -> WireEvent:
        refusal = self._order.refusal(StreamStarted)
        if refusal is not None:
            return Ignored(refusal)
        for name in ("tenant_id", "business_id"):
            if fields.get(name) not in (None, self._business_id):
                raise BusinessMismatch(f"start: {name} is not the token's")
        interaction_id = self._interaction_of(fields.get("interaction_id"))
        audio = self._format_of(fields)
        self._interaction_id = interaction_id
        self._sample_bytes = audio.encoding.bytes_per_sample
        return StreamStarted(interaction_id, interaction_id, audio)

    def _interaction_of(self, said: object) -> str:
        if said is None or said == "":
            said = self._interaction_id
        if said is None:
            raise MalformedRequest("start: no interaction_id")
        if not is_identifier(said):
            raise InvalidIdentifier(
                "start: interaction_id is not of the form [A-Za-z0-9_.-]{1,128}"
            )
        if self._interaction_id not in (None, said):
            raise BusinessMismatch("start: interaction_id is not the token's")
        return said

    def _format_of(self, fields: Mapping[str, Any]) -> MediaFormat:
        name = fields.get("encoding") or "pcm16"
        encoding = _ENCODINGS.get(name.lower()) if isinstance(name, str) else None
        if encoding is None:
            raise UnsupportedFormat("start: encoding is neither pcm16 nor mulaw")
        declared = fields.get("sample_rate")
        rate = self._default_sample_rate if declared is None else int_of(declared)
        if rate not in SAMPLE_RATES:
            raise UnsupportedFormat("start: sample_rate is not 8000, 16000 or 24000")
        if int_of(fields.get("channels", 1)) != 1:
            raise UnsupportedFormat("start: channels is not 1")
        return MediaFormat(encoding, rate)
