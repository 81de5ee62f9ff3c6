"""Calls that workers speak into, on a service whose businesses may."""

import math
import secrets
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from websockets.asyncio.client import connect

from app.carriers.stream_ids import stream_id
from app.media import Encoding, MediaFormat
from app.wire import exotel
from tests.businesses import business, plan
from tests.playback.listener import Listener, listening
from tests.service import Service, a_peer, events_of
from tests.waiting import until

PCM16_8K = MediaFormat(Encoding.PCM16, 8000)
ACCOUNT = "AC" + "0" * 32
TALKING, FORWARDED = "+15005550021", "+15005550022"
BUSINESSES = (
    plan("talking", max_concurrent_calls=60, return_audio=True)
    + plan("listening", max_concurrent_calls=60)
    + business("talking", "talking", TALKING)
    + business("listening", "listening", "+15005550023")
    + business("forwarding", "talking", FORWARDED, forward_to="+14155550199")
)


def speech(seconds: float, rate: int = 8000) -> bytes:
    """Make something that sounds, as PCM16."""
    count = round(rate * seconds)
    samples = [
        round(9000 * math.sin(at * 0.11) * math.sin(at * 0.0017) + 900 * math.sin(at * 0.7))
        for at in range(count)
    ]
    return struct.pack(f"<{count}h", *samples)


@dataclass
class Talk:
    """A live call, its far end, and a worker of it."""

    service: Service
    redis: Redis
    listener: Listener
    call_sid: str
    published_as: str = ""

    @property
    def stream_sid(self) -> str:
        """Return the stream's id in Redis: a Twilio caller uses the same one."""
        return self.published_as or self.listener.stream_sid

    async def command(self, command: str, **fields: Any) -> str:
        """Write a command as any worker does: one XADD."""
        key = f"control:{{{self.stream_sid}}}"
        given: Any = {"command": command, **fields}
        entry = await self.redis.xadd(key, given, nomkstream=True)
        assert entry is not None
        return str(entry.decode())

    async def told(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many events of this name."""
        found: list[dict[str, Any]] = []

        async def are_told() -> bool:
            events = await events_of(self.service, self.call_sid)
            found[:] = [data for event, data in events if event == name]
            return len(found) >= count

        await until(are_told)
        return found

    async def started(self) -> None:
        await self.told("stream.started")


@asynccontextmanager
async def twilio_call(
    service: Service, query: str = "?businessId=talking", **start: Any
) -> AsyncIterator[Talk]:
    async with (
        a_peer(service, f"/twilio-media{query}", headers={}) as peer,
        Redis.from_url(service.redis_url) as redis,
    ):
        await peer.start(**start)
        async with listening(peer.socket, peer.stream_sid) as listener:
            talk = Talk(service, redis, listener, peer.call_sid)
            await talk.started()
            yield talk


@asynccontextmanager
async def exotel_call(service: Service, query: str = "", rate: int = 8000) -> AsyncIterator[Talk]:
    url = f"{service.ws_url}/v1/ingest{query}"
    stream_sid, call_sid = secrets.token_hex(16), secrets.token_hex(16)
    async with (
        connect(url, compression=None) as socket,
        Redis.from_url(service.redis_url) as redis,
    ):
        await socket.send(exotel.connected_message())
        await socket.send(
            exotel.start_message(stream_sid, call_sid, to_number=TALKING, sample_rate=rate)
        )
        audio = MediaFormat(Encoding.PCM16, rate)
        async with listening(socket, stream_sid, audio) as listener:
            published_as = stream_id("exotel", "talking", stream_sid)
            talk = Talk(service, redis, listener, call_sid, published_as)
            await talk.started()
            yield talk


CALLS = {"twilio": twilio_call, "exotel": exotel_call}
