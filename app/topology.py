"""Connections and clients for each way that Redis can stand.

None of them retries by itself: redis-py's own retries repeat an XADD whose
reply was lost, and so write an entry twice; ours read first what stands.

None has a time-out for replies either: redis-py 8.1 sends under
`asyncio.wait_for`, which on Python 3.11 loses a cancellation that comes as it
ends. Who uses one puts `asyncio.timeout` around each use.
"""

import asyncio
from typing import Any, cast

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.redis_url import RedisUrl, Topology

# One that does not answer is passed over; the next knows the same.
SENTINEL_SECONDS = 0.5

AnyRedis = Redis | RedisCluster
Address = tuple[str, int]


class Sentinels(Sentinel):
    """Ask a group's sentinels, one after the other, each for a bounded time."""

    def __init__(self, where: RedisUrl) -> None:
        super().__init__([])  # type: ignore[no-untyped-call]
        self.sentinels = [
            Redis.from_url(url, max_connections=4, **_options(SENTINEL_SECONDS))
            for url in where.nodes[1:]
        ]

    async def discover_master(self, service_name: str) -> Address:
        """Give the primary's address.

        Raises:
            MasterNotFoundError: none of the sentinels names one that is up.
        """
        for sentinel in self.sentinels:
            try:
                async with asyncio.timeout(2 * SENTINEL_SECONDS):
                    groups: Any = await sentinel.sentinel_masters()
            except (RedisError, OSError):
                continue
            state = groups.get(service_name)
            if state and self.check_master_state(state, service_name):
                return str(state["ip"]), int(state["port"])
        raise MasterNotFoundError(f"no sentinel names a primary of {service_name!r}")


def client(where: RedisUrl, *, connect_seconds: float, max_connections: int) -> AnyRedis:
    """Make a client that finds the right server for each command by itself."""
    options = _options(connect_seconds)
    kwargs = {**parse_url(where.nodes[0]), **options, "max_connections": max_connections}
    if where.topology is Topology.SINGLE:
        return Redis.from_pool(ConnectionPool(**kwargs))
    kwargs["ssl"] = kwargs.pop("connection_class", None) is not None
    if where.topology is Topology.SENTINEL:
        del kwargs["host"]
        pool = SentinelConnectionPool(where.group, Sentinels(where), **kwargs)  # type: ignore[no-untyped-call]
        return Redis.from_pool(pool)
    for name in ("host", "port", "db"):
        kwargs.pop(name, None)
    nodes = [parse_url(url) for url in where.nodes]
    return RedisCluster(
        startup_nodes=[ClusterNode(node["host"], node["port"]) for node in nodes],
        require_full_coverage=False,
        **kwargs,
    )


async def close(opened: AnyRedis) -> None:
    """Close a client's connections, those to sentinels too."""
    pool = getattr(opened, "connection_pool", None)
    await opened.aclose()
    if isinstance(pool, SentinelConnectionPool):
        await pool.sentinel_manager.aclose()


def connection(
    where: RedisUrl, address: Address | None, *, connect_seconds: float
) -> AbstractConnection:
    """Make one connection, not yet connected: to `address`, or to the one server."""
    pool = ConnectionPool.from_url(where.nodes[0], **_options(connect_seconds))
    if address is not None:
        pool.connection_kwargs["host"], pool.connection_kwargs["port"] = address
    return cast("AbstractConnection", pool.make_connection())  # type: ignore[no-untyped-call]


def _options(connect_seconds: float) -> dict[str, Any]:
    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": connect_seconds,
        "socket_timeout": None,
        "socket_keepalive": True,
        "protocol": 2,
    }
