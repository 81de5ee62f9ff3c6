"""One call's WebSocket, as cheap for the one who calls as it can be."""

import asyncio
import secrets
from collections.abc import Callable
from typing import cast

from app.errors import LocalError
from benchmarks.attacks import upgrade_request

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
NORMAL = 1000
HANDSHAKE_SECONDS = 15.0


def client_frame(opcode: int, payload: bytes, key: bytes | None = None) -> bytes:
    """Write one frame as a client, masked by `key`, or a random one (RFC 6455, 5.2 and 5.3)."""
    key = secrets.token_bytes(4) if key is None else key
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 65536:
        head = bytes([0x80 | opcode, 0x80 | 126]) + size.to_bytes(2)
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + size.to_bytes(8)
    mask = (key * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload) ^ int.from_bytes(mask)
    return head + key + masked.to_bytes(size)


class Line(asyncio.Protocol):
    """A WebSocket on which frames go out that were made before.

    What comes goes to `on_text`, or is thrown away without one. Pings are answered, and a
    close too. `was_cut` tells that the peer ended it otherwise than by a close that says
    1000 or nothing (RFC 6455, 7.4.1 and 7.1.5).
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self.was_cut = False
        self.on_text: Callable[[bytes], None] | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether frames can still be written."""
        return not self._closing

    def write(self, frame: bytes) -> None:
        """Send a frame that `client_frame` made."""
        if self._transport and not self._closing:
            self._transport.write(frame)

    def close(self) -> None:
        """Begin the closing handshake (RFC 6455, 7.1.2)."""
        self.write(client_frame(CLOSE, NORMAL.to_bytes(2)))
        self._closing = True

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport:
            self._transport.abort()

    # ------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's is one by what it does, not by its class.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell those who wait."""
        self.was_cut |= not self._closing
        self._closing = True
        if not self.opened.done():
            self.opened.set_exception(LocalError("closed before the handshake was answered"))
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Read the handshake's answer, then frames."""
        self._received += data
        if not self.opened.done():
            head, found, rest = bytes(self._received).partition(b"\r\n\r\n")
            if not found:
                return
            self._received[:] = rest
            if not head.startswith(b"HTTP/1.1 101 "):
                self.opened.set_exception(LocalError(f"the handshake was refused: {head[:200]!r}"))
                return
            self.opened.set_result(None)
        while (frame := take_frame(self._received)) is not None:
            opcode, payload = frame
            if opcode == TEXT:
                if self.on_text is not None:
                    self.on_text(payload)
            elif opcode == PING:
                self.write(client_frame(PONG, payload))
            elif opcode == CLOSE:
                self.was_cut |= int.from_bytes(payload[:2] or NORMAL.to_bytes(2)) != NORMAL
                self.write(client_frame(CLOSE, payload[:2]))
                self._closing = True


def take_frame(received: bytearray) -> tuple[int, bytes] | None:
    """Take a server's next frame, its opcode and payload; None until it is whole."""
    if len(received) < 2:
        return None
    size, begin = received[1] & 0x7F, 2
    if size >= 126:
        begin = 4 if size == 126 else 10
        if len(received) < begin:
            return None
        size = int.from_bytes(received[2:begin])
    if len(received) < begin + size:
        return None
    frame = received[0] & 0x0F, bytes(received[begin : begin + size])
    del received[: begin + size]
    return frame


async def connect(
    host: str, port: int, path: str, headers: dict[str, str], *, source: str = "127.0.0.1"
) -> Line:
    """Open a WebSocket from a loopback address.

    Raises:
        LocalError: it was refused, or not answered in time.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            transport, line = await loop.create_connection(Line, host, port, local_addr=(source, 0))
            transport.write(upgrade_request(path, headers))
            await line.opened
    except OSError as error:
        raise LocalError(f"no WebSocket at {host}:{port}: {error!r}") from error
    return line
