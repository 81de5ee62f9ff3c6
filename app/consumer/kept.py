"""What a worker looks up in Redis besides what it follows."""

from typing import Any, Final, Self

import msgspec

from app.consumer.reader import Entries
from app.events import HeldStream
from app.pubsub.base import CALLS_KEY, audio_key, record_key
from app.pubsub.records import StoredRecord, parse_record
from app.redis_url import parse_redis_url
from app.store.reach import RedisReach, text
from app.topology import connect

TIMEOUT_SECONDS: Final = 3.0
MAX_CONNECTIONS: Final = 33
BEGINNING: Final = "0-0"
# A stream is announced, and held by a lease that others see: so long apart at most, unless
# Redis was away meanwhile.
RECENT_MS: Final = 10_000
MAX_RECENT: Final = 10_000
# What replicas must know of each other's live streams; see app/store/redis.
_LIVE: Final = "held:{streams}:facts"


class Kept(RedisReach):
    """Look up streams' records and ids; every method may raise StoreUnavailable."""

    @classmethod
    def at(cls, url: str) -> Self:
        """Make one with a client of its own."""
        client = connect(
            parse_redis_url(url), connect_seconds=TIMEOUT_SECONDS, max_connections=MAX_CONNECTIONS
        )
        return cls(client, own_client=True, timeout_seconds=TIMEOUT_SECONDS)

    async def record(self, stream_sid: str) -> StoredRecord | None:
        """Give what a stream's record says, while it is kept."""
        found = await self._ask("HGETALL", record_key(stream_sid))
        return parse_record(stream_sid, {text(name): text(found[name]) for name in found})

    async def live_streams(self) -> list[HeldStream]:
        """Give the streams that are live now, as far as this version can read them."""
        found = []
        for facts in await self._ask("HVALS", _LIVE):
            try:
                found.append(msgspec.json.decode(facts, type=HeldStream))
            except msgspec.MsgspecError:
                continue
        return found

    async def newest_event(self) -> str:
        """Give the id of the newest lifecycle event."""
        ids = await self._ids("XREVRANGE", CALLS_KEY, "+", "-", "COUNT", 1)
        return ids[0] if ids else BEGINNING

    async def events_before(self, newest: str) -> Entries:
        """Give the lifecycle events of the last RECENT_MS up to this one."""
        first = max(0, int(newest.partition("-")[0]) - RECENT_MS)
        found: Any = await self._ask("XRANGE", CALLS_KEY, first, newest, "COUNT", MAX_RECENT)
        return [
            (text(entry_id), {text(name): value for name, value in fields.items()})
            for entry_id, fields in found
        ]

    async def first_entry(self, stream_sid: str) -> str | None:
        """Give the id of the first entry that is kept of a stream."""
        ids = await self._ids("XRANGE", audio_key(stream_sid), "-", "+", "COUNT", 1)
        return ids[0] if ids else None

    async def last_entries(self, stream_sid: str) -> list[str]:
        """Give the ids of a stream's last entry and the one before, as far as they are there."""
        return await self._ids("XREVRANGE", audio_key(stream_sid), "+", "-", "COUNT", 2)

    async def _ids(self, *command: str | int) -> list[str]:
        found: Any = await self._ask(*command)
        return [text(entry_id) for entry_id, *_ in found]
