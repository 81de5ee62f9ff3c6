"""A connection over which batches go, and all their replies come back at once."""

import asyncio
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, InvalidResponse, RedisError

_NOTHING_YET = object()


class Pipe(asyncio.Protocol):
    """The socket of a connection that redis-py made, taken over for batches.

    redis-py 8.1 reads each reply through three coroutines and a StreamReader,
    which was a third of what an entry cost: docs/decisions/0007. It still
    connects, authenticates and closes.
    """

    def __init__(self, link: AbstractConnection) -> None:
        self._link = link
        assert link._writer is not None
        self._transport = link._writer.transport
        self._transport.set_protocol(self)
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=link._parser.parse_error,
            notEnoughData=_NOTHING_YET,
        )
        self._replies: list[Any] = []
        self._wanted = 0
        self._done: asyncio.Future[list[Any]] | None = None
        self._lost: Exception | None = None
        if self._transport.is_closing():
            self._end(ConnectionError("the server closed the connection"))

    async def send(self, commands: bytes, count: int) -> list[Any]:
        """Send `count` packed commands; give their replies, ResponseErrors among them.

        Raises:
            redis.exceptions.ConnectionError: the connection is closed, or the
                server says that it cannot serve.
        """
        if self._lost is not None:
            raise ConnectionError("the connection is closed") from self._lost
        self._wanted = count
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(commands)
        try:
            replies = await self._done
        finally:
            self._done = None
        for reply in replies:
            if isinstance(reply, ConnectionError):
                raise reply
        return replies

    async def close(self) -> None:
        """Close it without a word."""
        await self._link.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the server."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets(False)) is not _NOTHING_YET:
                self._replies.append(reply)
        except RedisError as error:
            self._end(error)
            return
        if self._done is not None and len(self._replies) >= self._wanted:
            replies, self._replies = self._replies, []
            if not self._done.done():
                self._done.set_result(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that no more replies will come."""
        self._end(exc or ConnectionError("the server closed the connection"))

    def _end(self, error: Exception) -> None:
        self._lost = error
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)
