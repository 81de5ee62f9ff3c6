"""Everything that is kept of calls, whether or not a call's log still leads to it."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from app.admin.audit_scripts import LogKeys
from app.pubsub.base import CALLS_KEY, record_key
from app.pubsub.call_log import CALL_INDEX_KEY, index_member
from app.pubsub.memory import MemoryPubSub
from app.store.directory import secrets_key, tombstone_key
from app.store.reach import RedisReach, text
from app.store.redis_usage import slots_key

PAGE: Final = 250
# Those of a record that may name a person.
TEXT_FIELDS: Final = ("from", "to", "params", "peerStreamSid")
_INDEXES: Final = (CALL_INDEX_KEY, "held:{captures}", "held:{streams}:ending")
_WATCHED: Final = "held:{streams}:watched"


@dataclass(frozen=True, slots=True)
class KeptStream:
    """A stream's record: whose it is, and its texts, which may name a person."""

    stream_sid: str
    business_id: str
    call_sid: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnnouncedEvent:
    """An event in `calls`; `business_id` is empty where none was known. `data` is JSON."""

    id: str
    business_id: str
    call_sid: str
    stream_sid: str
    data: str


class KeptData(Protocol):
    """Look through all that is kept, and remove it.

    Every method but `open` and `close` raises StoreUnavailable when it cannot be reached.
    """

    async def open(self) -> None:
        """Make ready; does not fail when nothing can be reached."""

    async def close(self) -> None:
        """Close every connection."""

    def streams(self) -> AsyncIterator[KeptStream]:
        """Return every stream that has a record; one may come twice."""

    def announced(self, after: str = "") -> AsyncIterator[AnnouncedEvent]:
        """Return the events in `calls` that follow an id, the oldest first."""

    async def remove_announced(self, ids: Collection[str]) -> int:
        """Remove events from `calls`; return how many were there."""

    async def has_remains(self, business_id: str) -> bool:
        """Return whether keys, secrets or an audit view of a deleted business are there."""

    async def remove_keys(self, business_id: str) -> int:
        """Remove all other keys of a deleted business, but for the mark that it was deleted.

        Return how many were there.
        """


class RedisKeptData(RedisReach):
    """What is kept in Redis; see `KeptData`."""

    async def streams(self) -> AsyncIterator[KeptStream]:
        """Return every stream that has a record."""
        prefix, suffix = record_key("*").split("*")
        async for keys in self._scan(record_key("*")):
            for key in keys:
                found = await self._ask("HMGET", key, "businessId", "callSid", *TEXT_FIELDS)
                business_id, call_sid, *texts = ["" if one is None else text(one) for one in found]
                if call_sid:
                    sid = key[len(prefix) : -len(suffix)]
                    yield KeptStream(sid, business_id, call_sid, tuple(texts))

    async def announced(self, after: str = "") -> AsyncIterator[AnnouncedEvent]:
        """Return the events in `calls` that follow an id."""
        place = _next(after) if after else "-"
        while True:
            found = await self._ask("XRANGE", CALLS_KEY, place, "+", "COUNT", PAGE)
            for entry_id, fields in found:
                shown = {text(name): text(value) for name, value in fields.items()}
                yield _announced(text(entry_id), shown)
            if len(found) < PAGE:
                return
            place = _next(text(found[-1][0]))

    async def remove_announced(self, ids: Collection[str]) -> int:
        """Remove events from `calls`."""
        waiting, gone = list(ids), 0
        while waiting:
            some, waiting = waiting[:PAGE], waiting[PAGE:]
            gone += int(await self._ask("XDEL", CALLS_KEY, *some))
        return gone

    async def has_remains(self, business_id: str) -> bool:
        """Return whether keys, secrets or an audit view of a deleted business are there."""
        view = LogKeys.of(business_id)
        named = f"keys:{{{business_id}}}", secrets_key(business_id), *view.all
        return bool(await self._ask("EXISTS", *named))

    async def remove_keys(self, business_id: str) -> int:
        """Remove all other keys of a deleted business."""
        gone = int(await self._ask("UNLINK", secrets_key(business_id)))
        kept = tombstone_key(business_id)
        for pattern in (f"{slots_key(business_id)}*", f"seen:{{{business_id}:*}}"):
            async for keys in self._scan(pattern):
                for key in keys:
                    gone += int(await self._ask("UNLINK", key)) if key != kept else 0
        gone += int(await self._ask("UNLINK", f"held:{{streams}}:figures:{business_id}"))
        await self._ask("ZREM", _WATCHED, business_id)
        for index in _INDEXES:
            gone += await self._remove_members(index, index_member(business_id, "*"))
        return gone

    async def _remove_members(self, key: str, pattern: str) -> int:
        """Remove the members of a sorted set that match."""
        gone, place = 0, 0
        while True:
            answer = await self._ask("ZSCAN", key, place, "MATCH", pattern, "COUNT", PAGE)
            place, found = int(answer[0]), answer[1]
            if found:
                gone += int(await self._ask("ZREM", key, *(member for member, _ in found)))
            if not place:
                return gone


class MemoryKeptData:
    """What is kept in this process; see `KeptData`."""

    def __init__(self, pubsub: MemoryPubSub) -> None:
        self._pubsub = pubsub

    async def open(self) -> None:
        """Do nothing: memory is there."""

    async def close(self) -> None:
        """Do nothing: memory goes with the process."""

    async def streams(self) -> AsyncIterator[KeptStream]:
        """Return every stream that has a record."""
        for sid, fields in self._pubsub.all_records():
            texts = tuple(str(fields.get(name, "")) for name in TEXT_FIELDS)
            yield KeptStream(sid, str(fields["businessId"]), str(fields["callSid"]), texts)

    async def announced(self, after: str = "") -> AsyncIterator[AnnouncedEvent]:
        """Return the events in `calls` that follow an id."""
        ms, _, n = (after or "0-0").partition("-")
        for place, fields in self._pubsub.all_announced():
            if place > (int(ms), int(n)):
                shown = {name: str(value) for name, value in fields.items()}
                yield _announced(f"{place[0]}-{place[1]}", shown)

    async def remove_announced(self, ids: Collection[str]) -> int:
        """Remove events from `calls`."""
        places = [one.partition("-") for one in ids]
        return self._pubsub.remove_announced({(int(ms), int(n)) for ms, _, n in places})

    async def has_remains(self, business_id: str) -> bool:
        """Return False: in one process nothing comes late."""
        return False

    async def remove_keys(self, business_id: str) -> int:
        """Forget a deleted business's calls; there are no other keys."""
        calls = self._pubsub.log.calls
        gone = [call for call in calls if call[0] == business_id]
        for call in gone:
            del calls[call]
        return len(gone)


def texts_in(data: str) -> list[str]:
    """Return every text in JSON, at any depth; the whole where it is none."""
    try:
        rest = [msgspec.json.decode(data)]
    except msgspec.MsgspecError:
        return [data]
    found: list[str] = []
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, dict):
            rest += one.values()
        elif isinstance(one, list):
            rest += one
    return found


def _announced(entry_id: str, fields: dict[str, str]) -> AnnouncedEvent:
    named = (fields.get(name, "") for name in ("businessId", "callSid", "streamSid", "data"))
    return AnnouncedEvent(entry_id, *named)


def _next(entry_id: str) -> str:
    ms, _, n = entry_id.partition("-")
    return f"{ms}-{int(n) + 1}"
