"""What a WebSocket costs that was opened and has said nothing."""

import asyncio

from benchmarks.dialing import connect_media
from benchmarks.host import Service
from benchmarks.line import Line
from benchmarks.processes import memory_bytes

SOCKETS = 500
AT_ONCE = 20
FIRST = 20  # whoever comes first pays for what is made once
SETTLE_SECONDS = 0.5
# Sources of 127.0.0.0/8, since a service may allow one address few idle sockets.
SOURCES = [f"127.0.0.{last}" for last in range(2, 12)]


async def idle_socket_bytes(service: Service) -> float | None:
    """Open sockets that send nothing; give the memory of each, None where it is not told.

    Raises:
        LocalError: a socket was refused.
    """
    await _grown_by(service, FIRST)
    grown = await _grown_by(service, SOCKETS)
    return None if grown is None else grown / SOCKETS


async def _grown_by(service: Service, sockets: int) -> int | None:
    before = memory_bytes(service.pid)
    few = asyncio.Semaphore(AT_ONCE)

    async def open_one(place: int) -> Line:
        async with few:
            return await connect_media(service, SOURCES[place % len(SOURCES)])

    lines = await asyncio.gather(*map(open_one, range(sockets)))
    # A service closes those that stay silent for long: look before that.
    await asyncio.sleep(SETTLE_SECONDS)
    after = memory_bytes(service.pid)
    for line in lines:
        line.abort()
    await asyncio.sleep(SETTLE_SECONDS)
    return None if before is None or after is None else after - before
