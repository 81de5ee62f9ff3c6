"""Whether Redis would lose what is configured: told where it is so, and where it is known."""

import os
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.store.base import Store
from app.store.redis import RedisStore
from app.tools.embedded import EmbeddedRedis
from tests.service import http_client, logged_line, running_service

NOTHING = {"appendonly": "no", "save": ""}


@pytest.mark.parametrize(
    ("configured", "warns"),
    [
        (NOTHING, True),
        ({"appendonly": "yes", "save": ""}, False),
        ({"appendonly": "no", "save": "3600 1"}, False),
        ({"appendonly": "yes", "save": "3600 1"}, False),
    ],
)
@pytest.mark.parametrize("decodes", [False, True])
async def test_a_server_that_keeps_nothing_is_warned_of(
    tmp_path: Path, configured: dict[str, str], warns: bool, decodes: bool
) -> None:
    with EmbeddedRedis(tmp_path / "redis", persistent=False) as server:
        async with Redis.from_url(server.url, decode_responses=decodes) as client:
            for name, value in configured.items():
                await client.config_set(name, value)
            warnings = await RedisStore(client, timeout_seconds=20.0).durability_warnings()
            await client.config_set("appendonly", "no")  # it would stop later by the rewrite
    assert len(warnings) == int(warns)
    assert all("append-only file" in warning for warning in warnings)


async def test_what_cannot_be_told_is_no_warning(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis", persistent=False) as server:
        async with Redis.from_url(server.url) as client:
            await client.execute_command(
                *("ACL", "SETUSER", "bridge", "on", ">word", "~*", "&*", "+@all", "-config")
            )
            for name, value in NOTHING.items():
                await client.config_set(name, value)
        url = f"redis://bridge:word@{server.url.partition('@')[2]}"
        store = RedisStore.from_url(url, 20.0)
        assert await store.durability_warnings() == []
        await store.check()
        await store.close()
    gone = RedisStore.from_url(server.url, 0.2)
    assert await gone.durability_warnings() == []
    await gone.close()


async def test_every_store_can_be_asked(store: Store) -> None:
    assert isinstance(await store.durability_warnings(), list)


async def test_readiness_warns_and_is_ready_all_the_same(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "service")
    with EmbeddedRedis(tmp_path / "redis", persistent=False) as server:
        async with Redis.from_url(server.url) as client:
            for name, value in NOTHING.items():
                await client.config_set(name, value)
            with running_service(tmp_path / "service", server.url) as service:
                await logged_line(service, "Redis keeps nothing on disk")
                async with http_client() as asking:
                    answer = await asking.get(f"{service.url}/health/ready")
                    assert answer.status_code == 200
                    assert answer.json()["status"] == "ready"
                    assert len(answer.json()["warnings"]) == 1
                    await client.config_set("save", "3600 1")
                    answer = await asking.get(f"{service.url}/health/ready")
                    assert (answer.status_code, answer.json()["warnings"]) == (200, [])
