"""An admitted stream: each wire event in, entries and lifecycle events out, all counted."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from app.audio import level_dbfs
from app.budget import Allowance, Budget
from app.events import (
    AudioReceipt,
    DtmfReceived,
    EndReason,
    Ignored,
    MarkReceived,
    MediaReceived,
    MediaRejected,
    PlaybackReceipt,
    StreamStopped,
    Unreadable,
    WireEvent,
)
from app.media import MediaFormat, Track
from app.pubsub.queue import StreamQueue
from app.session.herald import Herald
from app.session.ledger import Ledger
from app.session.reception import Admitted
from app.session.sequence import Place, Sequence
from app.session.track import TrackAudio
from app.session.truth import FormatCheck
from app.store.watching import StreamFigures

log = logging.getLogger(__name__)

# DESIGN: a peer whose media time is more than this ahead of the clock is no carrier.
AHEAD_MS = 5000
CARRIER = "carrier"
UNREADABLE = "unreadable"
# Keys and marks that are announced, at once and a second: no audio makes up for more. What a
# person presses stays below it, and one stream cannot push others' events out of `calls`.
EVENTS = Allowance(100, 10)
TOO_MANY_EVENTS = "too_many_events"
# Rejections that take no audio away from the stream, and so leave no gap in it.
_LOSES_NO_AUDIO = frozenset({"before_start", "after_stop", "empty_payload", "track_not_in_plan"})
# Messages without effect whose number is not the next one: a stream begun again.
_NOT_NUMBERED = frozenset({"second_start", "late_connected", "before_start", "after_stop"})


class MediaStream:
    """Publish one stream's events through its queue, in order, and keep its books.

    `clock` gives monotonic seconds, `started` is its value at `start`. Nothing
    here waits: `must_wait` asks the reader to.
    """

    __slots__ = (
        "_admitted",
        "_call",
        "_carried",
        "_check",
        "_clock",
        "_ended",
        "_events",
        "_first_seq",
        "_has_ended",
        "_herald",
        "_last_seq",
        "_ledger",
        "_sequence",
        "_started",
        "_tracks",
        "announced",
        "on_mark",
        "queue",
    )

    def __init__(
        self,
        admitted: Admitted,
        carried: MediaFormat,
        queue: StreamQueue,
        ledger: Ledger,
        herald: Herald,
        clock: Callable[[], float],
        started: float,
    ) -> None:
        plan = admitted.plan
        self._admitted = admitted
        self._call = admitted.call
        # The identity in this stream's events.
        self.announced = admitted.call
        self._carried = carried
        self.queue = queue
        # Tells whether a mark was set by a worker, and has been answered.
        self.on_mark: Callable[[str], bool] = lambda name: False
        self._ledger = ledger
        self._herald = herald
        self._clock = clock
        self._started = started
        self._events = Budget(EVENTS, clock)
        self._ended = started
        self._has_ended = False
        self._first_seq: int | None = None
        self._last_seq: int | None = None
        self._sequence = Sequence()
        self._check: FormatCheck | None = FormatCheck(carried)
        self._tracks = {
            track: TrackAudio(track, carried, plan.published_format, plan.frame_ms, queue.put_audio)
            for track in plan.published_tracks
        }

    def begin(self, carried_seq: int | None) -> None:
        """Take the number of `start`, from which the others are counted."""
        if carried_seq is not None:
            self._sequence.place(carried_seq)

    def take(self, event: WireEvent, received_at: float) -> None:
        """Take the next event; `received_at` is when its message came."""
        match event:
            case MediaReceived():
                self.take_media(event, received_at)
            case MediaRejected():
                self._reject(event)
            case Unreadable():
                self._ledger.reject(event.reason)
                self._sequence.note_unreadable()
            case DtmfReceived():
                place = self._place(event.seq)
                self._announce("stream.dtmf", {"digit": event.digit, "seq": place.seq})
            case MarkReceived():
                place = self._place(event.seq)
                if not self.on_mark(event.name):
                    self._announce("stream.mark", {"name": event.name, "seq": place.seq})
            case StreamStopped():
                self._place(event.seq)
            case Ignored():
                self._ledger.ignore(event.reason)
                if event.reason not in _NOT_NUMBERED and event.seq is not None:
                    self._place(event.seq)

    def _announce(self, name: str, data: Mapping[str, Any]) -> None:
        """Announce a key or a mark; beyond its allowance it is counted in the receipt instead."""
        if self._events.spend():
            self._herald.tell(name, self.announced, data)
            return
        if not self._ledger.unannounced:
            log.warning(
                "[WebSocket] ⚠️ Stream %s sends keys and marks faster than %d a second: the "
                "others are not announced, and the receipt counts them",
                *(self._call.stream_sid, EVENTS.a_second),
            )
        self._ledger.leave_unannounced(TOO_MANY_EVENTS)

    def take_media(self, event: MediaReceived, received_at: float) -> None:
        """Take the next frame, as `take` does."""
        seq = self._sequence.follows(event.seq, event.payload)
        if seq is None:
            place = self._sequence.place(event.seq, event.payload)
            if place.duplicate:
                self._ledger.repeat()
                return
            if place.missing or place.unreadable:
                self._put_gaps(place, event.track)
            seq = place.seq
        audio = self._tracks.get(event.track)
        if audio is None:
            self._ledger.reject("track_not_in_plan")
            return
        if self._first_seq is None:
            self._first_seq = seq
        self._last_seq = seq
        audio.push(event.payload, seq, event.ts, received_at)
        if self._check is not None and event.track is Track.INBOUND:
            self._compare_with_declared(self._check, event, received_at)

    def refuse(self) -> None:
        """Announce nothing more under the stream's id: it is another stream's."""
        self.announced = replace(self._call, stream_sid="")

    @property
    def must_wait(self) -> bool:
        """Tell whether reading should pause: the queue is full, and the peer is no carrier."""
        return self.queue.is_full and self._is_ahead

    async def wait_for_room(self) -> None:
        """Wait until the queue takes audio again without dropping any."""
        await self.queue.wait_for_room()

    def end(self, reason: EndReason) -> None:
        """Put out what is held, and the stream's last entry; once."""
        if self._has_ended:
            return
        self._has_ended = True
        self._ended = self._clock()
        for audio in self._tracks.values():
            audio.flush()
        self.queue.put_end(reason)

    async def wait_until_published(self) -> None:
        """Wait until the broker has all of it."""
        await self.queue.wait_until_flushed()

    def receipt(self, reason: EndReason, playback: PlaybackReceipt | None = None) -> AudioReceipt:
        """Draw up the receipt; call it once, when all is published."""
        size = sum(audio.pushed_bytes for audio in self._tracks.values())
        return self._ledger.receipt(
            accepted=sum(audio.pushed for audio in self._tracks.values()),
            size=size,
            first_seq=self._first_seq,
            last_seq=self._last_seq,
            published=self.queue.published,
            dropped=self.queue.dropped,
            missing=self._sequence.missing,
            resets=self._sequence.resets,
            audio_ms=self._carried.duration_ms(size),
            wall_ms=round((self._ended - self._started) * 1000),
            max_lag_ms=round(self.queue.max_lag * 1000),
            end_reason=reason,
            playback=playback,
        )

    def figures(self, started_ms: int) -> StreamFigures:
        """Draw up how it gets on, for whoever watches; `started_ms` is Unix time."""
        now, call = self._clock(), self._call
        pushed = sum(audio.pushed for audio in self._tracks.values())
        return StreamFigures(
            stream_sid=call.stream_sid,
            call_sid=call.call_sid,
            business_id=call.business_id,
            plan=call.plan,
            carrier=call.carrier,
            from_number=self._admitted.from_number,
            to_number=self._admitted.to_number,
            started_at=started_ms,
            duration_ms=round((now - self._started) * 1000),
            received=pushed + self._ledger.unpublishable,
            published=self.queue.published,
            lag_ms=round(self.queue.lag(now) * 1000),
            missing=self._sequence.missing,
            dropped=self.queue.dropped.total(),
            levels={track: self._level(audio) for track, audio in self._tracks.items()},
        )

    def _level(self, audio: TrackAudio) -> float | None:
        newest, audio.newest = audio.newest, b""
        return level_dbfs(newest, self._carried.encoding) if newest else None

    def _compare_with_declared(
        self, check: FormatCheck, event: MediaReceived, received_at: float
    ) -> None:
        mismatch = check.add(event.payload, event.ts, received_at)
        if check.done:
            self._check = None
        if mismatch is not None:
            self._ledger.mismatch()
            log.warning(
                "[WebSocket] ⚠️ Stream %s declares %s and sends %s",
                *(self._call.stream_sid, mismatch.declared, mismatch.measured),
            )

    def _reject(self, event: MediaRejected) -> None:
        self._ledger.reject(event.reason)
        if event.seq is None:
            self._sequence.note_unreadable()
            return
        place = self._place(event.seq)
        if event.reason not in _LOSES_NO_AUDIO and (event.track or Track.INBOUND) in self._tracks:
            self._put_gap(event.track, 1, place.seq, event.reason)

    def _place(self, carried: int | None) -> Place:
        place = self._sequence.place(carried)
        if place.missing or place.unreadable:
            self._put_gaps(place, None)
        return place

    def _put_gaps(self, place: Place, track: Track | None) -> None:
        missing_from = place.seq - place.missing
        if place.unreadable:
            self._put_gap(track, place.unreadable, missing_from - 1, UNREADABLE)
        if place.missing:
            self._put_gap(track, place.missing, place.seq - 1, CARRIER)

    def _put_gap(self, track: Track | None, frames: int, last_seq: int, reason: str) -> None:
        """Note missing audio; with two tracks, which one lost it cannot be told."""
        for audio in self._tracks.values():
            audio.flush()
        if reason in (CARRIER, UNREADABLE) or track is None:
            track = next(iter(self._tracks)) if len(self._tracks) == 1 else None
        at = self._tracks.get(track or Track.INBOUND)
        ts = at.next_ts if at else 0
        self.queue.put_gap(track, frames, last_seq - frames + 1, last_seq, ts, reason)

    @property
    def _is_ahead(self) -> bool:
        elapsed_ms = (self._clock() - self._started) * 1000
        return max(audio.pushed_ms for audio in self._tracks.values()) - elapsed_ms > AHEAD_MS
