"""Reading the audit log from Redis. What cannot be read there is shown as such, and passed over."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec

from app.admin.audit_chain import parse_link
from app.admin.audit_entries import (
    AuditEntry,
    Personal,
    WrittenEntry,
    parse_entry,
    shown_entry,
)
from app.admin.audit_scripts import LogKeys
from app.admin.audit_trimming import Stored
from app.admin.audit_verify import StoredEntry
from app.errors import StoreUnavailable
from app.store.reach import RedisReach, text

PAGE: Final = 500
UNREADABLE: Final = "audit.unreadable"


class RedisAuditReader(RedisReach):
    """Read the audit log in Redis; see `AuditStore`."""

    async def page(
        self, business_id: str | None, before: str = "", limit: int = 50
    ) -> list[AuditEntry]:
        """Return entries, the latest first."""
        keys = LogKeys.of(business_id)
        newest = id_before(before) if before else "+"
        if not newest:
            return []
        found = await self._ask("XREVRANGE", keys.stream, newest, "-", "COUNT", limit)
        return [_shown(one) for one in await self._withpersonal_of(keys, fields_of(found))]

    async def stored(self, business_id: str | None) -> AsyncIterator[StoredEntry]:
        """Return every entry as it is stored, the oldest first."""
        keys = LogKeys.of(business_id)
        after = "-"
        while True:
            found = await self.oldest(keys, after, PAGE)
            for one in await self._withpersonal_of(keys, found):
                yield one
            if len(found) < PAGE:
                return
            after = id_after(found[-1][0])

    async def entries(self, business_id: str | None) -> AsyncIterator[AuditEntry]:
        """Return every entry for reading, the oldest first."""
        async for stored in self.stored(business_id):
            yield _shown(stored)

    async def head(self, business_id: str | None) -> bytes | None:
        """Return the head as it is stored."""
        return await self.read_head(LogKeys.of(business_id)) or None

    async def read_head(self, keys: LogKeys) -> bytes:
        """Return the head as it is stored; empty where there is none."""
        found = await self._ask("GET", keys.head)
        return found.encode() if isinstance(found, str) else found or b""

    async def oldest(self, keys: LogKeys, first: str, limit: int) -> list[Stored]:
        """Return entries from this id on, the oldest first."""
        return fields_of(await self._ask("XRANGE", keys.stream, first, "+", "COUNT", limit))

    async def _withpersonal_of(self, keys: LogKeys, found: Sequence[Stored]) -> list[StoredEntry]:
        """Add the personal values that were not erased."""
        parsed = [written_or_none(entry) for _, entry, _ in found]
        known = await self.personal_values(keys, [one for one in parsed if one])
        return [
            StoredEntry(
                *(entry_id, entry, link),
                {
                    name: known[field]
                    for name, field in (written.personal_fields if written else {}).items()
                    if field in known
                },
            )
            for (entry_id, entry, link), written in zip(found, parsed, strict=True)
        ]

    async def personal_values(
        self, keys: LogKeys, entries: Sequence[WrittenEntry]
    ) -> dict[str, Personal]:
        """Return the personal values of entries that were not erased, by their field."""
        wanted = [field for entry in entries for field in entry.personal_fields.values()]
        stored = await self._ask("HMGET", keys.personal, *wanted) if wanted else []
        return {
            field: personal_of(raw)
            for field, raw in zip(wanted, stored, strict=True)
            if raw is not None
        }


def id_before(entry_id: str) -> str:
    """Return the greatest id below this one; empty where there is none.

    Redis' own form, `(ID`, needs 6.2, and refuses `(0-0`.
    """
    ms, _, n = entry_id.partition("-")
    if int(n):
        return f"{int(ms)}-{int(n) - 1}"
    return f"{int(ms) - 1}-{2**64 - 1}" if int(ms) else ""


def id_after(entry_id: str) -> str:
    """Return the least id above this one."""
    ms, _, n = entry_id.partition("-")
    return f"{ms}-{int(n) + 1}"


def fields_of(found: Any) -> list[Stored]:
    """Parse Redis' answer to a range of a stream."""
    entries = []
    for entry_id, fields in found:
        said = {text(name): value for name, value in fields.items()}
        entries.append((text(entry_id), said.get("entry", b""), said.get("link")))
    return entries


def _shown(stored: StoredEntry) -> AuditEntry:
    link = parse_link(stored.link) if stored.link else None
    written = written_or_none(stored.entry)
    if written is None:
        at = int(stored.id.partition("-")[0])
        return AuditEntry(at, "unknown", UNREADABLE, "an entry", id=stored.id)
    return shown_entry(written, stored.id, link.seq if link else 0, stored.personal)


def personal_of(raw: bytes) -> Personal:
    """Parse a personal value; one that cannot be read fits no commitment."""
    try:
        return msgspec.msgpack.decode(raw, type=Personal)
    except msgspec.MsgspecError:
        return Personal(b"", "(unreadable)")


def written_or_none(entry: bytes) -> WrittenEntry | None:
    """Parse an entry; None for anything else."""
    try:
        return parse_entry(entry)
    except StoreUnavailable:
        return None
