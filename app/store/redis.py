"""The store that all replicas share: Redis, or Valkey.

Keys; all braces are literal, and are Redis Cluster's hash tags:

    plan:{NAME}  business:{ID}      hash    `as_fields` of the record, and its `version`
    business:{ID}:secrets           hash    name → a secret, sealed
    number:{E164}                   string  the id of the business that owns it
    exotel:{DIGEST}                 string  the id of the business that has this pair
    plans  businesses               set     every NAME, every ID
    configured                      string  the configuration's version, once there is any
    configuration:{lock}            string  whose edit is under way
    live:{BUSINESS}                 zset    CallSid → when its slot's lease ends, Unix ms
    live:{BUSINESS}:recent          list    when its last calls were taken, Unix ms
    live:{BUSINESS}:usage:MONTH     hash    what the business has used of a month
    live:{BUSINESS}:counted:CALLSID                 string  there once the call is counted
    live:{BUSINESS}:metered:STREAM@START_MS:MONTH   string  the ms of it that are counted
    live:{BUSINESS}:stream:CALLSID  string  the call's live stream, for as long as its lease
    live:{BUSINESS}:streams:CALLSID zset    STREAM of the call → when its lease ends, Unix ms
    live:{BUSINESS}:ended:CALLSID   string  how the call's end is known: `stream` or `final`
    ticket:{NONCE}                  string  there for as long as spent
    seen:{BUSINESS:CALLSID}         string  there for as long as seen
    answered:{CALLSID}              string  the business that such a call was answered for
    held:{streams}                  zset    STREAM@START_MS → when its lease ends, Unix ms
    held:{streams}:facts            hash    STREAM@START_MS → what another replica must know
    held:{streams}:reached          hash    when replicas last reached us, and since when
    held:{streams}:claims           hash    STREAM → `START_MS BUSINESS` of its holder
    held:{streams}:watched, :figures:BUSINESS, :ending      see redis_watching
    store:{check}                   string  written by `check`
"""

import asyncio
import logging
import math
from collections.abc import Collection
from itertools import islice
from typing import Any

import msgspec
from redis.asyncio import Redis

from app.errors import BusinessHasCalls, UnknownBusiness
from app.events import CallIdentity, HeldStream
from app.store.base import (
    ENDED_SECONDS,
    LIVE_SECONDS,
    STREAMS_OF_CALL,
    CallEnd,
    SlotAnswer,
    StreamClaim,
)
from app.store.configuration import HAS_CALLS
from app.store.directory import answered_key
from app.store.pace import Pace
from app.store.reach import in_ms, text
from app.store.redis_configuration import RedisConfiguration
from app.store.redis_durability import RedisDurability
from app.store.redis_usage import RedisUsage, counting_arguments, counting_keys, slots_key
from app.store.redis_watching import RedisWatching
from app.store.scripts import (
    CLAIM_STREAMS,
    COUNT_SLOTS,
    FREE_SLOT,
    HOLD_STREAMS,
    LET_GO,
    MARK_LIVE,
    RELEASE_CLAIM,
    RENEW_SLOTS,
    RUNNING_STREAMS,
    TAKE_SLOT,
    UNMARK_LIVE,
)
from app.store.usage import Counting

log = logging.getLogger(__name__)

# A script keeps everyone waiting: at most so many streams a call.
STREAMS_PER_CALL = 200

_LEASES = "held:{streams}"
_FACTS = f"{_LEASES}:facts"
_REACHED = f"{_LEASES}:reached"
_CLAIMS = f"{_LEASES}:claims"


class RedisStore(RedisConfiguration, RedisDurability, RedisUsage, RedisWatching):
    """Keep what all replicas share in Redis, reached as `RedisReach` says."""

    # ------------------------------------------------------------------ tickets

    async def spend_ticket(self, nonce: str, ttl_seconds: float) -> bool:
        """Redeem a ticket; False when it was spent within `ttl_seconds` before."""
        return await self._first(_ticket_key(nonce), ttl_seconds)

    async def ticket_is_spent(self, nonce: str) -> bool:
        """Return whether a ticket was redeemed."""
        return bool(await self._ask("EXISTS", _ticket_key(nonce)))

    async def first_seen(self, call_sid: str, ttl_seconds: float) -> bool:
        """Tell whether this call is asked about for the first time in `ttl_seconds`."""
        return await self._first(f"seen:{{{call_sid}}}", ttl_seconds)

    async def note_answered(self, call_sid: str, business_id: str, ttl_seconds: float) -> bool:
        """Note that a call was answered for a business."""
        return await self._first(answered_key(call_sid), ttl_seconds, business_id)

    async def answered_by(self, call_sid: str) -> str | None:
        """Return the business for which a call was answered first."""
        business_id = await self._ask("GET", answered_key(call_sid))
        return text(business_id) if business_id is not None else None

    async def _first(self, key: str, ttl_seconds: float, value: str = "1") -> bool:
        return bool(await self._ask("SET", key, value, "NX", "PX", in_ms(ttl_seconds)))

    # -------------------------------------------------------------------- slots

    async def take_slot(
        self,
        business_id: str,
        call_sid: str,
        limit: int,
        lease_seconds: float,
        per_second: float = math.inf,
        counting: Counting | None = None,
        refused_after: CallEnd | None = None,
        stream_sid: str = "",
    ) -> SlotAnswer:
        """Hold one of `limit` slots for a call, unless `per_second` were taken just now."""
        key = slots_key(business_id)
        keys = [key, f"{key}:recent", _ended_key(business_id, call_sid)]
        keys.append(_streams_key(business_id, call_sid))
        asked: list[str | int] = [call_sid, limit, in_ms(lease_seconds)]
        pace = Pace.of(per_second)
        asked += [pace.calls, in_ms(pace.seconds)] if pace else ["", ""]
        asked += [refused_after or "", counting.takes_over if counting else ""]
        asked += [stream_sid, STREAMS_OF_CALL, in_ms(LIVE_SECONDS)]
        if counting is not None:
            keys += counting_keys(business_id, call_sid, counting)
            asked += counting_arguments(counting)
        return SlotAnswer(await self._ask("EVAL", TAKE_SLOT, len(keys), *keys, *asked))

    async def renew_slots(
        self, business_id: str, call_sids: Collection[str], lease_seconds: float
    ) -> set[str]:
        """Lengthen the leases of calls that live; give those whose slot was lost."""
        if not call_sids:
            return set()
        key = slots_key(business_id)
        lost = await self._ask("EVAL", RENEW_SLOTS, 1, key, in_ms(lease_seconds), *call_sids)
        if lost is None:
            raise UnknownBusiness("the business was deleted")
        return {text(call_sid) for call_sid in lost}

    async def free_slot(
        self, business_id: str, call_sid: str, ended: CallEnd | None = None
    ) -> None:
        """Free a call's slot, unless a stream of it is live, and remember how it `ended`."""
        ended_key, stream_key = (
            _ended_key(business_id, call_sid),
            _stream_key(business_id, call_sid),
        )
        keys = slots_key(business_id), ended_key, stream_key
        asked = call_sid, ended or "", in_ms(ENDED_SECONDS)
        await self._ask("EVAL", FREE_SLOT, len(keys), *keys, *asked)

    async def slots_taken(self, business_id: str) -> int:
        """Count the slots whose lease runs."""
        return int(await self._ask("EVAL", COUNT_SLOTS, 1, slots_key(business_id)))

    # ------------------------------------------------------------- live streams

    async def mark_live(
        self, business_id: str, call_sid: str, stream_sid: str, lease_seconds: float
    ) -> None:
        """Say that this stream of the call is live; the last one said counts."""
        keys = _stream_key(business_id, call_sid), _streams_key(business_id, call_sid)
        await self._ask("EVAL", MARK_LIVE, 2, *keys, stream_sid, in_ms(lease_seconds))

    async def unmark_live(self, business_id: str, call_sid: str, stream_sid: str) -> None:
        """Say that this stream has ended; another live one of the call stays."""
        keys = _stream_key(business_id, call_sid), _streams_key(business_id, call_sid)
        await self._ask("EVAL", UNMARK_LIVE, 2, *keys, stream_sid)

    async def live_stream(self, business_id: str, call_sid: str) -> str | None:
        """Name the call's live stream; None when there is none or its lease ran out."""
        stream_sid = await self._ask("GET", _stream_key(business_id, call_sid))
        return text(stream_sid) if stream_sid is not None else None

    # ------------------------------------------------------- leases of streams

    async def claim_stream(self, held: HeldStream, lease_seconds: float) -> StreamClaim:
        """Claim a stream's id, unless another holds it or its keys are another business's."""
        if await self.business_of_stream(held.call.stream_sid) not in (None, held.call.business_id):
            return StreamClaim.OTHER_BUSINESS
        refused = await self.hold_streams([held], lease_seconds)
        return refused[0][1] if refused else StreamClaim.GRANTED

    async def business_of_stream(self, stream_sid: str) -> str | None:
        """Return the business whose stream has this id; None where there is no such stream."""
        owner = await self._ask("HGET", _record_key(stream_sid), "businessId")
        return text(owner) if owner is not None else None

    async def call_of_stream(self, stream_sid: str) -> CallIdentity | None:
        """Return the business and the call of a stream; None where there is no such stream."""
        key = _record_key(stream_sid)
        owner, call_sid = await self._ask("HMGET", key, "businessId", "callSid")
        if owner is not None:
            return CallIdentity(text(call_sid or b""), stream_sid, text(owner))
        claim = await self._ask("HGET", _CLAIMS, stream_sid)  # its record is being written
        if claim is None:
            return None
        return CallIdentity("", stream_sid, text(claim).partition(" ")[2])

    async def release_claim(self, held: HeldStream) -> None:
        """Let a stream's id be claimed again; no effect where another has claimed it."""
        await self._ask("EVAL", RELEASE_CLAIM, 1, _CLAIMS, held.call.stream_sid, _claim(held))

    async def hold_streams(
        self, streams: Collection[HeldStream], lease_seconds: float
    ) -> list[tuple[HeldStream, StreamClaim]]:
        """Begin or renew the leases of streams that this replica holds."""
        keys = _LEASES, _FACTS, _REACHED, _CLAIMS
        refused = []
        waiting = iter(streams)
        while some := tuple(islice(waiting, STREAMS_PER_CALL)):
            parts: list[str | bytes | int] = [in_ms(lease_seconds)]
            for held in some:
                parts += [_name(held), msgspec.json.encode(held)]
                parts += [held.call.stream_sid, _claim(held)]
            answers = await self._ask("EVAL", HOLD_STREAMS, len(keys), *keys, *parts)
            for held, other in zip(some, answers, strict=True):
                if other:
                    refused.append((held, _refusal(held, text(other))))
        return refused

    async def replaced_streams(
        self, streams: Collection[HeldStream]
    ) -> list[tuple[HeldStream, StreamClaim]]:
        """Return the streams whose record is another's by now, and whose it is."""
        replaced = []
        waiting = iter(streams)
        while some := tuple(islice(waiting, STREAMS_PER_CALL)):
            records = await self._owners([_record_key(held.call.stream_sid) for held in some])
            for held, (owner, began) in zip(some, records, strict=True):
                if owner is not None and text(owner) != held.call.business_id:
                    replaced.append((held, StreamClaim.OTHER_BUSINESS))
                elif began is not None and int(began) > held.started_at:
                    replaced.append((held, StreamClaim.LIVE_ELSEWHERE))
        return replaced

    async def _owners(self, records: list[str]) -> list[Any]:
        """Return the business and the start that each record names."""
        fields = "businessId", "startedAt"
        if not isinstance(self._client, Redis):  # a Cluster's records have different nodes
            return await asyncio.gather(*(self._ask("HMGET", key, *fields) for key in records))
        async with self._reaching():
            reading = self._client.pipeline(transaction=False)
            for key in records:
                reading.execute_command("HMGET", key, *fields)
            return await reading.execute()

    async def held_streams(self) -> list[HeldStream]:
        """Give every stream that a replica holds, or held until it died a moment ago."""
        return [held for facts in await self._ask("HVALS", _FACTS) for held in _known(facts)]

    async def delete_business(self, business_id: str, version: int | None) -> None:
        """Delete a business; a live stream keeps it from being deleted, also without a slot."""
        is_deleted = await self.deletion_of(business_id) is not None
        if not is_deleted and await self._has_live_stream(business_id):
            raise BusinessHasCalls(HAS_CALLS)
        await super().delete_business(business_id, version)

    async def _has_live_stream(self, business_id: str) -> bool:
        """Return whether a replica holds a stream of a business, and has not ended it."""
        for facts in await self._ask("EVAL", RUNNING_STREAMS, 2, _LEASES, _FACTS):
            for held in _known(facts):
                if held.call.business_id != business_id:
                    continue
                record = _record_key(held.call.stream_sid)
                began, ended = await self._ask("HMGET", record, "startedAt", "endedAt")
                if ended is None or text(began or b"") != str(held.started_at):
                    return True
        return False

    async def let_go(self, streams: Collection[HeldStream]) -> None:
        """Give leases up; no effect on a stream that has none."""
        waiting = iter(streams)
        while some := tuple(islice(waiting, STREAMS_PER_CALL)):
            parts = [
                part for held in some for part in (_name(held), held.call.stream_sid, _claim(held))
            ]
            await self._ask("EVAL", LET_GO, 3, _LEASES, _FACTS, _CLAIMS, *parts)

    async def claim_lost_streams(
        self, limit: int, lease_seconds: float, claim_seconds: float
    ) -> list[HeldStream]:
        """Take over at most `limit` streams whose lease ran out, for `claim_seconds`."""
        times = in_ms(lease_seconds), in_ms(claim_seconds)
        keys = _LEASES, _FACTS, _REACHED
        answer = iter(await self._ask("EVAL", CLAIM_STREAMS, 3, *keys, *times, limit))
        claimed = []
        for name, facts in zip(answer, answer, strict=True):
            try:
                claimed.append(msgspec.json.decode(facts, type=HeldStream))
            except msgspec.MsgspecError:
                # Claimed again and again, it would stand before all others.
                log.error("The lease %s says nothing that can be read; let go", text(name))
                await self._ask("EVAL", LET_GO, 3, _LEASES, _FACTS, _CLAIMS, name, "", "")
        return claimed


def _known(facts: str | bytes) -> list[HeldStream]:
    try:
        return [msgspec.json.decode(facts, type=HeldStream)]
    except msgspec.MsgspecError:
        return []


def _name(held: HeldStream) -> str:
    return f"{held.call.stream_sid}@{held.started_at}"


def _ended_key(business_id: str, call_sid: str) -> str:
    return f"{slots_key(business_id)}:ended:{call_sid}"


def _ticket_key(nonce: str) -> str:
    return f"ticket:{{{nonce}}}"


def _claim(held: HeldStream) -> str:
    return f"{held.started_at} {held.call.business_id}"


def _refusal(held: HeldStream, other: str) -> StreamClaim:
    is_own = other.partition(" ")[2] == held.call.business_id
    return StreamClaim.LIVE_ELSEWHERE if is_own else StreamClaim.OTHER_BUSINESS


def _record_key(stream_sid: str) -> str:
    # Written by `pubsub.redis_streams`; without it there is no record.
    return f"stream:{{{stream_sid}}}"


def _stream_key(business_id: str, call_sid: str) -> str:
    return f"live:{{{business_id}}}:stream:{call_sid}"


def _streams_key(business_id: str, call_sid: str) -> str:
    return f"live:{{{business_id}}}:streams:{call_sid}"
