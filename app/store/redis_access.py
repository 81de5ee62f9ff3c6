"""Access as all replicas share it: Redis, or Valkey.

Keys; all braces are literal, and are Redis Cluster's hash tags:

    keys:{BUSINESS}                 hash    ID → an AccessKey as JSON, ID:used → Unix ms
    key:{DIGEST}                    string  ID and BUSINESS of the key that has this digest
    session:{DIGEST}                string  a Session as JSON, for as long as it may rest
    attempts:{ADDRESS}              zset    a wrong key → until when it counts, Unix ms

A key is in `keys:{BUSINESS}`, or it is not: it is revoked by one command. What
`key:{DIGEST}` says is only where to look.
"""

import hmac
from dataclasses import replace
from typing import TypeVar

import msgspec

from app.errors import StoreUnavailable
from app.store.access import MOST_ATTEMPTS, AccessKey, Session
from app.store.reach import RedisReach, in_ms, text

_T = TypeVar("_T", AccessKey, Session)

# KEYS: attempts:{ADDRESS}; ARGV: ms for which one counts, or 0 to add none; the most.
_ATTEMPTS = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[1] ~= '0' then
  redis.call('ZADD', KEYS[1], now + ARGV[1], time[1] .. '.' .. time[2])
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return redis.call('ZCARD', KEYS[1])
"""

# KEYS: keys:{BUSINESS}; ARGV: ID, Unix ms.
_NOTE_USE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], ARGV[1] .. ':used', ARGV[2])
end
"""


class RedisAccess(RedisReach):
    """Keep keys, sessions and attempts in Redis, reached as `RedisReach` says."""

    # --------------------------------------------------------------------- keys

    async def add_key(self, key: AccessKey) -> None:
        """Store a new key."""
        await self._ask("SET", _key_key(key.digest), f"{key.id} {key.business_id}")
        await self._ask("HSET", _keys_key(key.business_id), key.id, msgspec.json.encode(key))

    async def key_of(self, digest: str) -> AccessKey | None:
        """Find the key that has this digest."""
        place = await self._ask("GET", _key_key(digest))
        if place is None:
            return None
        key_id, _, business_id = text(place).partition(" ")
        found = await self.key(business_id, key_id)
        return found if found and hmac.compare_digest(found.digest, digest) else None

    async def key(self, business_id: str, key_id: str) -> AccessKey | None:
        """Give a business's key of this id."""
        stored, used = await self._ask("HMGET", _keys_key(business_id), key_id, f"{key_id}:used")
        return _key(stored, used) if stored is not None and ":" not in key_id else None

    async def keys_of(self, business_id: str) -> list[AccessKey]:
        """Give a business's keys, the oldest first."""
        answer = await self._ask("HGETALL", _keys_key(business_id))
        stored = {text(name): value for name, value in answer.items()}
        found = [
            _key(value, stored.get(f"{name}:used"))
            for name, value in stored.items()
            if ":" not in name
        ]
        return sorted(found, key=lambda key: (key.created_at, key.id))

    async def revoke_key(self, business_id: str, key_id: str) -> bool:
        """Remove a key, for every request from now on; False when there is none."""
        if (key := await self.key(business_id, key_id)) is None:
            return False
        place = _keys_key(business_id)
        removed = bool(await self._ask("HDEL", place, key_id, f"{key_id}:used"))
        await self._ask("DEL", _key_key(key.digest))
        return removed

    async def note_use(self, key: AccessKey, now_ms: int) -> None:
        """Remember when a key was last used; no effect on one that is revoked."""
        await self._ask("EVAL", _NOTE_USE, 1, _keys_key(key.business_id), key.id, now_ms)

    async def forget(self, business_id: str) -> None:
        """Revoke a business's keys."""
        keys = await self.keys_of(business_id)
        await self._ask("DEL", _keys_key(business_id))
        for key in keys:
            await self._ask("DEL", _key_key(key.digest))

    # ------------------------------------------------------ sessions and attempts

    async def begin_session(self, session: Session, seconds: float) -> None:
        """Keep a session for so long after its last use."""
        stored = msgspec.json.encode(session)
        await self._ask("SET", _session_key(session.digest), stored, "PX", in_ms(seconds))

    async def session_of(self, digest: str, seconds: float) -> Session | None:
        """Find a session, and keep it for so long again."""
        stored = await self._ask("GETEX", _session_key(digest), "PX", in_ms(seconds))
        return _read(stored, Session) if stored is not None else None

    async def end_session(self, digest: str) -> None:
        """Forget a session."""
        await self._ask("DEL", _session_key(digest))

    async def note_attempt(self, address: str, seconds: float) -> int:
        """Count a wrong key from an address for so long; give how many count now."""
        return await self._attempts(address, in_ms(seconds))

    async def attempts_of(self, address: str) -> int:
        """Count the wrong keys that still count."""
        return await self._attempts(address, 0)

    async def _attempts(self, address: str, added_ms: int) -> int:
        key = f"attempts:{{{address}}}"
        return int(await self._ask("EVAL", _ATTEMPTS, 1, key, added_ms, MOST_ATTEMPTS))


def _key(stored: str | bytes, used: str | bytes | None) -> AccessKey:
    return replace(_read(stored, AccessKey), last_used_at=int(used or 0))


def _read(stored: str | bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(stored, type=kind)
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(f"what Redis holds is no {kind.__name__}") from error


def _keys_key(business_id: str) -> str:
    return f"keys:{{{business_id}}}"


def _key_key(digest: str) -> str:
    return f"key:{{{digest}}}"


def _session_key(digest: str) -> str:
    return f"session:{{{digest}}}"
