"""The audit log as it is kept: pages, personal values, and in Redis a chain over all replicas."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import msgspec
import pytest
from redis.asyncio import Redis

from app.admin.audit_chain import (
    CHAIN_BEGUN,
    ROLLED_BACK,
    TRIM_REFUSED,
    ChainKeys,
    Link,
    write_link,
)
from app.admin.audit_entries import ERASED, AuditEntry, write_entry
from app.admin.audit_log import REFUSALS_STOPPED, AuditLog
from app.admin.audit_redis import RedisAuditStore
from app.admin.audit_scripts import COUNTS_KEY, LogKeys
from app.admin.audit_store import AuditStore, MemoryAuditStore
from app.admin.audit_verify import ChainReport, Problem, Verifier
from app.admin.principal import Principal
from app.admin.roles import Role
from app.cli.verifying import verified_logs
from app.errors import StoreUnavailable
from tests.redis_groups import Cluster
from tests.store.conftest import PATIENT, emptied

KEYS = ChainKeys(["a secret key of the service"])
OTHER_KEYS = ChainKeys(["a secret key of somebody else"])
NUMBER, OTHER_NUMBER = "+15005550006", "+15005550007"
ENTRY = AuditEntry(1_000, "operator", "plan.saved", "premium", address="192.0.2.1")


def entry(number: int, business_id: str = "", **personal: str) -> AuditEntry:
    data = {"n": number}
    return AuditEntry(
        *(number, "operator", "plan.saved", f"p{number}", business_id), data, personal=personal
    )


@pytest.fixture(params=["memory", "redis", "redis without keys", "cluster"])
async def store(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[AuditStore]:
    """Give an empty log, once of each kind."""
    if request.param == "memory":
        yield MemoryAuditStore()
        return
    if request.param == "cluster":
        running: Cluster = request.getfixturevalue("nodes")
        for node in running.masters:
            node.command("FLUSHALL")
        url = running.url
    else:
        url = await emptied(redis_url)
    kept = RedisAuditStore.from_url(url, PATIENT)
    kept.sign_with(None if request.param == "redis without keys" else KEYS)
    yield kept
    await kept.close()


@pytest.fixture
async def replicas(redis_url: str) -> AsyncIterator[tuple[RedisAuditStore, ...]]:
    """Give four replicas on one empty Redis."""
    url = await emptied(redis_url)
    made = tuple(RedisAuditStore.from_url(url, PATIENT).sign_with(KEYS) for _ in range(4))
    yield made
    for one in made:
        await one.close()


@pytest.fixture
async def redis(redis_url: str, replicas: object) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url.rsplit("/", 1)[0] + "/9") as client:
        yield client


async def verified(
    store: RedisAuditStore, business_id: str | None = None, keys: ChainKeys = KEYS
) -> ChainReport:
    verifier = Verifier(LogKeys.of(business_id).name, keys, 2_000)
    before = await store.head(business_id)
    async for stored in store.stored(business_id):
        verifier.take(stored)
    return verifier.finish(before, await store.head(business_id))


def done(found: list[AuditEntry]) -> list[AuditEntry]:
    """Leave out what the log says of itself."""
    return [one for one in found if one.action != CHAIN_BEGUN]


# ---------------------------------------------------------------------- every log


async def test_a_log_is_read_page_by_page_the_latest_first(store: AuditStore) -> None:
    for number in range(7):
        appended = await store.append(entry(number, "shop" if number % 2 else "bank"))
        assert appended.id
    first = await store.page(None, limit=3)
    assert [one.data["n"] for one in first] == [6, 5, 4]
    second = done(await store.page(None, first[-1].id, 10))
    assert [one.data["n"] for one in second] == [3, 2, 1, 0]
    assert [one.target for one in done(await store.page("shop"))] == ["p5", "p3", "p1"]
    assert await store.page("nobody") == []


async def test_what_concerns_no_business_is_in_no_businesss_log(store: AuditStore) -> None:
    await store.append(ENTRY)
    assert await store.page("") == []
    assert await store.page("shop") == []
    (found,) = done(await store.page(None))
    assert replace(found, id="", seq=0) == ENTRY


@pytest.mark.parametrize("before", ["0-0", "0-1", "1-0", "0-18446744073709551615"])
async def test_nothing_is_before_the_first_id(store: AuditStore, before: str) -> None:
    await store.append(ENTRY)
    if not isinstance(store, MemoryAuditStore):
        assert await store.page(None, before) == []


async def test_a_personal_value_is_read_until_it_is_erased(store: AuditStore) -> None:
    await store.append(entry(1, "shop", forward_to_before=NUMBER, forward_to_after=OTHER_NUMBER))
    await store.append(entry(2, "bank", forward_to_after=NUMBER))

    async def values(business_id: str | None) -> list[str]:
        found = done(await store.page(business_id))
        return [str(one.data[name]) for one in found for name in sorted(one.data) if name != "n"]

    assert await values("shop") == [OTHER_NUMBER, NUMBER]

    def matches(value: str) -> bool:
        return value == NUMBER

    assert await store.count_personal(matches, None) == 2
    assert await store.count_personal(matches, "shop") == 1
    assert await store.redact(matches, "shop") == 1
    assert await values("shop") == [OTHER_NUMBER, ERASED]
    assert await values(None) == [NUMBER, OTHER_NUMBER, ERASED]
    assert await store.redact(matches, None) == 1
    assert await store.redact(matches, None) == 0
    assert await values("bank") == [ERASED]


async def test_a_deleted_businesss_view_is_gone_and_its_personal_values(store: AuditStore) -> None:
    await store.append(entry(1, "shop", forward_to_after=NUMBER))
    await store.append(entry(2, "bank", forward_to_after=NUMBER))
    assert await store.drop("shop") >= 1
    assert await store.page("shop") == []
    assert [one.data["forward_to_after"] for one in done(await store.page(None))] == [
        NUMBER,
        ERASED,
    ]
    assert len(done(await store.page("bank"))) == 1
    assert await store.drop("shop") == 0


async def test_refusals_are_recorded_so_often_a_day_and_no_more(store: AuditStore) -> None:
    assert [await store.count_refusal("shop") for _ in range(5)] == [1, 2, 3, 4, 5]
    assert await store.count_refusal("bank") == 1
    await store.drop("shop")
    assert await store.count_refusal("shop") == 1
    assert await store.count_refusal("bank") == 2


# ------------------------------------------------------------------ the chain in Redis


async def test_writers_in_several_replicas_make_one_chain(
    replicas: tuple[RedisAuditStore, ...],
) -> None:
    await asyncio.gather(
        *(replica.append(entry(number, "shop")) for number in range(25) for replica in replicas)
    )
    for business_id in (None, "shop"):
        report = await verified(replicas[0], business_id)
        assert report.findings == ()
        assert report.entries == 101
        assert report.head is not None
        assert report.head.seq == 101
    found = await replicas[0].page(None, limit=200)
    assert [one.seq for one in found] == list(range(101, 0, -1))
    assert (found[-1].action, found[-1].actor) == (CHAIN_BEGUN, "service")


async def test_a_chain_is_kept_in_a_cluster(nodes: Cluster) -> None:
    for node in nodes.masters:
        node.command("FLUSHALL")
    one, two = (RedisAuditStore.from_url(nodes.url, PATIENT).sign_with(KEYS) for _ in range(2))
    await asyncio.gather(*(to.append(entry(n, "shop")) for n in range(5) for to in (one, two)))
    assert (await verified(one)).entries == 11
    assert (await verified(one)).holds
    assert (await verified(one, "shop")).holds
    for each in (one, two):
        await each.close()


async def test_a_trimmed_log_holds_and_its_personal_values_go_with_it(
    replicas: tuple[RedisAuditStore, ...], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.admin.audit_redis.TRIMMED_AT_ONCE", 10)
    replicas[0].most_entries = 20
    for number in range(60):
        await replicas[0].append(entry(number, forward_to_after=NUMBER))
    report = await verified(replicas[0])
    assert report.findings == ()
    assert 20 <= report.entries <= 31
    assert await redis.hlen("held:{audit}:personal") == report.entries
    first = (await replicas[1].page(None, limit=200))[-1]
    await redis.xdel("audit", first.id)
    assert [one.problem for one in (await verified(replicas[0])).findings] == [
        Problem.CUT_AT_BEGINNING
    ]


async def test_entries_of_0_1_are_read_and_told_from_tampering(
    replicas: tuple[RedisAuditStore, ...], redis: Redis
) -> None:
    old = (
        b'{"at":1,"actor":"operator","action":"key.issued","target":"k","business_id":"","data":{}}'
    )
    await redis.xadd("audit", {"entry": old})
    await replicas[0].append(ENTRY)
    await redis.xadd("audit", {"entry": old})
    await replicas[0].append(ENTRY)
    found = await replicas[0].page(None)
    assert [(one.target, one.seq) for one in found] == [
        ("premium", 3),
        ("k", 0),
        ("premium", 2),
        ("audit", 1),
        ("k", 0),
    ]
    report = await verified(replicas[0])
    assert (len(report.before_chain), len(report.of_upgrade), report.holds) == (1, 1, True)


async def test_version_0_1_reads_what_is_written(
    replicas: tuple[RedisAuditStore, ...], redis: Redis
) -> None:
    class EntryOf01(msgspec.Struct):
        at: int
        actor: str
        action: str
        target: str
        business_id: str = ""
        data: dict[str, str | int] = {}
        id: str = ""

    await replicas[0].append(entry(5, "shop", forward_to_after=NUMBER))
    for key in ("audit", "audit:{shop}"):
        ((_, fields),) = await redis.xrevrange(key, count=1)
        read = msgspec.json.decode(fields[b"entry"], type=EntryOf01)
        assert (read.at, read.target, read.data) == (5, "p5", {"n": 5})
        assert NUMBER.encode() not in fields[b"entry"] + fields[b"link"]


# ------------------------------------------------------------ somebody changes the log


async def test_a_log_without_its_head_begins_anew_and_shows_it(
    replicas: tuple[RedisAuditStore, ...], redis: Redis
) -> None:
    for number in range(3):
        await replicas[0].append(entry(number))
    await redis.delete("held:{audit}:head")
    await replicas[1].append(entry(9))
    await replicas[0].append(entry(10))
    # The second: this replica knows that there were more entries.
    problems = [one.problem for one in (await verified(replicas[0])).findings]
    assert problems == [Problem.BEGUN_ANEW, Problem.SET_BACK]


async def test_a_forged_head_is_not_extended(
    replicas: tuple[RedisAuditStore, ...], redis: Redis
) -> None:
    """Otherwise the next entry would sign for a log that was cut."""
    for number in range(5):
        await replicas[0].append(entry(number))
    ids = [entry_id for entry_id, _ in await redis.xrange("audit")]
    await redis.xdel("audit", *ids[3:])
    third = [stored async for stored in replicas[0].stored(None)][-1]
    assert third.link is not None
    forged = OTHER_KEYS.head("audit", 3, "0" * 64, 1)
    await redis.set("held:{audit}:head", msgspec.json.encode(forged))
    await replicas[1].append(entry(9))
    assert Problem.BEGUN_ANEW in {one.problem for one in (await verified(replicas[0])).findings}


async def test_a_process_notices_a_log_that_was_set_back(
    replicas: tuple[RedisAuditStore, ...], redis: Redis
) -> None:
    for number in range(3):
        await replicas[0].append(entry(number))
    earlier = await redis.get("held:{audit}:head")
    for number in range(3, 6):
        await replicas[0].append(entry(number))
    ids = [entry_id for entry_id, _ in await redis.xrange("audit")]
    await redis.xdel("audit", *ids[4:])
    await redis.set("held:{audit}:head", earlier)
    assert (await verified(replicas[0])).holds  # Redis alone cannot tell
    await replicas[0].append(entry(9))
    found = await replicas[0].page(None, limit=2)
    assert [one.action for one in found] == ["plan.saved", ROLLED_BACK]
    assert found[1].data["had"] == 7
    assert [one.problem for one in (await verified(replicas[0])).findings] == [Problem.SET_BACK]


async def test_another_services_log_is_not_taken_for_its_own(
    replicas: tuple[RedisAuditStore, ...],
) -> None:
    await replicas[0].append(ENTRY)
    report = await verified(replicas[0], keys=OTHER_KEYS)
    assert [one.problem for one in report.findings] == [Problem.FORGED_HEAD]


async def problems_of_all(
    store: RedisAuditStore, business_ids: tuple[str, ...] = ("shop",)
) -> dict[str, set[Problem]]:
    """Verify as `audit verify` does, an hour later; return what was found, by log."""
    now_ms = int(time.time() * 1000) + 3_600_000
    reports = await verified_logs(store, KEYS, None, business_ids, lambda: now_ms)
    return {
        one.log: {finding.problem for finding in one.findings} for one in reports if not one.holds
    }


async def test_logs_that_nobody_touched_hold_together(
    replicas: tuple[RedisAuditStore, ...],
) -> None:
    await asyncio.gather(
        *(
            replica.append(entry(number, "shop" if number % 2 else "bank"))
            for number in range(10)
            for replica in replicas
        )
    )
    assert await problems_of_all(replicas[0], ("shop", "bank", "nobody")) == {}


WHOLE_LOG = ("audit", "held:{audit}:head", "held:{audit}:personal")
WHOLE_VIEW = ("audit:{shop}", "audit:{shop}:head", "audit:{shop}:personal")


@pytest.mark.parametrize("goes_on", ["nothing", "the same process", "another process"])
async def test_a_view_that_was_removed_is_found(
    replicas: tuple[RedisAuditStore, ...], redis: Redis, goes_on: str
) -> None:
    for number in range(3):
        await replicas[0].append(entry(number, "shop"))
    await redis.delete(*WHOLE_VIEW)
    if goes_on != "nothing":
        await replicas[goes_on == "another process"].append(entry(9, "shop"))
    found = (await problems_of_all(replicas[0]))["audit:{shop}"]
    assert Problem.NOT_IN_VIEW in found


@pytest.mark.parametrize("goes_on", ["the same process", "another process"])
async def test_a_log_that_was_removed_is_found_by_what_views_have(
    replicas: tuple[RedisAuditStore, ...], redis: Redis, goes_on: str
) -> None:
    await replicas[0].append(ENTRY)
    await replicas[0].append(entry(3, "shop"))
    await redis.delete(*WHOLE_LOG)
    assert Problem.NO_CHAIN in (await problems_of_all(replicas[0]))["audit"]
    await replicas[goes_on == "another process"].keep_up()
    found = await problems_of_all(replicas[0])
    assert found["audit:{shop}"] == {Problem.NOT_IN_SERVICE_LOG}
    assert found.get("audit") == ({Problem.SET_BACK} if goes_on == "the same process" else None)


async def test_an_entry_that_did_not_reach_its_view_is_written_there_later(
    replicas: tuple[RedisAuditStore, ...], redis: Redis
) -> None:
    await replicas[0].append(entry(1, "shop"))
    await redis.set("audit:{shop}:head", b"x")
    await redis.rename("audit:{shop}", "aside")
    await redis.set("audit:{shop}", "no stream")
    with pytest.raises(StoreUnavailable):
        await replicas[0].append(entry(2, "shop"))
    await redis.delete("audit:{shop}", "audit:{shop}:head")
    await replicas[0].keep_up()
    assert [one.data["n"] for one in done(await replicas[0].page("shop"))] == [2]


async def test_a_business_fills_its_own_view_and_not_the_services_log(
    replicas: tuple[RedisAuditStore, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.admin.audit_redis.SHARE_A_DAY", 5)
    await replicas[0].append(ENTRY)

    async def flood(replica: RedisAuditStore, business_id: str) -> None:
        for number in range(10):
            made = replace(entry(number, business_id, forward_to_after=NUMBER), actor="key:k1")
            assert (await replica.append(made)).id

    await asyncio.gather(*(flood(replica, "shop") for replica in replicas))
    await replicas[0].append(entry(99, "shop"))  # an operator's
    await replicas[0].append(replace(entry(98, "bank"), actor="key:k2"))
    found = await replicas[0].page(None, limit=200)
    assert [one.business_id for one in found if one.actor == "key:k1"] == ["shop"] * 5
    told = [one for one in found if one.action == "audit.share_reached"]
    assert [one.target for one in told] == ["audit:{shop}"] * 4  # once by each replica
    assert min(int(one.data["count"]) for one in told) == 6
    assert {one.target for one in found[:2]} == {"p98", "p99"}
    assert len(done(await replicas[0].page("shop", limit=200))) == 41
    assert await replicas[0].count_personal(lambda value: value == NUMBER, None) == 5
    assert await problems_of_all(replicas[0], ("shop", "bank")) == {}


@pytest.mark.parametrize(
    ("command", "in_full"),
    [
        (["HSET", "made shop", "1000000000"], False),
        (["HSET", "made shop", str(2**63 - 1)], True),  # one more is no number of Redis
        (["HSET", "made shop", "notanumber"], True),
        (["HSET", "made shop", "1.5"], True),
        (["SET", "no hash"], True),
        (["RPUSH", "no hash"], True),
    ],
)
async def test_a_forged_count_hides_nothing_from_the_services_log(
    replicas: tuple[RedisAuditStore, ...], redis: Redis, command: list[str], in_full: bool
) -> None:
    name, *rest = command
    await redis.execute_command(name, COUNTS_KEY, *rest)  # type: ignore[no-untyped-call]
    for number in (1, 2):
        made = replace(entry(number, "shop"), actor="key:k1")
        assert (await replicas[0].append(made)).id
    found = done(await replicas[0].page(None))
    told = [one.data for one in found if one.action == "audit.share_reached"]
    if in_full:
        assert [one.target for one in found] == ["p2", "p1"]
        assert await redis.hgetall(COUNTS_KEY) == {b"made shop": b"1"}
        assert await redis.ttl(COUNTS_KEY) > 0
    else:
        assert told == [{"most_a_day": 1_000, "count": 1_000_000_001}]
    assert len(done(await replicas[0].page("shop"))) == 2


async def test_a_forged_share_is_recorded_again_on_the_next_day(
    replicas: tuple[RedisAuditStore, ...], redis: Redis
) -> None:
    await redis.hset(COUNTS_KEY, "made shop", "1000000000")
    for at in (0, 1_000, 86_400_000, 86_400_001, 2_000):
        await replicas[0].append(replace(entry(at, "shop"), actor="key:k1"))
    found = await replicas[0].page(None)
    assert [one.at for one in found if one.action == "audit.share_reached"] == [86_400_000, 0]


async def test_a_forged_count_of_refusals_is_recorded(
    replicas: tuple[RedisAuditStore, ...], redis: Redis
) -> None:
    await redis.hset(COUNTS_KEY, "refused shop", "1000000000")
    audit = AuditLog(replicas[0], lambda: 1_000.0, time.monotonic)
    shop = Principal("key:k1", Role.AGENT, "shop")
    for what in ("GET /plans", "GET /audit"):
        await audit.note_refusal(shop, what, "forbidden")
    (told,) = done(await replicas[0].page(None))
    assert (told.action, told.target) == (REFUSALS_STOPPED, "shop")
    assert told.data["count"] == 1_000_000_001


async def test_an_entry_is_kept_where_nothing_can_be_counted(
    replicas: tuple[RedisAuditStore, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.admin.audit_counts.COUNT", "return redis.error_reply('ERR no')")
    assert await replicas[0].count_refusal("shop") == 0
    assert (await replicas[0].append(replace(entry(1, "shop"), actor="key:k1"))).id
    assert [one.target for one in done(await replicas[0].page(None))] == ["p1"]


async def test_the_counts_of_a_deleted_business_are_gone(
    replicas: tuple[RedisAuditStore, ...], redis: Redis
) -> None:
    for business_id in ("shop", "bank"):
        await replicas[0].append(replace(entry(1, business_id), actor="key:k1"))
        await replicas[0].count_refusal(business_id)
    of_bank = {b"made bank", b"refused bank"}
    await replicas[0].drop("shop")
    assert set(await redis.hkeys(COUNTS_KEY)) == of_bank
    # What comes late, once the business has its mark.
    await redis.set("live:{shop}:deleted", "{}")
    await replicas[0].append(replace(entry(2, "shop"), actor="key:k1"))
    assert set(await redis.hkeys(COUNTS_KEY)) == of_bank
    await replicas[0].count_refusal("shop")
    await replicas[0].forget_counts("shop")
    assert set(await redis.hkeys(COUNTS_KEY)) == of_bank
    await redis.set(COUNTS_KEY, "no hash")
    await replicas[0].drop("shop")
    assert not await redis.exists(COUNTS_KEY)


# --------------------------------------------------------------- what is not signed for


def junk(seq: int) -> dict[str, bytes]:
    """Return an entry that was not written by the service, with a place in its chain."""
    raw = msgspec.json.encode(write_entry(entry(seq), lambda count: bytes(count))[0])
    return {"entry": raw, "link": write_link(Link(seq, "", "k", "m"))}


@pytest.mark.parametrize("seq", [1, 27, 10**12])
async def test_forged_entries_do_not_move_where_the_log_begins(
    replicas: tuple[RedisAuditStore, ...], redis: Redis, monkeypatch: pytest.MonkeyPatch, seq: int
) -> None:
    """A cut that is hidden by forged entries is not signed for when those are trimmed."""
    monkeypatch.setattr("app.admin.audit_redis.TRIMMED_AT_ONCE", 10)
    replicas[0].most_entries = 20
    for number in range(29):
        await replicas[0].append(entry(number))
    kept = (await redis.xrange("audit"))[-2:]
    await redis.delete("audit")
    for number in range(32):
        await redis.xadd("audit", junk(seq), id=f"1-{number + 1}")
    for entry_id, fields in kept:
        await redis.xadd("audit", fields, id=entry_id)
    for number in range(50, 55):
        await replicas[0].append(entry(number))
    assert TRIM_REFUSED in {one.action for one in await replicas[0].page(None, limit=200)}
    for number in range(60, 100):
        await replicas[0].append(entry(number))
    assert await redis.xlen("audit") <= 2 * 20 + 10
    for entry_id, _ in await redis.xrange("audit", max="2"):
        await redis.xdel("audit", entry_id)
    report = await verified(replicas[0])
    assert report.head is not None
    assert report.head.first == 1
    assert Problem.CUT_AT_BEGINNING in {one.problem for one in report.findings}


async def test_an_unreadable_entry_stops_neither_trimming_nor_reading(
    replicas: tuple[RedisAuditStore, ...], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.admin.audit_redis.TRIMMED_AT_ONCE", 10)
    replicas[0].most_entries = 20
    await redis.xadd("audit", {"entry": b"garbage"})
    await replicas[0].append(ENTRY)
    await redis.hset("held:{audit}:personal", "ref:name", b"garbage")
    found = await replicas[0].page(None)
    assert (found[-1].action, found[0].target) == ("audit.unreadable", "premium")
    for number in range(60):
        await replicas[0].append(entry(number, "shop"))
    assert (await verified(replicas[0])).holds
    assert await redis.xlen("audit") <= 31
    assert [one.data["n"] for one in await replicas[0].page("shop", limit=2)] == [59, 58]


# ------------------------------------------------------------- writers without SECRET_KEY


async def test_an_entry_without_a_key_waits_and_is_linked_by_a_writer_with_one(
    replicas: tuple[RedisAuditStore, ...], redis: Redis
) -> None:
    without = replicas[3].sign_with(None)
    await replicas[0].append(ENTRY)
    appended = await without.append(entry(7, "shop", forward_to_after=NUMBER))
    assert appended.id == ""
    assert len(await replicas[0].page(None)) == 2
    await asyncio.gather(*(replica.keep_up() for replica in replicas[:3]))
    found = await replicas[0].page(None, limit=1)
    assert found[0].data == {"n": 7, "written_without_key": 1, "forward_to_after": NUMBER}
    assert found[0].actor == "unsigned:operator"
    assert (await verified(replicas[0])).unsigned == (found[0].id,)
    assert [one.data["n"] for one in done(await replicas[0].page("shop"))] == [7]
    assert len(await replicas[0].page(None)) == 3
    assert await redis.xlen("held:{audit}:inbox") == 0
    for business_id in (None, "shop"):
        assert (await verified(replicas[0], business_id)).holds


async def test_a_log_without_any_key_has_no_chain(
    replicas: tuple[RedisAuditStore, ...],
) -> None:
    without = replicas[3].sign_with(None)
    await without.append(ENTRY)
    assert await without.keep_up() is None
    assert [one.seq for one in await without.page(None)] == [0]
    assert [one.problem for one in (await verified(without)).findings] == [Problem.NO_CHAIN]


async def test_the_chain_begins_with_the_service_and_not_with_the_first_action(
    replicas: tuple[RedisAuditStore, ...],
) -> None:
    heads = await asyncio.gather(*(replica.keep_up() for replica in replicas))
    assert {head.seq for head in heads if head} == {1}
    assert (await verified(replicas[0])).holds


@pytest.mark.parametrize("actor", ["operator:alice", "key:0f3a", "service", "cli:me@here"])
async def test_nothing_that_waits_is_linked_in_the_name_of_anybody_known(
    replicas: tuple[RedisAuditStore, ...], redis: Redis, actor: str
) -> None:
    await replicas[0].append(ENTRY)
    forged = replace(entry(10**15, "shop"), actor=actor, action=ROLLED_BACK)
    raw = msgspec.json.encode(write_entry(forged, lambda count: bytes(count))[0])
    await redis.xadd("held:{audit}:inbox", {"entry": raw})
    await replicas[1].append(ENTRY)
    for business_id in (None, "shop"):
        (found,) = [one for one in await replicas[0].page(business_id) if one.action == ROLLED_BACK]
        assert found.actor == f"unsigned:{actor}"
        assert found.at < 10**15
        assert (await verified(replicas[0], business_id)).unsigned == (found.id,)
        assert (await verified(replicas[0], business_id)).holds


async def test_what_waits_and_is_no_entry_is_removed_and_recorded(
    replicas: tuple[RedisAuditStore, ...], redis: Redis
) -> None:
    await replicas[0].append(ENTRY)
    elsewhere = msgspec.json.encode(write_entry(entry(1, "}{"), lambda count: bytes(count))[0])
    for raw in (b"garbage", elsewhere):
        await redis.xadd("held:{audit}:inbox", {"entry": raw})
    await replicas[3].sign_with(None).append(entry(5, "shop"))
    await replicas[0].append(entry(6, "shop"))
    assert await redis.xlen("held:{audit}:inbox") == 0
    (recorded,) = [one for one in await replicas[0].page(None) if one.actor == "service"][:1]
    assert (recorded.action, recorded.data) == ("audit.inbox_unreadable", {"entries": 2})
    assert [one.data["n"] for one in done(await replicas[0].page("shop"))] == [5, 6]
    assert (await verified(replicas[0])).holds


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep numbers out of the process's log."""
    yield
    assert NUMBER not in caplog.text
