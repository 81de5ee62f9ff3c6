"""The ways to Redis: a link for each lane's writes, and clients to read by."""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from app.errors import BrokerLost, BrokerRefused
from app.pubsub.cluster_link import ClusterLink
from app.pubsub.redis_errors import lost
from app.pubsub.redis_link import CONNECT_SECONDS, REPLY_SECONDS, Link, PrimaryLink
from app.redis_url import RedisUrl, Topology
from app.topology import (
    CONNECTION_ERRORS,
    AnyRedis,
    ClusterClient,
    close,
    connect,
    listening_client,
    slot_of,
)

# How long a write may be lost after it was confirmed. A server that starts again
# has its file of a second ago; a replica that is promoted may lag, and sentinels
# take seconds to tell everybody.
PROMISE_SECONDS = {Topology.SINGLE: 2.0, Topology.SENTINEL: 5.0, Topology.CLUSTER: 5.0}
# A node that fails holds up the lanes of its slots and no others; each lane has
# a connection to each node it needs.
CLUSTER_LANES = 8
SLOTS = 16_384


class Ways:
    """Hold the connections of one adapter; nothing is connected before it is used."""

    def __init__(self, where: RedisUrl, lanes: int = CLUSTER_LANES) -> None:
        self._where = where
        self.client = self._connect(max_connections=8)
        self._watcher: asyncio.Task[None] | None = None
        self._links: Sequence[PrimaryLink] | Sequence[ClusterLink]
        if isinstance(self.client, ClusterClient):
            slots = self.client.slots
            self._links = [ClusterLink(where, slots) for _ in range(lanes)]
        else:
            self._links = [PrimaryLink(where)]
        self.lanes = len(self._links)
        self.promise_seconds = PROMISE_SECONDS[where.topology]

    def open(self) -> None:
        """Begin to watch what can change; called once, in a running loop."""
        [first, *_] = self._links
        if self._where.topology is Topology.SENTINEL and isinstance(first, PrimaryLink):
            self._watcher = asyncio.create_task(first.keep_to_primary())

    def lane_of(self, key: str) -> int:
        """Give the lane that writes a key."""
        return slot_of(key) * self.lanes // SLOTS if self.lanes > 1 else 0

    def link_of(self, key: str) -> Link:
        """Give the link of a key's lane."""
        return self._links[self.lane_of(key)]

    def reader(self) -> AnyRedis:
        """Make a client for one reader, who closes it."""
        return self._connect(max_connections=2)

    async def listener(self) -> Redis:
        """Give a client that can listen to channels; it is closed with the rest."""
        return await listening_client(self.client)

    def _connect(self, *, max_connections: int) -> AnyRedis:
        return connect(
            self._where, connect_seconds=CONNECT_SECONDS, max_connections=max_connections
        )

    async def still_there(self, lane: int) -> None:
        """See `Link.still_there`."""
        await self._links[lane].still_there()

    async def ask(self, *command: Any) -> Any:
        """Run one command beside the writers'.

        Raises:
            BrokerError: it may or may not have run.
        """
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                return await self.client.execute_command(*command)
        except CONNECTION_ERRORS as error:
            raise lost(error) from error

    async def ping(self) -> None:
        """Raise BrokerRefused unless the server answers."""
        try:
            await self.ask("PING")
        except BrokerLost as error:
            raise BrokerRefused(error.kind, str(error.__cause__)) from error

    async def close(self) -> None:
        """Close every connection."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        for link in self._links:
            await link.close()
        await close(self.client)
