"""The Redis contract, version 1: one Redis stream for each media stream."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from app.events import EndEntry, Entry, LifecycleEvent
from app.pubsub.base import (
    CALLS_KEY,
    CALLS_MAX_ENTRIES,
    Announce,
    Append,
    CloseStream,
    Field,
    OpenStream,
    Outcome,
    Standing,
    Write,
    audio_key,
    closing_fields,
    control_key,
    entry_fields,
    lifecycle_fields,
    parse_entry,
    parse_lifecycle,
    record_fields,
    record_key,
)
from app.pubsub.redis_link import Command, RedisLink, lost, pool_of

# Opening twice is harmless: a repetition that a slow server runs late finds its
# own `startedAt`, and leaves the audio written since alone.
_OPEN = """
if redis.call('HGET', KEYS[3], 'startedAt') ~= ARGV[1] then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
end
redis.call('HSET', KEYS[3], unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[3], ARGV[2])
"""

BLOCK_MS = 1000
READ_COUNT = 500


class RedisStreams:
    """Publish to Redis streams under explicit ids, and read them back."""

    replayable = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._link = RedisLink(url)

    async def open(self) -> None:
        """Do nothing; the first write connects."""

    async def close(self) -> None:
        """Close every connection."""
        await self._link.close()

    async def check(self) -> None:
        """Raise BrokerError unless the server answers a PING."""
        await self._link.ping()

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        """Write a batch as one transaction; see `PubSub.write`."""
        commands: list[Command] = []
        ends: list[int] = []
        for write in batch:
            commands += _commands(write)
            ends.append(len(commands) - 1)
        replies = await self._link.transact(commands)
        return [_outcome(replies[end]) for end in ends]

    async def standing(self, stream: str, appends: Sequence[Append]) -> Standing:
        """Tell which entries stand; see `PubSub.standing`."""
        key = audio_key(stream)
        first, last = (f"{append.id_ms}-{append.n}" for append in (appends[0], appends[-1]))
        client = self._link.client
        try:
            found: Any = await client.xrange(key, first, last)
            newest = await self._last_id(client, key)
        except (RedisError, OSError) as error:
            raise lost(error) from error
        contents = {entry_id: fields for entry_id, fields in found}
        present = {
            append.n
            for append in appends
            if contents.get(f"{append.id_ms}-{append.n}".encode()) == _stored(append.entry)
        }
        return Standing(frozenset(present), *newest)

    async def record(self, stream: str) -> dict[str, Field]:
        """Give what is known of a stream, as published."""
        found: Any = await self._link.client.hgetall(record_key(stream))
        return {name.decode(): value.decode() for name, value in found.items()}

    async def entries(self, stream: str) -> AsyncIterator[tuple[str, Entry]]:
        """Read a stream's ids and entries from the first up to its end."""
        async for entry_id, fields in self._follow(audio_key(stream)):
            entry = parse_entry(int(entry_id.partition("-")[2]), fields)
            yield entry_id, entry
            if isinstance(entry, EndEntry):
                return

    async def lifecycle(self) -> AsyncIterator[LifecycleEvent]:
        """Read lifecycle events from the first that is kept."""
        async for _, fields in self._follow(CALLS_KEY):
            yield parse_lifecycle(fields)

    async def _follow(self, key: str) -> AsyncIterator[tuple[str, dict[str, bytes]]]:
        # A blocking read needs a longer time-out than its block, so a client of its own.
        pool = pool_of(self._url, max_connections=1, reply_seconds=BLOCK_MS / 1000 + 5)
        client = Redis(connection_pool=pool)
        last = "0-0"
        try:
            while True:
                answer: Any = await client.xread({key: last}, READ_COUNT, BLOCK_MS)
                for _, found in answer or ():
                    for entry_id, fields in found:
                        last = entry_id.decode()
                        yield last, {name.decode(): value for name, value in fields.items()}
        finally:
            await pool.disconnect()

    @staticmethod
    async def _last_id(client: Redis, key: str) -> tuple[int, int]:
        try:
            info = await client.xinfo_stream(key)
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return 0, 0
        ms, _, n = info["last-generated-id"].decode().partition("-")
        return int(ms), int(n)


def _commands(write: Write) -> list[Command]:
    match write:
        case Append():
            entry_id = f"{write.id_ms}-{write.n}"
            trim = ("MAXLEN", "~", write.max_entries)
            fields = _flat(entry_fields(write.entry))
            return [("XADD", audio_key(write.stream), *trim, entry_id, *fields)]
        case Announce():
            trim = ("MAXLEN", "~", CALLS_MAX_ENTRIES)
            return [("XADD", CALLS_KEY, *trim, "*", *_flat(lifecycle_fields(write.event)))]
        case OpenStream():
            keys = _keys(write.stream)
            fields = _flat(record_fields(write.record))
            token = write.record.started_at
            return [("EVAL", _OPEN, len(keys), *keys, token, write.expire_seconds, *fields)]
        case CloseStream():
            keys = _keys(write.stream)
            return [
                *(("EXPIRE", key, write.expire_seconds) for key in keys[:2]),
                ("HSET", keys[2], *_flat(closing_fields(write))),
                ("EXPIRE", keys[2], write.expire_seconds),
            ]


def _keys(stream: str) -> tuple[str, str, str]:
    return audio_key(stream), control_key(stream), record_key(stream)


def _flat(fields: dict[str, Field]) -> list[Field]:
    return [part for field in fields.items() for part in field]


def _stored(entry: Entry) -> dict[bytes, bytes]:
    return {
        name.encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in entry_fields(entry).items()
    }


def _outcome(reply: object) -> Outcome:
    if not isinstance(reply, ResponseError):
        return Outcome.WRITTEN
    # "The ID specified in XADD is equal or smaller than the target stream top item"
    return Outcome.CONFLICT if "equal or smaller" in str(reply) else Outcome.FAILED
