"""The servers that the fault tests hurt do what those tests rely on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import MovedError, ReadOnlyError, RedisError, ResponseError, TimeoutError

from tests.certificates import certificates
from tests.redis_groups import cluster
from tests.redis_process import RedisProcess


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path / "redis", password="canary") as process:
        yield process


def test_a_frozen_server_is_silent_until_it_is_thawed(server: RedisProcess) -> None:
    with server.client(0.2) as client:
        client.ping()
        server.freeze()
        with pytest.raises(TimeoutError):
            client.ping()
        server.thaw()
        client.ping()


def test_a_killed_server_comes_back_on_its_port_with_its_data(server: RedisProcess) -> None:
    port = server.port
    server.command("SET", "key", "value")
    server.kill()
    with pytest.raises(RedisError):
        server.command("PING")
    server.restart()
    assert (server.port, server.command("GET", "key")) == (port, b"value")


def test_a_failed_snapshot_refuses_writes_until_it_is_mended(server: RedisProcess) -> None:
    for _ in range(2):
        server.fail_snapshots()
        with pytest.raises(ResponseError, match="MISCONF"):
            server.command("SET", "key", "value")
        server.mend_snapshots()
        server.command("SET", "key", "value")


def test_a_replica_refuses_writes(server: RedisProcess, tmp_path: Path) -> None:
    with RedisProcess(tmp_path / "other", password="canary") as master:
        server.replicate(master)
        with pytest.raises(ReadOnlyError):
            server.command("SET", "key", "value")
    server.replicate(None)
    server.command("SET", "key", "value")


def test_tls_is_spoken_and_verified(tmp_path: Path) -> None:
    with RedisProcess(tmp_path / "redis", tls=certificates(tmp_path / "tls")) as server:
        assert server.url.startswith("rediss://")
        assert server.command("PING")


def test_a_slot_moves_with_its_keys(tmp_path: Path) -> None:
    with cluster(tmp_path, fsync=None) as nodes:
        slot = nodes.slot_of("audio:{MZ1}")
        source = nodes.owner(slot)
        target = next(node for node in nodes.masters if node is not source)
        source.command("SET", "audio:{MZ1}", "value")
        nodes.migrate([slot], target)
        assert nodes.owner(slot) is target
        assert target.command("GET", "audio:{MZ1}") == b"value"
        with pytest.raises(MovedError):
            source.command("GET", "audio:{MZ1}")
