"""A capture read whole: whose it is, what it holds, and when each message is due."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from app.errors import CaptureError, RemoteError
from app.events import MediaReceived, MediaRejected, StreamStarted, StreamStopped, Unreadable
from app.events import WireEvent as Event
from app.media import MediaFormat
from app.wire.base import StreamState, Wire
from app.wire.capture import (
    CaptureFacts,
    CaptureMessage,
    CarrierName,
    read_capture,
    read_facts,
)
from app.wire.exotel import ExotelWire
from app.wire.pcm import PcmWire
from app.wire.twilio import TwilioWire

# Four hours of a call's two tracks; read whole, since it may be sent many times at once.
MAX_BYTES: Final = 2**30
# A step of media time that no carrier makes: then a frame is as long as its audio.
MAX_STEP_MS: Final = 60_000
_ASSUMED_RATE: Final = 24000


@dataclass(frozen=True, slots=True)
class Capture:
    """A call to be placed again, up to its `stop`.

    `start` is the index of the message that starts its stream, None where binary audio
    implies one; `fields` are that message's own. `due` has for each message when it goes,
    in seconds after the first. Of the media that `messages` hold, `good` are frames of
    audio and `bad` such as no service can use. `stops` tells that it ends by `stop`.
    """

    path: Path
    carrier: CarrierName
    messages: tuple[CaptureMessage, ...]
    facts: CaptureFacts | None
    start: int | None
    fields: dict[str, Any]
    due: tuple[float, ...]
    good: int
    bad: int
    stops: bool

    @property
    def seconds(self) -> float:
        """Give how long it takes to send."""
        return self.due[-1] if self.due else 0.0

    def value(self, *names: str) -> str:
        """Give what its `start` says under the first of these names, or nothing."""
        body = self.fields.get("start")
        for place in (body if isinstance(body, dict) else {}, self.fields):
            for name in names:
                if isinstance(place.get(name), str | int):
                    return str(place[name])
        return ""


def load_capture(
    path: Path, *, carrier: CarrierName | None = None, take_damaged: bool = False
) -> Capture:
    """Read a capture whole.

    A line that is no JSON object is damage, unless the file beside it says that it
    came so; with `take_damaged` it is sent as it stands.

    Raises:
        CaptureError: it is damaged, or no call can be made of it; names the line.
    """
    facts = read_facts(path)
    messages = _whole(path)
    if not messages:
        raise CaptureError(f"{path} holds no message")
    if not take_damaged:
        _refuse_damage(path, messages, facts)
    start, fields = _start_of(messages)
    known = carrier or (facts.carrier if facts else None) or _carrier_of(messages, fields)
    if known is None:
        raise CaptureError(
            f"{path} holds no `start`, so that it cannot be told whose capture it is; "
            "say it by --carrier"
        )
    return _timed(path, known, messages, facts, start, fields)


def _whole(path: Path) -> tuple[CaptureMessage, ...]:
    size = path.stat().st_size if path.is_file() else 0
    if size > MAX_BYTES:
        raise CaptureError(f"{path} has {size:,} bytes; the most that is read is {MAX_BYTES:,}")
    return tuple(read_capture(path))


def _refuse_damage(
    path: Path, messages: tuple[CaptureMessage, ...], facts: CaptureFacts | None
) -> None:
    arrivals = facts.arrivals_ms if facts else None
    if arrivals is not None and len(arrivals) != len(messages):
        raise CaptureError(
            f"{path} has {len(messages)} messages, and the file beside it the times of "
            f"{len(arrivals)}: one of the two is cut short, or another call's"
        )
    came_bad = frozenset(facts.bad_lines if facts else ())
    for one in messages:
        if isinstance(one.message, bytes) or one.line_number in came_bad:
            continue
        if object_in(one.message) is None:
            raise CaptureError(
                f"{path}, line {one.line_number}: no JSON object; was it cut short? "
                "--damaged sends it as it stands"
            )


def object_in(message: str | bytes) -> dict[str, Any] | None:
    """Read a message as a JSON object; None where it is none."""
    try:
        read = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _start_of(messages: tuple[CaptureMessage, ...]) -> tuple[int | None, dict[str, Any]]:
    for index, one in enumerate(messages):
        if isinstance(one.message, bytes) or "start" not in one.message.lower():
            continue
        fields = object_in(one.message)
        if fields and str(fields.get("event", fields.get("Event"))).lower() == "start":
            return index, fields
    return None, {}


def _carrier_of(messages: tuple[CaptureMessage, ...], fields: dict[str, Any]) -> CarrierName | None:
    """Tell whose a capture is by its `start` (PROTOCOLS of each carrier's own page)."""
    if not fields:
        binary_alone = all(isinstance(one.message, bytes) for one in messages)
        return "exotel" if binary_alone else None
    if fields.keys() & {"interaction_id", "tenant_id", "sample_rate"}:
        return "client"
    body = fields.get("start")
    said = {**fields, **body} if isinstance(body, dict) else fields
    # Twilio names no numbers in `start`, and all keys in camel case.
    of_exotel = {"stream_sid", "call_sid", "account_sid", "media_format", "from", "to"}
    return "exotel" if said.keys() & of_exotel else "twilio"


def wire_of(carrier: CarrierName, fields: dict[str, Any], query: dict[str, str]) -> Wire:
    """Give what reads a carrier's messages."""
    if carrier == "twilio":
        return TwilioWire()
    if carrier == "exotel":
        return ExotelWire(new_id=lambda: "capture", query=query)
    named = fields.get("tenant_id") or fields.get("business_id")
    return PcmWire(str(named or "capture"), None, ack_interval=10)


class _Timing:
    """When messages are due by what they say of themselves: media time, or their length."""

    def __init__(self) -> None:
        self._format: MediaFormat | None = None
        self._last_ts: int | None = None
        self._now_ms = 0.0
        self._length_ms = 0.0

    def due(self, event: Event) -> float:
        """Give when the next message is due, in seconds after the first."""
        if isinstance(event, StreamStarted):
            self._format = event.format
        if isinstance(event, MediaReceived):
            step = None
            if event.ts is not None and self._last_ts is not None:
                step = event.ts - self._last_ts
            usable = step is not None and 0 <= step <= MAX_STEP_MS
            self._now_ms += step if usable and step is not None else self._length_ms
            self._last_ts = event.ts
            length = self._format.duration_ms(len(event.payload)) if self._format else 0
            self._length_ms = float(length)
        return self._now_ms / 1000


def _timed(
    path: Path,
    carrier: CarrierName,
    messages: tuple[CaptureMessage, ...],
    facts: CaptureFacts | None,
    start: int | None,
    fields: dict[str, Any],
) -> Capture:
    """Read what the messages mean, up to `stop`."""
    wire, timing = wire_of(carrier, fields, dict(facts.query) if facts else {}), _Timing()
    due: list[float] = []
    good = bad = 0
    for one in messages:
        try:
            if wire.state is StreamState.CONNECTING:
                implied = wire.implied_start(one.message)
                if implied is not None:
                    timing.due(implied)
            event = wire.receive(one.message)
        except RemoteError as error:
            raise CaptureError(
                f"{path}, line {one.line_number}: no stream of {carrier}'s begins so: {error}"
            ) from error
        due.append(timing.due(event))
        good += isinstance(event, MediaReceived)
        bad += isinstance(event, MediaRejected | Unreadable)
        if isinstance(event, StreamStopped):
            break
    if wire.state is StreamState.CONNECTING:
        raise CaptureError(f"{path} holds no `start` of {carrier}'s, and so no call")
    arrivals = facts.arrivals_ms if facts else None
    if arrivals is not None:
        first = arrivals[0] if arrivals else 0
        due = [max(0, at - first) / 1000 for at in arrivals[: len(due)]]
    kept = messages[: len(due)]
    stops = wire.state is StreamState.STOPPED
    return Capture(path, carrier, kept, facts, start, fields, tuple(due), good, bad, stops)
