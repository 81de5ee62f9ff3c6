"""Exports of a business while the archive is busy: whole, or with a line for what is missing."""

import asyncio
import json
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from io import BytesIO
from typing import Any

import pytest

from app.admin.audit_log import AuditLog
from app.admin.audit_redis import RedisAuditStore
from app.admin.principal import Principal
from app.admin.roles import Role
from app.administration.businesses import Businesses
from app.administration.usage import UsageBook
from app.archive.library import MAX_WAITING, Library
from app.archive.redis import RedisArchive
from app.errors import ArchiveBusy
from app.records.business_export import MAX_EXPORTS, BusinessExport
from app.store.redis import RedisStore
from app.store.redis_access import RedisAccess
from tests.records.test_deletion import a_business, a_call_that_is_over, replicas
from tests.service import WAIT_SECONDS, Service
from tests.web.admins import Caller, bearer

__all__ = ["replicas"]
NO_PATIENCE, PATIENT = 0.0, 30.0
EXPORTS = 12


@pytest.fixture
async def parts(replicas: tuple[Service, Service]) -> AsyncIterator[tuple[Library, Any]]:
    """Give a library, and what makes an export of it with so much patience."""
    url = replicas[0].redis_url
    store, archive = RedisStore.from_url(url, WAIT_SECONDS), RedisArchive(url)
    access = RedisAccess.from_url(url, WAIT_SECONDS)
    logged = RedisAuditStore.from_url(url, WAIT_SECONDS).sign_with(None)
    audit, library = AuditLog(logged, time.time, time.monotonic), Library(archive)
    businesses = Businesses(store, audit)
    usage = UsageBook(store, businesses, time.time)

    def make(patience: float) -> BusinessExport:
        return BusinessExport(businesses, access, library, usage, audit, patience_seconds=patience)

    yield library, make
    for one in (store, archive, access, logged):
        await one.close()


async def content_of(export: BusinessExport, who: Principal) -> zipfile.ZipFile:
    pieces = [piece async for piece in export.zipped(who, who.business_id)]
    return zipfile.ZipFile(BytesIO(b"".join(pieces)))


def lines_of(file: zipfile.ZipFile) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read("records.jsonl").splitlines()]


def wavs_of(file: zipfile.ZipFile) -> list[str]:
    return [name for name in file.namelist() if name.endswith(".wav")]


async def test_an_export_waits_for_a_busy_archive_or_names_what_is_missing(
    replicas: tuple[Service, Service], parts: tuple[Library, Any]
) -> None:
    library, make = parts
    shop = a_business(replicas[0], "+15005550061")
    sid = await a_call_that_is_over(replicas[0], "+15005550061")
    who = Principal("key:test", Role.ADMIN, shop)
    others = ExitStack()
    for _ in range(MAX_WAITING.of_business):
        others.enter_context(library._waiting.use(shop))
    lacking = await content_of(make(NO_PATIENCE), who)
    assert wavs_of(lacking) == []
    *_, end = lines_of(lacking)
    (missing,) = [line for line in lines_of(lacking) if line["kind"] == "missing"]
    assert (missing["call_sid"], missing["reason"]) == (sid, "busy")
    assert end == {"kind": "end", "calls": 1, "recordings": 0, "missing": 1}

    waiting = asyncio.create_task(content_of(make(PATIENT), who))
    await asyncio.sleep(0.3)
    others.close()
    whole = await waiting
    assert [name.split("/")[1] for name in wavs_of(whole)] == [sid]
    assert lines_of(whole)[-1] == {"kind": "end", "calls": 1, "recordings": 1, "missing": 0}
    assert not [line for line in lines_of(whole) if line["kind"] == "missing"]


async def test_exports_of_a_business_leave_room_for_others_and_operators(
    parts: tuple[Library, Any],
) -> None:
    export = parts[1](PATIENT)
    shop, bank = (Principal("key:k", Role.ADMIN, name) for name in ("shop", "bank"))
    with ExitStack() as used:
        for _ in range(MAX_EXPORTS.of_business):
            used.enter_context(export.counted(shop))
        with pytest.raises(ArchiveBusy):
            used.enter_context(export.counted(shop))
        used.enter_context(export.counted(bank))
        used.enter_context(export.counted(Principal("operator", Role.OPERATOR)))


async def test_exports_at_once_are_all_whole(replicas: tuple[Service, Service]) -> None:
    one, _ = replicas
    shop = a_business(one, "+15005550062")
    sids = {await a_call_that_is_over(one, "+15005550062") for _ in range(2)}
    own = Caller(one, bearer(Caller(one).new_key(shop)["key"]))
    asked = [
        asyncio.to_thread(own, "GET", f"/businesses/{shop}/export.zip") for _ in range(EXPORTS)
    ]
    answered = await asyncio.gather(*asked)
    whole = [answer for answer in answered if answer.status_code == 200]
    busy = [answer.json()["error"] for answer in answered if answer.status_code == 503]
    assert whole
    assert busy == ["archive_busy"] * (EXPORTS - len(whole))
    for answer in whole:
        file = zipfile.ZipFile(BytesIO(answer.content))
        assert {name.split("/")[1] for name in wavs_of(file)} == sids
        end = lines_of(file)[-1]
        assert (end["recordings"], end["missing"]) == (2, 0)
