"""Redis Pub/Sub: the same names as channels, one msgpack map a message.

Nothing is kept: a reader hears what comes while it listens. A message that
had to be sent twice has the same `id`; readers take the first. `owner:{STREAM}` holds whose a
live stream is, so that nobody else publishes under its name.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import msgspec

from app.events import EndEntry, EndReason, Entry, HeldStream, LifecycleEvent
from app.pubsub.base import (
    CALLS_KEY,
    Announce,
    Append,
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
from app.pubsub.lost import LOST_RECEIPT_JSON, lost_event
from app.pubsub.redis_errors import outcome_of
from app.pubsub.redis_link import Part, packed
from app.pubsub.redis_ways import Ways
from app.redis_url import parse_redis_url

POLL_SECONDS = 1.0
# With a key, so that a cluster knows whom to ask.
_TIME = "return redis.call('TIME')"

# KEYS: owner:{STREAM}; ARGV: START_MS, BUSINESS, what is replaced (`Replaces`), for how long
# it is kept, the channel and the message. Where it was
# refused, returns a list with the value of an Outcome.
_OPEN = f"""
local owner = redis.call('GET', KEYS[1])
if owner then
  local started_at, business = string.match(owner, '^(%d+) (.*)$')
  if business ~= ARGV[2] then return {{'{Outcome.OTHER_BUSINESS.value}'}} end
  if started_at ~= ARGV[1] and (
    ARGV[3] == '{Replaces.ENDED}' or
    (ARGV[3] == '{Replaces.OLDER}' and tonumber(started_at) > tonumber(ARGV[1]))
  ) then
    return {{'{Outcome.LIVE_ELSEWHERE.value}'}}
  end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'EX', ARGV[4])
redis.call('PUBLISH', ARGV[5], ARGV[6])
"""
# KEYS: owner:{STREAM}; ARGV: START_MS, BUSINESS, the channel and the message.
_CLOSE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] .. ' ' .. ARGV[2] then return false end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[3], ARGV[4])
"""

Message = tuple[str, str, bytes]


def owner_key(stream: str) -> str:
    """Return the key that holds whose a live stream is."""
    return f"owner:{{{stream}}}"


class RedisPubSub:
    """Publish to channels; listen to them.

    Calls' logs alone are kept, for `call_history_seconds`.
    """

    replayable = False
    lanes = 1
    promise_seconds = 0.0

    def __init__(self, url: str, call_history_seconds: int = CALL_HISTORY_SECONDS) -> None:
        self._call_history = call_history_seconds
        self._ways = Ways(parse_redis_url(url), lanes=1)

    def lane_of(self, key: str) -> int:
        """Give the only lane: any node of a cluster passes a message on to all."""
        return 0

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
        """Publish a batch as one transaction; see `PubSub.write`."""
        replies = await self._ways.link_of(CALLS_KEY).transact([self._part(one) for one in batch])
        return [outcome_of(reply) for reply in replies]

    async def standing(self, stream: str, appends: Sequence[Append]) -> Standing:
        """Answer that nothing is known to stand: channels keep nothing."""
        return Standing(frozenset(), 0, 0)

    async def still_there(self, lane: int) -> None:
        """See `PubSub.still_there`."""
        await self._ways.still_there(lane)

    async def end_lost(self, held: HeldStream) -> bool:
        """Say that a stream's holder died; what it said before, channels do not tell."""
        stream = held.call.stream_sid
        seconds, _ = await self._ways.ask("EVAL", _TIME, 1, CALLS_KEY)
        ended_at = int(seconds) * 1000
        fields = entry_fields(EndEntry(1, EndReason.LOST))
        closing: dict[str, Field] = {"endedAt": ended_at, "receipt": LOST_RECEIPT_JSON}
        event = lost_event(held, ended_at)
        closed = _closing(stream, held.started_at, held.call.business_id, closing)
        for command in (
            _message(audio_key(stream), {"id": f"{ended_at}-1", **fields}),
            closed,
            note_command(event, self._call_history),
            _message(CALLS_KEY, lifecycle_fields(event)),
        ):
            await self._ways.ask(*command)
        return True

    async def entries(self, stream: str) -> AsyncIterator[tuple[str, Entry]]:
        """Hear a stream's ids and entries from now on, each once, up to its end."""
        heard = (0, 0)
        async for fields in self._listen(audio_key(stream)):
            entry_id = str(fields.pop("id"))
            ms, _, n = entry_id.partition("-")
            if (int(ms), int(n)) <= heard:
                continue
            heard = (int(ms), int(n))
            entry = parse_entry(int(n), fields)
            yield entry_id, entry
            if isinstance(entry, EndEntry):
                return

    async def lifecycle(self, *, from_now: bool = False) -> AsyncGenerator[LifecycleEvent, None]:
        """Hear lifecycle events from now on."""
        async for fields in self._listen(CALLS_KEY):
            yield parse_lifecycle(fields)

    def _part(self, write: Write) -> Part:
        match write:
            case NoteCall():
                key = calls_of_key(write.event.call.business_id)
                return Part(key, packed(*note_command(write.event, self._call_history)))
            case ListCall():
                return Part(CALL_INDEX_KEY, packed(*list_command(write.event, self._call_history)))
            case OpenStream():
                record, key = write.record, owner_key(write.stream)
                whose = record.started_at, record.call.business_id, write.replaces
                _, channel, said = _message(record_key(write.stream), record_fields(record))
                asked = *whose, write.expire_seconds, channel, said
                return Part(key, packed("EVAL", _OPEN, 1, key, *asked))
            case CloseStream():
                whose_end = write.stream, write.started_at, write.business_id
                return Part(
                    owner_key(write.stream), packed(*_closing(*whose_end, closing_fields(write)))
                )
            case _:
                return Part(CALLS_KEY, packed(*_publish(write)))

    async def _listen(self, channel: str) -> AsyncIterator[dict[str, Field]]:
        client = await self._ways.listener()
        listener = client.pubsub(ignore_subscribe_messages=True)
        try:
            await listener.subscribe(channel)
            while True:
                message = await listener.get_message(timeout=POLL_SECONDS)
                if message is not None:
                    yield msgspec.msgpack.decode(message["data"], type=dict)
        finally:
            await listener.aclose()  # type: ignore[no-untyped-call]


def _closing(
    stream: str, started_at: int, business_id: str, fields: dict[str, Field]
) -> tuple[str | int | bytes, ...]:
    _, channel, message = _message(record_key(stream), fields)
    return "EVAL", _CLOSE, 1, owner_key(stream), started_at, business_id, channel, message


def _publish(write: Append | Announce) -> Message:
    match write:
        case Append():
            fields = entry_fields(write.entry)
            return _message(audio_key(write.stream), {"id": f"{write.id_ms}-{write.n}", **fields})
        case Announce():
            return _message(CALLS_KEY, lifecycle_fields(write.event))


def _message(channel: str, fields: dict[str, Field]) -> Message:
    return "PUBLISH", channel, msgspec.msgpack.encode(fields)
