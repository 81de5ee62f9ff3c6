"""The store that all replicas share: Redis, or Valkey.

Keys; all braces are literal, and are Redis Cluster's hash tags:

    plan:{NAME}  business:{ID}      hash    `as_fields` of the record
    number:{E164}                   string  the id of the business that owns it
    plans  businesses               set     every NAME, every ID
    live:{BUSINESS}                 zset    CallSid → when its slot's lease ends, Unix ms
    live:{BUSINESS}:stream:CALLSID  string  the call's live stream, for as long as its lease
    ticket:{NONCE}  seen:{CALLSID}  string  there for as long as spent, or seen
    store:{check}                   string  written by `check`
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.errors import StoreUnavailable
from app.plans import DIALLED, IDENTIFIER, Business, Directory, Plan

TIMEOUT_SECONDS = 0.25
# After a silence, calls are decided without Redis for so long.
REST_SECONDS = 1.0
FRESH_SECONDS = 1.0
MAX_CONNECTIONS = 32
LOAD_BATCH = 500

# Redis' own clock, so that the replicas' clocks don't matter. A script's writes
# go to Redis' replicas as their effects, so a script may ask for the time.
_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
"""
_HOLD = """
local function hold(call, held, lease)
  redis.call('ZADD', KEYS[1], math.max(tonumber(held) or 0, now + lease), call)
end
local function forget_in_time()
  redis.call('PEXPIREAT', KEYS[1], redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])
end
"""
# KEYS: live:{BUSINESS}; ARGV: CallSid, limit, lease in ms.
_TAKE = f"""{_NOW}{_HOLD}
local held = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not held and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
hold(ARGV[1], held, ARGV[3])
forget_in_time()
return 1
"""
# KEYS: live:{BUSINESS}; ARGV: lease in ms, CallSids. Returns those without a slot.
_RENEW = f"""{_NOW}{_HOLD}
local lost = {{}}
for i = 2, #ARGV do
  local held = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if not held then lost[#lost + 1] = ARGV[i] end
  hold(ARGV[i], held, ARGV[1])
end
forget_in_time()
return lost
"""
# KEYS: live:{BUSINESS}
_COUNT = f"{_NOW}return redis.call('ZCARD', KEYS[1])"
# KEYS: live:{BUSINESS}:stream:CALLSID; ARGV: the stream that has ended.
_UNMARK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Remembered:
    value: Any
    fresh_until: float


class RedisStore:
    """Keep what all replicas share in Redis.

    Every answer comes within `timeout_seconds`, or StoreUnavailable does; after
    a silence it comes at once for a second. `clock` gives monotonic seconds.
    `client` must not retry by itself: a ticket redeemed twice is refused.
    """

    def __init__(
        self,
        client: Redis,
        *,
        own_client: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._own_client = own_client
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._resting_until = float("-inf")
        # A queue for connections. redis-py's BlockingConnectionPool has one, in
        # which a waiter can lose its time-out when many give up at once.
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)
        # Holds what is configured, and so is no longer than the configuration.
        self._remembered: dict[str, _Remembered] = {}

    @classmethod
    def from_url(
        cls,
        url: str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Make a store with a client of its own."""
        pool = ConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_keepalive=True,
            protocol=2,
        )
        client = Redis.from_pool(pool)
        return cls(client, own_client=True, timeout_seconds=timeout_seconds, clock=clock)

    async def open(self) -> None:
        """Do nothing: connections are made when they are needed."""

    async def close(self) -> None:
        """Let go of every connection that is ours."""
        if self._own_client:
            with suppress(RedisError, OSError):
                await self._client.aclose()

    async def check(self) -> None:
        """Raise StoreUnavailable unless a slot could be taken now.

        It writes: a replica, or a server without memory, answers PING as well.
        """
        await self._ask("SET", "store:{check}", "1", "PX", 1000)

    # ------------------------------------------------------------ configuration

    async def load_if_empty(self, directory: Directory) -> bool:
        """Take over `directory` when nothing is configured; tell whether it was.

        The indexes come last: a load that breaks off is begun anew the next
        time, and two replicas that load the same at once do no harm.
        """
        if await self._ask("EXISTS", "plans") or await self._ask("EXISTS", "businesses"):
            return False
        commands: list[tuple[str, ...]] = []
        for plan in directory.plans:
            commands.append(_write_hash(_plan_key(plan.name), plan))
        for business in directory.businesses:
            commands.append(_write_hash(_business_key(business.id), business))
            owned = [_number_key(form) for form in business.dialled_forms]
            owned += [_pair_key(digest) for digest in business.exotel_pairs]
            commands += [("SET", key, business.id) for key in owned]
        commands += [("SADD", "businesses", business.id) for business in directory.businesses]
        commands += [("SADD", "plans", plan.name) for plan in directory.plans]
        for first in range(0, len(commands), LOAD_BATCH):
            async with self._reaching():
                pipeline = self._client.pipeline(transaction=False)
                for command in commands[first : first + LOAD_BATCH]:
                    pipeline.execute_command(*command)
                await pipeline.execute()
        return bool(commands)

    async def plan(self, name: str) -> Plan | None:
        """Give the plan of this name."""

        async def read() -> Plan | None:
            stored = await self._hash(_plan_key(name))
            return Plan.from_fields({**stored, "name": name}) if stored else None

        if not IDENTIFIER.fullmatch(name):
            return None
        return await self._recall(_plan_key(name), read)

    async def business(self, business_id: str) -> Business | None:
        """Give the business of this id."""

        async def read() -> Business | None:
            stored = await self._hash(_business_key(business_id))
            return Business.from_fields({**stored, "id": business_id}) if stored else None

        if not IDENTIFIER.fullmatch(business_id):
            return None
        return await self._recall(_business_key(business_id), read)

    async def business_of_number(self, dialled: str) -> Business | None:
        """Give the business that owns this number."""
        return await self._owner(_number_key(dialled)) if DIALLED.fullmatch(dialled) else None

    async def business_of_pair(self, digest: str) -> Business | None:
        """Give the business that has this Exotel pair for its own."""
        return await self._owner(_pair_key(digest))

    async def _owner(self, key: str) -> Business | None:
        async def read() -> str | None:
            owner = await self._ask("GET", key)
            return _text(owner) if owner is not None else None

        owner = await self._recall(key, read)
        return await self.business(owner) if owner is not None else None

    async def lookup(self, business_id: str) -> tuple[Business, Plan] | None:
        """Give a business with its plan; None when either is missing."""
        business = await self.business(business_id)
        plan = await self.plan(business.plan) if business else None
        return (business, plan) if business and plan else None

    async def _hash(self, key: str) -> dict[str, str]:
        stored = await self._ask("HGETALL", key)
        return {_text(name): _text(value) for name, value in stored.items()}

    async def _recall(self, key: str, read: Callable[[], Awaitable[_T | None]]) -> _T | None:
        """Give what was read under `key` a moment ago, else read it.

        What was read at any time serves while the store is away.
        """
        known = self._remembered.get(key)
        value: _T | None = known.value if known else None
        if known and self._clock() < known.fresh_until:
            return value
        try:
            value = await read()
        except StoreUnavailable:
            if known is None:
                raise
            return value
        if value is None:
            self._remembered.pop(key, None)
        else:
            self._remembered[key] = _Remembered(value, self._clock() + FRESH_SECONDS)
        return value

    # ------------------------------------------------------------------ tickets

    async def spend_ticket(self, nonce: str, ttl_seconds: float) -> bool:
        """Redeem a ticket; False when it was spent within `ttl_seconds` before."""
        return await self._first(f"ticket:{{{nonce}}}", ttl_seconds)

    async def first_seen(self, call_sid: str, ttl_seconds: float) -> bool:
        """Tell whether this call is asked about for the first time in `ttl_seconds`."""
        return await self._first(f"seen:{{{call_sid}}}", ttl_seconds)

    async def _first(self, key: str, ttl_seconds: float) -> bool:
        return bool(await self._ask("SET", key, "1", "NX", "PX", _ms(ttl_seconds)))

    # -------------------------------------------------------------------- slots

    async def take_slot(
        self, business_id: str, call_sid: str, limit: int, lease_seconds: float
    ) -> bool:
        """Hold one of `limit` slots for a call; False when all are taken."""
        key = _slots_key(business_id)
        return bool(await self._ask("EVAL", _TAKE, 1, key, call_sid, limit, _ms(lease_seconds)))

    async def renew_slots(
        self, business_id: str, call_sids: Collection[str], lease_seconds: float
    ) -> set[str]:
        """Lengthen the leases of calls that live; give those whose slot was lost."""
        if not call_sids:
            return set()
        key = _slots_key(business_id)
        lost = await self._ask("EVAL", _RENEW, 1, key, _ms(lease_seconds), *call_sids)
        return {_text(call_sid) for call_sid in lost}

    async def free_slot(self, business_id: str, call_sid: str) -> None:
        """Let go of a call's slot; no effect when it holds none."""
        await self._ask("ZREM", _slots_key(business_id), call_sid)

    async def slots_taken(self, business_id: str) -> int:
        """Count the slots whose lease runs."""
        return int(await self._ask("EVAL", _COUNT, 1, _slots_key(business_id)))

    # ------------------------------------------------------------- live streams

    async def mark_live(
        self, business_id: str, call_sid: str, stream_sid: str, lease_seconds: float
    ) -> None:
        """Say that this stream of the call is live; the last one said counts."""
        key = _stream_key(business_id, call_sid)
        await self._ask("SET", key, stream_sid, "PX", _ms(lease_seconds))

    async def unmark_live(self, business_id: str, call_sid: str, stream_sid: str) -> None:
        """Say that this stream has ended; another live one of the call stays."""
        await self._ask("EVAL", _UNMARK, 1, _stream_key(business_id, call_sid), stream_sid)

    async def live_stream(self, business_id: str, call_sid: str) -> str | None:
        """Name the call's live stream; None when there is none or its lease ran out."""
        stream_sid = await self._ask("GET", _stream_key(business_id, call_sid))
        return _text(stream_sid) if stream_sid is not None else None

    # ------------------------------------------------------- the way to Redis

    async def _ask(self, *command: str | int) -> Any:
        async with self._reaching():
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    @asynccontextmanager
    async def _reaching(self) -> AsyncIterator[None]:
        self._check_awake()
        try:
            async with asyncio.timeout(self._timeout_seconds), self._room:
                # Redis may have fallen silent while others were before us.
                self._check_awake()
                yield
        except (RedisTimeoutError, TimeoutError) as error:
            self._resting_until = self._clock() + REST_SECONDS
            waited = self._timeout_seconds
            raise StoreUnavailable(f"Redis did not answer within {waited} s") from error
        except ReadOnlyError as error:
            # After a failover the name may lead elsewhere: connect anew.
            await self._client.connection_pool.disconnect(inuse_connections=False)
            raise StoreUnavailable("Redis is a read-only replica") from error
        except (RedisError, OSError) as error:
            # An error's text may hold what was sent; its class may not.
            raise StoreUnavailable(f"Redis failed: {type(error).__name__}") from error

    def _check_awake(self) -> None:
        if self._clock() < self._resting_until:
            raise StoreUnavailable("Redis did not answer a moment ago")


def _write_hash(key: str, record: Plan | Business) -> tuple[str, ...]:
    return ("HSET", key, *(part for pair in record.as_fields().items() for part in pair))


def _plan_key(name: str) -> str:
    return f"plan:{{{name}}}"


def _business_key(business_id: str) -> str:
    return f"business:{{{business_id}}}"


def _pair_key(digest: str) -> str:
    return f"exotel:{{{digest}}}"


def _number_key(e164: str) -> str:
    return f"number:{{{e164}}}"


def _slots_key(business_id: str) -> str:
    return f"live:{{{business_id}}}"


def _stream_key(business_id: str, call_sid: str) -> str:
    return f"live:{{{business_id}}}:stream:{call_sid}"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
