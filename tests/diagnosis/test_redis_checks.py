"""Whether a Redis serves, asked of real ones."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from app.diagnosis.findings import Finding, Level
from app.diagnosis.redis_checks import RedisChecks, audio_bytes
from app.diagnosis.steps import examine
from app.plans import Business, Directory, Plan, TrackPlan
from app.store.redis import RedisStore
from app.store.redis_examination import RedisExamination, RedisFacts
from tests.redis_process import RedisProcess

PLAN = Plan("premium", max_concurrent_calls=10, retention_seconds=60)
BUSINESS = Business("business-1", "One", "premium")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis"), password="right") as running:
        yield running


@contextmanager
def configured(server: RedisProcess, name: str, value: str) -> Iterator[None]:
    """Let a server have a setting until the block ends."""
    [before] = server.command("CONFIG", "GET", name).values()
    server.configure(name, value)
    try:
        yield
    finally:
        server.configure(name, before)


async def examined(url: str, now: float = 0.0) -> dict[str, Finding]:
    examination, store = RedisExamination.from_url(url, 2.0), RedisStore.from_url(url, 2.0)
    try:
        checks = RedisChecks(examination, store, (lambda: now) if now else time.time)
        found = await examine(checks.steps(), lambda finding: None, time.monotonic)
    finally:
        await examination.close()
        await store.close()
    return {one.check: one for one in found}


async def test_a_redis_that_serves_is_well(server: RedisProcess) -> None:
    found = await examined(server.url)
    assert not {one.cause for one in found.values()} - {""}, found
    assert found["redis"].level is found["redis_durability"].level is Level.OK


async def test_a_wrong_password_is_told_from_a_redis_that_is_away(server: RedisProcess) -> None:
    wrong = await examined(server.url.replace("right", "wrong"))
    assert wrong["redis"].cause == "redis_password"
    assert wrong["redis_memory"].level is Level.SKIPPED
    assert "wrong" not in str(wrong)
    away = await examined("redis://127.0.0.1:1/0")
    assert away["redis"].cause == "redis_unreachable"


async def test_a_redis_that_answers_nothing_is_given_up(server: RedisProcess) -> None:
    server.freeze()
    try:
        found = await examined(server.url)
    finally:
        server.thaw()
    assert found["redis"].cause == "redis_unreachable"


async def test_a_redis_that_takes_no_writes_is_named(server: RedisProcess) -> None:
    with configured(server, "min-replicas-to-write", "1"):
        found = await examined(server.url)
    assert found["redis"].cause == "redis_read_only"


async def test_a_redis_that_keeps_nothing_is_named(tmp_path: Path) -> None:
    with RedisProcess(tmp_path, fsync=None) as forgetful:
        found = await examined(forgetful.url)
    assert found["redis_durability"].cause == "redis_not_persistent"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_redis_that_evicts_is_named(server: RedisProcess, policy: str) -> None:
    with configured(server, "maxmemory-policy", policy):
        found = await examined(server.url)
    assert found["redis_eviction"].cause == "redis_evicts"
    assert policy in found["redis_eviction"].found


async def test_a_clock_that_differs_is_named(server: RedisProcess) -> None:
    found = await examined(server.url, now=time.time() - 60)
    assert found["redis_clock"].cause == "redis_clock_skewed"
    assert "60 s ahead" in found["redis_clock"].found


async def test_too_little_memory_for_the_plans_is_named(server: RedisProcess) -> None:
    store = RedisStore.from_url(server.url)
    await store.load_if_empty(Directory((PLAN,), (BUSINESS,)))
    await store.close()
    with configured(server, "maxmemory", "20mb"):
        found = await examined(server.url)
    assert found["redis_memory"].cause == "redis_memory_short"
    assert "22.6 MB" in found["redis_memory"].found
    roomy = await examined(server.url)
    assert roomy["redis_memory"].level is Level.OK


class OldRedis:
    """A server of long ago, which tells its version and takes writes."""

    def __init__(self, version: str) -> None:
        self._facts = RedisFacts(version, time.time(), "noeviction", 0, 0, False)

    async def check(self) -> None: ...

    async def facts(self) -> RedisFacts:
        return self._facts

    async def durability_warnings(self) -> list[str]:
        return []

    async def user(self) -> str:
        return ""

    async def refusals(self, commands: Sequence[Sequence[str]]) -> list[str]:
        return [""] * len(commands)


@pytest.mark.parametrize(
    ("version", "cause"),
    [("5.0.14", "redis_old"), ("6.0.20", "redis_old"), ("6.2.0", ""), ("9.1.2", "")],
)
async def test_a_version_that_lacks_commands_is_named(
    server: RedisProcess, version: str, cause: str
) -> None:
    store = RedisStore.from_url(server.url)
    [first, *_] = RedisChecks(OldRedis(version), store, time.time).steps()
    assert [one.cause for one in await first.look()] == [cause]
    await store.close()


def test_memory_is_reckoned_as_it_was_measured() -> None:
    """README: pcm16 at 8 kHz takes 377 B an entry, so that a second of a call is 18.8 kB."""
    a_minute = 60 * 50 * 377
    assert audio_bytes({"premium": PLAN}, [BUSINESS]) == 2 * 10 * a_minute
    both = replace(PLAN, tracks=TrackPlan.BOTH)
    assert audio_bytes({"premium": both}, [BUSINESS]) == 4 * 10 * a_minute
    assert audio_bytes({}, [BUSINESS]) == 0
