"""What a Redis server says of itself, for whoever looks whether it serves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.store.redis_durability import RedisDurability, value_of
from app.topology import ClusterClient


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """One server's own account of itself; of a Cluster, one node's.

    `now` is its clock, in Unix seconds. `limit_bytes` is what it may use (its
    `maxmemory`, else the machine's memory), 0 where it does not say.
    """

    version: str
    now: float
    policy: str
    used_bytes: int
    limit_bytes: int
    is_of_cluster: bool


class RedisExamination(RedisDurability):
    """Ask a Redis server about itself; raises StoreUnavailable where it does not answer."""

    async def facts(self) -> RedisFacts:
        """Ask for what INFO and TIME tell."""
        async with self._reaching():
            client = self._client
            is_of_cluster = isinstance(client, ClusterClient)
            node = await client.any_node() if isinstance(client, ClusterClient) else client
            server: Any = await node.execute_command("INFO", "server")  # type: ignore[no-untyped-call]
            memory: Any = await node.execute_command("INFO", "memory")  # type: ignore[no-untyped-call]
            now: Any = await node.execute_command("TIME")  # type: ignore[no-untyped-call]
        limit = _number(memory, "maxmemory") or _number(memory, "total_system_memory")
        return RedisFacts(
            value_of(server, "valkey_version") or value_of(server, "redis_version") or "",
            int(now[0]) + int(now[1]) / 1e6,
            value_of(memory, "maxmemory_policy") or "",
            _number(memory, "used_memory"),
            limit,
            is_of_cluster,
        )


def _number(answer: str | bytes | Mapping[Any, Any], name: str) -> int:
    value = value_of(answer, name) or ""
    return int(value) if value.isdecimal() else 0
