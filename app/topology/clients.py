"""Clients and connections, from a REDIS_URL."""

import asyncio
from typing import Any, cast

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from app.redis_url import RedisUrl, Topology
from app.topology.cluster import CONNECTION_ERRORS, Address, ClusterClient

# One that does not answer is passed over; the next knows the same.
SENTINEL_SECONDS = 0.5

AnyRedis = Redis | ClusterClient


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
            except CONNECTION_ERRORS:
                continue
            state = groups.get(service_name)
            if state and self.check_master_state(state, service_name):
                return str(state["ip"]), int(state["port"])
        raise MasterNotFoundError(f"no sentinel names a primary of {service_name!r}")


def connect(where: RedisUrl, *, connect_seconds: float, max_connections: int) -> AnyRedis:
    """Make a client that finds the right server for each command by itself.

    Nothing is connected before its first command. `max_connections` are to each
    server.
    """
    options = {**_options(connect_seconds), "max_connections": max_connections}
    first = where.nodes[0]
    if where.topology is Topology.SINGLE:
        return Redis.from_pool(ConnectionPool.from_url(first, **options))
    if where.topology is Topology.SENTINEL:
        kwargs = {**parse_url(first), **options}
        kwargs["ssl"] = kwargs.pop("connection_class", None) is not None
        del kwargs["host"]
        pool = SentinelConnectionPool(where.group, Sentinels(where), **kwargs)  # type: ignore[no-untyped-call]
        return Redis.from_pool(pool)
    nodes = [parse_url(url) for url in where.nodes]
    return ClusterClient(
        [(node["host"], node["port"]) for node in nodes],
        lambda address: Redis.from_pool(_pool_at(first, address, options)),
    )


async def listening_client(opened: AnyRedis) -> Redis:
    """Give a client of one server, fit for channels: any node of a cluster is."""
    return await opened.any_node() if isinstance(opened, ClusterClient) else opened


async def primaries_of(opened: AnyRedis) -> list[Redis]:
    """Return a client of each server that has keys of its own."""
    return await opened.primaries() if isinstance(opened, ClusterClient) else [opened]


async def close(opened: AnyRedis) -> None:
    """Close a client's connections, those to sentinels too."""
    pool = getattr(opened, "connection_pool", None)
    await opened.aclose()
    if isinstance(pool, SentinelConnectionPool):
        await pool.sentinel_manager.aclose()


async def forget_connections(opened: AnyRedis) -> None:
    """Make every later command connect anew; a cluster's client asks again who serves what."""
    if isinstance(opened, ClusterClient):
        opened.slots.doubt()
    else:
        await opened.connection_pool.disconnect(inuse_connections=False)


def connection(
    where: RedisUrl, address: Address | None, *, connect_seconds: float
) -> AbstractConnection:
    """Make one connection, not yet connected: to `address`, or to the one server."""
    pool = _pool_at(where.nodes[0], address, _options(connect_seconds))
    return cast("AbstractConnection", pool.make_connection())  # type: ignore[no-untyped-call]


def _pool_at(url: str, address: Address | None, options: dict[str, Any]) -> ConnectionPool:
    pool = ConnectionPool.from_url(url, **options)
    if address is not None:
        pool.connection_kwargs["host"], pool.connection_kwargs["port"] = address
    return pool


def _options(connect_seconds: float) -> dict[str, Any]:
    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": connect_seconds,
        "socket_timeout": None,
        "socket_keepalive": True,
        "protocol": 2,
    }
