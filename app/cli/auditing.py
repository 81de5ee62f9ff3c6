"""`audit`, `business` and `person`: the audit log verified, and data exported and erased."""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from app.admin.audit_chain import SERVICE_LOG, Head, parse_head, write_head
from app.admin.audit_entries import AuditEntry
from app.admin.audit_redis import RedisAuditStore
from app.admin.audit_scripts import LogKeys
from app.cli.arguments import EXIT_UNUSABLE, Commands, chain_keys_beside, environment_beside, tell
from app.cli.verifying import show_report, verified_logs
from app.errors import CommandFailed, SettingsError, StoreUnavailable
from app.main.beside import CommandRecords, audit_beside, records_beside
from app.records.business_export import ExportTally
from app.records.persons import MOST_LISTED, PersonReport
from app.tools.new_file import NewFile
from app.tools.terminal import escaped

EXIT_TAMPERED = 1
EXIT_LIVE = 1
EXIT_MISSING = 1

Run = Callable[[CommandRecords], Awaitable[int]]


def add_to(commands: Commands) -> None:
    """Add `audit`, `business` and `person`."""
    _add_audit(commands)
    _add_business(commands)
    _add_person(commands)


def _add_audit(commands: Commands) -> None:
    audit = commands.add_parser("audit", help="verify or export the audit log")
    actions = audit.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser(
        "verify", help="check the log's chain; status 1 where somebody has changed it"
    )
    verify.add_argument("--business", metavar="ID", help="only the log of this business")
    verify.add_argument(
        "--since-head",
        type=Path,
        metavar="FILE",
        help="also check that the log still has what it had when `audit head` wrote this file",
    )
    verify.set_defaults(run=_verify)
    head = actions.add_parser(
        "head", help="print the signed head of the log, to be kept outside Redis"
    )
    head.set_defaults(run=_head)
    export = actions.add_parser("export", help="write the log as JSON lines, the oldest first")
    export.add_argument("--business", metavar="ID", help="the log of this business")
    _add_output(export)
    export.set_defaults(run=_export_audit)


def _add_business(commands: Commands) -> None:
    business = commands.add_parser("business", help="export or delete all of a business's data")
    actions = business.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = actions.add_parser("export", help="write a business's data, as ZIP with recordings")
    export.add_argument("id", metavar="ID")
    export.add_argument(
        *("-o", "--output"),
        type=Path,
        metavar="FILE",
        required=True,
        help="ends with .jsonl for records alone, with .zip for audio too",
    )
    export.add_argument("--force", action="store_true", help="write over a file that is there")
    export.set_defaults(run=_export_business)
    delete = actions.add_parser(
        "delete", help="erase all of a business; its id cannot be used again"
    )
    delete.add_argument("id", metavar="ID")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    delete.set_defaults(run=_delete_business)


def _add_person(commands: Commands) -> None:
    person = commands.add_parser("person", help="find or erase a person by their number")
    actions = person.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, words in (
        ("find", "say where a person is named"),
        ("erase", "erase a person from all but live calls; status 1 where such are left"),
    ):
        action = actions.add_parser(name, help=words)
        action.add_argument(
            "number",
            metavar="NUMBER",
            help="such as +15005550006 or client:alice; - reads it from standard input",
        )
        action.add_argument("--business", metavar="ID", help="only in this business")
        action.add_argument("--json", action="store_true", help="print JSON")
        if name == "erase":
            action.add_argument("--yes", action="store_true", help="do not ask")
        action.set_defaults(run=_person)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: standard output"
    )
    parser.add_argument("--force", action="store_true", help="write over a file that is there")


def _redis_url(parsed: argparse.Namespace) -> str:
    found = environment_beside(parsed.env_file).get("REDIS_URL", "")
    if not found:
        raise SettingsError("REDIS_URL", "is not set", "redis://localhost:6379/0")
    return found


# ------------------------------------------------------------------------------- audit


def _verify(parsed: argparse.Namespace) -> int:
    keys = chain_keys_beside(parsed.env_file)
    if keys is None:
        problem = "is not set: the chain can be verified with the service's keys alone"
        raise SettingsError("SECRET_KEY", problem, "the same as the service has")
    expected = _read_head(parsed.since_head) if parsed.since_head else None
    if expected is not None and parsed.business:
        raise CommandFailed("--since-head is of the log of the whole service: omit --business")

    async def run() -> int:
        async with records_beside(_redis_url(parsed), keys) as beside:
            named = [parsed.business] if parsed.business else await beside.store.business_ids()
            reports = await verified_logs(beside.audit.store, keys, expected, named, _now_ms)
            kept = {LogKeys.of(id_).name for id_ in await beside.store.business_ids()}
        # A view goes with its business, which may be deleted meanwhile.
        reports = [one for one in reports if one.log in {SERVICE_LOG, *kept} or parsed.business]
        if parsed.business:
            del reports[0]
        for report in reports:
            show_report(report)
        return 0 if all(report.holds for report in reports) else EXIT_TAMPERED

    return asyncio.run(run())


def _now_ms() -> int:
    return int(time.time() * 1000)


def _read_head(path: Path) -> Head:
    try:
        head = parse_head(path.read_bytes())
    except OSError as error:
        raise CommandFailed(f"{path} cannot be read: {error.strerror}") from error
    if head is None:
        raise CommandFailed(f"{path} holds no head: write one with `media-bridge audit head`")
    return head


def _head(parsed: argparse.Namespace) -> int:
    keys = chain_keys_beside(parsed.env_file)

    async def run() -> bytes | None:
        async with audit_beside(_redis_url(parsed), keys) as audit:
            return await audit.store.head(None)

    raw = asyncio.run(run())
    head = parse_head(raw) if raw else None
    if head is None or (keys is not None and keys.signs_head(head) is not True):
        raise CommandFailed(
            "the audit log has no head that this SECRET_KEY has signed: `audit verify` says more"
        )
    print(write_head(head).decode())
    return 0


def _export_audit(parsed: argparse.Namespace) -> int:
    keys = chain_keys_beside(parsed.env_file)

    async def run() -> int:
        async with audit_beside(_redis_url(parsed), keys) as audit:
            await audit.note("audit.exported", parsed.business or "audit", parsed.business or "")
            lines = _audit_lines(audit.store, parsed.business)
            return await _written(parsed, lines)

    return asyncio.run(run())


async def _audit_lines(store: RedisAuditStore, business_id: str | None) -> AsyncIterator[bytes]:
    async for entry in store.entries(business_id):
        yield escaped(msgspec.json.encode(_as_data(entry)).decode()).encode() + b"\n"


def _as_data(entry: AuditEntry) -> dict[str, object]:
    """Return an entry as the API writes it."""
    return {
        "id": entry.id,
        "seq": entry.seq or None,
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "business_id": entry.business_id or None,
        "address": entry.address or None,
        "data": dict(entry.data),
    }


async def _written(parsed: argparse.Namespace, pieces: AsyncIterator[bytes]) -> int:
    """Write to the file that was asked for, which only its owner may read, or to the output."""
    if parsed.output is None:
        async for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        return 0
    with NewFile(parsed.output, force=parsed.force) as file:
        async for piece in pieces:
            file.write(piece)
        file.keep()
    return 0


# ---------------------------------------------------------------------------- business


def _export_business(parsed: argparse.Namespace) -> int:
    if parsed.output.suffix not in (".jsonl", ".zip"):
        raise CommandFailed("-o FILE must end with .jsonl (records) or .zip (records and audio)")

    async def run(beside: CommandRecords) -> int:
        export, who = beside.records.export, beside.audit.who
        has_audio = parsed.output.suffix == ".zip"
        await export.begin(who, parsed.id, "records and audio" if has_audio else "records")
        if not has_audio:
            return await _written(parsed, export.lines(who, parsed.id))
        tally = ExportTally()
        await _written(parsed, export.zipped(who, parsed.id, tally))
        print(f"{len(tally.written)} recordings exported, {len(tally.missing)} missing")
        if tally.missing:
            print("records.jsonl in the file has a line of the kind `missing` for each, and why")
        # Of a stream without any audio nothing is lost.
        return EXIT_MISSING if set(tally.missing.values()) - {"no_audio"} else 0

    return _with_records(parsed, run)


def _delete_business(parsed: argparse.Namespace) -> int:
    question = (
        f"Everything of {parsed.id} is erased for ever, and its id cannot be used again. "
        f"Export it first: media-bridge business export {parsed.id} -o FILE.zip"
    )
    if not parsed.yes and not _agrees(question, parsed.id):
        return EXIT_UNUSABLE

    async def run(beside: CommandRecords) -> int:
        erased = await beside.records.erasure.delete(beside.audit.who, parsed.id, None)
        for kind, count in erased.counts.items():
            print(f"{kind.replace('_', ' ')}: {count} erased")
        return 0

    return _with_records(parsed, run)


# ------------------------------------------------------------------------------ person


def _person(parsed: argparse.Namespace) -> int:
    number = sys.stdin.readline().strip() if parsed.number == "-" else parsed.number
    is_erasure = parsed.action == "erase"
    question = "Each call in which this person is named is erased as a whole, for ever."
    if is_erasure and not parsed.yes and not _agrees(question, "erase"):
        return EXIT_UNUSABLE

    async def run(beside: CommandRecords) -> int:
        persons, who = beside.records.persons, beside.audit.who
        ask = persons.erase if is_erasure else persons.find
        report = await ask(who, number, parsed.business)
        if parsed.json:
            print(msgspec.json.encode(_person_data(report)).decode())
        else:
            _show_person(report)
        return EXIT_LIVE if is_erasure and report.live else 0

    return _with_records(parsed, run)


def _show_person(report: PersonReport) -> None:
    if report.is_empty:
        print("nothing that is kept names this person")
    for kind, count in report.counts.items():
        if count:
            print(f"{kind.replace('_', ' ')}: {count} found")
    for call in report.calls[:MOST_LISTED]:
        live = " (live: erase again when it is over)" if call.is_live else ""
        print(f"  {call.business_id} {call.call_sid}{live}")
    if report.erased is not None:
        for kind, count in report.erased.counts.items():
            if count:
                print(f"{kind.replace('_', ' ')}: {count} erased")
    for business_id, field in report.settings:
        print(f"still named in the settings of {business_id}: {field}; change it there")


def _person_data(report: PersonReport) -> dict[str, object]:
    erased = report.erased
    return {
        "found": report.counts,
        "calls": [
            {"business_id": one.business_id, "call_sid": one.call_sid, "live": one.is_live}
            for one in report.calls
        ],
        "settings": [{"business_id": id_, "field": name} for id_, name in report.settings],
        "erased": None if erased is None else erased.counts,
    }


def _agrees(question: str, word: str) -> bool:
    """Ask on the terminal; without one the answer is no."""
    tell(question)
    if not sys.stdin.isatty():
        tell("Nothing was done: add --yes where nobody can be asked")
        return False
    tell(f"Type {word} to go on:")
    if sys.stdin.readline().strip() == word:
        return True
    tell("Nothing was done")
    return False


def _with_records(parsed: argparse.Namespace, run: Run) -> int:
    keys = chain_keys_beside(parsed.env_file)

    async def opened() -> int:
        async with records_beside(_redis_url(parsed), keys) as beside:
            return await run(beside)

    try:
        return asyncio.run(opened())
    except StoreUnavailable as error:
        raise CommandFailed(f"REDIS_URL: {error}") from error
