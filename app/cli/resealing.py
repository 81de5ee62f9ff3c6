"""`reseal`: businesses' secrets, and the audit log, under the first key of SECRET_KEY."""

import argparse
import asyncio
import time
from pathlib import Path

from app.admin.audit_log import AuditLog, command_principal
from app.admin.audit_redis import RedisAuditStore
from app.businesses.resealing import ResealReport, reseal
from app.cli.arguments import Commands, environment_beside
from app.errors import SettingsError
from app.main.audited import chain_keys_of
from app.main.parts import make_sealing
from app.settings import Settings
from app.store.redis import RedisStore

TIMEOUT_SECONDS = 5.0
_NEEDED = ("REDIS_URL", "SECRET_KEY")


def add_to(commands: Commands) -> None:
    """Add `reseal`."""
    command = commands.add_parser(
        "reseal",
        help="move businesses' secrets, and the audit log, to the first key of SECRET_KEY",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="only count; status 1 where something would move"
    )
    command.set_defaults(run=_reseal)


def _reseal(parsed: argparse.Namespace) -> int:
    return asyncio.run(reseal_stored(settings_of(parsed.env_file), dry_run=parsed.dry_run))


def settings_of(env_file: Path | None) -> Settings:
    """Return the two settings that resealing needs.

    Raises:
        SettingsError: one is missing or unusable.
    """
    environment = environment_beside(env_file)
    needed = {name: environment[name] for name in _NEEDED if environment.get(name)}
    settings = Settings.load({**needed, "PUBSUB_ADAPTER": "memory", "ALLOW_UNSIGNED": "public"})
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL", "is not set", "redis://localhost:6379/0")
    if not settings.secret_key:
        problem = "is not set: give the new key first, then the older ones, as the service has them"
        raise SettingsError("SECRET_KEY", problem, "new-key,older-key")
    return settings


async def reseal_stored(settings: Settings, *, dry_run: bool) -> int:
    """Reseal and print what was done; return the status: 1 where a key is still needed."""
    sealing, keys = make_sealing(settings), chain_keys_of(settings)
    assert settings.redis_url is not None
    assert sealing is not None
    url = settings.redis_url.reveal()
    store = RedisStore.from_url(url, TIMEOUT_SECONDS)
    chain = RedisAuditStore.from_url(url, TIMEOUT_SECONDS).sign_with(keys)
    try:
        report = await reseal(store, sealing, dry_run=dry_run)
        logs: list[str | None] = [None, *await store.business_ids()]
        older = left = [log for log in logs if await chain.has_older_signature(log)]
        if not dry_run:
            await _record(AuditLog(chain, time.time, time.monotonic), report, older)
            left = [log for log in older if await chain.has_older_signature(log)]
    finally:
        await chain.close()
        await store.close()
    if dry_run:
        print("Nothing is changed:")
    print(
        f"{report.moved.total()} secrets of {len(report.moved)} businesses and "
        f"{len(older)} audit logs move to the first key; {report.current} secrets were sealed "
        "with it already"
    )
    for line in report.unreadable:
        print(line)
    if report.unreadable or left or (dry_run and report.moved):
        print("Keep every key of SECRET_KEY: not everything opens with the first one alone")
        return 1
    print(
        "Everything opens with the first key. Remove the other keys of SECRET_KEY when every "
        "replica has had it as the first one for two minutes"
    )
    return 0


async def _record(audit: AuditLog, report: ResealReport, older: list[str | None]) -> None:
    """Record what was moved. Each entry also signs the head of its business's log anew."""
    who = command_principal()
    named = sorted({business_id for business_id in older if business_id} | set(report.moved))
    for business_id in named:
        data = {"secrets": report.moved[business_id]}
        await audit.note(who, "secrets.resealed", business_id, business_id, data)
    if older and not named:
        await audit.note(who, "secrets.resealed", "", data={"secrets": 0})
