"""Stored secrets and the audit log move to the first key of SECRET_KEY, and none is lost."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping

import pytest
from redis.asyncio import Redis

from app.admin.audit_chain import ChainKeys
from app.admin.audit_log import AuditLog, command_principal
from app.admin.audit_redis import RedisAuditStore
from app.businesses.resealing import TRIES, reseal
from app.cli import main
from app.credentials.sealing import Sealing
from app.errors import StoreUnavailable
from app.plans import Business, Plan
from app.store.memory import MemoryStore
from app.store.redis import RedisStore

NEW, OLD, LOST = "n" * 32, "o" * 32, "l" * 32
TOKENS, WEBHOOK = "twilio_auth_tokens", "usage_webhook_secret"
SECRET = "0123456789abcdef0123456789abcdef"
ROTATING = Sealing((NEW, OLD))


def sealed(key: str, business_id: str, name: str, text: str = SECRET) -> str:
    return Sealing((key,)).seal(business_id, name, text)


@pytest.fixture(params=["memory", "redis"])
async def store(
    request: pytest.FixtureRequest, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[MemoryStore | RedisStore]:
    """Return a store with two businesses; the command finds the one in Redis."""
    made: MemoryStore | RedisStore = MemoryStore(time.monotonic)
    if request.param == "redis":
        url = redis_url.rsplit("/", 1)[0] + "/9"
        monkeypatch.setenv("REDIS_URL", url)
        async with Redis.from_url(url) as client:
            await client.flushdb()
        made = RedisStore.from_url(url, 20.0, lambda: math.inf)
    await made.add_plan(Plan("plain"))
    for name in ("bank", "shop"):
        await made.add_business(Business(name, name, "plain", ()))
    yield made
    await made.close()


in_redis = pytest.mark.parametrize("store", ["redis"], indirect=True)


async def opened_by(key: str, store: MemoryStore | RedisStore) -> dict[str, str]:
    """Return every stored secret that this key alone opens; the others raise."""
    found = {}
    for business_id in await store.business_ids():
        for name, text in (await store.sealed_secrets(business_id)).items():
            if ":" not in name:
                place = f"{business_id}/{name}"
                found[place] = Sealing((key,)).unseal(business_id, name, text)
    return found


async def test_secrets_of_older_keys_move_to_the_first_one(
    store: MemoryStore | RedisStore,
) -> None:
    await store.save_secrets(
        "shop",
        {
            TOKENS: sealed(OLD, "shop", TOKENS),
            f"{TOKENS}:count": "1",
            f"{TOKENS}:at": "5",
            WEBHOOK: (kept := sealed(NEW, "shop", WEBHOOK)),
        },
    )
    await store.save_secrets("bank", {TOKENS: sealed(OLD, "bank", TOKENS, "other")})
    counted = await reseal(store, ROTATING, dry_run=True)
    assert (dict(counted.moved), counted.current) == ({"bank": 1, "shop": 1}, 1)
    report = await reseal(store, ROTATING)
    assert (dict(report.moved), report.current) == ({"bank": 1, "shop": 1}, 1)
    assert await opened_by(NEW, store) == {
        f"bank/{TOKENS}": "other",
        f"shop/{TOKENS}": SECRET,
        f"shop/{WEBHOOK}": SECRET,
    }
    stored = await store.sealed_secrets("shop")
    assert (stored[WEBHOOK], stored[f"{TOKENS}:count"], stored[f"{TOKENS}:at"]) == (kept, "1", "5")
    again = await reseal(store, ROTATING)
    assert (dict(again.moved), again.current, again.is_complete) == ({}, 3, True)


async def test_what_no_key_opens_is_left_and_named(store: MemoryStore | RedisStore) -> None:
    lost = sealed(LOST, "shop", TOKENS)
    await store.save_secrets("shop", {TOKENS: lost, WEBHOOK: sealed(OLD, "shop", WEBHOOK)})
    report = await reseal(store, ROTATING)
    assert not report.is_complete
    assert [f"{TOKENS} of shop" in line for line in report.unreadable] == [True]
    assert dict(report.moved) == {"shop": 1}
    assert (await store.sealed_secrets("shop"))[TOKENS] == lost


async def test_a_secret_is_replaced_only_where_it_is_what_was_read(
    store: MemoryStore | RedisStore,
) -> None:
    await store.save_secrets("shop", {TOKENS: "one"})
    assert not await store.replace_secret("shop", TOKENS, "other", "two")
    assert not await store.replace_secret("shop", WEBHOOK, "one", "two")
    assert not await store.replace_secret("nobody", TOKENS, "one", "two")
    assert await store.sealed_secrets("shop") == {TOKENS: "one"}
    assert await store.replace_secret("shop", TOKENS, "one", "two")
    assert await store.sealed_secrets("shop") == {TOKENS: "two"}
    assert await store.sealed_secrets("nobody") == {}


class Edited:
    """A store in which somebody saves a secret between each reading and each writing."""

    def __init__(self, store: MemoryStore | RedisStore, edits: list[Mapping[str, str]]) -> None:
        self._store = store
        self._edits = edits

    async def business_ids(self) -> list[str]:
        return await self._store.business_ids()

    async def sealed_secrets(self, business_id: str) -> Mapping[str, str]:
        return await self._store.sealed_secrets(business_id)

    async def replace_secret(self, business_id: str, name: str, before: str, after: str) -> bool:
        if self._edits:
            await self._store.save_secrets(business_id, self._edits.pop(0))
        return await self._store.replace_secret(business_id, name, before, after)


@pytest.mark.parametrize("key", [OLD, NEW])
async def test_an_edit_between_reading_and_writing_is_not_lost(
    store: MemoryStore | RedisStore, key: str
) -> None:
    await store.save_secrets("shop", {TOKENS: sealed(OLD, "shop", TOKENS)})
    edited = Edited(store, [{TOKENS: sealed(key, "shop", TOKENS, "newer")}])
    await reseal(edited, ROTATING)
    assert await opened_by(NEW, store) == {f"shop/{TOKENS}": "newer"}


async def test_a_secret_that_is_removed_meanwhile_stays_removed(
    store: MemoryStore | RedisStore,
) -> None:
    await store.save_secrets("shop", {TOKENS: sealed(OLD, "shop", TOKENS)})
    report = await reseal(Edited(store, [{TOKENS: ""}]), ROTATING)
    assert (report.moved.total(), report.is_complete) == (0, True)
    assert await store.sealed_secrets("shop") == {}


async def test_a_secret_that_never_rests_is_given_up(store: MemoryStore | RedisStore) -> None:
    edits = [{TOKENS: sealed(OLD, "shop", TOKENS, str(n))} for n in range(TRIES + 1)]
    await store.save_secrets("shop", dict(edits.pop()))
    with pytest.raises(StoreUnavailable, match="try again"):
        await reseal(Edited(store, edits), ROTATING)


# ----------------------------------------------------------------------- the command


async def run(*arguments: str) -> int:
    """Run the command as a process would, which has an event loop of its own."""
    return await asyncio.to_thread(main, ["reseal", *arguments])


def chain(url: str, *keys: str) -> RedisAuditStore:
    return RedisAuditStore.from_url(url, 20.0).sign_with(ChainKeys(keys))


@in_redis
async def test_the_command_moves_secrets_and_audit_logs_to_the_first_key(
    store: RedisStore,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = redis_url.rsplit("/", 1)[0] + "/9"
    await store.save_secrets("shop", {TOKENS: sealed(OLD, "shop", TOKENS)})
    before = chain(url, OLD)
    await AuditLog(before, time.time, time.monotonic).note(
        command_principal(), "secrets.saved", "bank", "bank"
    )
    await before.close()
    monkeypatch.setenv("SECRET_KEY", f"{NEW},{OLD}")

    assert await run("--dry-run") == 1
    said = capsys.readouterr().out
    assert said.startswith("Nothing is changed:\n1 secrets of 1 businesses and 2 audit logs")
    assert (await opened_by(OLD, store)) == {f"shop/{TOKENS}": SECRET}

    assert await run() == 0
    said = capsys.readouterr().out
    assert "Everything opens with the first key" in said
    assert (await opened_by(NEW, store)) == {f"shop/{TOKENS}": SECRET}

    assert await run() == 0
    assert "0 secrets of 0 businesses and 0 audit logs" in capsys.readouterr().out

    # With the new key alone the logs go on, and no chain begins anew.
    after = chain(url, NEW)
    for business_id, actions in (
        (None, ["secrets.resealed", "secrets.resealed", "secrets.saved", "audit.chain_begun"]),
        ("bank", ["secrets.resealed", "secrets.saved", "audit.chain_begun"]),
    ):
        assert not await after.has_older_signature(business_id)
        assert [entry.action for entry in await after.page(business_id, "", 50)] == actions
    await AuditLog(after, time.time, time.monotonic).note(command_principal(), "x", "bank", "bank")
    assert [entry.action for entry in await after.page("bank", "", 50)][:2] == [
        "x",
        "secrets.resealed",
    ]
    await after.close()


@in_redis
async def test_the_command_says_which_secret_still_needs_a_key(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await store.save_secrets("shop", {TOKENS: sealed(LOST, "shop", TOKENS)})
    monkeypatch.setenv("SECRET_KEY", f"{NEW},{OLD}")
    assert await run() == 1
    said = capsys.readouterr().out
    assert f"{TOKENS} of shop cannot be read" in said
    assert "Keep every key of SECRET_KEY" in said


@pytest.mark.parametrize("missing", ["REDIS_URL", "SECRET_KEY"])
async def test_the_command_asks_for_what_it_needs(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("SECRET_KEY", NEW)
    monkeypatch.delenv(missing)
    assert await run() == 2
    assert capsys.readouterr().err.startswith(f"{missing} is not set")
