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

from collections.abc import Collection

from app.store.directory import RedisDirectory
from app.store.reach import in_ms, text
from app.store.scripts import COUNT_SLOTS, RENEW_SLOTS, TAKE_SLOT, UNMARK_LIVE


class RedisStore(RedisDirectory):
    """Keep what all replicas share in Redis, reached as `RedisReach` says."""

    # ------------------------------------------------------------------ tickets

    async def spend_ticket(self, nonce: str, ttl_seconds: float) -> bool:
        """Redeem a ticket; False when it was spent within `ttl_seconds` before."""
        return await self._first(f"ticket:{{{nonce}}}", ttl_seconds)

    async def first_seen(self, call_sid: str, ttl_seconds: float) -> bool:
        """Tell whether this call is asked about for the first time in `ttl_seconds`."""
        return await self._first(f"seen:{{{call_sid}}}", ttl_seconds)

    async def _first(self, key: str, ttl_seconds: float) -> bool:
        return bool(await self._ask("SET", key, "1", "NX", "PX", in_ms(ttl_seconds)))

    # -------------------------------------------------------------------- slots

    async def take_slot(
        self, business_id: str, call_sid: str, limit: int, lease_seconds: float
    ) -> bool:
        """Hold one of `limit` slots for a call; False when all are taken."""
        key = _slots_key(business_id)
        lease = in_ms(lease_seconds)
        return bool(await self._ask("EVAL", TAKE_SLOT, 1, key, call_sid, limit, lease))

    async def renew_slots(
        self, business_id: str, call_sids: Collection[str], lease_seconds: float
    ) -> set[str]:
        """Lengthen the leases of calls that live; give those whose slot was lost."""
        if not call_sids:
            return set()
        key = _slots_key(business_id)
        lost = await self._ask("EVAL", RENEW_SLOTS, 1, key, in_ms(lease_seconds), *call_sids)
        return {text(call_sid) for call_sid in lost}

    async def free_slot(self, business_id: str, call_sid: str) -> None:
        """Let go of a call's slot; no effect when it holds none."""
        await self._ask("ZREM", _slots_key(business_id), call_sid)

    async def slots_taken(self, business_id: str) -> int:
        """Count the slots whose lease runs."""
        return int(await self._ask("EVAL", COUNT_SLOTS, 1, _slots_key(business_id)))

    # ------------------------------------------------------------- live streams

    async def mark_live(
        self, business_id: str, call_sid: str, stream_sid: str, lease_seconds: float
    ) -> None:
        """Say that this stream of the call is live; the last one said counts."""
        key = _stream_key(business_id, call_sid)
        await self._ask("SET", key, stream_sid, "PX", in_ms(lease_seconds))

    async def unmark_live(self, business_id: str, call_sid: str, stream_sid: str) -> None:
        """Say that this stream has ended; another live one of the call stays."""
        await self._ask("EVAL", UNMARK_LIVE, 1, _stream_key(business_id, call_sid), stream_sid)

    async def live_stream(self, business_id: str, call_sid: str) -> str | None:
        """Name the call's live stream; None when there is none or its lease ran out."""
        stream_sid = await self._ask("GET", _stream_key(business_id, call_sid))
        return text(stream_sid) if stream_sid is not None else None


def _slots_key(business_id: str) -> str:
    return f"live:{{{business_id}}}"


def _stream_key(business_id: str, call_sid: str) -> str:
    return f"live:{{{business_id}}}:stream:{call_sid}"
