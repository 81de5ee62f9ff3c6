"""The audit log's chain: each entry is linked to the one before, under keys that are not in Redis.

An entry's link has its number, the hash of the entry before it, and a MAC of its own hash. The
head is a signed record of the newest entry's number and hash, and of the oldest number that is
still kept. So a changed, removed, inserted or moved entry is found, and one that was cut off at
either end. The hashes need no key: entries that an older SECRET_KEY signed are vouched for by
every later signature.

What cannot be found from Redis alone is a log that was set back, head and all, to an earlier
state. For that the head is also kept outside: `Verifier.expect`.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.admin.audit_entries import Personal, WrittenEntry, commitment
from app.errors import StoreUnavailable

_PURPOSE: Final = b"twilio-media-bridge/audit-chain/v1"
_PERSONS: Final = b"twilio-media-bridge/audit-persons/v1"
_KEY_ID_BYTES: Final = 6
# Replicas of 0.1 write entries without a link while they are being replaced.
UPGRADE_MS: Final = 24 * 3600 * 1000

SERVICE_LOG: Final = "audit"
CHAIN_BEGUN: Final = "audit.chain_begun"
ROLLED_BACK: Final = "audit.rolled_back"


class Link(msgspec.Struct, frozen=True):
    """What ties an entry to the one before it. `key` names the key of `mac`."""

    seq: int
    prev: str
    key: str
    mac: str


class Head(msgspec.Struct, frozen=True):
    """The newest entry's number and hash, and the oldest number kept; signed."""

    log: str
    seq: int
    hash: str
    first: int
    key: str = ""
    mac: str = ""


class ChainKeys:
    """Sign with the first of several SECRET_KEYs, and verify with any."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        if not secret_keys:
            raise ValueError("a chain needs a SECRET_KEY")
        keys = [_derived(key, _PURPOSE) for key in secret_keys]
        self._by_id = {_key_id(key): key for key in keys}
        self._first = _key_id(keys[0])
        self._persons = _derived(secret_keys[0], _PERSONS)

    def link(self, log: str, seq: int, prev: str, entry: bytes) -> tuple[Link, str]:
        """Return a new entry's link, and its hash."""
        digest = hash_of(log, seq, prev, entry)
        return Link(seq, prev, self._first, self._mac(self._first, b"entry", digest)), digest

    def signs_link(self, link: Link, digest: str) -> bool | None:
        """Return whether a link was made by this service; None where its key is not known."""
        return self._verify(link.key, link.mac, b"entry", digest)

    def head(self, log: str, seq: int, digest: str, first: int) -> Head:
        """Return a signed head."""
        mac = self._mac(self._first, b"head", _head_text(log, seq, digest, first))
        return Head(log, seq, digest, first, self._first, mac)

    def is_signed_by_older(self, head: Head) -> bool:
        """Return whether a head was signed with a key that is not the first."""
        return head.key != self._first and self.signs_head(head) is True

    def signs_head(self, head: Head) -> bool | None:
        """Return whether a head was made by this service; None where its key is not known."""
        text = _head_text(head.log, head.seq, head.hash, head.first)
        return self._verify(head.key, head.mac, b"head", text)

    def digest_of_person(self, identity: str) -> str:
        """Return a keyed digest by which entries about one person can be recognised."""
        return hmac.digest(self._persons, identity.encode(), hashlib.sha256).hex()[:24]

    def _mac(self, key_id: str, kind: bytes, text: str) -> str:
        message = kind + b"\0" + text.encode()
        return hmac.digest(self._by_id[key_id], message, hashlib.sha256).hex()

    def _verify(self, key_id: str, mac: str, kind: bytes, text: str) -> bool | None:
        if key_id not in self._by_id:
            return None
        return hmac.compare_digest(self._mac(key_id, kind, text).encode(), mac.encode())


def hash_of(log: str, seq: int, prev: str, entry: bytes) -> str:
    """Return the hash that commits to an entry and to all before it."""
    about = f"{log}\0{seq}\0{prev}\0".encode()
    return hashlib.sha256(about + entry).hexdigest()


def write_head(head: Head) -> bytes:
    """Return a head as JSON."""
    return msgspec.json.encode(head)


def parse_head(text: bytes) -> Head | None:
    """Parse a head; None for anything else."""
    try:
        return msgspec.json.decode(text, type=Head)
    except msgspec.MsgspecError:
        return None


def write_link(link: Link) -> bytes:
    """Return a link as JSON."""
    return msgspec.json.encode(link)


def parse_link(text: bytes) -> Link | None:
    """Parse a link; None for anything else."""
    try:
        return msgspec.json.decode(text, type=Link)
    except msgspec.MsgspecError:
        return None


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
    """What a verification found. `before_chain` and `of_upgrade` count entries without a link
    that are explained: written before the chain began, or by 0.1 while it was being replaced.
    """

    log: str
    entries: int
    before_chain: int
    of_upgrade: int
    erased_values: int
    findings: tuple[TamperFinding, ...]
    head: Head | None

    @property
    def holds(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.findings


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
        self._begun_at: int | None = None
        self._last: StoredEntry | None = None
        self._last_seq = self._first_seq = 0
        self._digest = ""
        self._entries = self._before = self._of_upgrade = self._erased = 0
        self._loose: list[StoredEntry] = []
        self._changed: set[str] = set()
        self._is_begun_anew = False

    def expect(self, head: Head) -> None:
        """Also check that the log still has what a head says that was kept outside Redis.

        Problems of entries up to that head are not reported: they were known, or could be.

        Raises:
            StoreUnavailable: the head is another log's, or not of these keys.
        """
        if head.log != self._log or not self._keys.signs_head(head):
            raise StoreUnavailable(f"this is no head of the log {self._log!r} under SECRET_KEY")
        self._expected = head

    def take(self, stored: StoredEntry) -> None:
        """Check the next entry."""
        self._entries += 1
        if stored.link is None:
            self._loose.append(stored)
            return
        link = parse_link(stored.link)
        if link is None:
            self._find(Problem.CHANGED, "its link cannot be read", stored)
            return
        # One that cannot be read does not have the hash that was signed.
        written = _parsed(stored.entry) or WrittenEntry(self._now_ms, "", "", "")
        self._judge_loose(written.at)
        digest = hash_of(self._log, link.seq, link.prev, stored.entry)
        is_signed = self._keys.signs_link(link, digest)
        is_in_place = self._place(link, stored, is_own=is_signed is not False)
        if is_signed is False:
            what = "it is not what the service wrote, or the service did not write it"
            self._find(Problem.CHANGED, what, stored, link.seq)
        self._check_personal(written, stored, link.seq)
        if written.action == ROLLED_BACK:
            what = f"a process saw the log set back: it had {written.data.get('had', '?')} entries"
            self._find(Problem.SET_BACK, what, stored, link.seq)
        if not is_in_place:
            return
        if self._begun_at is None:
            self._begun_at = written.at
        if self._expected is not None and link.seq == self._expected.seq:
            self._seen_expected = True
            if digest != self._expected.hash:
                what = "it is another entry than when the head was kept"
                self._findings.append(TamperFinding(Problem.SET_BACK, what, stored.id, link.seq))
        self._first_seq = self._first_seq or link.seq
        self._last, self._last_seq, self._digest = stored, link.seq, digest

    def finish(self, before: bytes | None, after: bytes | None) -> ChainReport:
        """Return what was found, given the head as it was before and after the entries."""
        self._judge_loose(None)
        heads = [parse_head(text) for text in (before, after) if text]
        good = [head for head in heads if head and self._check_head(head)]
        if self._last is None and not heads:
            if self._log == SERVICE_LOG and self._expected is None:
                what = "the log has no chain yet; the service begins one when SECRET_KEY is set"
                self._findings.append(TamperFinding(Problem.NO_CHAIN, what))
        elif not heads:
            what = "the head is missing, so that nothing says where the log ends"
            self._findings.append(TamperFinding(Problem.NO_HEAD, what))
        elif not good:
            what = "the head is not of this log under any SECRET_KEY that is set"
            self._findings.append(TamperFinding(Problem.FORGED_HEAD, what))
        else:
            self._check_ends(good[0], good[-1])
        self._check_expected(good[-1] if good else None)
        return ChainReport(
            self._log,
            self._entries,
            self._before,
            self._of_upgrade,
            self._erased,
            tuple(self._findings),
            good[-1] if good else None,
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

    def _judge_loose(self, next_at: int | None) -> None:
        """Explain entries without a link, or not; `next_at`: when the next linked one was made."""
        loose, self._loose = self._loose, []
        if self._begun_at is None:
            self._before += len(loose)
            return
        at = self._now_ms if next_at is None else next_at
        if at - self._begun_at <= UPGRADE_MS:
            self._of_upgrade += len(loose)
            return
        for stored in loose:
            what = "it has no link: something other than this version of the service wrote it"
            self._find(Problem.NOT_IN_CHAIN, what, stored)

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
        if self._expected is not None and (seq or self._last_seq + 1) <= self._expected.seq:
            return
        if problem is Problem.CHANGED:
            if stored.id in self._changed:
                return
            self._changed.add(stored.id)
        self._findings.append(TamperFinding(problem, detail, stored.id, seq))


def _derived(secret_key: str, purpose: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=purpose).derive(secret_key.encode())


def _key_id(key: bytes) -> str:
    return hmac.digest(key, b"id", hashlib.sha256)[:_KEY_ID_BYTES].hex()


def _head_text(log: str, seq: int, digest: str, first: int) -> str:
    return f"{log}\0{seq}\0{digest}\0{first}"


def _parsed(entry: bytes) -> WrittenEntry | None:
    try:
        return msgspec.json.decode(entry, type=WrittenEntry)
    except msgspec.MsgspecError:
        return None


def _span(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"
