"""Verification of an audit log: what was changed, removed, inserted, moved or cut off.

What cannot be found from Redis alone is a log that was set back, head and all, to an earlier
state. For that the head is also kept outside: `Verifier.expect`.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

from app.admin.audit_chain import (
    CHAIN_BEGUN,
    ROLLED_BACK,
    SERVICE_LOG,
    TRIM_REFUSED,
    ChainKeys,
    Head,
    Link,
    hash_of,
    parse_head,
    parse_link,
)
from app.admin.audit_entries import SERVICE, UNSIGNED, Personal, WrittenEntry, commitment
from app.errors import StoreUnavailable

# Replicas of 0.1 write entries without a link while they are being replaced.
UPGRADE_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as Redis holds it; `link` is None where it has none."""

    id: str
    entry: bytes
    link: bytes | None = None
    personal: Mapping[str, Personal] = field(default_factory=dict)


class Problem(StrEnum):
    """What is wrong with a log."""

    CHANGED = "changed"
    MISSING = "missing"
    MOVED = "moved"
    BEGUN_ANEW = "begun_anew"
    NOT_IN_CHAIN = "not_in_chain"
    CUT_AT_BEGINNING = "cut_at_beginning"
    CUT_AT_END = "cut_at_end"
    NO_HEAD = "no_head"
    FORGED_HEAD = "forged_head"
    SET_BACK = "set_back"
    UNKNOWN_KEY = "unknown_key"
    NO_CHAIN = "no_chain"
    NOT_IN_VIEW = "not_in_view"
    NOT_IN_SERVICE_LOG = "not_in_service_log"


@dataclass(frozen=True, slots=True)
class TamperFinding:
    """One thing that is wrong, and where: the entry's id, and its number in the chain."""

    problem: Problem
    detail: str
    entry_id: str = ""
    seq: int = 0

    def __str__(self) -> str:
        place = f"entry {self.seq} ({self.entry_id}): " if self.entry_id else ""
        return f"{self.problem}: {place}{self.detail}"


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a verification found.

    `before_chain`, `of_upgrade` and `unsigned` have ids of entries that the chain does not vouch
    for, though nothing proves that they are forged: written before the chain began, by 0.1 while
    it was being replaced, and by commands without SECRET_KEY. `begun_at` (Unix ms) is when the
    chain began, 0 where that is not known. `uncopied` has ids of entries of the service's log
    that a business's view lacks one at a time.
    """

    log: str
    entries: int
    before_chain: tuple[str, ...]
    of_upgrade: tuple[str, ...]
    unsigned: tuple[str, ...]
    erased_values: int
    findings: tuple[TamperFinding, ...]
    head: Head | None
    begun_at: int = 0
    uncopied: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.findings


@dataclass(frozen=True, slots=True)
class _Loose:
    """An entry without a link: behind which number, and when the next linked one was made."""

    id: str
    after_seq: int
    next_at: int


class Verifier:
    """Check a log from its oldest entry to its newest.

    Read the head, take every entry, read the head again, then `finish` with both: entries may
    be appended, and old ones trimmed, meanwhile. `now_ms` is Unix ms.
    """

    def __init__(self, log: str, keys: ChainKeys, now_ms: int) -> None:
        self._log = log
        self._keys = keys
        self._now_ms = now_ms
        self._findings: list[TamperFinding] = []
        self._expected: Head | None = None
        self._seen_expected = False
        self._begun_at = 0
        self._last: StoredEntry | None = None
        self._last_seq = self._first_seq = 0
        self._digest = ""
        self._entries = self._erased = 0
        self._waiting: list[str] = []
        self._loose: list[_Loose] = []
        self._unsigned: list[str] = []
        self._changed: set[str] = set()
        self._is_begun_anew = False

    def expect(self, head: Head) -> None:
        """Also check that the log still has what a head says that was kept outside Redis.

        This adds findings, and leaves out none.

        Raises:
            StoreUnavailable: the head is another log's, or not of these keys.
        """
        if head.log != self._log or not self._keys.signs_head(head):
            raise StoreUnavailable(f"this is no head of the log {self._log!r} under SECRET_KEY")
        self._expected = head

    def take(self, stored: StoredEntry) -> WrittenEntry | None:
        """Check the next entry; return it where it has a link and its signature is not wrong."""
        self._entries += 1
        if stored.link is None:
            self._waiting.append(stored.id)
            return None
        link = parse_link(stored.link)
        if link is None:
            self._find(Problem.CHANGED, "its link cannot be read", stored)
            return None
        # One that cannot be read does not have the hash that was signed.
        written = _parsed(stored.entry) or WrittenEntry(self._now_ms, "", "", "")
        self._place_loose(written.at)
        digest = hash_of(self._log, link.seq, link.prev, stored.entry)
        is_signed = self._keys.signs_link(link, digest)
        is_in_place = self._place(link, stored, is_own=is_signed is not False)
        if is_signed is False:
            what = "it is not what the service wrote, or the service did not write it"
            self._find(Problem.CHANGED, what, stored, link.seq)
        self._check_personal(written, stored, link.seq)
        if written.actor == SERVICE:
            self._hear_service(written, stored, link.seq)
        elif written.actor.startswith(UNSIGNED):
            self._unsigned.append(stored.id)
        if is_in_place:
            if self._expected is not None and link.seq == self._expected.seq:
                self._seen_expected = True
                if digest != self._expected.hash:
                    what = "it is another entry than when the head was kept"
                    self._find(Problem.SET_BACK, what, stored, link.seq)
            self._first_seq = self._first_seq or link.seq
            self._last, self._last_seq, self._digest = stored, link.seq, digest
        return None if is_signed is False else written

    def finish(self, before: bytes | None, after: bytes | None) -> ChainReport:
        """Return what was found, given the head as it was before and after the entries."""
        self._place_loose(self._now_ms)
        heads = [parse_head(text) for text in (before, after) if text]
        good = [head for head in heads if head and self._check_head(head)]
        if self._last is None and not heads:
            if self._log == SERVICE_LOG:
                what = "the log has no chain yet; the service begins one when SECRET_KEY is set"
                self._findings.append(TamperFinding(Problem.NO_CHAIN, what))
        elif not heads:
            what = "the head is missing, so that nothing says where the log ends"
            self._findings.append(TamperFinding(Problem.NO_HEAD, what))
        elif not good:
            what = "the head is not of this log under any SECRET_KEY that is set"
            self._findings.append(TamperFinding(Problem.FORGED_HEAD, what))
        elif before:
            self._check_ends(good[0], good[-1])
        else:
            # The chain began during the verification: it had to have nothing yet.
            self._check_ends(Head(self._log, 0, "", 1), good[-1])
        self._check_expected(good[-1] if good else None)
        begun_at = (good[-1].begun if good else 0) or self._begun_at
        before_chain, of_upgrade = self._judge_loose(good[0].begun if good else 0)
        return ChainReport(
            self._log,
            self._entries,
            before_chain,
            of_upgrade,
            tuple(self._unsigned),
            self._erased,
            tuple(self._findings),
            good[-1] if good else None,
            begun_at,
        )

    def _place(self, link: Link, stored: StoredEntry, *, is_own: bool) -> bool:
        """Check that an entry follows the one before it; return whether it does not stand late."""
        if self._last is None:
            return True
        if link.seq == 1:
            self._is_begun_anew = True
            what = "the chain begins anew here: its head was removed or replaced"
            self._find(Problem.BEGUN_ANEW, what, stored, 1)
        elif link.seq <= self._last_seq:
            what = f"it stands after entry {self._last_seq}"
            self._find(Problem.MOVED, what, stored, link.seq)
            return False
        elif link.seq > self._last_seq + 1:
            gone = _span(self._last_seq + 1, link.seq - 1)
            self._find(Problem.MISSING, f"before it {gone} missing", stored, link.seq)
        elif link.prev != self._digest and is_own:
            what = "it, or one before it that the same key signed, is not what was written"
            self._find(Problem.CHANGED, what, self._last, self._last_seq)
        return True

    def _hear_service(self, written: WrittenEntry, stored: StoredEntry, seq: int) -> None:
        """Check what the service recorded of the log itself."""
        had = written.data.get("had")
        if written.action == CHAIN_BEGUN and seq == 1 and not self._begun_at:
            self._begun_at = written.at
        if written.action == ROLLED_BACK:
            what = f"a process saw the log set back: it had {had or '?'} entries"
            self._find(Problem.SET_BACK, what, stored, seq)
        elif written.action == CHAIN_BEGUN and had:
            what = f"a process saw that the log had {had} entries before this chain began"
            self._find(Problem.SET_BACK, what, stored, seq)
        elif written.action == TRIM_REFUSED:
            what = "the log's oldest entries were not those that the service had written"
            self._find(Problem.CUT_AT_BEGINNING, what, stored, seq)

    def _place_loose(self, next_at: int) -> None:
        """Note behind which number entries without a link are, and when the next one was made."""
        self._loose += [_Loose(one, self._last_seq, next_at) for one in self._waiting]
        self._waiting.clear()

    def _judge_loose(self, begun: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Explain entries without a link, or not; `begun`: when the chain began, as signed."""
        before: list[str] = []
        of_upgrade: list[str] = []
        has_beginning = self._first_seq <= 1
        began_at = begun or self._begun_at
        for one in self._loose:
            if has_beginning and one.after_seq == 0:
                before.append(one.id)
            elif began_at and one.next_at - began_at <= UPGRADE_MS:
                of_upgrade.append(one.id)
            else:
                what = "it has no link: something other than this version of the service wrote it"
                self._findings.append(TamperFinding(Problem.NOT_IN_CHAIN, what, one.id))
        return tuple(before), tuple(of_upgrade)

    def _check_head(self, head: Head) -> bool:
        return head.log == self._log and self._keys.signs_head(head) is True

    def _check_ends(self, before: Head, after: Head) -> None:
        if self._last is None:
            if before.seq >= before.first:
                what = f"{_span(before.first, before.seq)} missing: all that the head knows of"
                self._findings.append(TamperFinding(Problem.CUT_AT_END, what))
            return
        if not self._is_begun_anew and not before.first <= self._first_seq <= after.first:
            what = f"{_span(before.first, self._first_seq - 1)} missing, and not trimmed by us"
            self._findings.append(TamperFinding(Problem.CUT_AT_BEGINNING, what))
        if self._last_seq < before.seq:
            what = f"{_span(self._last_seq + 1, before.seq)} missing at the end"
            self._findings.append(TamperFinding(Problem.CUT_AT_END, what))
        elif self._last_seq > after.seq:
            what = f"the head says {after.seq}, and the log ends with {self._last_seq}"
            self._findings.append(TamperFinding(Problem.SET_BACK, what))
        elif any(self._last_seq == head.seq != 0 and head.hash != self._digest
                 for head in (before, after)):  # fmt: skip
            what = "it is not the entry that the head was signed for"
            self._find(Problem.CHANGED, what, self._last, self._last_seq)

    def _check_expected(self, head: Head | None) -> None:
        expected = self._expected
        if expected is None or self._seen_expected:
            return
        is_trimmed = head is not None and head.first > expected.seq
        if not is_trimmed:
            what = (
                f"the log had {expected.seq} entries when the head was kept, "
                f"and has {self._last_seq} now"
            )
            self._findings.append(TamperFinding(Problem.SET_BACK, what))

    def _check_personal(self, written: WrittenEntry, stored: StoredEntry, seq: int) -> None:
        for name, committed in written.personal.items():
            value = stored.personal.get(name)
            if value is None:
                self._erased += 1
            elif not hmac.compare_digest(commitment(name, value), committed):
                self._find(Problem.CHANGED, f"its value of {name} was changed", stored, seq)

    def _find(self, problem: Problem, detail: str, stored: StoredEntry, seq: int = 0) -> None:
        if problem is Problem.CHANGED:
            if stored.id in self._changed:
                return
            self._changed.add(stored.id)
        self._findings.append(TamperFinding(problem, detail, stored.id, seq))


def _parsed(entry: bytes) -> WrittenEntry | None:
    try:
        return msgspec.json.decode(entry, type=WrittenEntry)
    except msgspec.MsgspecError:
        return None


def _span(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"
