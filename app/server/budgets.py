"""What carries no audio, paid for from a budget."""

import asyncio
from typing import Any

from uvicorn.server import ServerState
from websockets.frames import CloseCode, Frame

from app.budget import Budget
from app.events import EndReason
from app.server.config import GuardedConfig
from app.server.rules import LIGHT_BYTES, LINGER_SECONDS, Fault
from app.server.upgrade import UpgradeProtocol


class BudgetedProtocol(UpgradeProtocol):
    """uvicorn's WebSocket protocol, where what carries no audio is paid for from a budget.

    That is control frames, and messages and fragments shorter than `LIGHT_BYTES`.
    `_free_messages` counts those that were not, and make good for one light frame
    each, since the budget was last looked at.
    """

    def __init__(
        self,
        config: GuardedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._light_frames = Budget(self._door.rules.light_frames, self.loop.time)
        self._light_bytes = Budget(self._door.rules.light_bytes, self.loop.time)
        self._free_messages = 0
        self._fragments = 0
        self._message_bytes = 0
        self._is_cut = False

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
            self._free_messages += 1
        return True

    def _spend(self, size: int) -> bool:
        self._light_frames.earn(self._free_messages)
        self._free_messages = 0
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
        self.transport.pause_reading()
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
