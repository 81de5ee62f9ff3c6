"""What every session of a process shares, and how a stream becomes known to it."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from app.events import AudioEntry, CallIdentity, EndReason, HeldStream, StreamStarted
from app.metrics import Metrics
from app.playback.room import Room
from app.pubsub.base import Replaces
from app.pubsub.outbox import Outbox
from app.session.control import ControlDesk
from app.session.herald import Herald
from app.session.ledger import Ledger
from app.session.playback import Playback
from app.session.reception import Admitted, Handshake, Reception
from app.session.record import described, record_of
from app.session.stream import MediaStream
from app.session.taps import Beginning, Tap, Tapped, Taps
from app.session.way_back import WayBack
from app.store.base import CallEnd
from app.store.watching import StreamFigures

log = logging.getLogger(__name__)


class Calls(Protocol):
    """Know which streams are live; `Registry` does."""

    async def begin(
        self,
        held: HeldStream,
        end: Callable[[EndReason], None],
        draw_up: Callable[[], StreamFigures | None],
    ) -> None:
        """Say that a stream is live; how to end it, and how to see how it gets on."""

    async def finish(
        self, call: CallIdentity, ended: CallEnd | None = None, *, lives_elsewhere: bool = False
    ) -> None:
        """Note that a stream has ended, and with `ended` what that means for its call.

        With `lives_elsewhere` another process holds the stream, and its call goes on.
        """

    async def disclaim(self, stream_sid: str) -> None:
        """Let its id be used again."""


def _end_nothing(reason: EndReason) -> None:
    """Do nothing, for a stream that is not ended by its opening."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """What every session of a process shares.

    `clock` gives monotonic seconds, `wall_clock` Unix seconds. Without `taps` nothing is
    recorded at the wire.
    """

    reception: Reception
    calls: Calls
    outbox: Outbox
    herald: Herald
    metrics: Metrics
    clock: Callable[[], float]
    wall_clock: Callable[[], float]
    start_timeout_seconds: float
    control: ControlDesk | None = None
    playback_lead_seconds: float = 0.16
    playback_room: Room = field(default_factory=Room)
    taps: Taps | None = None

    def open_stream(
        self,
        start: StreamStarted,
        admitted: Admitted,
        ledger: Ledger,
        *,
        started: float,
        started_ms: int,
        on_published: Callable[[AudioEntry], None] | None,
        on_opened: Callable[[], None] | None = None,
        end: Callable[[EndReason], None] = _end_nothing,
    ) -> MediaStream:
        """Open an admitted stream with the writer, and tell of it.

        `on_opened` is called when its keys are there, and `end` if they may not be written
        since the id is another stream's.
        `started` and `started_ms` are when its `start` came, by the two clocks.
        """
        record = record_of(start, admitted, started_ms)
        plan = admitted.plan
        queue = self.outbox.queue(
            admitted.call.stream_sid,
            started_ms,
            bytes_per_second=plan.published_format.bytes_per_second,
            tracks=len(plan.published_tracks),
            retained=plan.max_entries,
        )
        stream = MediaStream(
            admitted, start.format, queue, ledger, self.herald, self.clock, started
        )
        queue.on_published = on_published

        def refused(reason: str) -> None:
            stream.refuse()
            if self.control is not None:
                self.control.forget(admitted.call.stream_sid)
            end(EndReason(reason))

        queue.on_refused = refused
        kept_seconds = plan.max_call_seconds + plan.retention_seconds
        # A process that could not claim the id leaves a stream alone that may be live.
        replaces = Replaces.ANY if admitted.is_claimed else Replaces.ENDED
        self.outbox.open_stream(queue, record, kept_seconds, on_opened, replaces=replaces)
        self.herald.tell("stream.started", admitted.call, described(record))
        log.info(
            "[WebSocket] Stream %s started - CallSid: %s, business: %s, plan: %s%s",
            *(admitted.call.stream_sid, start.call_sid, admitted.call.business_id, plan.name),
            # Twilio's ids are kept; those of other peers are replaced by ids of their business.
            f", peer's id: {start.stream_sid}"
            if start.stream_sid != admitted.call.stream_sid
            else "",
        )
        return stream

    def open_playback(
        self, admitted: Admitted, way: WayBack, end: Callable[[EndReason], None]
    ) -> Playback:
        """Make what speaks into an admitted stream; `end` ends it."""
        return Playback(
            admitted,
            way,
            self.herald,
            self.metrics,
            self.playback_room,
            lead_seconds=self.playback_lead_seconds,
            clock=self.clock,
            end=end,
            current_rules=self.reception.dial_rules,
        )

    def listen(self, admitted: Admitted, playback: Playback) -> None:
        """Take workers' commands for a stream whose keys are there."""
        if self.control is not None:
            self.control.listen(admitted.call.stream_sid, playback.take)
            if playback.is_closed:
                self.control.end(admitted.call.stream_sid, playback.take)

    def open_tap(
        self,
        admitted: Admitted,
        handshake: Handshake,
        beginning: Beginning,
        *,
        started: float,
        started_ms: int,
    ) -> Tap | None:
        """Let what a stream's peer sends be recorded, where its business allows it.

        What it sent before is in `beginning`, which is empty then.
        """
        tap = None
        if self.taps is not None and admitted.may_be_captured:
            call, heard = admitted.call, beginning.messages
            whose = call.stream_sid, call.call_sid, call.business_id, call.carrier
            before = started - heard[0][1] if heard else 0.0
            began_at = started_ms - round(before * 1000)
            tap = self.taps.open(Tapped(*whose, handshake.query, started_ms), beginning, began_at)
        beginning.clear()
        return tap

    async def finish_stream(
        self,
        stream: MediaStream,
        admitted: Admitted,
        reason: EndReason,
        playback: Playback | None = None,
    ) -> None:
        """Publish what is left, then the receipt; the stream's id is free after that.

        Nothing is written under the id of a stream whose opening was refused.
        """
        held = admitted.held
        call = held.call
        played = playback.close() if playback is not None else None
        ended_ms = int(self.wall_clock() * 1000)
        stream.end(reason)
        # From now on only a call that returns is answered: its webhook could be a replay.
        ended = CallEnd.STREAM if admitted.authorization.is_signature else None
        try:
            lives_elsewhere = reason is EndReason.ALREADY_LIVE
            await self.calls.finish(call, ended, lives_elsewhere=lives_elsewhere)
        except Exception:  # whatever becomes of its slot, a stream has its receipt
            log.exception("The slot of call %s was not given back", call.call_sid)
        await stream.wait_until_published()
        receipt = stream.receipt(reason, played)
        if not stream.queue.refusal:
            self.outbox.close_stream(held, ended_ms, receipt, held.retention_seconds)
        self.herald.tell("stream.stopped", stream.announced, {"receipt": receipt.as_data()})
        log.info(
            "[WebSocket] Stream %s ended - CallSid: %s, %s, %d of %d frames published, receipt: %s",
            *(call.stream_sid, call.call_sid, reason, receipt.published, receipt.received),
            json.dumps(receipt.as_data()),
        )
        if self.control is not None and playback is not None:
            self.control.end(call.stream_sid, playback.take)
        await self.calls.disclaim(call.stream_sid)
