"""`media-bridge config`: what is stored as a file, and a file as what is stored."""

import asyncio
import math
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.cli import main
from app.media import Encoding
from app.plans import Business, Plan, TrackPlan
from app.store.configuration import Stored
from app.store.redis import RedisStore

ONE, TWO, THREE = "+15005550001", "+15005550002", "+15005550003"
GOLD = Plan(
    *("gold", 3, 60, TrackPlan.BOTH, Encoding.MULAW, 16000, 60, 600, True, 2.5),
    *(90, 100, math.inf, 5000),
    allowed_destinations=("own", "sip", "+4420"),
)
PLAIN = Plan("plain")
SHOP = Business(
    *("shop", 'The "Shop", Zoë\'s \\ 👋', "gold", (ONE, TWO), "sip:a@b", "Hi & welcome"),
    *("Busy.", "", "IN", ("a" * 64,), "Recorded.", "Nobody.", "https://e.com/u", "AC" + "0" * 32),
)
BANK = Business("bank", "Bank", "plain", (THREE,))


@pytest.fixture
async def store(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisStore]:
    """Give a store with two plans and two businesses, and let the command find it."""
    url = redis_url.rsplit("/", 1)[0] + "/8"
    monkeypatch.setenv("REDIS_URL", url)
    async with Redis.from_url(url) as client:
        await client.flushdb()
    # The command is another process, as it were: nothing is remembered here.
    store = RedisStore.from_url(url, 20.0, lambda: math.inf)
    for plan in (GOLD, PLAIN):
        await store.add_plan(plan)
    for business in (SHOP, BANK):
        await store.add_business(business)
    await store.save_secrets("shop", {"twilio_auth_tokens": "sealed"})
    yield store
    await store.close()


async def run(*arguments: str | Path) -> int:
    """Run the command as a process would, which has an event loop of its own."""
    return await asyncio.to_thread(main, ["config", *map(str, arguments)])


async def records(store: RedisStore) -> tuple[list[Plan], list[Business]]:
    plans = [stored.record for stored in await store.stored_plans()]
    return plans, [stored.record for stored in await store.stored_businesses()]


async def test_what_is_exported_is_imported_as_it_was(store: RedisStore, tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    assert await run("export", file) == 0
    assert "sealed" not in file.read_text(encoding="utf-8")
    assert await run("diff", file) == 0
    # Into another Redis: the ids of deleted businesses could not be used again in this one.
    async with Redis.from_url(os.environ["REDIS_URL"]) as client:
        await client.flushdb()
    assert await run("diff", file) == 1
    assert await run("import", file) == 0
    assert await records(store) == ([GOLD, PLAIN], [BANK, SHOP])
    assert await run("diff", file) == 0
    assert await store.business_of_number(TWO) == SHOP


async def test_an_import_changes_what_the_file_names_and_keeps_the_rest(
    store: RedisStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "some.toml"
    file.write_text(
        "[plans.plain]\nframe_ms = 60\n[plans.new]\n[businesses.new]\n"
        'name = "New"\nplan = "gold"\nnumbers = []\n'
    )
    assert await run("import", file) == 0
    assert capsys.readouterr().out.splitlines() == [
        "+ plan new",
        "~ plan plain: frame_ms 20 → 60",
        "+ business new",
    ]
    plans, businesses = await records(store)
    assert plans == [GOLD, Plan("new"), replace(PLAIN, frame_ms=60)]
    assert [business.id for business in businesses] == ["bank", "new", "shop"]
    assert await store.stored_business("shop") == Stored(SHOP, 1)
    assert await store.sealed_secrets("shop") == {"twilio_auth_tokens": "sealed"}


async def test_numbers_move_from_one_to_the_other(store: RedisStore, tmp_path: Path) -> None:
    file = tmp_path / "swapped.toml"
    await run("export", file)
    text = file.read_text(encoding="utf-8")
    text = text.replace(ONE, "+1first").replace(THREE, ONE).replace("+1first", THREE)
    file.write_text(text, encoding="utf-8")
    assert await run("import", file) == 0
    assert (await store.business_of_number(ONE) or SHOP).id == "bank"
    assert (await store.business_of_number(THREE) or BANK).id == "shop"
    assert await store.sealed_secrets("shop") == {"twilio_auth_tokens": "sealed"}


async def test_a_dry_run_and_a_diff_write_nothing(
    store: RedisStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new.toml"
    file.write_text("[plans.new]\n", encoding="utf-8")
    assert await run("import", "--dry-run", "--delete-missing", file) == 0
    expected = ["- business bank", "- business shop", "+ plan new", "- plan gold", "- plan plain"]
    assert capsys.readouterr().out.splitlines() == expected
    assert await run("diff", file) == 1
    assert capsys.readouterr().out.splitlines() == expected
    assert await records(store) == ([GOLD, PLAIN], [BANK, SHOP])


async def test_what_is_missing_is_deleted_when_that_is_asked_for(
    store: RedisStore, tmp_path: Path
) -> None:
    file = tmp_path / "new.toml"
    file.write_text("[plans.new]\n", encoding="utf-8")
    assert await run("import", "--delete-missing", file) == 0
    assert await records(store) == ([Plan("new")], [])
    assert await store.sealed_secrets("shop") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[plans.new", "is not TOML"),
        ("[plans.good]\n[plans.bad]\nframe_ms = 1\n", "[plans.bad] frame_ms: must be 20 to 1000"),
        ('[plans.good]\n[businesses.b]\nname = "B"\nplan = "gone"\nnumbers = []\n', "no plan"),
        (
            f'[plans.good]\n[businesses.b]\nname = "B"\nplan = "good"\nnumbers = ["{ONE}"]\n',
            "belongs to",
        ),
    ],
)
async def test_a_file_that_is_wrong_anywhere_is_stored_nowhere(
    store: RedisStore, tmp_path: Path, text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text, encoding="utf-8")
    assert await run("import", file) == 2
    assert problem in capsys.readouterr().err
    assert await records(store) == ([GOLD, PLAIN], [BANK, SHOP])


async def test_a_plan_that_what_stays_has_is_not_deleted_by_a_file(
    store: RedisStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gone.toml"
    assert await run("import", file) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert await run("export", tmp_path / "no" / "folder.toml") == 2
    assert "cannot be written" in capsys.readouterr().err
    await store.take_slot("shop", "CA1", 9, 60.0)
    file.write_text("[plans.plain]\n", encoding="utf-8")
    assert await run("import", "--delete-missing", file) == 2
    assert "calls of this business are live" in capsys.readouterr().err
    assert await store.business("shop") == SHOP
    assert await store.plan("gold") == GOLD


async def test_an_import_that_forwards_where_no_plan_allows_stores_nothing(
    store: RedisStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all.toml"
    assert await run("export", file) == 0
    good = file.read_text(encoding="utf-8")
    before = await records(store)
    # The bank's number is of the United States, and its plan allows its own country.
    file.write_text(good.replace('forward_to = ""', 'forward_to = "+18765550199"'), "utf-8")
    for more in ((), ("--dry-run",)):
        assert await run("import", file, *more) != 0
        assert "[businesses.bank] forward_to is in JM" in capsys.readouterr().err
    assert await records(store) == before
    assert await run("diff", file) == 1  # a comparison stores nothing, and so refuses nothing
    file.write_text(good.replace('forward_to = ""', 'forward_to = "+14155550199"'), "utf-8")
    assert await run("import", file) == 0


async def test_an_import_takes_no_new_pair_that_is_short_or_the_services_own(
    store: RedisStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXOTEL_API_KEY", "other,shared-key-of-all")
    monkeypatch.setenv("EXOTEL_API_TOKEN", "other,shared-token-of-all")
    file = tmp_path / "all.toml"
    assert await run("export", file) == 0
    good = file.read_text(encoding="utf-8")
    before = await records(store)
    for pair, problem in (
        ("short:own-token-of-the-bank", "at least 16 characters"),
        ("shared-key-of-all:shared-token-of-all", "the service's own pair"),
    ):
        file.write_text(good.replace("exotel_pairs = []", f'exotel_pairs = ["{pair}"]'), "utf-8")
        assert await run("import", file) != 0
        told = capsys.readouterr().err
        assert "[businesses.bank] exotel_pairs: " in told
        assert problem in told
        assert "token" not in told
    assert await records(store) == before
    strong = 'exotel_pairs = ["own-key-of-the-bank:own-token-of-the-bank"]'
    file.write_text(good.replace("exotel_pairs = []", strong), "utf-8")
    assert await run("import", file) == 0
