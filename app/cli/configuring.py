"""`config`: plans and businesses, between Redis and a file; `redis-acl`: users of Redis."""

import argparse
import asyncio
import re
from collections.abc import Collection
from pathlib import Path

from app.admin.audit_chain import ChainKeys
from app.admin.redis_users import acl_commands, sentinel_commands
from app.administration.businesses import PERSONAL, SECRET
from app.administration.records import told
from app.businesses.exotel_pairs import digest_of
from app.cli.arguments import Commands, beside, chain_keys_beside, environment_of, secrets_read
from app.errors import ConfigurationError
from app.main.beside import CommandAudit, CommandRecords, audit_beside, records_beside
from app.plans import Business, Plan
from app.store.configuration import Stored
from app.store.redis import RedisStore
from app.tools import configuration
from app.tools.new_file import NewFile

ADMIN_TIMEOUT_SECONDS = 5.0


def add_to(commands: Commands) -> None:
    """Add `config` and `redis-acl`."""
    config = commands.add_parser("config", help="plans and businesses as a TOML file")
    config.add_argument(
        "action",
        choices=("export", "import", "diff"),
        help="write what is stored to the file; store what the file holds; show what differs, "
        "with status 1 when anything does",
    )
    config.add_argument("file", type=Path, metavar="FILE")
    config.add_argument("--dry-run", action="store_true", help="import: only say what it would do")
    config.add_argument(
        "--delete-missing",
        action="store_true",
        help="import: delete what is stored and not in the file",
    )
    config.set_defaults(run=_config)
    acl = commands.add_parser(
        "redis-acl",
        help="print the Redis users of the service, of workers and of metrics, as commands for "
        "redis-cli",
    )
    kind = acl.add_mutually_exclusive_group()
    kind.add_argument(
        "--group",
        type=_group,
        help="print a user for the workers of this group, who cannot change another group's state",
    )
    kind.add_argument(
        "--sentinel", action="store_true", help="print the user that Sentinels need for both"
    )
    acl.set_defaults(run=_redis_acl)


def _config(parsed: argparse.Namespace) -> int:
    redis_url, keys = beside(parsed.env_file).redis_url, chain_keys_beside(parsed.env_file)
    store = RedisStore.from_url(redis_url, ADMIN_TIMEOUT_SECONDS)
    shared = _shared_digests(parsed.env_file)
    return asyncio.run(_with_configuration(parsed, store, shared, redis_url, keys))


async def _apply(beside: CommandRecords, found: configuration.Differences) -> None:
    """Store what differs, and record each change in the audit log."""

    async def written(one: configuration.Difference) -> None:
        print(one)
        await _note(beside.audit, one)

    async def delete(stored: Stored[Business]) -> object:
        erasure, who = beside.records.erasure, beside.audit.who
        return await erasure.delete(who, stored.record.id, stored.version)

    await configuration.apply(beside.store, found, written, delete)


async def _note(audit: CommandAudit, one: configuration.Difference) -> None:
    before = one.before.record if one.before else None
    record = one.after or before
    done = "created" if before is None else "saved" if one.after else "deleted"
    if isinstance(record, Plan):
        data = told(before, record)[0] if isinstance(before, Plan) and one.after else {}
        await audit.log.note(audit.who, f"plan.{done}", record.name, data=data)
    elif isinstance(record, Business) and one.after is not None:
        # What is deleted was recorded with what was erased.
        blank = Business(record.id, record.name, record.plan, ())
        old = before if isinstance(before, Business) else blank
        data, personal = told(old, record, secret=SECRET, personal=PERSONAL)
        await audit.log.note(audit.who, f"business.{done}", record.id, record.id, data, personal)


def _shared_digests(env_file: Path | None) -> frozenset[str]:
    """Return the digests of the service's own Exotel pairs, as far as the environment has them."""
    environment = secrets_read(environment_of(env_file))
    keys, tokens = (
        environment.get(name, "").split(",") for name in ("EXOTEL_API_KEY", "EXOTEL_API_TOKEN")
    )
    pairs = zip(keys, tokens, strict=False)
    return frozenset(digest_of(f"{key.strip()}:{token.strip()}") for key, token in pairs)


async def _with_configuration(
    parsed: argparse.Namespace,
    store: RedisStore,
    shared: Collection[str],
    redis_url: str,
    keys: ChainKeys | None,
) -> int:
    try:
        if parsed.action == "export":
            async with audit_beside(redis_url, keys) as audit:
                await audit.note("configuration.exported", "plans and businesses")
            _write(parsed.file, await configuration.exported(store))
            return 0
        is_diff = parsed.action == "diff"
        text = _read(parsed.file)
        found = await configuration.differences(
            store,
            text,
            str(parsed.file),
            delete_missing=parsed.delete_missing or is_diff,
        )
        if not is_diff:
            await configuration.check_rules(store, found, text, shared)
        if is_diff or parsed.dry_run:
            for one in found:
                print(one)
            return int(is_diff and bool(found))
        async with records_beside(redis_url, keys) as beside:
            await _apply(beside, found)
        return 0
    finally:
        await store.close()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def _write(path: Path, text: str) -> None:
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error}") from error
        return
    with NewFile(path, force=True) as file:
        file.write(text.encode())
        file.keep()


def _group(text: str) -> str:
    """Read the name of a group: without what a Redis pattern or a rule gives a meaning."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        raise argparse.ArgumentTypeError(
            f"must be 1 to 64 of A-Z a-z 0-9 _ . -, is {text!r}; rename the group in its workers"
        )
    return text


def _redis_acl(parsed: argparse.Namespace) -> int:
    lines = sentinel_commands() if parsed.sentinel else acl_commands(parsed.group or "")
    print("\n".join(lines))
    return 0
