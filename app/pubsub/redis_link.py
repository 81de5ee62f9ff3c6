"""One connection for writing to the one server that takes writes."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import hiredis
import msgspec
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from app.errors import BrokerLost, BrokerRefused, BrokerReplaced
from app.pubsub.redis_errors import error_kind
from app.redis_url import RedisUrl, Topology
from app.topology import CONNECTION_ERRORS, Address, Pipe, Sentinels, connection

CONNECT_SECONDS = 1.0
# Longer than a broker's pause for a fork, shorter than anyone waits for a call.
REPLY_SECONDS = 2.0
SENTINEL_POLL_SECONDS = 0.5


def packed(*command: str | int | bytes) -> bytes:
    """Write one command as it goes over the wire (RESP, "Sending commands")."""
    written: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return written


MULTI, EXEC, ASKING, PING = (packed(name) for name in ("MULTI", "EXEC", "ASKING", "PING"))


class Part(msgspec.Struct, frozen=True, gc=False):
    """What one write sends: `count` packed commands, all about keys of `key`'s slot.

    `key` may be a key, or what is in its braces (Redis Cluster, "Hash tags").
    """

    key: str
    packed: bytes
    count: int = 1


class Link(Protocol):
    """Take what is to be written to the servers that take it."""

    async def transact(self, parts: Sequence[Part]) -> list[Any]:
        """Run all parts in order; give each one's last reply.

        Where a part's transaction failed and others did not, its reply is the
        BrokerError.

        Raises:
            BrokerRefused: no part ran.
            BrokerReplaced: no part ran; another server answers than before.
            BrokerLost: no reply came, or one that leaves it open what ran.
        """

    async def still_there(self) -> None:
        """Return when the servers written to answer, and are the same as before.

        Raises:
            BrokerReplaced: another server answers.
            BrokerError: none does.
        """

    async def close(self) -> None:
        """Close every connection."""


async def exchange(
    pipe: Pipe, transactions: Sequence[Sequence[Part]], *, asking: bool = False
) -> list[list[Any] | ResponseError]:
    """Send transactions at once; give each one's replies, or why none of it ran.

    One MULTI/EXEC each: without it, a server that runs out of memory between
    two entries would take the second and not the first.

    Raises:
        CONNECTION_ERRORS: the connection is in doubt.
    """
    # ASKING holds for the next command, and for all of a transaction.
    before = [ASKING, MULTI] if asking else [MULTI]
    sent: list[bytes] = []
    counts: list[int] = []
    for parts in transactions:
        sent += [*before, *[part.packed for part in parts], EXEC]
        counts.append(len(before) + sum([part.count for part in parts]) + 1)
    async with asyncio.timeout(REPLY_SECONDS):
        replies = await pipe.send(b"".join(sent), sum(counts))
    ends = itertools.accumulate(counts)
    return [_answer(replies[end - count : end]) for count, end in zip(counts, ends, strict=True)]


def _answer(replies: Sequence[Any]) -> list[Any] | ResponseError:
    """Give EXEC's replies; where it has none, what was refused first says why."""
    executed = replies[-1]
    if isinstance(executed, list):
        return executed
    refusals = (reply for reply in replies if isinstance(reply, ResponseError))
    return next(refusals, ResponseError("the transaction was not run"))


async def connected(where: RedisUrl, address: Address | None) -> tuple[Pipe, object]:
    """Make a connection; give it with the server's identity, which a restart changes.

    Raises:
        BrokerRefused: there is none to be had.
    """
    made = connection(where, address, connect_seconds=CONNECT_SECONDS)
    try:
        async with asyncio.timeout(CONNECT_SECONDS + REPLY_SECONDS):
            await made.connect()  # type: ignore[no-untyped-call]
            identity = await _identity(made)
            return Pipe(made), identity
    except CONNECTION_ERRORS as error:
        await _discard(made)
        raise BrokerRefused(error_kind(error), str(error)) from error
    except BaseException:
        await _discard(made)
        raise


async def _identity(link: AbstractConnection) -> object:
    await link.send_command("INFO", "server")
    try:
        info = await link.read_response(disable_decoding=True)
    except ResponseError:
        return object()  # it may not be asked: then each connection may lead elsewhere
    assert isinstance(info, bytes)
    lines = (line.partition(b":") for line in info.splitlines())
    return next((value for name, _, value in lines if name == b"run_id"), object())


async def _discard(link: AbstractConnection) -> None:
    with suppress(*CONNECTION_ERRORS):
        await link.disconnect(nowait=True)


async def discard(pipe: Pipe) -> None:
    """Close a connection without a word."""
    with suppress(*CONNECTION_ERRORS):
        await pipe.close()


class PrimaryLink:
    """Send transactions over one connection, made anew whenever in doubt.

    With Sentinel, each new connection goes to whom the sentinels name.
    """

    def __init__(self, where: RedisUrl) -> None:
        self._where = where
        self._sentinels = Sentinels(where) if where.topology is Topology.SENTINEL else None
        self._connection: Pipe | None = None
        self._connected_to: Address | None = None
        self._is_outdated = False
        self._served_by: object | None = None

    async def close(self) -> None:
        """Close every connection."""
        await self._drop()
        if self._sentinels is not None:
            await self._sentinels.aclose()

    async def transact(self, parts: Sequence[Part]) -> list[Any]:
        """Run all parts as one transaction; see `Link.transact`."""
        link = await self._connected()
        try:
            [answer] = await exchange(link, [parts])
        except CONNECTION_ERRORS as error:
            # asyncio.TimeoutError is an OSError since Python 3.11.
            await self._drop()
            raise BrokerLost(error_kind(error), str(error)) from error
        except BaseException:
            await self._drop()
            raise
        if isinstance(answer, ResponseError):
            await self._drop()
            raise BrokerRefused(error_kind(answer), str(answer)) from answer
        return last_replies(parts, answer)

    async def still_there(self) -> None:
        """Ask the primary for a sign of life; see `Link.still_there`."""
        await self.transact([Part("", PING)])

    async def keep_to_primary(self) -> None:
        """Leave a server that the sentinels have replaced; run until cancelled.

        It may take writes for seconds more, which are lost when it is told.
        """
        while True:
            await asyncio.sleep(SENTINEL_POLL_SECONDS)
            with suppress(BrokerRefused):
                named = await self._address()
                self._is_outdated = self._connected_to not in (None, named)

    async def _connected(self) -> Pipe:
        if self._is_outdated:
            self._is_outdated = False
            await self._drop()
        if self._connection is None:
            address = await self._address()
            link, identity = await connected(self._where, address)
            self._connection = link
            self._connected_to = address
            before, self._served_by = self._served_by, identity
            if before not in (None, identity):
                raise BrokerReplaced("replaced", "another server answers than before")
        return self._connection

    async def _address(self) -> Address | None:
        if self._sentinels is None:
            return None
        try:
            return await self._sentinels.discover_master(self._where.group)
        except RedisError as error:
            raise BrokerRefused(error_kind(error), str(error)) from error

    async def _drop(self) -> None:
        link, self._connection = self._connection, None
        if link is not None:
            await discard(link)


def last_replies(parts: Sequence[Part], replies: list[Any]) -> list[Any]:
    """Give of each part's replies the last."""
    if len(replies) == len(parts):
        return replies
    ends = 0
    found = []
    for part in parts:
        ends += part.count
        found.append(replies[ends - 1])
    return found
