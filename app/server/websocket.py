"""uvicorn's WebSocket protocol: it loses nothing, and bounds what carries no audio."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.server import ServerState
from websockets.frames import CloseCode, Frame
from websockets.protocol import OPEN

from app.budget import Budget
from app.events import EndReason
from app.server.config import GuardedConfig
from app.server.frames import whole_message, wire_bytes
from app.server.rules import (
    CLOSE_SECONDS,
    LATE_BYTES,
    LIGHT_BYTES,
    LINGER_SECONDS,
    ROUND_BYTES,
    SLICE_BYTES,
    SLICES_OF_A_FRAME,
    Fault,
)
from app.server.upgrade import UpgradeProtocol
from app.wire.base import SOCKET_EXTENSION

log = logging.getLogger(__name__)

NOTHING = memoryview(b"")

Take = Callable[[str | bytes], None]


class MediaSocketProtocol(UpgradeProtocol):
    """uvicorn's WebSocket protocol, corrected, and fair to all sockets.

    What is read is parsed a slice a turn of the event loop, and no further than
    the application follows. What carries no audio is paid for from a budget:
    control frames, and messages and fragments shorter than `LIGHT_BYTES`. The
    messages before a fault reach the application, whatever the fault is.

    It lends the application its `Line`. Once a stream is admitted, its messages
    go to what the application gave for them, one call each, past ASGI's queue
    (docs/decisions/0007): in the order in which they came, since none does while
    another waits in the queue.
    """

    answered = True

    def __init__(
        self,
        config: GuardedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.close_timeout = CLOSE_SECONDS
        self._light_frames = Budget(self._door.rules.light_frames, self.loop.time)
        self._rounds = self._door.rounds
        self._light_bytes = Budget(self._door.rules.light_bytes, self.loop.time)
        # What takes the messages of an admitted stream; `_take` only while it does.
        self._taker: Take | None = None
        self._take: Take | None = None
        self._is_held = False
        self._unparsed: bytes | memoryview = NOTHING
        self._is_in_round = False
        self._next_slice: asyncio.Handle | None = None
        self._frame_bytes = 0
        self._whole_messages = 0
        self._fragments = 0
        self._message_bytes = 0
        self._late_bytes = 0
        self._is_cut = False
        self._abort_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on what came before the end, and forget the connection."""
        try:
            while self._unparsed and self.handshake_complete and not self.close_sent:
                self._parse_slice()
        finally:
            for timer in (self._next_slice, self._abort_timer):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Note that the application is done; a peer that reads nothing is then cut."""
        super().on_task_complete(task)
        if not self.disconnected:
            seconds = self.close_timeout + LINGER_SECONDS
            self._abort_timer = self.loop.call_later(seconds, self.transport.abort)

    # ------------------------------------------------------- what it lends: a `Line`

    def lend(self, extensions: dict[str, Any]) -> None:
        """Lend the application this line, and the way past the queue."""
        extensions[SOCKET_EXTENSION] = {"line": self, "admitted": self._admitted}

    def ask(self) -> None:
        """Ask the peer for a sign of life, by a ping; no effect when it is closed."""
        self.answered = False
        if self.conn.state is OPEN and not self.transport.is_closing():
            self.conn.send_ping(b"")
            self.transport.write(b"".join(self.conn.data_to_send()))

    def abort(self) -> None:
        """Let go of the connection at once, with all that is still to be sent."""
        self.transport.abort()

    def pause(self) -> None:
        """Hand over no more messages until `resume`."""
        self._is_held = True
        self._take = None
        self.transport.pause_reading()

    def resume(self) -> None:
        """Hand over messages again."""
        self._is_held = False
        self._go_on()

    def _admitted(self, take: Take) -> None:
        """Count this socket no more, and give its messages to `take`: its stream is admitted."""
        self._leave_unadmitted()
        self._taker = take
        waiting: list[Any] = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
        for event in waiting:
            if event["type"] == "websocket.receive":
                take(event["text"] if "text" in event else event["bytes"])
            else:
                self.queue.put_nowait(event)
        self.read_paused = False
        self._go_on()

    # ------------------------------------------------------------------- reading

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket: parse the first slice, keep the rest for later."""
        self.answered = True
        if self.close_sent:
            self._late_bytes += len(data)
            if self._late_bytes > LATE_BYTES:
                self._linger()
                return
        elif self._is_in_round:
            self._unparsed = bytes(self._unparsed) + data
            if len(self._unparsed) > ROUND_BYTES:
                self.transport.pause_reading()
            return
        elif self._take is not None and not self._unparsed:
            self._unparsed = data
            self._is_in_round = True
            self._rounds.join(self)
            return
        if not self.handshake_initiated:
            self._parse(data)
        elif self._unparsed or self._is_waiting or len(data) > SLICE_BYTES:
            self._unparsed = memoryview(bytes(self._unparsed) + data if self._unparsed else data)
            self.transport.pause_reading()
            self._read_on()
        else:
            self._parse(data)

    async def receive(self) -> ASGIReceiveEvent:
        """Give the application what came next; when it has all, read on."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._go_on()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Take the application's message, and read on: it may be what reading waited for."""
        await super().send(message)
        self._read_on()

    @property
    def _is_waiting(self) -> bool:
        """Tell whether the application has to act before more is read."""
        return self.read_paused or self._is_held or not self.handshake_complete

    def _go_on(self) -> None:
        """Read on, past the queue again where nothing waits in it."""
        if not self._is_waiting and self.queue.empty():
            self._take = self._taker
        self._read_on()

    def _read_on(self) -> None:
        """Parse the next slice in the loop's next turn; without one, read the socket."""
        if self._is_cut or self._is_waiting:
            return
        if not self._unparsed:
            if not self.transport.is_reading():
                self.transport.resume_reading()
        elif self._next_slice is None and not self._is_in_round:
            self._next_slice = self.loop.call_soon(self.take_turn)

    def take_turn(self) -> None:
        """Parse the next slice, or more of a frame that is longer."""
        self._next_slice = None
        self._is_in_round = False
        try:
            for _ in range(SLICES_OF_A_FRAME):
                if self._parse_slice() or not self._unparsed:
                    break
        except Exception:
            # What the event loop does when data_received fails.
            log.exception("[server] A socket's bytes could not be parsed")
            self.transport.abort()
            return
        self._read_on()

    def _parse_slice(self) -> bool:
        """Parse some of what waits; tell whether that completed a frame."""
        waiting = self._unparsed
        taken = 0 if self._take is None else self._hand_over_whole(waiting)
        if taken == len(waiting):
            self._unparsed = NOTHING
            return True
        rest = memoryview(waiting)
        if taken:
            self._unparsed = rest[taken:]
            return True
        self._unparsed = rest[SLICE_BYTES:]
        return self._parse(bytes(rest[:SLICE_BYTES]))

    def _hand_over_whole(self, data: bytes | memoryview) -> int:
        """Hand over the messages that lie whole at the beginning; tell how many bytes they took.

        About `SLICE_BYTES` at most. All else is left to the parser of `websockets`:
        control frames, fragments, faults, and what is short or has come in part.
        """
        at = 0
        if self._frame_bytes or self.conn.current_size is not None:
            return at  # the parser is within a frame, or a message
        while at < SLICE_BYTES and self._take is not None:
            found = whole_message(data, at)
            if found is None:
                break
            message, at = found
            self._whole_messages += 1
            self._take(message)
        return at

    def _parse(self, data: bytes) -> bool:
        """Parse bytes; tell whether they completed a frame."""
        if self.handshake_initiated:
            self._frame_bytes += len(data)
        # uvicorn 0.54 looks for a fault first, and drops what came before it.
        self.conn.receive_data(data)
        has_frame = bool(self.conn.events)
        self._frame_bytes -= sum(map(wire_bytes, self.conn.events))
        self.handle_events()
        if not self.close_sent:
            if self.conn.parser_exc is not None:
                self.handle_parser_exception()
            elif not self.handshake_initiated and self.conn.handshake_exc is not None:
                self._refuse_request(self.conn.handshake_exc)
        return has_frame

    # ------------------------------------------------------------------- budgets

    def handle_text(self, event: Frame) -> None:
        """Take a text message, or its first fragment."""
        self._fragments = self._message_bytes = 0
        if self._is_paid(event):
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Take a binary message, or its first fragment."""
        self._fragments = self._message_bytes = 0
        if self._is_paid(event):
            super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """Take a further fragment."""
        if self._is_paid(event):
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Hand on a message; text that is not UTF-8 fails the connection (RFC 6455, 8.1).

        uvicorn 0.54 does so too, even after the peer's own close frame, and logs it
        as an error of ours, with a traceback.
        """
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(CloseCode.INVALID_DATA, "text is not UTF-8")
                self.handle_parser_exception()
                return
        if self._take is None or self.close_sent:
            super().send_receive_event_to_app()
            return
        data, self.frames = b"".join(self.frames), []
        self._take(data.decode() if self.curr_msg_data_type == "text" else data)

    def handle_ping(self) -> None:
        """Answer the pings that came together, unless the peer leaves answers unread."""
        pongs = b"".join(self.conn.data_to_send())
        if not self._spend(len(pongs)) or self.close_sent:
            return
        if self.writable.is_set():
            self.transport.write(pongs)
        else:
            self._cut(Fault.NOT_READING, EndReason.NOT_READING)

    def handle_pong(self, event: Frame) -> None:
        """Take an answer to our ping, or one to none."""
        if self._spend(len(event.data)):
            super().handle_pong(event)

    def _is_paid(self, frame: Frame) -> bool:
        """Charge a data frame that carries no audio; False when the peer is cut for it."""
        size = len(frame.data)
        self._fragments += 1
        self._message_bytes += size
        if self._fragments > self._door.rules.max_fragments:
            self._cut(Fault.FLOODING, EndReason.FLOODING)
            return False
        if (self._message_bytes if frame.fin else size) < LIGHT_BYTES:
            return self._spend(size)
        if frame.fin:
            self._light_frames.earn()
        return True

    def _spend(self, size: int) -> bool:
        self._light_frames.earn(self._whole_messages)
        self._whole_messages = 0
        if self._light_frames.spend() and self._light_bytes.spend(size):
            return True
        self._cut(Fault.FLOODING, EndReason.FLOODING)
        return False

    def _cut(self, fault: Fault, reason: EndReason) -> None:
        """Close a peer over its budget; what it sent before is the application's."""
        if self._is_cut:
            return
        self._door.note(fault, self.client)
        if not self.close_sent:
            self.conn.fail(CloseCode.POLICY_VIOLATION, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            code = CloseCode.POLICY_VIOLATION
            end: Any = {"type": "websocket.disconnect", "code": code, "cut": reason}
            self.queue.put_nowait(end)
        self._linger()

    def _linger(self) -> None:
        """Read no more, and cut the connection when our close frame may have arrived.

        To close at once, with bytes unread, would be to reset the connection,
        close frame and all.
        """
        self._is_cut = True
        self._unparsed = NOTHING
        self.transport.pause_reading()
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
