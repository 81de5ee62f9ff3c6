"""What travels through the bridge, as types: what a peer said, what we publish.

Three families. *Wire events* are what `wire/` reads from a peer. *Entries* are
what stands in `audio:{STREAM}`. *Lifecycle events* are what stands in `calls`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import msgspec

from app.media import MediaFormat, Track

# ---------------------------------------------------------------- wire events
# msgspec structs, not dataclasses: one is made for every frame of every call. Those that
# hold no containers are of no interest to the garbage collector.


class Connected(msgspec.Struct, frozen=True):
    """The peer greeted us; nothing is known of the call yet."""

    protocol: str = ""
    version: str = ""


class StreamStarted(msgspec.Struct, frozen=True):
    """The peer described the stream it is about to send.

    `stream_sid` is the name that the peer uses for its stream, not the id under which
    it is published; see `app.carriers.stream_ids`. `seq` is the carrier's sequence number,
    None where it sends none. `params` are the custom parameters, all text. `from_number`
    and `to_number` are set by carriers that name them in `start`.
    """

    stream_sid: str
    call_sid: str
    format: MediaFormat
    tracks: tuple[Track, ...] = (Track.INBOUND,)
    params: Mapping[str, str] = {}
    account_sid: str = ""
    seq: int | None = None
    from_number: str = ""
    to_number: str = ""


class MediaReceived(msgspec.Struct, frozen=True, gc=False):
    """One carrier frame: `payload` in the carrier's own encoding.

    `ts` is the carrier's media time in ms, None where missing or unreadable.
    """

    payload: bytes
    track: Track = Track.INBOUND
    seq: int | None = None
    ts: int | None = None


class MediaRejected(msgspec.Struct, frozen=True):
    """A message that is media, and cannot be used."""

    reason: str
    track: Track | None = None
    seq: int | None = None


class Unreadable(msgspec.Struct, frozen=True):
    """A message of which not even the kind can be told: audio may be lost in it."""

    reason: str


class Ignored(msgspec.Struct, frozen=True):
    """A message that carries no audio and has no effect here."""

    reason: str
    seq: int | None = None


class DtmfReceived(msgspec.Struct, frozen=True):
    """The caller pressed a key. The digit is never logged."""

    digit: str
    seq: int | None = None


class MarkReceived(msgspec.Struct, frozen=True):
    """The carrier reached a mark of ours."""

    name: str
    seq: int | None = None


class StreamStopped(msgspec.Struct, frozen=True):
    """The carrier ended the stream."""

    seq: int | None = None
    reason: str = ""


WireEvent = (
    Connected
    | StreamStarted
    | MediaReceived
    | MediaRejected
    | Unreadable
    | Ignored
    | DtmfReceived
    | MarkReceived
    | StreamStopped
)

# -------------------------------------------------------------------- entries
# `n` is the entry's number in its stream: the id is `START_MS-n`.


class AudioEntry(msgspec.Struct, frozen=True, gc=False):
    """Published audio: `frames` carrier frames of one track.

    `seq` is the last frame's; `ts` the media time in ms of the first sample.
    `received_at` (monotonic seconds) is when the oldest of them arrived; it is
    not published.
    """

    n: int
    seq: int
    ts: int
    track: Track
    audio: bytes
    frames: int = 1
    received_at: float = 0.0


class GapEntry(msgspec.Struct, frozen=True):
    """Audio that is missing here, and why. `track` None: the carrier's loss on two tracks."""

    n: int
    track: Track | None
    frames: int
    first_seq: int
    last_seq: int
    ts: int
    reason: str


class EndEntry(msgspec.Struct, frozen=True):
    """The last entry of a stream."""

    n: int
    reason: str


Entry = AudioEntry | GapEntry | EndEntry


class EndReason(StrEnum):
    """Why a stream ended.

    Four of them tell how a peer left: it said `stop`; it closed the WebSocket
    in good order, but said none; its connection was lost; or it fell silent and
    answered no ping (`vanished`), where one that is `idle` answered. Two are what a
    worker asked for: `hangup` and `transfer`.
    """

    STOP = "stop"
    CLOSED = "closed"
    DISCONNECTED = "disconnected"
    VANISHED = "vanished"
    MAX_CALL_SECONDS = "max_call_seconds"
    MESSAGE_TOO_BIG = "message_too_big"
    BAD_MESSAGES = "too_many_bad_messages"
    FLOODING = "flooding"
    IDLE = "idle"
    NOT_READING = "peer_not_reading"
    DRAIN = "drain"
    ENDED_BY_ADMIN = "ended_by_admin"
    HANGUP = "hangup"
    TRANSFER = "transfer"
    ERROR = "error"
    BUSINESS_MISMATCH = "business_mismatch"  # its id, number or pair is another business's
    ALREADY_LIVE = "stream_already_live"  # another holder has the stream's id
    LOST = "lost"  # said by another replica, of a holder that died


# ----------------------------------------------------------- lifecycle events


@dataclass(frozen=True, slots=True)
class CallIdentity:
    """Whose call and which stream an event is about; empty where not known."""

    call_sid: str = ""
    stream_sid: str = ""
    business_id: str = ""
    plan: str = ""
    carrier: str = ""


class HeldStream(msgspec.Struct, frozen=True):
    """A live stream, as another replica must know it to end it for a dead holder.

    `started_at` is its START_MS: an id that starts again is another stream.
    `retention_seconds` is the plan's.
    """

    call: CallIdentity
    started_at: int
    retention_seconds: int


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """One entry of `calls`: `at` is Unix time in ms, `data` is JSON-ready.

    Delivered at least once; `event_id` tells a repetition from a second event.
    """

    name: str
    event_id: str
    at: int
    call: CallIdentity
    data: Mapping[str, Any]


class StreamPolicy(msgspec.Struct, frozen=True, rename="camel"):
    """What a worker may know of the business and plan of a stream, as the call began.

    It holds no secret, no number and no destination. `country` is ISO 3166-1 or empty.
    With `forwarded` the caller talks to somebody else, and the stream is only listened to.
    An entry holds at most `frame_ms` of audio; audio is kept for `retention_seconds`.
    """

    business_name: str = ""
    country: str = ""
    forwarded: bool = False
    return_audio: bool = False
    max_call_seconds: int = 0
    max_concurrent_calls: int = 0
    frame_ms: int = 0
    retention_seconds: int = 0


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """What `stream:{STREAM}` says from the start: whose audio, and its format.

    `started_at` is Unix time in ms. `published` describes the audio entries,
    `carried` what the carrier sends. `peer_stream_sid` is the name that the peer uses for
    the stream, empty where not known. `policy` is None in a record that version 0.1 wrote.
    """

    call: CallIdentity
    from_number: str
    to_number: str
    params: Mapping[str, str]
    published: MediaFormat
    carried: MediaFormat
    tracks: tuple[Track, ...]
    started_at: int
    policy: StreamPolicy | None = None
    peer_stream_sid: str = ""


@dataclass(frozen=True, slots=True)
class PlaybackReceipt:
    """What became of the audio that workers said into a stream.

    `queued_ms = sent_ms + cleared_ms + lost_ms` always holds. Of what was sent the
    carrier was told to forget about `carrier_cleared_ms`. `refused` counts
    commands of any kind.
    """

    plays: int
    marks: int
    clears: int
    refused: int
    queued_ms: int
    sent_ms: int
    cleared_ms: int
    lost_ms: int
    carrier_cleared_ms: int


@dataclass(frozen=True, slots=True)
class AudioReceipt:
    """What became of each carrier media message of a stream.

    `received = published + dropped + rejected + duplicates` always holds, where
    `dropped` and `rejected` are summed over their reasons. `carrier_gaps` are
    messages that never arrived, by sequence number. `bytes` are of carrier
    payload; `audio_ms` is summed over tracks; `max_lag_ms` is the longest time
    from a frame's arrival to the broker's reply. `playback` is there where a worker
    sent a command. `unannounced` are keys and marks that came too fast to be announced;
    they carry no audio, so they are not among the received.
    """

    received: int
    published: int
    dropped: Mapping[str, int]
    rejected: Mapping[str, int]
    duplicates: int
    carrier_gaps: int
    seq_resets: int
    format_mismatch: int
    bytes: int
    audio_ms: int
    wall_ms: int
    first_seq: int | None
    last_seq: int | None
    max_lag_ms: int
    end_reason: str
    playback: PlaybackReceipt | None = None
    unannounced: int = 0

    def as_data(self) -> dict[str, Any]:
        """Return the receipt as JSON-ready data, names as published; without what there is none of.

        `playback` and `unannounced` are left out where no command and no such message came.
        """
        data = {name: _plain(getattr(self, name)) for name in self.__slots__}
        playback, unannounced = data.pop("playback"), data.pop("unannounced")
        if playback is not None:
            data["playback"] = asdict(playback)
        if unannounced:
            data["unannounced"] = unannounced
        return data

    @property
    def adds_up(self) -> bool:
        """Tell whether every received message is accounted for."""
        accounted = self.published + sum(self.dropped.values()) + sum(self.rejected.values())
        return self.received == accounted + self.duplicates


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
