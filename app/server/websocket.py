"""uvicorn's WebSocket protocol: it loses nothing, and bounds what carries no audio."""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.server import ServerState
from websockets.frames import CloseCode
from websockets.protocol import OPEN

from app.server.budgets import BudgetedProtocol
from app.server.config import GuardedConfig
from app.server.frames import whole_message, wire_bytes
from app.server.rules import (
    CLOSE_SECONDS,
    LATE_BYTES,
    LINGER_SECONDS,
    ROUND_BYTES,
    SLICE_BYTES,
    SLICES_OF_A_FRAME,
)
from app.wire.base import SOCKET_EXTENSION

log = logging.getLogger(__name__)

NOTHING = memoryview(b"")
NO_DESCRIPTOR = -1

Take = Callable[[str | bytes], None]


class MediaSocketProtocol(BudgetedProtocol):
    """uvicorn's WebSocket protocol, corrected, and fair to all sockets.

    What is read is parsed a slice a turn of the event loop, and no further than
    the application follows. The messages before a fault reach the application,
    whatever the fault is. It lends the application its `Line`.

    Once a stream is admitted, its socket is read in rounds, and its messages go to
    what the application gave for them, one call each, past ASGI's queue: in the
    order in which they came, since none does while another waits in the queue
    (docs/decisions/0007).
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
        self._rounds = self._door.rounds
        # What takes the messages of an admitted stream; `_take` only while it does.
        self._taker: Take | None = None
        self._take: Take | None = None
        self._is_held = False
        self._unparsed = NOTHING
        self._descriptor = NO_DESCRIPTOR
        self._next_slice: asyncio.Handle | None = None
        self._frame_bytes = 0
        self._late_bytes = 0
        self._abort_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on what came before the end, and forget the connection."""
        self._leave_rounds()
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
        lent = {"line": self, "admitted": self._admitted, "assign": self._assign}
        extensions[SOCKET_EXTENSION] = lent

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
        if not self.transport.is_closing():
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
        self._join_rounds()
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
        if not self.handshake_initiated:
            self._parse(data)
        elif self._unparsed or self._is_waiting or len(data) > SLICE_BYTES:
            self._unparsed = memoryview(bytes(self._unparsed) + data if self._unparsed else data)
            self.transport.pause_reading()
            self._read_on()
        else:
            taken = 0 if self._take is None else self._hand_over_whole(data)
            if taken < len(data):
                self._parse(data[taken:])

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
            if self._descriptor == NO_DESCRIPTOR:
                self._resume_transport()
        elif self._next_slice is None:
            self._next_slice = self.loop.call_soon(self._parse_some)

    def take_turn(self) -> None:
        """Read the socket of a live stream, and hand over what came."""
        if self.close_sent:
            self._leave_rounds()
            self._resume_transport()
            return
        if self._take is None or self._unparsed:
            return
        try:
            data = os.read(self._descriptor, ROUND_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # the loop will meet it, too
        if not data:
            self._leave_rounds()
            self._resume_transport()
            return
        try:
            self.data_received(data)
        except Exception:
            self._fail()

    def _join_rounds(self) -> None:
        """Be read in rounds from now on, where that can be."""
        if self._rounds.are_possible and self.scheme == "ws" and not self.transport.is_closing():
            self.transport.pause_reading()
            self._descriptor = self.transport.get_extra_info("socket").fileno()
            self._rounds.join(self._descriptor, self)

    def _leave_rounds(self) -> None:
        self._rounds.leave(self._descriptor, self)
        self._descriptor = NO_DESCRIPTOR

    def _resume_transport(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _parse_some(self) -> None:
        """Parse the next slice, or more of a frame that is longer."""
        self._next_slice = None
        try:
            for _ in range(SLICES_OF_A_FRAME):
                if self._parse_slice() or not self._unparsed:
                    break
        except Exception:
            self._fail()
        else:
            self._read_on()

    def _fail(self) -> None:
        """Do what the event loop does when data_received fails."""
        log.exception("[server] A socket's bytes could not be parsed")
        self.transport.abort()

    def _parse_slice(self) -> bool:
        """Parse some of what waits; tell whether that completed a frame."""
        rest = self._unparsed
        if self._take is not None:
            # A message's length is not known before its beginning is looked at.
            taken = self._hand_over_whole(bytes(rest[:ROUND_BYTES]))
            if taken:
                self._unparsed = rest[taken:]
                return True
        self._unparsed = rest[SLICE_BYTES:]
        return self._parse(bytes(rest[:SLICE_BYTES]))

    def _hand_over_whole(self, data: bytes) -> int:
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
            self._free_messages += 1
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

    def _linger(self) -> None:
        """Read no more."""
        self._leave_rounds()
        self._unparsed = NOTHING
        super()._linger()
