"""The way to Redis: every answer in time, or one error."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from redis.exceptions import NoPermissionError, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.errors import StoreUnavailable
from app.redis_url import parse_redis_url
from app.topology import (
    CONNECTION_ERRORS,
    AnyRedis,
    close,
    connect,
    forget_connections,
    primaries_of,
)

TIMEOUT_SECONDS = 0.25
# After a silence, calls are decided without Redis for so long.
REST_SECONDS = 1.0
MAX_CONNECTIONS = 32
# Of keys, in one command that looks through all of them.
SCANNED = 1000


class RedisReach:
    """Reach Redis within `timeout_seconds`, or raise StoreUnavailable.

    After a silence it is raised at once for a second. `clock` gives monotonic
    seconds. `client` must not retry by itself: a ticket redeemed twice is
    refused.
    """

    def __init__(
        self,
        client: AnyRedis,
        *,
        own_client: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._own_client = own_client
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._resting_until = float("-inf")
        # A queue for connections. redis-py's BlockingConnectionPool has one, in
        # which a waiter can lose its time-out when many give up at once.
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)

    @classmethod
    def from_url(
        cls,
        url: str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Make one with a client of its own."""
        client = connect(
            parse_redis_url(url),
            connect_seconds=timeout_seconds,
            # One more, to ask a cluster who serves what.
            max_connections=MAX_CONNECTIONS + 1,
        )
        return cls(client, own_client=True, timeout_seconds=timeout_seconds, clock=clock)

    async def open(self) -> None:
        """Do nothing: connections are made when they are needed."""

    async def close(self) -> None:
        """Let go of every connection that is ours."""
        if self._own_client:
            with suppress(*CONNECTION_ERRORS):
                await close(self._client)

    async def check(self) -> None:
        """Raise StoreUnavailable unless a slot could be taken now.

        It writes: a replica, or a server without memory, answers PING as well.
        """
        await self._ask("SET", "store:{check}", "1", "PX", 1000)

    async def _ask(self, *command: str | bytes | int) -> Any:
        async with self._reaching():
            return await self._client.execute_command(*command)

    async def _scan(self, pattern: str) -> AsyncIterator[list[str]]:
        """Return the keys that match, of all servers, in parts; one may come twice.

        A key that moves between the nodes of a Cluster meanwhile may be missed.
        """
        async with self._reaching():
            servers = await primaries_of(self._client)
        for server in servers:
            place = "0"
            while True:
                async with self._reaching():
                    answer: Any = await server.execute_command(  # type: ignore[no-untyped-call]
                        "SCAN", place, "MATCH", pattern, "COUNT", SCANNED
                    )
                yield [text(key) for key in answer[1]]
                place = text(answer[0]) if isinstance(answer[0], str | bytes) else str(answer[0])
                if place == "0":
                    break

    @asynccontextmanager
    async def _reaching(self) -> AsyncIterator[None]:
        self._check_awake()
        try:
            async with asyncio.timeout(self._timeout_seconds), self._room:
                # Redis may have fallen silent while others were before us.
                self._check_awake()
                yield
        except (RedisTimeoutError, TimeoutError) as error:
            self._resting_until = self._clock() + REST_SECONDS
            waited = self._timeout_seconds
            raise StoreUnavailable(f"Redis did not answer within {waited} s") from error
        except ReadOnlyError as error:
            # After a failover the name may lead elsewhere: connect anew.
            await forget_connections(self._client)
            raise StoreUnavailable("Redis is a read-only replica") from error
        except NoPermissionError as error:
            problem = 'its user may not do this: see docs/operations.md, "Redis users"'
            raise StoreUnavailable(f"Redis failed: NoPermissionError: {problem}") from error
        except CONNECTION_ERRORS as error:
            # An error's text may hold what was sent; its class may not.
            raise StoreUnavailable(f"Redis failed: {type(error).__name__}") from error

    def _check_awake(self) -> None:
        if self._clock() < self._resting_until:
            raise StoreUnavailable("Redis did not answer a moment ago")


def in_ms(seconds: float) -> int:
    """Give a time as Redis takes it; never 0, which it refuses."""
    return max(1, round(seconds * 1000))


def text(value: str | bytes) -> str:
    """Read a reply of a client that decodes, and of one that does not."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
