"""Many replies of one connection, read at once."""

from typing import Any

from redis._parsers.hiredis import NOT_ENOUGH_DATA, _AsyncHiredisParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError


class BulkParser(_AsyncHiredisParser):
    """redis-py's parser, which also takes all replies that have come without waiting between.

    redis-py 8.1 reads each reply through three coroutines: docs/decisions/0007.
    """

    async def read_many(self, count: int) -> list[Any]:
        """Read `count` replies; those that refuse are ResponseErrors among them.

        Raises:
            redis.exceptions.ConnectionError: the connection is closed, or the
                server says that it cannot serve.
        """
        replies: list[Any] = []
        reader: Any = self._reader
        while len(replies) < count:
            reply = reader.gets(False)
            if reply is NOT_ENOUGH_DATA:
                await self.read_from_socket()  # type: ignore[no-untyped-call]
            elif isinstance(reply, ConnectionError):
                raise reply
            else:
                replies.append(reply)
        return replies


async def read_replies(link: AbstractConnection, count: int) -> list[Any]:
    """Read the replies to `count` commands of a connection made by `connection`."""
    parser = link._parser
    assert isinstance(parser, BulkParser)
    return await parser.read_many(count)
