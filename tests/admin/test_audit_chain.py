"""What a verification of the audit log finds, and what it takes for granted."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from app.admin.audit_chain import (
    CHAIN_BEGUN,
    ROLLED_BACK,
    TRIM_REFUSED,
    ChainKeys,
    hash_of,
    parse_link,
    write_head,
    write_link,
)
from app.admin.audit_entries import SERVICE, UNSIGNED, AuditEntry, Personal, write_entry
from app.admin.audit_verify import UPGRADE_MS, ChainReport, Problem, StoredEntry, Verifier
from app.errors import StoreUnavailable

LOG = "audit"
OLD, NEW, FOREIGN = "the first secret key", "the second secret key", "somebody else's key"
DAY = 24 * 3600 * 1000
NUMBER = "+15005550006"


def entry_at(at: int, action: str = "plan.saved", **personal: str) -> AuditEntry:
    actor = SERVICE if action.startswith("audit.") else "operator"
    return AuditEntry(at, actor, action, f"target-{at}", personal=personal)


class Log:
    """A log as Redis holds it, and its head."""

    def __init__(self, *secret_keys: str) -> None:
        self.keys = ChainKeys(secret_keys or (NEW,))
        self.entries: list[StoredEntry] = []
        self.seq, self.digest, self.first, self.begun = 0, "", 1, 0
        self.head: bytes | None = None

    def append(self, entry: AuditEntry, keys: ChainKeys | None = None) -> "Log":
        signer = keys or self.keys
        written, values = write_entry(entry, lambda count: bytes(count))
        raw = msgspec.json.encode(written)
        self.seq += 1
        link, self.digest = signer.link(LOG, self.seq, self.digest, raw)
        names = {field: name for name, field in written.personal_fields.items()}
        personal = {names[field]: value for field, value in values.items()}
        entry_id = f"{1000 + len(self.entries)}-0"
        self.entries.append(StoredEntry(entry_id, raw, write_link(link), personal))
        return self.sign(signer)

    def sign(self, keys: ChainKeys | None = None) -> "Log":
        signer = keys or self.keys
        self.head = write_head(signer.head(LOG, self.seq, self.digest, self.first, self.begun))
        return self

    def loose(self, at: int) -> "Log":
        written, _ = write_entry(entry_at(at), lambda count: bytes(count))
        self.entries.append(
            StoredEntry(f"{1000 + len(self.entries)}-0", msgspec.json.encode(written))
        )
        return self

    def report(
        self, *secret_keys: str, now: int = 10, expected: bytes | None = None
    ) -> ChainReport:
        keys = ChainKeys(secret_keys) if secret_keys else self.keys
        verifier = Verifier(LOG, keys, now)
        if expected is not None:
            head = msgspec.json.decode(expected, type=type(self.keys.head(LOG, 0, "", 1)))
            verifier.expect(head)
        for stored in self.entries:
            verifier.take(stored)
        return verifier.finish(self.head, self.head)


def a_log(count: int = 6) -> Log:
    log = Log().append(entry_at(1, CHAIN_BEGUN))
    for at in range(2, count + 1):
        log.append(entry_at(at))
    return log


def found(report: ChainReport) -> list[tuple[Problem, int]]:
    return [(finding.problem, finding.seq) for finding in report.findings]


def test_a_log_that_nobody_touched_holds() -> None:
    report = a_log().report()
    assert (found(report), report.entries, report.holds) == ([], 6, True)
    assert report.head is not None
    assert report.head.seq == 6


# ------------------------------------------------------------------- tampering


def changed(log: Log) -> None:
    log.entries[2] = replace(
        log.entries[2], entry=log.entries[2].entry.replace(b'"target-', b'"forged-')
    )


def changed_with_new_hashes(log: Log) -> None:
    """Change an entry, and link those after it anew, without the key for a MAC."""
    changed(log)
    prev = ""
    for at, stored in enumerate(log.entries):
        link = parse_link(stored.link or b"")
        assert link is not None
        log.entries[at] = replace(stored, link=write_link(msgspec.structs.replace(link, prev=prev)))
        prev = hash_of(LOG, link.seq, prev, stored.entry)


def changed_under_foreign_key(log: Log) -> None:
    raw = log.entries[2].entry.replace(b'"target-', b'"forged-')
    link = parse_link(log.entries[2].link or b"")
    assert link is not None
    forged, _ = ChainKeys([FOREIGN]).link(LOG, 3, link.prev, raw)
    log.entries[2] = replace(log.entries[2], entry=raw, link=write_link(forged))


def newest_changed(log: Log) -> None:
    log.entries[5] = replace(
        log.entries[5], entry=log.entries[5].entry.replace(b'"target-', b'"forged-')
    )


def unreadable_link(log: Log) -> None:
    log.entries[2] = replace(log.entries[2], link=b"{")


def unreadable(log: Log) -> None:
    log.entries[2] = replace(log.entries[2], entry=b"{")


def removed(log: Log) -> None:
    del log.entries[2]


def several_removed(log: Log) -> None:
    del log.entries[1:4]


def exchanged(log: Log) -> None:
    one, two = log.entries[2], log.entries[3]
    log.entries[2] = replace(two, id=one.id)
    log.entries[3] = replace(one, id=two.id)


def repeated(log: Log) -> None:
    log.entries.append(replace(log.entries[2], id="2000-0"))


def inserted_of_another_log(log: Log) -> None:
    raw = log.entries[2].entry
    link, _ = log.keys.link("audit:{shop}", 3, "", raw)
    log.entries[2] = replace(log.entries[2], link=write_link(link))


def cut_at_beginning(log: Log) -> None:
    del log.entries[:2]


def cut_at_end(log: Log) -> None:
    del log.entries[4:]


def all_removed(log: Log) -> None:
    log.entries.clear()


def head_removed(log: Log) -> None:
    log.head = None


def head_forged(log: Log) -> None:
    log.sign(ChainKeys([FOREIGN]))


def head_of_another_log(log: Log) -> None:
    log.head = write_head(log.keys.head("audit:{shop}", 6, log.digest, 1))


def head_set_back(log: Log) -> None:
    log.head = a_log(4).head


def cut_with_forged_head(log: Log) -> None:
    cut_at_end(log)
    log.head = write_head(ChainKeys([FOREIGN]).head(LOG, 4, "", 1))


def begun_anew(log: Log) -> None:
    log.seq, log.digest = 0, ""
    log.append(entry_at(7, CHAIN_BEGUN))


def begun_anew_before_a_process(log: Log) -> None:
    """Remove the log and its head: a process that runs on knows how many entries it had."""
    log.entries.clear()
    log.seq, log.digest = 0, ""
    log.append(replace(entry_at(7, CHAIN_BEGUN), data={"had": 6})).append(entry_at(8))


def trim_refused(log: Log) -> None:
    log.append(replace(entry_at(7, TRIM_REFUSED), data={"first": 1}))


def noticed_by_a_process(log: Log) -> None:
    log.append(replace(entry_at(7, ROLLED_BACK), data={"had": 9}))


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (changed, [(Problem.CHANGED, 3)]),
        (changed_under_foreign_key, [(Problem.CHANGED, 3)]),
        (newest_changed, [(Problem.CHANGED, 6)]),
        (unreadable, [(Problem.CHANGED, 3)]),
        (removed, [(Problem.MISSING, 4)]),
        (several_removed, [(Problem.MISSING, 5)]),
        (repeated, [(Problem.MOVED, 3)]),
        (cut_at_beginning, [(Problem.CUT_AT_BEGINNING, 0)]),
        (cut_at_end, [(Problem.CUT_AT_END, 0)]),
        (all_removed, [(Problem.CUT_AT_END, 0)]),
        (head_removed, [(Problem.NO_HEAD, 0)]),
        (head_forged, [(Problem.FORGED_HEAD, 0)]),
        (head_of_another_log, [(Problem.FORGED_HEAD, 0)]),
        (head_set_back, [(Problem.SET_BACK, 0)]),
        (cut_with_forged_head, [(Problem.FORGED_HEAD, 0)]),
        (begun_anew, [(Problem.BEGUN_ANEW, 1)]),
        (noticed_by_a_process, [(Problem.SET_BACK, 7)]),
        (begun_anew_before_a_process, [(Problem.SET_BACK, 1)]),
        (trim_refused, [(Problem.CUT_AT_BEGINNING, 7)]),
    ],
)
def test_tampering_is_found_where_it_is(
    tamper: Callable[[Log], None], expected: list[tuple[Problem, int]]
) -> None:
    log = a_log()
    tamper(log)
    assert found(log.report()) == expected


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (exchanged, (Problem.MOVED, 3)),
        (unreadable_link, (Problem.CHANGED, 0)),
        (inserted_of_another_log, (Problem.CHANGED, 3)),
        (changed_with_new_hashes, (Problem.CHANGED, 4)),
    ],
)
def test_other_tampering_is_found_among_its_effects(
    tamper: Callable[[Log], None], expected: tuple[Problem, int]
) -> None:
    log = a_log()
    tamper(log)
    assert expected in found(log.report())


# --------------------------------------------------------------- what is no fault


def test_entries_trimmed_by_the_service_are_not_missed() -> None:
    log = a_log()
    log.first = 3
    cut_at_beginning(log.sign())
    assert log.report().holds


def test_entries_trimmed_or_appended_during_a_verification_are_no_fault() -> None:
    log = a_log()
    before = log.head
    log.append(entry_at(7))
    log.first = 2
    log.sign()
    del log.entries[0]
    verifier = Verifier(LOG, log.keys, 10)
    for stored in log.entries:
        verifier.take(stored)
    assert verifier.finish(before, log.head).holds


def test_a_log_that_has_no_chain_says_so() -> None:
    assert found(Log().report()) == [(Problem.NO_CHAIN, 0)]
    assert found(Log().loose(1).loose(2).report()) == [(Problem.NO_CHAIN, 0)]


def test_entries_from_before_the_chain_are_counted_and_no_fault() -> None:
    log = Log().loose(1).loose(2).append(entry_at(3, CHAIN_BEGUN)).append(entry_at(4))
    report = log.report()
    assert (report.before_chain, report.of_upgrade, found(report)) == (("1000-0", "1001-0"), (), [])


@pytest.mark.parametrize(
    ("next_at", "now", "is_explained"),
    [
        (UPGRADE_MS, None, True),
        (UPGRADE_MS + 2, None, False),
        (None, UPGRADE_MS, True),
        (None, UPGRADE_MS + 2, False),
    ],
)
def test_entries_without_a_link_are_explained_by_an_upgrade_for_a_day(
    next_at: int | None, now: int | None, *, is_explained: bool
) -> None:
    log = Log().append(entry_at(1, CHAIN_BEGUN)).loose(2)
    if next_at:
        log.append(entry_at(next_at))
    report = log.report(now=now or 10)
    assert report.of_upgrade == (("1001-0",) if is_explained else ())
    assert found(report) == ([] if is_explained else [(Problem.NOT_IN_CHAIN, 0)])


@pytest.mark.parametrize("at_front", [False, True])
@pytest.mark.parametrize(
    ("begun", "kept_at", "is_explained"), [(1, 6, True), (0, 6, False), (1, 10 * DAY, False)]
)
def test_the_upgrade_is_counted_from_when_the_chain_began_and_not_from_what_is_kept(
    begun: int, kept_at: int, *, is_explained: bool, at_front: bool
) -> None:
    log = a_log(5).append(entry_at(kept_at))
    del log.entries[:5]
    log.first, log.begun = 6, begun
    log.sign().loose(kept_at)
    if at_front:
        log.entries.reverse()
    report = log.report(now=kept_at)
    assert [one.problem for one in report.findings] == [Problem.NOT_IN_CHAIN] * (not is_explained)
    assert (len(report.of_upgrade), report.before_chain) == (is_explained, ())


def test_a_chain_that_began_during_the_verification_is_no_fault() -> None:
    nothing = Verifier(LOG, ChainKeys([NEW]), 10)
    assert nothing.finish(None, a_log(1).head).holds
    log = a_log(2)
    some = Verifier(LOG, log.keys, 10)
    some.take(log.entries[0])
    assert some.finish(None, log.head).holds


def test_entries_of_writers_without_a_key_are_listed() -> None:
    log = a_log(2).append(replace(entry_at(3), actor=UNSIGNED + "cli:me@here"))
    report = log.append(replace(entry_at(4, ROLLED_BACK), actor=UNSIGNED + "service")).report()
    assert (report.unsigned, report.holds) == (("1002-0", "1003-0"), True)


# ------------------------------------------------------------------ keys in rotation


def rotated() -> Log:
    log = Log(OLD).append(entry_at(1, CHAIN_BEGUN)).append(entry_at(2)).append(entry_at(3))
    log.keys = ChainKeys([NEW, OLD])
    return log.append(entry_at(4)).append(entry_at(5)).append(entry_at(6))


@pytest.mark.parametrize("keys", [(NEW, OLD), (OLD, NEW), (NEW,)])
def test_a_log_holds_over_a_rotation_and_without_the_old_key(keys: tuple[str, ...]) -> None:
    assert rotated().report(*keys).holds


@pytest.mark.parametrize("keys", [(OLD,), (FOREIGN,)])
def test_a_log_cannot_be_verified_without_the_key_of_its_head(keys: tuple[str, ...]) -> None:
    assert (Problem.FORGED_HEAD, 0) in found(rotated().report(*keys))


@pytest.mark.parametrize("seq", [1, 2, 3])
def test_a_change_under_a_key_that_is_gone_is_found(seq: int) -> None:
    log = rotated()
    stored = log.entries[seq - 1]
    log.entries[seq - 1] = replace(stored, entry=stored.entry.replace(b'"target-', b'"forged-'))
    assert found(log.report(NEW)) == [(Problem.CHANGED, seq)]


# ------------------------------------------------------------- a head kept outside Redis


def test_a_log_set_back_head_and_all_is_found_by_a_head_kept_outside() -> None:
    kept = a_log().head
    assert a_log(4).report().holds  # Redis alone cannot tell
    assert found(a_log(4).report(expected=kept)) == [(Problem.SET_BACK, 0)]
    assert a_log(9).report(expected=kept).holds


def test_another_log_of_the_same_length_is_found_by_a_head_kept_outside() -> None:
    other = a_log(5).append(entry_at(600)).append(entry_at(7))
    assert found(other.report(expected=a_log().head)) == [(Problem.SET_BACK, 6)]


@pytest.mark.parametrize(
    "tamper", [changed, newest_changed, removed, several_removed, exchanged, unreadable_link]
)
def test_a_kept_head_only_adds_to_what_is_found(tamper: Callable[[Log], None]) -> None:
    """Its hash is that of the entries as they were, not of those that are there now."""
    log = a_log(6)
    kept = a_log(6).head
    log.append(entry_at(7)).append(entry_at(8))
    tamper(log)
    without = log.report().findings
    assert without
    assert set(without) <= set(log.report(expected=kept).findings)


def test_a_kept_head_that_was_trimmed_since_is_no_fault() -> None:
    log = a_log()
    kept = log.head
    log.append(entry_at(7)).append(entry_at(8))
    log.first = 8
    log.sign()
    del log.entries[:7]
    assert log.report(expected=kept).holds


def test_a_forged_kept_head_is_refused() -> None:
    forged = ChainKeys([FOREIGN]).head(LOG, 2, "", 1)
    with pytest.raises(StoreUnavailable):
        Verifier(LOG, ChainKeys([NEW]), 0).expect(forged)


# ---------------------------------------------------------------------- personal values


def test_a_personal_value_is_erased_without_breaking_the_chain() -> None:
    log = a_log(2).append(entry_at(3, forward_to_after=NUMBER)).append(entry_at(4))
    assert NUMBER.encode() not in log.entries[2].entry
    assert (log.report().holds, log.report().erased_values) == (True, 0)
    log.entries[2] = replace(log.entries[2], personal={})
    assert (log.report().holds, log.report().erased_values) == (True, 1)


def test_a_personal_value_that_was_replaced_is_found() -> None:
    log = a_log(2).append(entry_at(3, forward_to_after=NUMBER))
    other = Personal(bytes(16), "+15005550007")
    log.entries[2] = replace(log.entries[2], personal={"forward_to_after": other})
    assert found(log.report()) == [(Problem.CHANGED, 3)]


def test_a_persons_digest_needs_the_key() -> None:
    one, other = ChainKeys([NEW]), ChainKeys([FOREIGN])
    assert one.digest_of_person(NUMBER) == ChainKeys([NEW, OLD]).digest_of_person(NUMBER)
    assert one.digest_of_person(NUMBER) != other.digest_of_person(NUMBER)
