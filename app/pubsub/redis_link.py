"""One Redis connection for writing, and one meaning for each of its errors."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import hiredis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    ExecAbortError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from app.errors import BrokerError, BrokerLost, BrokerRefused

Command = tuple[Any, ...]

CONNECT_SECONDS = 1.0
# Longer than a broker's pause for a fork, shorter than anyone waits for a call.
REPLY_SECONDS = 2.0


def pool_of(url: str, *, max_connections: int, reply_seconds: float | None) -> ConnectionPool:
    """Make a pool whose connections never retry by themselves.

    redis-py's own retries repeat an XADD whose reply was lost, and so write an
    entry twice; ours read first what stands.
    """
    return ConnectionPool.from_url(
        url,
        max_connections=max_connections,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=reply_seconds,
        socket_keepalive=True,
        protocol=2,
    )


def error_kind(error: BaseException) -> str:
    """Name an error by one word of a closed set, for metrics and logs."""
    match error:
        case AuthenticationError() | AuthorizationError():
            return "auth"
        case BusyLoadingError():
            return "loading"
        case ReadOnlyError():
            return "readonly"
        case OutOfMemoryError():
            return "oom"
        case NoPermissionError():
            return "noperm"
        case TimeoutError() | asyncio.TimeoutError():
            return "timeout"
        case ConnectionError() | OSError():
            return "connection"
    word = str(error).partition(" ")[0].rstrip(":").lower()
    known = {"misconf", "moved", "ask", "tryagain", "clusterdown", "noauth", "noreplicas", "busy"}
    return word if word in known else "error"


class RedisLink:
    """Send transactions over one connection, made anew whenever in doubt."""

    def __init__(self, url: str) -> None:
        self._pool = pool_of(url, max_connections=8, reply_seconds=REPLY_SECONDS)
        self._writer: AbstractConnection | None = None
        self.client = Redis(connection_pool=self._pool)

    async def close(self) -> None:
        """Close every connection."""
        await self._drop()
        await self._pool.disconnect()

    async def ping(self) -> None:
        """Raise BrokerError unless the server answers."""
        try:
            await self.client.ping()
        except (RedisError, OSError) as error:
            raise BrokerRefused(error_kind(error), str(error)) from error

    async def transact(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in order, all or none; give each one's reply or error.

        One MULTI/EXEC a batch: without it, a server that runs out of memory
        between two entries would take the second and not the first.

        Raises:
            BrokerRefused: the server refused the transaction; nothing ran.
            BrokerLost: no reply came, or one that leaves it open what ran.
        """
        connection = await self._connected()
        packed = [hiredis.pack_command(("MULTI",))]
        packed += [hiredis.pack_command(command) for command in commands]
        packed.append(hiredis.pack_command(("EXEC",)))
        refusal: ResponseError | None = None
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                await connection.send_packed_command(packed, check_health=False)
                for _ in range(len(commands) + 1):
                    try:
                        await connection.read_response(disable_decoding=True)
                    except ResponseError as error:
                        refusal = refusal or error
                replies = await connection.read_response(disable_decoding=True)
        except ExecAbortError as error:
            await self._drop()
            cause = refusal or error
            raise BrokerRefused(error_kind(cause), str(cause)) from error
        except (RedisError, OSError) as error:
            # asyncio.TimeoutError is an OSError since Python 3.11.
            await self._drop()
            reply: Exception = refusal or error
            raise BrokerLost(error_kind(reply), str(reply)) from error
        except BaseException:
            await self._drop()
            raise
        assert isinstance(replies, list)
        return replies

    async def _connected(self) -> AbstractConnection:
        if self._writer is None:
            connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                async with asyncio.timeout(CONNECT_SECONDS + REPLY_SECONDS):
                    await connection.connect()  # type: ignore[no-untyped-call]
            except (RedisError, OSError) as error:
                with suppress(RedisError, OSError):
                    await connection.disconnect(nowait=True)
                raise BrokerRefused(error_kind(error), str(error)) from error
            self._writer = connection
        return self._writer

    async def _drop(self) -> None:
        connection, self._writer = self._writer, None
        if connection is not None:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)


def lost(error: Exception) -> BrokerError:
    """Make a failed question to the server one of our errors."""
    return BrokerLost(error_kind(error), str(error))
