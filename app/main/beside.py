"""The parts that commands beside the service use, on its Redis."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from app.admin.audit_chain import ChainKeys
from app.admin.audit_log import AuditLog, command_principal
from app.admin.audit_redis import RedisAuditStore
from app.admin.principal import Principal
from app.administration.businesses import Businesses
from app.administration.usage import UsageBook
from app.archive.library import Library
from app.archive.redis import RedisArchive
from app.records import Records
from app.records.business_erasure import BusinessErasure
from app.records.business_export import BusinessExport
from app.records.kept_data import RedisKeptData
from app.records.persons import Persons
from app.store.redis import RedisStore
from app.store.redis_access import RedisAccess

TIMEOUT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class CommandAudit:
    """The audit log for a command, and who runs it."""

    log: AuditLog
    store: RedisAuditStore
    who: Principal

    async def note(
        self, action: str, target: str, business_id: str = "", **data: str | int
    ) -> None:
        """Record what a command does."""
        await self.log.note(self.who, action, target, business_id, data)


@dataclass(frozen=True, slots=True)
class CommandRecords:
    """What is kept, the businesses it is of, and the audit log."""

    store: RedisStore
    records: Records
    audit: CommandAudit


@asynccontextmanager
async def audit_beside(redis_url: str, keys: ChainKeys | None) -> AsyncIterator[CommandAudit]:
    """Open the audit log for a command; without `keys` a service links its entries later."""
    store = RedisAuditStore.from_url(redis_url, TIMEOUT_SECONDS).sign_with(keys)
    # A command with another SECRET_KEY than the service must not begin a chain of its own.
    store.begins_chains = False
    try:
        yield CommandAudit(AuditLog(store, time.time, time.monotonic), store, command_principal())
    finally:
        await store.close()


async def note_command(
    redis_url: str,
    keys: ChainKeys | None,
    action: str,
    target: str,
    business_id: str = "",
    **data: str | int,
) -> None:
    """Record one thing that a command does; it does it all the same where that cannot be."""
    async with audit_beside(redis_url, keys) as audit:
        await audit.note(action, target, business_id, **data)


@asynccontextmanager
async def records_beside(redis_url: str, keys: ChainKeys | None) -> AsyncIterator[CommandRecords]:
    """Open what is kept, for a command."""
    store = RedisStore.from_url(redis_url, TIMEOUT_SECONDS)
    access = RedisAccess.from_url(redis_url, TIMEOUT_SECONDS)
    archive = RedisArchive(redis_url, seconds=TIMEOUT_SECONDS)
    kept = RedisKeptData.from_url(redis_url, TIMEOUT_SECONDS)
    library = Library(archive)
    async with audit_beside(redis_url, keys) as audit:
        businesses = Businesses(store, audit.log)
        usage = UsageBook(store, businesses, time.time)
        records = Records(
            BusinessErasure(store, access, library, kept, store, audit.log, time.time),
            BusinessExport(businesses, access, library, usage, audit.log),
            Persons(
                *(store, access, library, kept, store, audit.log),
                digest=keys.digest_of_person if keys else lambda identity: "",
            ),
        )
        try:
            yield CommandRecords(store, records, audit)
        finally:
            for one in (store, access, archive, kept):
                await one.close()
