"""A WebSocket peer that is nobody's library: raw bytes out, frames in."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from benchmarks.attacks import upgrade_request
from tests.waiting import WAIT_SECONDS

CLOSE = 0x8


class RawPeer:
    """One connection: what it is answered, and how it ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def flood(self, unit: bytes, size: int = 2**20) -> None:
        """Send a unit over and over, until the connection is gone."""
        data = unit * max(1, size // len(unit))
        with suppress(ConnectionError):
            while True:
                await self.send(data)

    async def frame(self) -> tuple[int, bytes]:
        """Read one frame of the server: its opcode and payload."""
        first, size = await self.reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2))
        return first & 0x0F, await self.reader.readexactly(size)

    async def closed(self) -> tuple[int, str]:
        """Wait for the server's close frame, whatever comes before it."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                opcode, payload = await self.frame()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2]), payload[2:].decode()

    async def gone(self) -> bytes:
        """Wait until the connection is gone; give what came before."""
        received = b""
        async with asyncio.timeout(WAIT_SECONDS):
            with suppress(ConnectionError):
                while data := await self.reader.read(65536):
                    received += data
        return received


@asynccontextmanager
async def a_connection(port: int) -> AsyncIterator[RawPeer]:
    """Open a TCP connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield RawPeer(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def a_raw_peer(
    port: int, path: str = "/", headers: Mapping[str, str] | None = None
) -> AsyncIterator[RawPeer]:
    """Open a WebSocket."""
    async with a_connection(port) as peer:
        await peer.send(upgrade_request(path, headers))
        answer = await peer.reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        yield peer
