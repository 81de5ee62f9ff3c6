"""The audit log in Redis, chained where there is a SECRET_KEY.

An entry's MAC is computed here: the script that appends it does so only where the head is still
the one it was made for. A writer that loses this race tries again behind the new head.
"""

import asyncio
import logging
import re
import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from app.admin.audit_chain import (
    CHAIN_BEGUN,
    ROLLED_BACK,
    TRIM_REFUSED,
    ChainKeys,
    Head,
    parse_head,
    write_head,
    write_link,
)
from app.admin.audit_counts import AuditCounts, OnceADay
from app.admin.audit_entries import (
    BEYOND_SHARE,
    SERVICE,
    UNSIGNED,
    AuditEntry,
    Personal,
    WrittenEntry,
    write_entry,
)
from app.admin.audit_reading import PAGE, RedisAuditReader, fields_of, personal_of, written_or_none
from app.admin.audit_scripts import APPEND, APPEND_UNSIGNED, TRIM, LogKeys
from app.admin.audit_store import MOST_ENTRIES, SHARE_A_DAY
from app.admin.audit_trimming import Stored, trimmable
from app.errors import StoreUnavailable
from app.store.reach import text

log = logging.getLogger(__name__)

TRIMMED_AT_ONCE: Final = 1_000
# Each loss of the race means that another writer has won it.
TRIES: Final = 100
MOST_WAITING: Final = 1_000
ADOPTED_AT_ONCE: Final = 50
SHARE_REACHED: Final = "audit.share_reached"
INBOX_UNREADABLE: Final = "audit.inbox_unreadable"
# Entries of views that could not be written, and wait for the view.
MOST_OWED: Final = 1_000

_BUSINESS_ID: Final = re.compile(r"[A-Za-z0-9_.-]{0,128}")

Values = Mapping[str, Personal]


class RedisAuditStore(RedisAuditReader):
    """Keep the audit log in Redis, reached as `RedisReach` says; see `AuditStore`.

    Without `keys` entries have no link, or wait for a writer that has them.
    """

    keys: ChainKeys | None = None
    most_entries: int = MOST_ENTRIES
    # Where it is not, an entry waits for a writer that can extend the chain that is there.
    begins_chains: bool = True

    def sign_with(self, keys: ChainKeys | None) -> "RedisAuditStore":
        """Chain entries under these keys from now on; return itself."""
        self.keys = keys
        # Of each log: the head that this process has last seen, and the highest one.
        self._heads: dict[str, bytes] = {}
        self._highest: dict[str, Head] = {}
        self._turn = asyncio.Lock()
        self._counts = AuditCounts(self._ask)
        self._shares_told = OnceADay()
        self._owed: deque[tuple[WrittenEntry, Values]] = deque(maxlen=MOST_OWED)
        # Of each log that was not trimmed: from which entry on to try again; and what was told.
        self._trim_from: dict[str, int] = {}
        self._refused_trims: set[str] = set()
        return self

    async def append(self, entry: AuditEntry) -> AuditEntry:
        """Append an entry to the service's log, and to its business's view."""
        written, values = write_entry(entry, secrets.token_bytes)
        if self.keys is None or not await self._may_extend():
            return replace(entry, id=await self._append_unsigned(written, values))
        made = await self._counts.count_made(entry.business_id) if _is_of_key(entry) else 0
        async with self._turn:
            if made > SHARE_A_DAY:
                return replace(entry, id=await self._append_beyond_share(written, made))
            entry_id, waiting = await self._append(LogKeys.of(None), written, values)
            await self._append_to_view(written, values)
            if waiting:
                await self._adopt()
        return replace(entry, id=entry_id)

    async def _append_beyond_share(self, written: WrittenEntry, made: int) -> str:
        """Append to a business's view alone.

        Once a day each process records that in the service's log, for any count beyond the share:
        the counts are not signed. Personal values are not kept: they are erased by way of the
        service's log.
        """
        of_business = LogKeys.of(written.business_id)
        if not self._shares_told.has(of_business.name, written.at):
            data: dict[str, str | int] = {"most_a_day": SHARE_A_DAY, "count": made}
            told = WrittenEntry(written.at, SERVICE, SHARE_REACHED, of_business.name, data=data)
            await self._append(LogKeys.of(None), told, {})
            self._shares_told.add(of_business.name)
        marked = msgspec.structs.replace(written, data={**written.data, BEYOND_SHARE: 1})
        entry_id, _ = await self._append(of_business, marked, {})
        return entry_id

    async def _append_to_view(self, written: WrittenEntry, values: Values) -> None:
        """Append to the view of an entry's business; what fails is tried again later.

        Where the business was deleted meanwhile there is no view any more, and the service's log
        keeps the entry without its personal values.
        """
        if not written.business_id:
            return
        try:
            entry_id, _ = await self._append(LogKeys.of(written.business_id), written, values)
        except StoreUnavailable:
            self._owed.append((written, values))
            raise
        if not entry_id:
            await self._forget_personal(values)
            await self._counts.forget(written.business_id)

    async def _write_owed(self) -> None:
        """Append to views what could not be written before."""
        for _ in range(len(self._owed)):
            await self._append_to_view(*self._owed.popleft())

    async def _may_extend(self) -> bool:
        """Return whether there is a chain under these keys, or this writer may begin one."""
        if self.begins_chains:
            return True
        service = LogKeys.of(None)
        return self._trusted(service, await self.read_head(service)) is not None

    async def _append_unsigned(self, written: WrittenEntry, values: Values) -> str:
        """Append without a link, or leave the entry for a writer that has a key."""
        logs = [None, written.business_id] if written.business_id else [None]
        asked = msgspec.json.encode(written), self.most_entries, MOST_WAITING, *_pairs(values)
        first = ""
        for business_id in logs:
            keys = LogKeys.of(business_id).all
            answer = await self._ask("EVAL", APPEND_UNSIGNED, 4, *keys, *asked)
            if answer is None and business_id is None:
                return ""  # who adopts it writes the view, too
            if answer is None:
                await self._forget_personal(values)
            first = first or text(answer)
        return first

    async def _forget_personal(self, values: Values) -> None:
        if values:
            await self._ask("HDEL", LogKeys.of(None).personal, *values)

    async def _append(
        self, keys: LogKeys, written: WrittenEntry, values: Values, inbox_id: str = ""
    ) -> tuple[str, int]:
        """Append a linked entry; return its id, and how many wait in the inbox.

        The id is empty where another writer has taken the inbox entry.
        """
        raw = self._heads.get(keys.name)
        if raw is None:
            raw = await self.read_head(keys)
        for _ in range(TRIES):
            head = self._trusted(keys, raw)
            lost = self._what_was_lost(keys, head, written.at)
            if lost is not None:
                answer = await self._commit(keys, raw, head, lost, {}, "")
            else:
                answer = await self._commit(keys, raw, head, written, values, inbox_id)
            if answer is None:
                return "", 0
            if isinstance(answer, bytes):
                raw = answer
                continue
            raw = self._heads[keys.name]
            if lost is None:
                return text(answer[0]), int(answer[2])
        raise StoreUnavailable(f"the audit log {keys.name} was busy: {TRIES} tries failed")

    async def _commit(
        self,
        keys: LogKeys,
        raw: bytes,
        head: Head | None,
        written: WrittenEntry,
        values: Values,
        inbox_id: str,
    ) -> list[Any] | bytes | None:
        """Append an entry behind a head; return the head that is there instead, as APPEND does."""
        seq, prev, first = (head.seq + 1, head.hash, head.first) if head else (1, "", 1)
        begun = head.begun if head else written.at
        signer, entry = self._signer(), msgspec.json.encode(written)
        link, digest = signer.link(keys.name, seq, prev, entry)
        new_head = signer.head(keys.name, seq, digest, first, begun)
        new_raw = write_head(new_head)
        answer = await self._ask(
            *("EVAL", APPEND, 4, *keys.all),
            *(raw, new_raw, entry, write_link(link), inbox_id, *_pairs(values)),
        )
        if not isinstance(answer, list):
            return answer.encode() if isinstance(answer, str) else answer
        self._heads[keys.name], self._highest[keys.name] = new_raw, new_head
        if int(answer[1]) - self.most_entries > TRIMMED_AT_ONCE:
            await self._trim(keys, new_head, int(answer[1]))
        return answer

    def _signer(self) -> ChainKeys:
        if self.keys is None:
            raise TypeError("a chain needs keys")
        return self.keys

    def _trusted(self, keys: LogKeys, raw: bytes) -> Head | None:
        """Return a head that this service has signed; None for any other, which is not extended."""
        head = parse_head(raw) if raw else None
        is_ours = head is not None and head.log == keys.name and self._signer().signs_head(head)
        return head if is_ours else None

    def _what_was_lost(self, keys: LogKeys, head: Head | None, at: int) -> WrittenEntry | None:
        """Return the entry that tells of a chain that begins, or that was set back; or None."""
        known = self._highest.get(keys.name)
        data: dict[str, str | int] = {"had": known.seq, "hash": known.hash} if known else {}
        if head is None:
            if known:
                log.error("[admin] ❌ The head of the audit log %s is gone or forged", keys.name)
            return WrittenEntry(at, SERVICE, CHAIN_BEGUN, keys.name, data=data)
        if known is None or (head.seq, head.hash) == (known.seq, known.hash):
            return None
        if head.seq > known.seq:
            return None
        log.error(
            "[admin] ❌ The audit log %s was set back from %d entries to %d: a failover of Redis "
            "has lost the last ones, or somebody has removed them",
            *(keys.name, known.seq, head.seq),
        )
        self._highest[keys.name] = head
        return WrittenEntry(at, SERVICE, ROLLED_BACK, keys.name, data=data)

    async def _trim(self, keys: LogKeys, head: Head, length: int) -> None:
        """Remove the oldest entries, and sign from where the log then begins.

        Only entries that this log's chain vouches for move its beginning, and only as many as
        the signed numbers say are too many: neither a forged entry nor a cut is signed for. A
        log that begins otherwise grows to twice its size, and loses its oldest entries without
        a signature for that: its verification goes on failing.
        """
        if head.seq < self._trim_from.get(keys.name, 0):
            return
        surplus = head.seq - head.first + 1 - self.most_entries
        oldest = await self.oldest(keys, "-", TRIMMED_AT_ONCE + 1)
        gone, first = trimmable(keys.name, oldest, head.first, surplus, self._signer())
        is_overfull = length > 2 * self.most_entries
        is_refused = not gone and (surplus > TRIMMED_AT_ONCE or is_overfull)
        if not gone and is_overfull:
            gone = oldest[:TRIMMED_AT_ONCE]
        if gone:
            await self._remove(keys, head, gone, first)
        else:
            self._trim_from[keys.name] = head.seq + TRIMMED_AT_ONCE // 10
        if is_refused and keys.name not in self._refused_trims:
            log.error("[admin] ❌ The oldest entries of the audit log %s were changed", keys.name)
            self._refused_trims.add(keys.name)
            at = _in_ms(await self._ask("TIME"))
            data: dict[str, str | int] = {"first": head.first}
            refused = WrittenEntry(at, SERVICE, TRIM_REFUSED, keys.name, data=data)
            await self._append(keys, refused, {})

    async def _remove(self, keys: LogKeys, head: Head, gone: Sequence[Stored], first: int) -> None:
        """Remove entries and their personal values, unless another writer was first."""
        written = [written_or_none(entry) for _, entry, _ in gone]
        fields = [field for one in written if one for field in one.personal_fields.values()]
        ids = [entry_id for entry_id, _, _ in gone]
        new_head = self._signer().head(keys.name, head.seq, head.hash, first, head.begun)
        new_raw = write_head(new_head)
        asked: list[str | bytes | int] = [self._heads[keys.name], new_raw, len(ids)]
        asked += [*ids, *fields]
        if await self._ask("EVAL", TRIM, 3, *keys.all[:3], *asked):
            self._heads[keys.name] = new_raw

    async def _adopt(self) -> None:
        """Link the entries of writers without a key, and mark their actors as unsigned.

        Who can write to Redis can leave anything there, so nothing of it is in the name of
        the service, an operator or a key.
        """
        service = LogKeys.of(None)
        found = await self._ask("XRANGE", service.inbox, "-", "+", "COUNT", ADOPTED_AT_ONCE)
        now_ms = _in_ms(await self._ask("TIME")) if found else 0
        unreadable = 0
        for waiting_id, entry, _ in fields_of(found):
            written = written_or_none(entry)
            if written is None or not _BUSINESS_ID.fullmatch(written.business_id):
                unreadable += int(await self._ask("XDEL", service.inbox, waiting_id))
                continue
            linked = msgspec.structs.replace(
                written,
                at=min(written.at, now_ms),
                actor=UNSIGNED + written.actor,
                data={**written.data, "written_without_key": 1},
            )
            values = await self.personal_values(service, [written])
            entry_id, _ = await self._append(service, linked, values, waiting_id)
            if entry_id:
                await self._append_to_view(linked, values)
        if unreadable:
            log.error("[admin] ❌ %d entries that waited were none, and are gone", unreadable)
            data: dict[str, str | int] = {"entries": unreadable}
            told = WrittenEntry(now_ms, SERVICE, INBOX_UNREADABLE, service.inbox, data=data)
            await self._append(service, told, {})

    # ---------------------------------------------------------------- keeping and erasing

    async def has_older_signature(self, business_id: str | None) -> bool:
        """Return whether an older key signed a log's head; the next entry signs it anew."""
        head = self._trusted(keys := LogKeys.of(business_id), await self.read_head(keys))
        return head is not None and self._signer().is_signed_by_older(head)

    async def count_refusal(self, whose: str) -> int:
        """Count a refusal; return how many of `whose` there were in the day."""
        return await self._counts.count_refusal(whose)

    async def forget_counts(self, business_id: str) -> None:
        """Remove what was counted of a deleted business."""
        await self._counts.forget(business_id)

    async def keep_up(self) -> Head | None:
        """Begin the chain where there is none, adopt entries that wait, and return the head."""
        if self.keys is None:
            return None
        keys = LogKeys.of(None)
        async with self._turn:
            raw = await self.read_head(keys)
            if self._trusted(keys, raw) is None:
                at = _in_ms(await self._ask("TIME"))
                begun = self._what_was_lost(keys, None, at)
                if begun is not None:
                    await self._commit(keys, raw, None, begun, {}, "")
            await self._adopt()
            await self._write_owed()
            return self._trusted(keys, await self.read_head(keys))

    async def drop(self, business_id: str) -> int:
        """Delete a business's view, and its personal values everywhere."""
        keys = LogKeys.of(business_id)
        gone = int(await self._ask("XLEN", keys.stream))
        for key in keys.all:
            await self._ask("UNLINK", key)
        self._heads.pop(keys.name, None)
        self._highest.pop(keys.name, None)
        await self.forget_counts(business_id)
        await self.redact(lambda value: True, business_id)
        return gone

    async def redact(self, matches: Callable[[str], bool], business_id: str | None) -> int:
        """Erase personal values that match."""
        found = await self._matching(LogKeys.of(None), matches, business_id)
        owners = {value.business_id for value in found.values() if value.business_id}
        if found:
            await self._ask("HDEL", LogKeys.of(None).personal, *found)
        for owner in owners:
            keys = LogKeys.of(owner)
            if of_view := await self._matching(keys, matches, owner):
                await self._ask("HDEL", keys.personal, *of_view)
        return len(found)

    async def count_personal(self, matches: Callable[[str], bool], business_id: str | None) -> int:
        """Count the personal values that match."""
        return len(await self._matching(LogKeys.of(None), matches, business_id))

    async def _matching(
        self, keys: LogKeys, matches: Callable[[str], bool], business_id: str | None
    ) -> dict[str, Personal]:
        found: dict[str, Personal] = {}
        place = "0"
        while True:
            place, flat = await self._ask("HSCAN", keys.personal, place, "COUNT", PAGE)
            pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2],
                                                                  strict=True)  # fmt: skip
            for name, raw in pairs:
                value = personal_of(raw)
                if business_id in (None, value.business_id) and matches(value.value):
                    found[text(name)] = value
            place = text(place) if not isinstance(place, int) else str(place)
            if place == "0":
                return found


def _is_of_key(entry: AuditEntry) -> bool:
    return bool(entry.business_id) and entry.actor.startswith("key:")


def _pairs(values: Values) -> list[str | bytes]:
    return [part for field, value in values.items()
            for part in (field, msgspec.msgpack.encode(value))]  # fmt: skip


def _in_ms(time: Sequence[Any]) -> int:
    return int(time[0]) * 1000 + int(time[1]) // 1000
