"""Two echo servers to play cases against, each in a process of its own.

`ours` is the service's WebSocket layer under an application that sends back what
it receives. `naive` is what a server looks like that trusts its peers.
"""

import asyncio
import base64
import hashlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from app.server import NO_BUDGETS, server_config

# Cases of category 9 send messages of 16 MiB.
LARGEST_MESSAGE = 32 * 2**20
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@contextmanager
def echo_server(kind: str) -> Iterator[int]:
    """Run the server of this kind, `ours` or `naive`, until the block ends; give its port."""
    command = [sys.executable, "-m", "tests.autobahn.echo", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def our_config() -> uvicorn.Config:
    """Configure the WebSocket layer as the service does, without its limits.

    The cases are about the protocol. A limit has tests of its own, and here it
    would only end those cases that send megabytes, or nothing but pings.
    """
    config = server_config(echo, "127.0.0.1", 0, rules=NO_BUDGETS)
    config.ws_max_size = LARGEST_MESSAGE
    config.lifespan = "off"
    return config


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back every message: an ASGI application."""
    await receive()
    await send({"type": "websocket.accept"})
    # What came before a fault is still to be answered, and can no longer be.
    with suppress(RuntimeError):
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})


async def naive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back every frame as it came, whatever it is."""
    request = await reader.readuntil(b"\r\n\r\n")
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    opcode = 0
    while opcode != 8:
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        extended = await reader.readexactly({126: 2, 127: 8}.get(size, 0))
        mask = await reader.readexactly(4)
        length = int.from_bytes(extended) if extended else size
        payload = await reader.readexactly(length)
        opcode = first & 0x0F
        answer = first + 1 if opcode == 9 else first
        body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        writer.write(bytes([answer, size]) + extended + body)
    writer.close()


async def _serve_naive(listening: socket.socket) -> None:
    server = await asyncio.start_server(naive, sock=listening)
    await server.serve_forever()


def main() -> None:
    """Serve, and print the port."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    if sys.argv[1] == "ours":
        uvicorn.Server(our_config()).run(sockets=[listening])
    else:
        asyncio.run(_serve_naive(listening))


if __name__ == "__main__":
    main()
