"""Access as all replicas share it: Redis, or Valkey.

Keys; all braces are literal, and are Redis Cluster's hash tags:

    keys:{BUSINESS}                 hash    ID, or ID:limited → an AccessKey as JSON;
                                            ID:used → Unix ms
    key:{DIGEST}                    string  ID and BUSINESS of the key that has this digest
    session:{DIGEST}                string  a Session as JSON, for as long as it may rest
    sessions:{KEY_ID}               zset    digests of the sessions begun with a key or token
                                            → when each began, Unix ms
    attempts:{ADDRESS}              zset    a wrong key → until when it counts, Unix ms

A key is in `keys:{BUSINESS}`, or it is not: it is revoked by one command. What
`key:{DIGEST}` says is only where to look. A session, likewise, is in `session:{DIGEST}` or
it is over; `sessions:{KEY_ID}` only says where to look for those to list.

Version 0.1 takes every key for an admin's that never expires. It passes over fields with a
colon, so a key with another role or with an expiry is in `ID:limited`: in a rolling deploy the
old replicas refuse it, and the sessions begun with it, instead of letting it do everything.
"""

import hmac
from dataclasses import replace
from typing import TypeVar

import msgspec

from app.errors import NotThere, StoreUnavailable
from app.store.access import MOST_ATTEMPTS, MOST_SESSIONS, AccessKey, Session
from app.store.directory import tombstone_key
from app.store.reach import RedisReach, in_ms, text

_LIMITED = ":limited"
# Renewed by each session that begins: longer than any session lasts.
LISTED_SECONDS = 31 * 86_400.0
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

# KEYS: keys:{BUSINESS}, live:{BUSINESS}:deleted; ARGV: a field, the key. Returns whether it was
# added: whether the business was not deleted.
_ADD_KEY = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""

# KEYS: keys:{BUSINESS}; ARGV: ID, Unix ms.
_NOTE_USE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) + redis.call('HEXISTS', KEYS[1], ARGV[1] .. ':limited')
    > 0 then
  redis.call('HSET', KEYS[1], ARGV[1] .. ':used', ARGV[2])
end
"""


class RedisAccess(RedisReach):
    """Keep keys, sessions and attempts in Redis, reached as `RedisReach` says."""

    # --------------------------------------------------------------------- keys

    async def add_key(self, key: AccessKey) -> None:
        """Store a new key, or raise NotThere where its business was deleted."""
        await self._ask("SET", _key_key(key.digest), f"{key.id} {key.business_id}")
        field = f"{key.id}{_LIMITED}" if key.is_limited else key.id
        keys = _keys_key(key.business_id), tombstone_key(key.business_id)
        if not await self._ask("EVAL", _ADD_KEY, 2, *keys, field, msgspec.json.encode(key)):
            await self._ask("DEL", _key_key(key.digest))
            raise NotThere("there is no such business")

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
        if ":" in key_id:
            return None
        fields = (key_id, f"{key_id}{_LIMITED}", f"{key_id}:used")
        plain, limited, used = await self._ask("HMGET", _keys_key(business_id), *fields)
        stored = limited if limited is not None else plain
        return _key(stored, used) if stored is not None else None

    async def keys_of(self, business_id: str) -> list[AccessKey]:
        """Give a business's keys, the oldest first."""
        answer = await self._ask("HGETALL", _keys_key(business_id))
        stored = {text(name).removesuffix(_LIMITED): value for name, value in answer.items()}
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
        fields = (key_id, f"{key_id}{_LIMITED}", f"{key_id}:used")
        removed = bool(await self._ask("HDEL", _keys_key(business_id), *fields))
        await self._ask("DEL", _key_key(key.digest))
        await self._end_sessions(key_id)
        return removed

    async def note_use(self, key: AccessKey, now_ms: int) -> None:
        """Remember when a key was last used; no effect on one that is revoked."""
        await self._ask("EVAL", _NOTE_USE, 1, _keys_key(key.business_id), key.id, now_ms)

    async def forget(self, business_id: str) -> None:
        """Revoke a deleted business's keys; its tombstone keeps others from being added."""
        keys = await self.keys_of(business_id)
        await self._ask("DEL", _keys_key(business_id))
        for key in keys:
            await self._ask("DEL", _key_key(key.digest))
            await self._end_sessions(key.id)

    # ------------------------------------------------------ sessions and attempts

    async def begin_session(self, session: Session, seconds: float) -> None:
        """Store a session for this long after its last use."""
        stored = msgspec.json.encode(session)
        await self._ask("SET", _session_key(session.digest), stored, "PX", in_ms(seconds))
        await self._list_session(session)
        listed = _sessions_key(session.key_id)
        for digest in await self._ask("ZRANGE", listed, MOST_SESSIONS, -1, "REV"):
            await self.end_session(replace(session, digest=text(digest)))

    async def session_of(self, digest: str, seconds: float) -> Session | None:
        """Find a session, and keep it for this long again."""
        stored = await self._ask("GETEX", _session_key(digest), "PX", in_ms(seconds))
        return _read(stored, Session) if stored is not None else None

    async def save_session(self, session: Session) -> None:
        """Store what has changed of a session, unless it has ended meanwhile."""
        stored = msgspec.json.encode(session)
        key = _session_key(session.digest)
        if await self._ask("SET", key, stored, "XX", "KEEPTTL") is not None:
            await self._list_session(session)

    async def sessions_of(self, key_id: str) -> list[Session]:
        """Return the sessions begun with a key or token, the newest first."""
        found: list[Session] = []
        listed = _sessions_key(key_id)
        for digest in await self._ask("ZRANGE", listed, 0, MOST_SESSIONS - 1, "REV"):
            stored = await self._ask("GET", _session_key(text(digest)))
            if stored is None:
                await self._ask("ZREM", listed, digest)
            else:
                found.append(_read(stored, Session))
        return sorted(found, key=lambda one: (-one.began_at, one.digest))

    async def end_session(self, session: Session) -> None:
        """End a session, for every request from now on."""
        await self._ask("DEL", _session_key(session.digest))
        await self._ask("ZREM", _sessions_key(session.key_id), session.digest)

    async def _end_sessions(self, key_id: str) -> None:
        # They are over with their key; what is known of people goes, too.
        for digest in await self._ask("ZRANGE", _sessions_key(key_id), 0, -1):
            await self._ask("DEL", _session_key(text(digest)))
        await self._ask("DEL", _sessions_key(key_id))

    async def _list_session(self, session: Session) -> None:
        key = _sessions_key(session.key_id)
        await self._ask("ZADD", key, session.began_at, session.digest)
        await self._ask("PEXPIRE", key, in_ms(LISTED_SECONDS))

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


def _sessions_key(key_id: str) -> str:
    return f"sessions:{{{key_id}}}"


def _session_key(digest: str) -> str:
    return f"session:{{{digest}}}"
