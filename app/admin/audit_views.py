"""Comparison of the service's log with the businesses' views of it, which hold copies.

Each log has its own chain. A view, or the service's log, that was removed as a whole with its
head has none that could be broken: the copies in the other log show it.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from app.admin.audit_entries import BEYOND_SHARE, WrittenEntry
from app.admin.audit_verify import ChainReport, Problem, StoredEntry, TamperFinding

# An entry goes to the service's log first: it may be on its way to the view, or replicas' clocks
# may differ.
MARGIN_MS: Final = 60_000
# Entries are nearly in order of their time: a log begins with the latest of its first few.
_FIRST: Final = 10


@dataclass(frozen=True, slots=True)
class _Copy:
    digest: bytes
    at: int
    id: str


@dataclass(slots=True)
class _Copies:
    """The entries of one log that are in another, too; `begins_at` is for one that was trimmed."""

    of_business: dict[str, list[_Copy]] = field(default_factory=lambda: defaultdict(list))
    beginning: list[int] = field(default_factory=list)

    def take(self, stored: StoredEntry, written: WrittenEntry) -> None:
        if len(self.beginning) < _FIRST:
            self.beginning.append(written.at)
        if written.business_id and BEYOND_SHARE not in written.data:
            digest = hashlib.sha256(stored.entry).digest()
            self.of_business[written.business_id].append(_Copy(digest, written.at, stored.id))

    def begins_at(self, report: ChainReport) -> int:
        """Return the time before which entries were trimmed; 0 where none were."""
        is_trimmed = report.head is not None and report.head.first > 1
        return max(self.beginning, default=0) + MARGIN_MS if is_trimmed else 0


class CopyCheck:
    """Compare the service's log with each view. Take the whole service's log first.

    `now_ms` (Unix ms) is from before the first entry was read.
    """

    def __init__(self, now_ms: int) -> None:
        self._settled_at = now_ms - MARGIN_MS
        self._service = _Copies()
        self._begins_at = 0
        self._view = _Copies()

    def take(self, stored: StoredEntry, written: WrittenEntry) -> None:
        """Take an entry of the service's log that has a link."""
        self._service.take(stored, written)

    def finish_service(self, report: ChainReport) -> None:
        """End the service's log."""
        self._begins_at = self._service.begins_at(report)

    def take_of_view(self, stored: StoredEntry, written: WrittenEntry) -> None:
        """Take an entry of a view that has a link."""
        self._view.take(stored, written)

    def finish_view(self, business_id: str, report: ChainReport) -> ChainReport:
        """End a view; return its report with what the two logs lack of each other."""
        view, self._view = self._view, _Copies()
        ours, theirs = self._service.of_business[business_id], view.of_business[business_id]
        known, copied = {one.digest for one in ours}, {one.digest for one in theirs}
        begins_at = view.begins_at(report)
        findings, uncopied = list(report.findings), []
        for run in _runs(ours, copied, begins_at, self._settled_at):
            # One alone: a process that ends between its two writes leaves that behind.
            if len(run) == 1 and copied & known:
                uncopied.append(run[0].id)
            else:
                what = f"{len(run)} entries of the service's log, from {run[0].id}, are missing"
                findings.append(TamperFinding(Problem.NOT_IN_VIEW, what))
        for run in _runs(theirs, known, self._begins_at, self._settled_at):
            what = f"the service's log lacks {len(run)} entries from this one on"
            findings.append(TamperFinding(Problem.NOT_IN_SERVICE_LOG, what, run[0].id))
        return replace(report, findings=tuple(findings), uncopied=tuple(uncopied))


def _runs(
    entries: list[_Copy], present: set[bytes], after: int, until: int
) -> Iterator[list[_Copy]]:
    """Return each row of entries that are not present, made after `after` and by `until`."""
    run: list[_Copy] = []
    for one in entries:
        if not after < one.at <= until:
            continue
        if one.digest not in present:
            run.append(one)
        elif run:
            yield run
            run = []
    if run:
        yield run
