"""The least that a Python service can do: answer the upgrade, read, and throw away."""

import asyncio
import base64
import hashlib
import os
import re
from typing import cast

import uvloop

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class Discard(asyncio.Protocol):
    """A WebSocket whose frames nobody looks at."""

    def __init__(self) -> None:
        self.request: bytes | None = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for the answer."""
        # uvloop's is one by what it does, not by its class.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer the handshake; let all that follows fall."""
        if self.request is None:
            return
        self.request += data
        if b"\r\n\r\n" not in self.request:
            return
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", self.request)
        accept = base64.b64encode(hashlib.sha1((key[1] if key else b"") + GUID).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.request = None


async def main() -> None:
    """Serve until told to stop."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Discard, os.environ["HOST"], int(os.environ["PORT"]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
