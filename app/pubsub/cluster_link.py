"""Connections for writing to a Redis Cluster: one to each node that is needed."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, RedisError, ResponseError

from app.errors import BrokerError, BrokerLost, BrokerRefused, BrokerReplaced
from app.pubsub.redis_errors import error_kind
from app.pubsub.redis_link import Command, Part, connected, discard, exchange, last_replies
from app.redis_url import RedisUrl
from app.topology import Address

log = logging.getLogger(__name__)

# A key may be on its way from one node to another, and a node may have failed.
MAX_REDIRECTIONS = 4
# While a node fails over, the others are asked often enough.
REFRESH_SECONDS = 0.2
REFRESH_LONGEST_SECONDS = 3.0


def slot_of(key: str) -> int:
    """Give the hash slot of a key."""
    return int(key_slot(key.encode()))


class SlotMap:
    """Know which node serves each slot; ask the cluster again when that was wrong."""

    def __init__(self, client: RedisCluster) -> None:
        self._client = client
        self._ready = False
        self._known = False
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def node_of(self, slot: int) -> Address:
        """Give the node that takes writes to a slot.

        Raises:
            BrokerRefused: the cluster cannot be asked, or no node serves it.
        """
        if not self._known:
            await self._refresh()
        try:
            node = self._client.nodes_manager.get_node_from_slot(slot)
        except (RedisError, KeyError) as error:
            self.doubt()
            raise BrokerRefused("clusterdown", f"no node serves slot {slot}") from error
        return str(node.host), int(node.port)

    def doubt(self) -> None:
        """Ask the cluster before the next write."""
        self._known = False

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _refresh(self) -> None:
        """Ask the nodes; those who come meanwhile wait for the same answer.

        Not cancelled when it takes long: a client that is cancelled while it
        asks may not be usable again.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        await asyncio.wait({self._asking}, timeout=REFRESH_LONGEST_SECONDS)
        if not self._asking.done():
            raise BrokerRefused("timeout", "the cluster does not say who serves what")
        error = self._asking.exception()
        if error is not None:
            raise BrokerRefused(error_kind(error), str(error)) from error

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._asked_at + REFRESH_SECONDS - loop.time()))
        self._asked_at = loop.time()
        if self._ready:
            await self._client.nodes_manager.initialize()
        else:
            await self._client.initialize()
        self._ready = self._known = True


class ClusterLink:
    """Send one transaction for each slot, and follow a slot where it goes."""

    def __init__(self, where: RedisUrl, slots: SlotMap) -> None:
        self._where = where
        self._slots = slots
        self._connections: dict[Address, tuple[AbstractConnection, object]] = {}
        self._served_by: dict[int, object] = {}

    async def close(self) -> None:
        """Close every connection."""
        for address in list(self._connections):
            await self._drop(address)

    async def transact(self, parts: Sequence[Part]) -> list[Any]:
        """Run all parts, those of one slot as one transaction; see `Link.transact`."""
        by_slot: dict[int, list[int]] = {}
        for place, part in enumerate(parts):
            by_slot.setdefault(slot_of(part.key), []).append(place)
        replies: list[Any] = [None] * len(parts)
        pending = {slot: (await self._slots.node_of(slot), False) for slot in by_slot}
        await self._check_identities(pending)
        for _ in range(MAX_REDIRECTIONS):
            answers = await self._send(
                {slot: [parts[place] for place in by_slot[slot]] for slot in pending}, pending
            )
            redirected: dict[int, tuple[Address, bool]] = {}
            for slot, answer in answers.items():
                redirection = self._redirection(answer)
                if redirection is not None:
                    redirected[slot] = redirection
                for place, reply in zip(by_slot[slot], _each(answer, by_slot[slot]), strict=True):
                    replies[place] = reply
            pending = redirected
            if not pending:
                break
        failed = [reply for reply in replies if isinstance(reply, BrokerError)]
        if failed and len(failed) == len(replies):
            raise failed[0]
        return replies

    async def still_there(self) -> None:
        """Ask each node written to for a sign of life; see `Link.still_there`."""
        pending = {slot: (await self._slots.node_of(slot), False) for slot in self._served_by}
        await self._check_identities(pending)
        for address in {address for address, _ in pending.values()}:
            for reply in await self._to_node(address, False, [[Part("", [("PING",)])]]):
                if isinstance(reply, BrokerError):
                    raise reply

    async def _check_identities(self, pending: dict[int, tuple[Address, bool]]) -> None:
        """Raise BrokerReplaced when a slot is served by another server than before."""
        replaced = False
        for slot, (address, _) in pending.items():
            try:
                _, identity = await self._connected(address)
            except BrokerRefused:
                continue  # the write itself will say so
            before = self._served_by.get(slot)
            self._served_by[slot] = identity
            replaced = replaced or before not in (None, identity)
        if replaced:
            raise BrokerReplaced("replaced", "another node serves a slot than before")

    async def _send(
        self, parts: dict[int, list[Part]], targets: dict[int, tuple[Address, bool]]
    ) -> dict[int, list[Any] | BrokerError]:
        by_target: dict[tuple[Address, bool], list[int]] = {}
        for slot, target in targets.items():
            by_target.setdefault(target, []).append(slot)
        answers: dict[int, list[Any] | BrokerError] = {}
        found = await asyncio.gather(
            *(
                self._to_node(*target, [parts[slot] for slot in slots])
                for target, slots in by_target.items()
            )
        )
        for slots, of_node in zip(by_target.values(), found, strict=True):
            answers.update(zip(slots, of_node, strict=True))
        return answers

    async def _to_node(
        self, address: Address, asking: bool, groups: Sequence[Sequence[Part]]
    ) -> Iterable[list[Any] | BrokerError]:
        """Send each group as a transaction; give each one's last replies, or its error."""
        transactions: list[list[Command]] = [
            [command for part in parts for command in part.commands] for parts in groups
        ]
        error: BrokerError
        try:
            link, _ = await self._connected(address)
            answers = await exchange(link, transactions, asking=asking)
        except BrokerRefused as refused:
            self._slots.doubt()
            error = refused
        except (RedisError, OSError) as failure:
            self._slots.doubt()
            await self._drop(address)
            error = BrokerLost(error_kind(failure), str(failure))
            error.__cause__ = failure
        except BaseException:
            await self._drop(address)
            raise
        else:
            return [
                self._refused(answer)
                if isinstance(answer, ResponseError)
                else last_replies(parts, answer)
                for parts, answer in zip(groups, answers, strict=True)
            ]
        return [error] * len(groups)

    def _refused(self, answer: ResponseError) -> BrokerRefused:
        self._slots.doubt()
        refused = BrokerRefused(error_kind(answer), str(answer))
        refused.__cause__ = answer
        return refused

    @staticmethod
    def _redirection(answer: list[Any] | BrokerError) -> tuple[Address, bool] | None:
        """Tell where a transaction must go, and whether only this once."""
        cause = answer.__cause__ if isinstance(answer, BrokerError) else None
        if not isinstance(cause, AskError):
            return None
        host, port = cause.node_addr
        return (str(host), int(port)), not isinstance(cause, MovedError)

    async def _connected(self, address: Address) -> tuple[AbstractConnection, object]:
        known = self._connections.get(address)
        if known is None:
            known = self._connections[address] = await connected(self._where, address)
        return known

    async def _drop(self, address: Address) -> None:
        known = self._connections.pop(address, None)
        if known is not None:
            await discard(known[0])


def _each(answer: list[Any] | BrokerError, places: Sequence[int]) -> Sequence[Any]:
    return [answer] * len(places) if isinstance(answer, BrokerError) else answer
