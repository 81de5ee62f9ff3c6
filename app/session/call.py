"""One media socket from its opening to its stream's receipt."""

import asyncio
import logging
from contextlib import suppress

from app.errors import BridgeError, StartTimeout, StoreUnavailable, TooManyBadMessages
from app.events import (
    AudioEntry,
    Connected,
    EndReason,
    MediaReceived,
    StreamStarted,
    StreamStopped,
    Unreadable,
    WireEvent,
)
from app.session.bridge import Bridge
from app.session.ledger import Ledger
from app.session.narration import Narration
from app.session.patience import MAX_BAD_IN_A_ROW, MIN_FRAME_BYTES, Patience
from app.session.playback import Playback
from app.session.reception import Admitted, Handshake
from app.session.replies import Replies
from app.session.socket import (
    GOING_AWAY,
    INTERNAL_ERROR,
    INVALID_TEXT,
    MESSAGE_TOO_BIG,
    NO_CODE,
    NORMAL_CLOSURE,
    POLICY_VIOLATION,
    Closed,
    Socket,
)
from app.session.stream import MediaStream
from app.session.taps import Beginning, Tap
from app.session.watch import Deadline, SilenceWatch
from app.session.way_back import Calls, way_back
from app.store.watching import StreamFigures
from app.wire.base import Wire

log = logging.getLogger(__name__)

# Five seconds of two tracks: what may come while a ticket is being redeemed.
MAX_EARLY_MESSAGES = 500
ADMISSION_SECONDS = 5.0
LAST_REPLIES_SECONDS = 5.0

_CLOSE_CODES = {
    EndReason.DRAIN: GOING_AWAY,
    EndReason.ERROR: INTERNAL_ERROR,
    EndReason.BAD_MESSAGES: POLICY_VIOLATION,
    EndReason.FLOODING: POLICY_VIOLATION,
    EndReason.BUSINESS_MISMATCH: POLICY_VIOLATION,
    EndReason.ALREADY_LIVE: POLICY_VIOLATION,
}
# The others leave the call to its carrier, or tell that it has ended.
_ENDS_THE_CALL = frozenset({EndReason.MAX_CALL_SECONDS, EndReason.ENDED_BY_ADMIN})
_REFUSED = {INVALID_TEXT: "not_utf8", MESSAGE_TOO_BIG: "message_too_big"}
# What a peer that has no more to say closes with.
_GOOD_ORDER = frozenset({NORMAL_CLOSURE, GOING_AWAY, NO_CODE})


class CallSession:
    """Run one media socket: admit its stream, publish it, end it exactly once.

    The reader never waits for the broker. What a live stream's peer sends comes by
    `receive` of the socket or, from a server that can, by a call for each message:
    docs/decisions/0007. One deadline watches the session:
    first for `start`, then for the admission, then for the plan's longest call.
    Once the stream is live, a peer that falls silent is watched as well: for
    `idle_seconds`, or only for being there where that is None. `calls` is asked
    to end the call when the plan's longest is over, or an admin or a worker ends it.
    """

    def __init__(
        self,
        bridge: Bridge,
        wire: Wire,
        handshake: Handshake,
        *,
        idle_seconds: float | None = None,
        calls: Calls | None = None,
    ) -> None:
        self._bridge = bridge
        self._clock = bridge.clock
        self._wire = wire
        self._handshake = handshake
        self._calls = calls
        self._watch = SilenceWatch(idle_seconds)
        self._replies: Replies | None = None  # for a peer that waits for answers
        self._narration = Narration(handshake.carrier)
        self._ledger = Ledger(bridge.metrics)
        self._early: list[tuple[WireEvent, float]] = []
        self._beginning = Beginning()
        self._tap: Tap | None = None
        self._patience = Patience(bridge.clock)
        self._over: EndReason | None = None
        self._is_deaf = False
        self._beside: list[asyncio.Task[None]] = []
        self._holding: asyncio.Task[None] | None = None
        self._admission: asyncio.Task[None] | None = None
        self._admitted: Admitted | None = None
        self._stream: MediaStream | None = None
        self._playback: Playback | None = None
        seconds = bridge.start_timeout_seconds
        self._deadline = Deadline(seconds, StartTimeout(f"no start within {seconds:g} s"))

    async def run(self, socket: Socket) -> None:
        """Serve the socket until its stream has ended and is published."""
        outcome = await self._serve(socket)
        if self._tap is not None:
            self._tap.close()
        if self._stream is None or self._admitted is None:
            await self._refuse(socket, outcome)
            return
        reason = EndReason.ERROR if isinstance(outcome, BridgeError) else outcome
        if self._playback is not None:
            reason = self._playback.reason_of(reason)
        if reason in _ENDS_THE_CALL and self._calls is not None:
            self._calls.hang_up(self._admitted, reason)
        try:
            if reason is EndReason.STOP:
                await self._send_last_replies(socket, self._stream)
            if reason is EndReason.VANISHED:
                socket.abort()
            else:
                await socket.close(_CLOSE_CODES.get(reason, NORMAL_CLOSURE), reason)
        finally:
            await self._bridge.finish_stream(self._stream, self._admitted, reason, self._playback)

    async def _send_last_replies(self, socket: Socket, stream: MediaStream) -> None:
        """Answer the last frames of a peer that waits for answers, before it is closed."""
        if self._replies is None:
            return
        stream.end(EndReason.STOP)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_REPLIES_SECONDS):
                await stream.wait_until_published()
                await self._replies.send_waiting(socket)

    def end(self, reason: EndReason) -> None:
        """End the session from outside, now."""
        self._deadline.end(reason)

    # ------------------------------------------------------------------ reading

    async def _serve(self, socket: Socket) -> EndReason | BridgeError:
        try:
            async with self._deadline, asyncio.TaskGroup() as tasks:
                try:
                    return await self._read(socket, tasks)
                finally:
                    self._is_deaf = True
                    for task in (*self._beside, self._holding):
                        if task is not None:
                            task.cancel()
        except TimeoutError:
            return self._deadline.due
        except ExceptionGroup as group:
            error = group.exceptions[0]
            if isinstance(error, BridgeError):
                return error
            log.error("A session failed", exc_info=error)
            return EndReason.ERROR

    async def _read(self, socket: Socket, tasks: asyncio.TaskGroup) -> EndReason:
        while True:
            message = await socket.receive()
            if isinstance(message, Closed):
                return self._closed(message)
            if self._stream is None:
                self._hear_before_admission(message, socket, tasks)
            elif self._stream.must_wait:
                # Nor may a later one be handed over before this one is heard.
                socket.pause()
                await self._wait_for_room(self._stream)
                self._hear(message, self._stream)
                if self._holding is None:
                    socket.resume()
            else:
                self._hear(message, self._stream)
            if self._over is not None:
                return self._over
            if self._stream is None and len(self._early) >= MAX_EARLY_MESSAGES and self._admission:
                await asyncio.wait([self._admission])

    def _hear_before_admission(
        self, message: str | bytes, socket: Socket, tasks: asyncio.TaskGroup
    ) -> None:
        self._watch.heard = True
        if self._admission is None:
            implied = self._wire.implied_start(message)
            if implied is not None:
                self._begin_admission(socket, implied, tasks, implied=True)
        event = self._wire.receive(message)
        opens = isinstance(event, StreamStarted | Connected)
        self._beginning.note(message, self._clock(), opens=opens)
        if isinstance(event, StreamStarted):
            self._begin_admission(socket, event, tasks)
        elif not isinstance(event, Connected):
            self._early.append((event, self._clock()))
        self._weigh(event)

    def _hear(self, message: str | bytes, stream: MediaStream) -> None:
        """Take one message of an admitted stream."""
        self._watch.heard = True
        if self._tap is not None and self._tap.on:
            self._tap.take(message, self._clock())
        event = self._wire.receive(message)
        if isinstance(event, MediaReceived) and len(event.payload) >= MIN_FRAME_BYTES:
            # As nearly every message is.
            stream.take_media(event, self._clock())
            self._patience.frames += 1
        else:
            stream.take(event, self._clock())
            self._weigh(event)

    def _weigh(self, event: WireEvent) -> None:
        """Judge whether more is heard; raises where a peer is given up on before its `start`."""
        reason = self._patience.lost_by(event)
        if reason is EndReason.BAD_MESSAGES and self._admission is None:
            raise TooManyBadMessages(f"more than {MAX_BAD_IN_A_ROW} bad messages in a row")
        self._over = EndReason.STOP if isinstance(event, StreamStopped) else reason

    async def _wait_for_room(self, stream: MediaStream) -> None:
        with self._watch.suspended():
            await stream.wait_for_room()

    # ------------------------------------------------------- what the server hands over

    def _listen(self, socket: Socket, stream: MediaStream, tasks: asyncio.TaskGroup) -> None:
        """Let the server call for each message from now on, if it can."""

        def take(message: str | bytes) -> None:
            if self._is_deaf:
                return
            try:
                self._hear(message, stream)
            except Exception:  # the session ends by it, and not the server
                log.exception("A session failed")
                self._over = EndReason.ERROR
            if self._over is not None:
                self._is_deaf = True
                self.end(self._over)
            elif stream.queue.is_full and stream.must_wait:
                socket.pause()
                if self._holding is None:
                    self._holding = tasks.create_task(hold())

        async def hold() -> None:
            await self._wait_for_room(stream)
            self._holding = None
            socket.resume()

        socket.admitted(take)

    async def _end_when_silent(self, socket: Socket) -> None:
        self.end(await self._watch.judge(socket))

    def _closed(self, closed: Closed) -> EndReason:
        if closed.cut is not None:
            return closed.cut
        if closed.code in _GOOD_ORDER:
            return EndReason.CLOSED
        if closed.code in _REFUSED:
            # The WebSocket layer refused a message that it never handed on.
            refused = Unreadable(_REFUSED[closed.code])
            if self._stream is not None:
                self._stream.take(refused, self._clock())
                if self._tap is not None:
                    self._tap.miss()
            else:
                self._early.append((refused, self._clock()))
        too_big = closed.code == MESSAGE_TOO_BIG
        return EndReason.MESSAGE_TOO_BIG if too_big else EndReason.DISCONNECTED

    # ---------------------------------------------------------------- admission

    def _begin_admission(
        self,
        socket: Socket,
        start: StreamStarted,
        tasks: asyncio.TaskGroup,
        *,
        implied: bool = False,
    ) -> None:
        self._narration.started(start, implied=implied)
        too_late = StoreUnavailable("the stream could not be admitted in time")
        self._deadline.move(ADMISSION_SECONDS, too_late)
        self._admission = tasks.create_task(self._admit(socket, start, tasks, implied))

    async def _admit(
        self,
        socket: Socket,
        start: StreamStarted,
        tasks: asyncio.TaskGroup,
        implied: bool,
    ) -> None:
        bridge = self._bridge
        started = self._clock()
        self._admitted = admitted = await bridge.reception.admit(start, self._handshake)
        held, started_ms = admitted.held, admitted.started_ms

        def draw_up() -> StreamFigures | None:
            return self._stream.figures(started_ms) if self._stream is not None else None

        await bridge.calls.begin(held, self.end, draw_up)
        way = way_back(start, admitted, self._handshake, self._calls, implied=implied)
        self._playback = playback = bridge.open_playback(admitted, way, self.end)
        stream = bridge.open_stream(
            start,
            admitted,
            self._ledger,
            started=started,
            started_ms=started_ms,
            on_published=self._on_published if self._tells_of_frames else None,
            on_opened=lambda: bridge.listen(admitted, playback),
            end=self.end,
        )
        stream.on_mark = playback.echoed
        stream.begin(start.seq)
        for event, received_at in self._early:
            stream.take(event, received_at)
        self._early.clear()
        self._tap = bridge.open_tap(
            admitted, self._handshake, self._beginning, started=started, started_ms=started_ms
        )
        self._stream = stream
        self._listen(socket, stream, tasks)
        greeting = self._wire.started_reply()
        if greeting is not None:
            self._replies = Replies()
            self._replies.put(greeting)
        if not self._is_deaf:  # else the peer has said all there is
            self._stand_by(socket, tasks)
        self._deadline.move(admitted.plan.max_call_seconds, EndReason.MAX_CALL_SECONDS)

    def _stand_by(self, socket: Socket, tasks: asyncio.TaskGroup) -> None:
        """Begin what runs beside the reading of a live stream."""
        self._beside.append(tasks.create_task(self._end_when_silent(socket)))
        if self._replies is not None:
            self._beside.append(tasks.create_task(self._replies.send_all(socket)))
        if self._playback is not None and self._playback.is_possible:
            self._beside.append(tasks.create_task(self._playback.run(socket)))

    @property
    def _tells_of_frames(self) -> bool:
        return self._narration.tells_of_frames or self._wire.started_reply() is not None

    def _on_published(self, entry: AudioEntry) -> None:
        self._narration.published(entry.frames)
        for seq in range(entry.seq - entry.frames + 1, entry.seq + 1):
            answer = self._wire.ack(seq)
            if answer is not None and self._replies and not self._replies.put(answer):
                self.end(EndReason.NOT_READING)

    async def _refuse(self, socket: Socket, outcome: EndReason | BridgeError) -> None:
        """Close a socket whose stream was never admitted: a close frame, and nothing before it."""
        if isinstance(outcome, BridgeError):
            code, reason = outcome.close_code, outcome.reason
            told = f"{reason}: {outcome}"
        else:
            code = _CLOSE_CODES.get(outcome, NORMAL_CLOSURE)
            reason = told = f"{outcome}_before_start"
        self._bridge.metrics.refused.labels(reason).inc()
        log.warning(
            "[WebSocket] ❌ Stream refused: %s (%d messages before)", told, len(self._early)
        )
        try:
            await socket.close(code, told)
        finally:
            if self._admitted is not None:
                await self._bridge.calls.finish(self._admitted.call)
                await self._bridge.calls.disclaim(self._admitted.call.stream_sid)
