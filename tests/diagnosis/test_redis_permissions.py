"""The doctor names the permissions in Redis that the service's user lacks."""

import time
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from app.admin.redis_users import KEYS, acl_commands, family_of
from app.diagnosis.findings import Finding, Level
from app.diagnosis.redis_checks import RedisChecks
from app.diagnosis.steps import examine
from app.plans import Directory
from app.store.redis import RedisStore
from app.store.redis_examination import RedisExamination
from tests.diagnosis.test_redis_checks import BUSINESS, PLAN
from tests.redis_process import RedisProcess
from tests.redis_users import SERVICE, denials, server_with_users, url_as


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with server_with_users(tmp_path_factory.mktemp("redis")) as running:
        yield running


async def examined(url: str) -> dict[str, Finding]:
    examination, store = RedisExamination.from_url(url, 5.0), RedisStore.from_url(url, 5.0)
    try:
        checks = RedisChecks(examination, store, time.time)
        found = await examine(checks.steps(), lambda finding: None, time.monotonic)
    finally:
        await examination.close()
        await store.close()
    return {one.check: one for one in found}


async def test_the_doctor_finds_nothing_missing_as_the_services_user(server: RedisProcess) -> None:
    found = await examined(url_as(SERVICE, server.url))
    assert found["redis"].level is Level.OK
    assert "default user" not in found["redis"].found
    assert denials(server) == []


async def test_the_doctor_advises_a_user_with_fewer_permissions(server: RedisProcess) -> None:
    found = await examined(server.url)
    assert found["redis"].level is Level.OK
    assert "default user, who may do everything" in found["redis"].found


@pytest.mark.parametrize(
    ("rule", "missing"),
    [
        ("-xadd", "Redis user bridge-service lacks the commands XADD."),
        ("-eval", "Redis user bridge-service lacks the commands EVAL."),
        ("-publish", "Redis user bridge-service lacks the commands PUBLISH."),
        ("-info", "Redis user bridge-service lacks the commands INFO."),
        ("resetkeys ~calls", "audio:{*"),
        ("resetchannels", "Redis user bridge-service lacks the keys &calls, &audio:{*}"),
        ("-multi", "lacks the commands DEL"),
    ],
)
async def test_the_doctor_names_the_permissions_that_are_missing(
    server: RedisProcess, rule: str, missing: str
) -> None:
    rules = next(one for one in acl_commands() if SERVICE in one)
    server.command("ACL", "SETUSER", SERVICE, *rule.split(" "))
    before = server.command("DBSIZE")
    try:
        found = await examined(url_as(SERVICE, server.url))
    finally:
        server.command(*rules.split(" "))
    assert found["redis"].cause == "redis_permissions"
    assert missing in found["redis"].found
    assert "media-bridge redis-acl" in found["redis"].fix
    assert server.command("DBSIZE") == before


async def test_looking_for_permissions_changes_nothing(server: RedisProcess) -> None:
    store = RedisStore.from_url(server.url, 5.0)
    await store.load_if_empty(Directory((PLAN,), (BUSINESS,)))
    await store.close()
    fixed = [family for family in map(family_of, KEYS) if "*" not in family]
    async with Redis.from_url(server.url) as administrator:
        await administrator.xadd("calls", {"event": "call.incoming"})
        before = [await administrator.dump(key) for key in fixed]
        await examined(server.url)
        await examined(url_as(SERVICE, server.url))
        assert [await administrator.dump(key) for key in fixed] == before
        assert [key async for key in administrator.scan_iter() if b"doctor" in key] == []
    assert sum(map(bool, before)) > 3
