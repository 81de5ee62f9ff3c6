"""The Redis contract, version 1: one Redis stream for each media stream."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from redis.exceptions import ResponseError

from app.errors import BrokerError, BrokerRefused
from app.events import EndEntry, EndReason, Entry, HeldStream, LifecycleEvent
from app.pubsub.base import (
    CALLS_KEY,
    CALLS_MAX_ENTRIES,
    Announce,
    Append,
    CallWrite,
    CloseStream,
    Field,
    ListCall,
    NoteCall,
    OpenStream,
    Outcome,
    Replaces,
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
from app.pubsub.call_log import (
    CALL_HISTORY_SECONDS,
    CALL_INDEX_KEY,
    calls_of_key,
    list_command,
    note_command,
)
from app.pubsub.lost import END_LOST, LOST_RECEIPT_JSON, lost_event
from app.pubsub.redis_append import pack_append
from app.pubsub.redis_errors import error_kind, outcome_of
from app.pubsub.redis_link import Part, packed
from app.pubsub.redis_ways import Ways
from app.redis_url import parse_redis_url
from app.topology import AnyRedis, close

# What another business has under the id is never touched; of its own business, what
# ARGV[3] says (`Replaces`) is replaced.
#
# Opening twice is harmless: a repetition that a slow server runs late finds its
# own `startedAt`, and leaves the audio written since alone. What another replica
# wrote when it took this one for dead is taken back. The group makes a stream
# without entries: so one whose writer is killed expires too, and a worker's
# `XADD NOMKSTREAM` finds the one for commands.
#
# KEYS: audio:{STREAM}, control:{STREAM}, stream:{STREAM}; ARGV: START_MS, BUSINESS, what is
# replaced, for how long the keys are kept, names and values of the record. Where it was
# refused, returns a list with the value of an Outcome: a text would look like an entry's id.
_OPEN = f"""
local record = redis.call('HMGET', KEYS[3], 'startedAt', 'businessId', 'endedAt')
if record[2] and record[2] ~= ARGV[2] then return {{'{Outcome.OTHER_BUSINESS.value}'}} end
if record[1] ~= ARGV[1] then
  if record[1] and (
    (ARGV[3] == '{Replaces.ENDED}' and not record[3]) or
    (ARGV[3] == '{Replaces.OLDER}' and tonumber(record[1]) > tonumber(ARGV[1]))
  ) then
    return {{'{Outcome.LIVE_ELSEWHERE.value}'}}
  end
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
end
redis.call('HSET', KEYS[3], unpack(ARGV, 5))
local receipt = redis.call('HGET', KEYS[3], 'receipt')
if receipt and string.find(receipt, '"provisional":true', 1, true) then
  redis.call('HDEL', KEYS[3], 'endedAt', 'receipt')
end
for i = 1, 2 do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    redis.call('XGROUP', 'CREATE', KEYS[i], 'opening', '$', 'MKSTREAM')
    redis.call('XGROUP', 'DESTROY', KEYS[i], 'opening')
  end
end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[4]) end
"""

# KEYS: as above; ARGV: START_MS, BUSINESS, for how long the keys are kept, names and values.
_CLOSE = """
local record = redis.call('HMGET', KEYS[3], 'startedAt', 'businessId')
if record[1] ~= ARGV[1] or record[2] ~= ARGV[2] then return false end
redis.call('HSET', KEYS[3], unpack(ARGV, 4))
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[3]) end
"""

BLOCK_MS = 1000
READ_COUNT = 500


class RedisStreams:
    """Publish to Redis streams under explicit ids, and read them back.

    Calls' logs are kept for `call_history_seconds`.
    """

    replayable = True

    def __init__(self, url: str, call_history_seconds: int = CALL_HISTORY_SECONDS) -> None:
        self._call_history = call_history_seconds
        self._ways = Ways(parse_redis_url(url))
        self.lanes = self._ways.lanes
        self.promise_seconds = self._ways.promise_seconds

    def lane_of(self, key: str) -> int:
        """Give the lane of a key: in a cluster, by its slot."""
        return self._ways.lane_of(key)

    async def open(self) -> None:
        """Connect nothing; the first write does."""
        self._ways.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._ways.close()

    async def check(self) -> None:
        """Raise BrokerError unless the server answers a PING."""
        await self._ways.ping()

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        """Write a batch, one transaction a slot; see `PubSub.write`."""
        parts = [
            Part(write.stream, pack_append(write))
            if isinstance(write, Append)
            else self._part(write)
            for write in batch
        ]
        replies = await self._ways.link_of(parts[0].key).transact(parts)
        if set(map(type, replies)) == {bytes}:  # ids, and nothing else
            return [Outcome.WRITTEN] * len(replies)
        return [
            Outcome.NOT_OPEN if reply is None and isinstance(write, Append) else outcome_of(reply)
            for write, reply in zip(batch, replies, strict=True)
        ]

    async def standing(self, stream: str, appends: Sequence[Append]) -> Standing:
        """Tell which entries stand; see `PubSub.standing`."""
        key = audio_key(stream)
        ids = [f"{append.id_ms}-{append.n}" for append in appends] or ["0-0"]
        asked = [
            Part(key, packed("XRANGE", key, ids[0], ids[-1])),
            Part(key, packed("XINFO", "STREAM", key)),
        ]
        found, about = await self._ways.link_of(key).transact(asked)
        for reply in (found, about):
            if isinstance(reply, BrokerError):
                raise reply
        contents = {entry_id: _paired(fields) for entry_id, fields in found}
        present = {
            append.n
            for append, entry_id in zip(appends, ids, strict=False)
            if contents.get(entry_id.encode()) == _stored(append.entry)
        }
        return Standing(frozenset(present), *_last_id(about))

    async def still_there(self, lane: int) -> None:
        """See `PubSub.still_there`."""
        await self._ways.still_there(lane)

    async def end_lost(self, held: HeldStream) -> bool:
        """End a stream whose holder died, and announce it; see `PubSub.end_lost`."""
        keys = _keys(held.call.stream_sid)
        said = held.started_at, held.retention_seconds, LOST_RECEIPT_JSON, EndReason.LOST
        business_id = held.call.business_id
        ended_at = await self._ways.ask("EVAL", END_LOST, len(keys), *keys, *said, business_id)
        if ended_at is None:
            return False
        event = lost_event(held, int(ended_at))
        await self._ways.ask(*note_command(event, self._call_history))
        await self._ways.ask(*_announcement(event))
        return True

    async def record(self, stream: str) -> dict[str, Field]:
        """Give what is known of a stream, as published."""
        found: Any = await self._ways.ask("HGETALL", record_key(stream))
        return {name.decode(): value.decode() for name, value in found.items()}

    async def entries(self, stream: str) -> AsyncIterator[tuple[str, Entry]]:
        """Read a stream's ids and entries from the first up to its end."""
        async for entry_id, fields in self._follow(audio_key(stream)):
            entry = parse_entry(int(entry_id.partition("-")[2]), fields)
            yield entry_id, entry
            if isinstance(entry, EndEntry):
                return

    async def lifecycle(self, *, from_now: bool = False) -> AsyncGenerator[LifecycleEvent, None]:
        """Read lifecycle events from the first that is kept, or from now on."""
        newest: Any = ()
        if from_now:
            newest = await self._ways.ask("XREVRANGE", CALLS_KEY, "+", "-", "COUNT", 1)
        after = newest[0][0].decode() if newest else "0-0"
        async for _, fields in self._follow(CALLS_KEY, after):
            yield parse_lifecycle(fields)

    def _part(self, write: CallWrite | OpenStream | CloseStream) -> Part:
        match write:
            case NoteCall():
                key = calls_of_key(write.event.call.business_id)
                return Part(key, packed(*note_command(write.event, self._call_history)))
            case ListCall():
                return Part(CALL_INDEX_KEY, packed(*list_command(write.event, self._call_history)))
            case _:
                return _part(write)

    async def _follow(
        self, key: str, last: str = "0-0"
    ) -> AsyncIterator[tuple[str, dict[str, bytes]]]:
        # A blocking read holds its connection, so a client of its own.
        client: AnyRedis = self._ways.reader()
        try:
            while True:
                async with asyncio.timeout(BLOCK_MS / 1000 + 5):
                    answer: Any = await client.execute_command(
                        *("XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MS, "STREAMS", key, last)
                    )
                for _, found in answer or ():
                    for entry_id, fields in found:
                        last = entry_id.decode()
                        yield last, {name.decode(): value for name, value in fields.items()}
        finally:
            await close(client)


def _part(write: Announce | OpenStream | CloseStream) -> Part:
    match write:
        case Announce():
            return Part(CALLS_KEY, packed(*_announcement(write.event)))
        case OpenStream():
            keys = _keys(write.stream)
            fields = _flat(record_fields(write.record))
            whose = write.record.started_at, write.record.call.business_id, write.replaces
            said = *whose, write.expire_seconds, *fields
            return Part(write.stream, packed("EVAL", _OPEN, len(keys), *keys, *said))
        case CloseStream():
            keys = _keys(write.stream)
            fields = _flat(closing_fields(write))
            said = write.started_at, write.business_id, write.expire_seconds, *fields
            return Part(write.stream, packed("EVAL", _CLOSE, len(keys), *keys, *said))


def _announcement(event: LifecycleEvent) -> tuple[Field, ...]:
    trim = ("MAXLEN", "~", CALLS_MAX_ENTRIES)
    return ("XADD", CALLS_KEY, *trim, "*", *_flat(lifecycle_fields(event)))


def _keys(stream: str) -> tuple[str, str, str]:
    return audio_key(stream), control_key(stream), record_key(stream)


def _flat(fields: dict[str, Field]) -> list[Field]:
    return [part for field in fields.items() for part in field]


def _stored(entry: Entry) -> dict[bytes, bytes]:
    return {
        name.encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in entry_fields(entry).items()
    }


def _paired(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _last_id(about: Any) -> tuple[int, int]:
    """Read a stream's last id from what XINFO says; there may be no such stream."""
    if isinstance(about, ResponseError):
        if "no such key" not in str(about):
            raise BrokerRefused(error_kind(about), str(about))
        return 0, 0
    ms, _, n = _paired(about)[b"last-generated-id"].decode().partition("-")
    return int(ms), int(n)
