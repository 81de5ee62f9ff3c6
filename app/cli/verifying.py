"""Verification of the audit log: every log is read and checked, and the result is printed."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from app.admin.audit_chain import ChainKeys, Head
from app.admin.audit_entries import WrittenEntry
from app.admin.audit_redis import RedisAuditStore
from app.admin.audit_scripts import LogKeys
from app.admin.audit_verify import ChainReport, StoredEntry, Verifier
from app.admin.audit_views import CopyCheck

# Ids in one warning.
MOST_SHOWN: Final = 5


async def verified_logs(
    store: RedisAuditStore,
    keys: ChainKeys,
    expected: Head | None,
    business_ids: Iterable[str],
    clock_ms: Callable[[], int],
) -> list[ChainReport]:
    """Return reports of the service's log, and of views, each compared with it."""
    now_ms = clock_ms()
    copies = CopyCheck(now_ms)
    verifier = Verifier(LogKeys.of(None).name, keys, now_ms)
    if expected is not None:
        verifier.expect(expected)
    report = await _read(store, None, verifier, copies.take)
    copies.finish_service(report)
    reports = [report]
    for business_id in business_ids:
        verifier = Verifier(LogKeys.of(business_id).name, keys, clock_ms())
        report = await _read(store, business_id, verifier, copies.take_of_view)
        reports.append(copies.finish_view(business_id, report))
    return reports


async def _read(
    store: RedisAuditStore,
    business_id: str | None,
    verifier: Verifier,
    take_copy: Callable[[StoredEntry, WrittenEntry], None],
) -> ChainReport:
    before = await store.head(business_id)
    async for stored in store.stored(business_id):
        written = verifier.take(stored)
        if written is not None:
            take_copy(stored, written)
    return verifier.finish(before, await store.head(business_id))


def show_report(report: ChainReport) -> None:
    """Print what was found of one log."""
    if report.holds and not (report.entries or report.uncopied):
        return
    state = "holds" if report.holds else "DOES NOT HOLD"
    kept = f", {report.head.first} to {report.head.seq} in its chain" if report.head else ""
    print(f"{report.log}: {state}; {report.entries} entries{kept}")
    if report.begun_at:
        print(
            f"  the chain began at {_time(report.begun_at)}; if it did earlier, somebody has "
            "removed the log: check with --since-head, and a head that was kept outside Redis"
        )
    if report.erased_values:
        print(f"  {report.erased_values} personal values have been erased")
    for ids, words in (
        (report.before_chain, "were written before the chain began: nothing protects them"),
        (report.of_upgrade, "have no link, as version 0.1 writes them during the upgrade"),
        (report.unsigned, "are of commands without SECRET_KEY: nobody vouches for them"),
        (report.uncopied, "of the service's log are missing: a process ended while it wrote"),
    ):
        if ids:
            more = " …" if len(ids) > MOST_SHOWN else ""
            print(f"  warning: {len(ids)} entries {words} ({', '.join(ids[:MOST_SHOWN])}{more})")
    for finding in report.findings:
        print(f"  {finding}")


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
