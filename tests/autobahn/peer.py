"""The client that plays a case: it follows RFC 6455, or breaks it, as it is told.

To a case it is `self.p`, so its public names are those of Autobahn's
WebSocketProtocol, as far as the cases use them.
"""

import asyncio
import base64
import os
import struct
from collections import Counter, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from tests.autobahn.cases import WebSocketProtocol

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
# How long the other end may take to answer a close, and then to end the connection.
CLOSING_SECONDS = 1.0


class Peer(WebSocketProtocol, asyncio.Protocol):
    """One connection, playing one case.

    `patience` lengthens the times after which a case gives up on the server, and
    no others. `done` is set when the connection is over and the case has judged.
    """

    def __init__(self, case: type[Any], patience: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._incoming = bytearray()
        self._outgoing: deque[tuple[bytes, bool]] = deque()
        self._message = bytearray()
        self._opcode = CONTINUATION
        self._mask, self._masked, self._left = b"", 0, 0
        self._timers: list[asyncio.TimerHandle] = []
        self.done = self._loop.create_future()
        # What a case reads, and some of them write.
        self.state = self.STATE_CONNECTING
        self.factory = SimpleNamespace(isServer=False)
        self.connectionWasOpen = self.wasClean = False
        self.closedByMe = self.failedByMe = self.droppedByMe = False
        self.remoteCloseCode: int | None = None
        self.localCloseReason: str | None = None
        self.autoFragmentSize = 0
        self.txFrameStats: Counter[int] = Counter()
        self.createWirelog = False
        self.case = case(self)

    # ------------------------------------------------------------- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # One of uvloop's is a transport without being of asyncio's class.
        self._transport = transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._incoming += data
        if self.state == self.STATE_CONNECTING and not self._opened():
            return
        while self.state != self.STATE_CLOSED and self._took_frame():
            pass

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = self.STATE_CLOSED
        for timer in self._timers:
            timer.cancel()
        self._tell(self.case.onConnectionLost, self.failedByMe)
        if not self.done.done():
            self.done.set_result(None)

    def _opened(self) -> bool:
        end = self._incoming.find(b"\r\n\r\n")
        if end < 0:
            return False
        is_open = self._incoming.startswith(b"HTTP/1.1 101 ")
        del self._incoming[: end + 4]
        if not is_open:
            self._drop()
            return False
        self.state = self.STATE_OPEN
        self.connectionWasOpen = True
        self._tell(self.case.onOpen)
        return True

    def _tell(self, ask: Callable[..., None], *arguments: Any) -> None:
        """Ask the case; what it raises ends its run, and not the loop's."""
        try:
            ask(*arguments)
        except Exception as error:
            if not self.done.done():
                self.done.set_exception(error)

    def _drop(self) -> None:
        self.droppedByMe = True
        self._transport.abort()

    def _later(self, delay: float, act: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(delay, act))

    # -------------------------------------------------------------------- reading

    def _took_frame(self) -> bool:
        """Take the next frame (RFC 6455, 5.2), if it is here whole."""
        data = self._incoming
        if len(data) < 2:
            return False
        length, start = data[1] & 0x7F, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(data[2:start]) if len(data) >= start else start
        if len(data) < start + length:
            return False
        first, has_mask = data[0], data[1] & 0x80
        payload = bytes(data[start : start + length])
        del data[: start + length]
        if first & 0x70 or has_mask:
            self.failConnection(self.CLOSE_STATUS_CODE_PROTOCOL_ERROR)
        else:
            self._on_frame(first & 0x0F, bool(first & 0x80), payload)
        return True

    def _on_frame(self, opcode: int, fin: bool, payload: bytes) -> None:
        if opcode == CLOSE:
            self._on_close(payload)
        elif self.failedByMe:
            pass
        elif opcode == PING:
            self.sendFrame(PONG, payload.decode("latin-1"))
            self._tell(self.case.onPing, payload.decode("latin-1"))
        elif opcode == PONG:
            self._tell(self.case.onPong, payload.decode("latin-1"))
        else:
            self._opcode = opcode or self._opcode
            self._message += payload
            if fin:
                message = self._message.decode("latin-1")
                self._message.clear()
                self._tell(self.case.onMessage, message, self._opcode == BINARY)

    def _on_close(self, payload: bytes) -> None:
        self.wasClean = True
        self.remoteCloseCode = int.from_bytes(payload[:2]) if len(payload) >= 2 else None
        if self.state == self.STATE_OPEN:
            self._send_close(struct.pack("!H", self.CLOSE_STATUS_CODE_NORMAL), is_reply=True)
        # RFC 6455, 7.1.1: "the underlying TCP connection … SHOULD be closed first by
        # the server".
        self._later(CLOSING_SECONDS, self._drop)

    # -------------------------------------------------------------------- sending

    def sendFrame(
        self,
        opcode: int,
        payload: str = "",
        fin: bool = True,
        rsv: int = 0,
        mask: None = None,
        payload_len: int | None = None,
        chopsize: int | None = None,
        sync: bool = False,
    ) -> None:
        """Send a frame, `payload` repeated up to `payload_len`.

        In pieces of `chopsize` bytes each by itself; with `sync` the frame by itself;
        else together with what is sent in the same moment.
        """
        if payload_len is not None:
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        body = payload.encode("latin-1")
        key = os.urandom(4)
        self._send(
            self._head(opcode, fin, rsv, len(body), key) + _masked(body, key), chopsize, sync
        )

    def sendMessage(
        self, payload: str, isBinary: bool = False, fragmentSize: int | None = None
    ) -> None:
        opcode = BINARY if isBinary else TEXT
        size = fragmentSize or self.autoFragmentSize or len(payload) or 1
        for start in range(0, len(payload) or 1, size):
            self.sendFrame(opcode, payload[start : start + size], start + size >= len(payload))
            opcode = CONTINUATION

    def beginMessage(self) -> None:
        self._opcode_sent = TEXT

    def beginMessageFrame(self, length: int) -> None:
        self._mask, self._masked = os.urandom(4), 0
        self._send(self._head(self._opcode_sent, False, 0, length, self._mask))

    def sendMessageFrameData(self, payload: str) -> None:
        turn = self._masked % 4
        self._masked += len(payload)
        key = self._mask[turn:] + self._mask[:turn]
        self._send(_masked(payload.encode("latin-1"), key))

    def endMessage(self) -> None:
        self.sendFrame(CONTINUATION)

    def _head(self, opcode: int, fin: bool, rsv: int, length: int, key: bytes) -> bytes:
        self.txFrameStats[opcode] += 1
        first = fin << 7 | rsv << 4 | opcode
        if length < 126:
            return struct.pack("!BB", first, 0x80 | length) + key
        if length < 2**16:
            return struct.pack("!BBH", first, 0x80 | 126, length) + key
        return struct.pack("!BBQ", first, 0x80 | 127, length) + key

    def _send(self, data: bytes, chopsize: int | None = None, sync: bool = False) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._write_next)
        if chopsize:
            pieces = range(0, len(data), chopsize)
            self._outgoing.extend((data[start : start + chopsize], True) for start in pieces)
        else:
            self._outgoing.append((data, sync))

    def _write_next(self) -> None:
        if self._transport.is_closing():
            self._outgoing.clear()
            return
        data, alone = self._outgoing.popleft()
        together = [data]
        while not alone and self._outgoing and not self._outgoing[0][1]:
            together.append(self._outgoing.popleft()[0])
        self._transport.write(b"".join(together))
        if self._outgoing:
            self._loop.call_soon(self._write_next)

    # -------------------------------------------------------------------- closing

    def sendClose(self, code: int | None = None, reason: str | None = None) -> None:
        self.sendCloseFrame(code, reason)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: str | None = None) -> None:
        """Begin to close, with any payload; no effect when that has begun."""
        if self.state == self.STATE_OPEN:
            self.localCloseReason = reasonUtf8
            packed = b"" if code is None else struct.pack("!H", code)
            self._send_close(packed + (reasonUtf8 or "").encode("latin-1"), is_reply=False)
            self._later(CLOSING_SECONDS * self._patience, self._drop)

    def _send_close(self, payload: bytes, *, is_reply: bool) -> None:
        self.sendFrame(CLOSE, payload.decode("latin-1"))
        self.state = self.STATE_CLOSING
        self.closedByMe = not is_reply

    def failConnection(self, code: int | None = None) -> None:
        """Give up on the server."""
        self.failedByMe = True
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(code)
        elif self.state != self.STATE_CLOSED:
            self._drop()

    def killAfter(self, delay: float) -> None:
        self._later(delay * self._patience, self.failConnection)

    def closeAfter(self, delay: float) -> None:
        self._later(delay * self._patience, self.sendCloseFrame)

    def continueLater(self, delay: float, act: Callable[[], None], tag: str = "") -> None:
        self._later(delay, lambda: self._tell(act))

    def enableWirelog(self, enable: bool) -> None:
        self.createWirelog = enable


def _masked(data: bytes, key: bytes) -> bytes:
    """Mask as RFC 6455, 5.3; not by the function that the server unmasks with."""
    repeated = (key * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(repeated)).to_bytes(len(data))
