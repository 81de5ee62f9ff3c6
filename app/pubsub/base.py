"""The publish port: what can be written, and what an adapter promises.

An adapter takes batches of writes and answers for each. It owns no queue and
no retry: `outbox` does, once for all adapters.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from enum import Enum, StrEnum
from typing import Protocol

import msgspec

from app.events import (
    AudioEntry,
    AudioReceipt,
    CallIdentity,
    EndEntry,
    Entry,
    GapEntry,
    HeldStream,
    LifecycleEvent,
    StreamRecord,
)
from app.media import Track

CALLS_KEY = "calls"
# DESIGN: `calls` is "trimmed at about 100,000".
CALLS_MAX_ENTRIES = 100_000

Field = str | int | bytes


def audio_key(stream: str) -> str:
    """Name the stream of a stream's entries."""
    return f"audio:{{{stream}}}"


def record_key(stream: str) -> str:
    """Name the hash that describes a stream."""
    return f"stream:{{{stream}}}"


def control_key(stream: str) -> str:
    """Name the stream of commands back into the call."""
    return f"control:{{{stream}}}"


class Replaces(StrEnum):
    """Which streams of the same business, begun at another time, an opening replaces.

    A stream of another business is never replaced.
    """

    ANY = "any"
    ENDED = "ended"
    OLDER = "older"


class OpenStream(msgspec.Struct, frozen=True):
    """Put a new, empty stream in place of what its business has under this id.

    Where it replaces ANY, its process has claimed the id. One that could not claim it leaves
    alone what has not ENDED. One that is opened again leaves alone what began later.
    """

    stream: str
    record: StreamRecord
    expire_seconds: int
    replaces: Replaces = Replaces.ANY

    def again(self) -> "OpenStream":
        """Return what opens the stream once more, where it may have been replaced since."""
        return msgspec.structs.replace(self, replaces=Replaces.OLDER)


class Append(msgspec.Struct, frozen=True, gc=False):
    """Append `entry` to its stream under the id `id_ms-n`."""

    stream: str
    id_ms: int
    n: int
    entry: Entry
    max_entries: int


class CloseStream(msgspec.Struct, frozen=True):
    """Complete the record of the stream that this business began then, and let it expire.

    It has no effect where the id is another stream's by now.
    """

    stream: str
    ended_at: int
    receipt: AudioReceipt
    expire_seconds: int
    business_id: str
    started_at: int


class Announce(msgspec.Struct, frozen=True):
    """Append a lifecycle event to `calls`."""

    event: LifecycleEvent


class NoteCall(msgspec.Struct, frozen=True):
    """Put a lifecycle event into the log of its call; its business and CallSid are known."""

    event: LifecycleEvent


class ListCall(msgspec.Struct, frozen=True):
    """List the call that an event begins among those of every business."""

    event: LifecycleEvent


Write = OpenStream | Append | CloseStream | Announce | NoteCall | ListCall
# About a call, not about a stream's own keys.
CallWrite = Announce | NoteCall | ListCall


class Outcome(Enum):
    """What became of one write of a batch that the broker answered."""

    WRITTEN = "written"
    CONFLICT = "conflict"  # the id is not above the stream's last one
    FAILED = "failed"  # this write can never succeed
    NOT_OPEN = "not_open"  # of an entry: its stream is gone, and must be opened first
    RETRY = "retry"  # its part of the broker did not answer; others did
    # Of an opening: what it may not replace. The values are reasons that streams end for.
    OTHER_BUSINESS = "business_mismatch"
    LIVE_ELSEWHERE = "stream_already_live"

    @property
    def is_refusal(self) -> bool:
        """Return whether a stream was not opened since its id is somebody else's."""
        return self in (Outcome.OTHER_BUSINESS, Outcome.LIVE_ELSEWHERE)


class Standing(msgspec.Struct, frozen=True):
    """What stands in a stream: which of the asked entries, and its last id."""

    present: frozenset[int]
    last_ms: int
    last_n: int

    @property
    def last(self) -> tuple[int, int]:
        """Give the last id that the stream has had."""
        return self.last_ms, self.last_n

    def written_of(self, appends: Sequence[Append]) -> int:
        """Count how many of `appends`, from the first, were written.

        They are written in order, so all before one that stands were, also
        those that retention has trimmed since.
        """
        places = (place for place, append in enumerate(appends, 1) if append.n in self.present)
        return max(places, default=0)


class PubSub(Protocol):
    """Publish batches of writes; read them back.

    `replayable` tells whether a reader that comes late sees what came before.
    Keys of different `lanes` may be written at the same time, each lane's by one
    writer. For `promise_seconds` after it was confirmed, a write may still be
    lost by a failover, and is worth keeping; 0 where nothing can bring it back.
    """

    replayable: bool
    lanes: int
    promise_seconds: float

    def lane_of(self, key: str) -> int:
        """Give the lane that a key's writes belong to, from 0."""

    async def open(self) -> None:
        """Make ready; does not fail when the broker is away."""

    async def close(self) -> None:
        """Let go of every connection."""

    async def check(self) -> None:
        """Raise BrokerError unless the broker would take a write now."""

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        """Write a batch of one lane in order, and answer for each.

        What one key gets of a batch is written whole or not at all.

        Raises:
            BrokerRefused: nothing was written.
            BrokerReplaced: nothing was written; another server answers than
                before, which may lack what that one confirmed.
            BrokerLost: nobody knows; `standing` can tell for entries.
        """

    async def standing(self, stream: str, appends: Sequence[Append]) -> Standing:
        """Tell which of `appends` (of one stream) stand there with the same content.

        Asks the server that `write` would write to.

        Raises:
            BrokerError: the broker cannot be asked.
        """

    async def still_there(self, lane: int) -> None:
        """Return when the servers of a lane answer, and are the same as before.

        Raises:
            BrokerReplaced: another server answers.
            BrokerError: none does.
        """

    async def end_lost(self, held: HeldStream) -> bool:
        """End a stream whose holder died, and announce it; False when there is none to end.

        Its holder may have ended it, or never opened it. The end is written and the
        stream's keys expire in one step, unless it ended so before; it is announced
        and noted in its call's log each time, under one id. Safe beside `write`.

        Raises:
            BrokerError: it may or may not be done; do it again.
        """

    def entries(self, stream: str) -> AsyncIterator[tuple[str, Entry]]:
        """Read a stream's ids and entries up to its end."""

    def lifecycle(self, *, from_now: bool = False) -> AsyncGenerator[LifecycleEvent, None]:
        """Read lifecycle events: from the first where replayable, else from now on.

        With `from_now`, from now on in any case.
        """


def entry_fields(entry: Entry) -> dict[str, Field]:
    """Name an entry's fields as published."""
    match entry:
        case AudioEntry():
            fields: dict[str, Field] = {"seq": entry.seq, "ts": entry.ts, "track": entry.track}
            if entry.frames != 1:
                fields["frames"] = entry.frames
            fields["audio"] = entry.audio
            return fields
        case GapEntry():
            return {
                "event": "gap",
                "track": entry.track or "",
                "frames": entry.frames,
                "first_seq": entry.first_seq,
                "last_seq": entry.last_seq,
                "ts": entry.ts,
                "reason": entry.reason,
            }
        case EndEntry():
            return {"event": "end", "reason": entry.reason}


def parse_entry(n: int, fields: Mapping[str, bytes | str | int]) -> Entry:
    """Read an entry from its published fields; the inverse of `entry_fields`."""
    event = _text(fields.get("event", b""))
    if event == "end":
        return EndEntry(n, _text(fields["reason"]))
    if event == "gap":
        track = _text(fields["track"])
        return GapEntry(
            n,
            Track(track) if track else None,
            int(fields["frames"]),
            int(fields["first_seq"]),
            int(fields["last_seq"]),
            int(fields["ts"]),
            _text(fields["reason"]),
        )
    audio = fields["audio"]
    assert isinstance(audio, bytes)
    return AudioEntry(
        n,
        int(fields["seq"]),
        int(fields["ts"]),
        Track(_text(fields["track"])),
        audio,
        int(fields.get("frames", 1)),
    )


def record_fields(record: StreamRecord) -> dict[str, Field]:
    """Return the fields of `stream:{STREAM}` that are known from the start."""
    fields: dict[str, Field] = {
        "callSid": record.call.call_sid,
        "businessId": record.call.business_id,
        "plan": record.call.plan,
        "carrier": record.call.carrier,
        "from": record.from_number,
        "to": record.to_number,
        "params": msgspec.json.encode(dict(record.params)).decode(),
        "encoding": record.published.encoding,
        "sampleRate": record.published.sample_rate,
        "channels": record.published.channels,
        "tracks": ",".join(record.tracks),
        "carrierEncoding": record.carried.encoding,
        "carrierSampleRate": record.carried.sample_rate,
        "startedAt": record.started_at,
    }
    if record.peer_stream_sid:
        fields["peerStreamSid"] = record.peer_stream_sid
    if record.policy is not None:
        fields["policy"] = msgspec.json.encode(record.policy).decode()
    return fields


def closing_fields(close: CloseStream) -> dict[str, Field]:
    """Name the fields that a stream's end adds to `stream:{STREAM}`."""
    return {
        "endedAt": close.ended_at,
        "receipt": msgspec.json.encode(close.receipt.as_data()).decode(),
    }


def lifecycle_fields(event: LifecycleEvent) -> dict[str, Field]:
    """Name a lifecycle event's fields as published."""
    return {
        "event": event.name,
        "eventId": event.event_id,
        "callSid": event.call.call_sid,
        "streamSid": event.call.stream_sid,
        "businessId": event.call.business_id,
        "plan": event.call.plan,
        "carrier": event.call.carrier,
        "at": event.at,
        "data": msgspec.json.encode(dict(event.data)).decode(),
    }


def parse_lifecycle(fields: Mapping[str, bytes | str | int]) -> LifecycleEvent:
    """Read a lifecycle event; the inverse of `lifecycle_fields`."""
    return LifecycleEvent(
        _text(fields["event"]),
        _text(fields["eventId"]),
        int(fields["at"]),
        CallIdentity(
            _text(fields["callSid"]),
            _text(fields["streamSid"]),
            _text(fields["businessId"]),
            _text(fields["plan"]),
            _text(fields["carrier"]),
        ),
        msgspec.json.decode(fields["data"] if isinstance(fields["data"], bytes | str) else b"{}"),
    )


def _text(value: bytes | str | int) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
