"""A proxy before a service, which can be as wrong as real ones are.

One request a connection; an upgrade is passed on byte for byte.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

HOST = "127.0.0.1"
Way = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Message:
    """A request or an answer: its first line, its headers as they came, its body."""

    first: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.first.split(" ")[1]

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def without(self, *names: str) -> "Message":
        gone = {name.lower() for name in names}
        kept = tuple((key, value) for key, value in self.headers if key.lower() not in gone)
        return replace(self, headers=kept)

    def having(self, name: str, value: str) -> "Message":
        return replace(self, headers=(*self.without(name).headers, (name, value)))

    def encoded(self) -> bytes:
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers), "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


def answer(status: int, body: str = "", **headers: str) -> Message:
    """Make an answer of the proxy's own."""
    shown = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    length = (("Content-Length", str(len(body.encode()))), ("Connection", "close"))
    return Message(f"HTTP/1.1 {status} Said", (*shown, *length), body.encode())


@dataclass(frozen=True)
class Rules:
    """What the proxy does: it may answer a request itself, or change what passes.

    `is_silent`: it takes connections and says nothing. `holds`: what
    comes after an upgrade of that path it keeps to itself. `passes`: what it makes of what
    a WebSocket's client sends; None cuts the connection.
    """

    request: Callable[[Message], Message] = lambda message: message
    response: Callable[[Message, str], Message] = lambda message, path: message
    is_silent: bool = False
    holds: str = ""
    passes: Callable[[bytes], bytes | None] = lambda data: data


@asynccontextmanager
async def proxied(
    port: int, upstream: int, context: ssl.SSLContext | None, rules: Rules | None = None
) -> AsyncIterator[None]:
    """Run a proxy on a port until the block ends; without a context it speaks no TLS."""
    doing = rules or Rules()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            try:
                await _serve(reader, writer, upstream, doing)
            finally:
                writer.close()

    server = await asyncio.start_server(serve, HOST, port, ssl=context)
    try:
        yield
    finally:
        server.close()


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: int, rules: Rules
) -> None:
    if rules.is_silent:
        await reader.read()
        return
    request = await _read(reader)
    passed = rules.request(request)
    if passed.first.startswith("HTTP/"):
        writer.write(passed.encoded())
        await writer.drain()
        return
    is_upgrade = passed.header("upgrade") != ""
    if not is_upgrade:
        passed = passed.having("Connection", "close")
    from_service, to_service = await asyncio.open_connection(HOST, upstream)
    try:
        to_service.write(passed.encoded())
        head = await _read(from_service, whole=not is_upgrade)
        writer.write(rules.response(head, request.path).encoded())
        await writer.drain()
        if is_upgrade and request.path == rules.holds:
            await reader.read()
        elif is_upgrade:
            await _both_ways((reader, to_service), (from_service, writer), rules.passes)
    finally:
        to_service.close()


async def _read(reader: asyncio.StreamReader, *, whole: bool = True) -> Message:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = tuple(
        (name, value.strip()) for name, _, value in (one.partition(":") for one in lines)
    )
    message = Message(first, headers)
    length = int(message.header("content-length") or 0)
    body = await reader.readexactly(length) if whole or length else b""
    return replace(message, body=body)


async def _both_ways(up: Way, down: Way, passes: Callable[[bytes], bytes | None]) -> None:
    async def pump(way: Way, change: Callable[[bytes], bytes | None]) -> None:
        reader, writer = way
        with suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(65536):
                passed = change(data)
                if passed is None:
                    return
                writer.write(passed)
                await writer.drain()

    tasks = [
        asyncio.create_task(pump(up, passes)),
        asyncio.create_task(pump(down, lambda data: data)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
