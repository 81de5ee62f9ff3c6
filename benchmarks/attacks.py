"""Peers that keep to the protocol and mean harm: what they send, and one to send it.

A frame is raw bytes, masked by zeros (RFC 6455, 5.3 lets a client choose any
mask), so that a flood is ready before it begins and costs the sender nothing.
"""

import math
import os
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from app.errors import LocalError

TEXT, BINARY, CONT, PING, PONG = 0x1, 0x2, 0x0, 0x9, 0xA
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.2
FLOOD_BYTES = 512 * 1024
PAUSE_SECONDS = 0.1
CONNECT_SECONDS = 10.0
# One that had less time than this to be closed in tells nothing.
ENOUGH_SECONDS = 1.0


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Write one frame, as a client."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2)
    else:
        length = b"\xff" + size.to_bytes(8)
    return bytes([opcode | (0x80 if fin else 0)]) + length + bytes(4) + payload


def upgrade_request(path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Write a good handshake."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass(frozen=True, slots=True)
class Attack:
    """What an attacker sends after its handshake: `begins` once, `unit` without end."""

    name: str
    unit: bytes
    begins: bytes = b""
    reads: bool = False


ATTACKS = (
    Attack("pings, the pongs unread", frame(PING, b"p" * 125)),
    Attack("pings, the pongs read", frame(PING, b"p" * 125), reads=True),
    Attack("pongs to no ping", frame(PONG)),
    Attack(
        "a message without end, in empty fragments",
        frame(CONT, fin=False),
        begins=frame(TEXT, b"x" * 100, fin=False),
    ),
    Attack(
        "a message without end, in fragments of 64 bytes",
        frame(CONT, b"x" * 64, fin=False),
        begins=frame(TEXT, b"x" * 64, fin=False),
    ),
    Attack("text messages of 2 bytes", frame(TEXT, b"{}")),
    Attack("text messages of no bytes", frame(TEXT)),
    Attack("messages of 60 kB that are nothing", frame(TEXT, b'"' + b"x" * 60_000 + b'"')),
    Attack("unknown events", frame(TEXT, b'{"event":"dance","padding":"' + b"x" * 200 + b'"}')),
    Attack("greetings", frame(TEXT, b'{"event":"connected","padding":"' + b"x" * 200 + b'"}')),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A media socket to be attacked."""

    host: str
    port: int
    request: bytes


def strike(target: Target, attack: Attack, seconds: float) -> list[float]:
    """Attack again and again for so long; give after how many seconds each one was closed.

    For a process of its own, which gives way to all others: it is what the
    service does that is measured, not how the machine shares its cores.

    Raises:
        LocalError: the handshake was refused.
    """
    os.nice(19)
    closed_after = []
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        ended = flood(target, attack, left)
        if math.isfinite(ended) or left > ENOUGH_SECONDS:
            closed_after.append(ended)
        time.sleep(PAUSE_SECONDS)
    return closed_after


def flood(target: Target, attack: Attack, seconds: float) -> float:
    """Open one socket and flood it; give after how long it was closed, infinite if it was not.

    Raises:
        LocalError: the handshake was refused.
    """
    endless = memoryview(attack.unit * max(1, FLOOD_BYTES // len(attack.unit)))
    with _connected(target) as sock:
        sock.setblocking(False)
        began = time.monotonic()
        rest = memoryview(attack.begins) or endless
        while (lasts := time.monotonic() - began) < seconds:
            try:
                readers = [sock] if attack.reads else []
                readable, writable, _ = select.select(readers, [sock], [], 0.1)
                if readable and not sock.recv(65536):
                    return lasts
                if writable:
                    rest = rest[sock.send(rest) :] or endless
            except OSError:
                return time.monotonic() - began
    return math.inf


def _connected(target: Target) -> socket.socket:
    sock = socket.create_connection((target.host, target.port), CONNECT_SECONDS)
    sock.sendall(target.request)
    answer = b""
    while not answer.endswith(b"\r\n\r\n") and (received := sock.recv(4096)):
        answer += received
    if not answer.startswith(b"HTTP/1.1 101 "):
        sock.close()
        raise LocalError(f"the attacker's handshake was refused: {answer[:200]!r}")
    return sock
