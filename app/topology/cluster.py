"""A Redis Cluster: who serves which slot, and a client that asks the right node.

redis-py has a cluster client. Version 8.1 closes every connection when one
command fails, and of twenty first commands at once up to seventeen failed on
healthy nodes (docs/decisions/0006); so the nodes are asked by its plain client,
and the redirections, which the Cluster specification describes, are ours.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, TryAgainError

Address = tuple[str, int]

# What a broken connection raises; uvloop's transports raise RuntimeError once closed.
CONNECTION_ERRORS = (RedisError, OSError, RuntimeError)

# A key may be on its way from one node to another, and a node may have failed.
MAX_REDIRECTIONS = 5
TRY_AGAIN_SECONDS = 0.02
# While a node fails over, the others are asked often enough.
REFRESH_SECONDS = 0.2
NODE_SECONDS = 1.0


def slot_of(key: str | bytes) -> int:
    """Give the hash slot of a key."""
    return int(key_slot(key if isinstance(key, bytes) else key.encode()))


def redirection(error: BaseException | None) -> tuple[Address, bool] | None:
    """Tell where a refused command must go, and whether only this once (ASK)."""
    if not isinstance(error, AskError):
        return None
    host, port = error.node_addr
    return (str(host), int(port)), not isinstance(error, MovedError)


class SlotMap:
    """Know which node serves each slot; ask again when that was wrong.

    `ask` gives what one node answers to CLUSTER SLOTS.
    """

    def __init__(
        self, seeds: list[Address], ask: Callable[[Address], Awaitable[list[Any]]]
    ) -> None:
        self._nodes = list(seeds)
        self._ask = ask
        self._ranges: list[tuple[int, int, Address]] = []
        self._known = False
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def node_of(self, slot: int) -> Address:
        """Give the node that takes writes to a slot.

        Raises:
            ClusterDownError: no node can be asked, or none serves it.
        """
        if not self._known:
            await self._refresh()
        for first, last, address in self._ranges:
            if first <= slot <= last:
                return address
        self.doubt()
        raise ClusterDownError(f"no node serves slot {slot}")

    async def primaries(self) -> list[Address]:
        """Return every node that takes writes."""
        await self._refresh()
        return list(dict.fromkeys(address for _, _, address in self._ranges))

    def doubt(self) -> None:
        """Ask the cluster before the next use."""
        self._known = False

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _refresh(self) -> None:
        """Ask the nodes; those who come meanwhile wait for the same answer."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_nodes())
        await asyncio.shield(self._asking)

    async def _ask_nodes(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._asked_at + REFRESH_SECONDS - loop.time()))
        self._asked_at = loop.time()
        for address in list(self._nodes):
            try:
                async with asyncio.timeout(NODE_SECONDS):
                    answer = await self._ask(address)
            except CONNECTION_ERRORS:
                # The next time another is asked first.
                self._nodes.remove(address)
                self._nodes.append(address)
                continue
            self._learn(answer, address)
            return
        raise ClusterDownError("no node says who serves what")

    def _learn(self, answer: list[Any], asked: Address) -> None:
        """Read CLUSTER SLOTS: first and last slot, primary, replicas; a host may be missing."""
        self._ranges = []
        found = dict.fromkeys(self._nodes)
        for first, last, *nodes in answer:
            addresses = [(_text(host) or asked[0], int(port)) for host, port, *_ in nodes]
            self._ranges.append((int(first), int(last), addresses[0]))
            found |= dict.fromkeys(addresses)
        self._nodes = list(found)
        self._known = True


class ClusterClient:
    """Run each command on the node that serves its key; `make` makes a node's client."""

    def __init__(self, seeds: list[Address], make: Callable[[Address], Redis]) -> None:
        self._make = make
        self._clients: dict[Address, Redis] = {}
        self.slots = SlotMap(seeds, self._ask_for_slots)

    async def execute_command(self, *command: Any) -> Any:
        """Run a command, following its key; raises as redis-py's own does."""
        key = key_of(command)
        slot = slot_of(key)
        target = await self.slots.node_of(slot), False
        for _ in range(MAX_REDIRECTIONS):
            address, asking = target
            try:
                return await self._run(self._client_at(address), command, asking=asking)
            except AskError as error:
                target = redirection(error) or target
                self.slots.doubt()
            except TryAgainError:
                await asyncio.sleep(TRY_AGAIN_SECONDS)
            except CONNECTION_ERRORS:
                self.slots.doubt()
                raise
        raise ClusterDownError(f"slot {slot} is sent from node to node")

    async def primaries(self) -> list[Redis]:
        """Return a client of each node that takes writes, so that all keys can be scanned."""
        return [self._client_at(address) for address in await self.slots.primaries()]

    async def any_node(self) -> Redis:
        """Give the client of a node that serves something."""
        return self._client_at(await self.slots.node_of(0))

    async def aclose(self) -> None:
        """Close every connection."""
        await self.slots.close()
        for one in self._clients.values():
            await one.aclose()

    @staticmethod
    async def _run(node: Redis, command: tuple[Any, ...], *, asking: bool) -> Any:
        if not asking:
            return await node.execute_command(*command)  # type: ignore[no-untyped-call]
        async with node.client() as one:
            await one.execute_command("ASKING")  # type: ignore[no-untyped-call]
            return await one.execute_command(*command)  # type: ignore[no-untyped-call]

    async def _ask_for_slots(self, address: Address) -> list[Any]:
        node = self._client_at(address)
        answer: list[Any] = await node.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
        return answer

    def _client_at(self, address: Address) -> Redis:
        if address not in self._clients:
            self._clients[address] = self._make(address)
        return self._clients[address]


def key_of(command: tuple[Any, ...]) -> str | bytes:
    """Give a command's first key; empty where it has none, so that any node will do."""
    match command:
        case ("EVAL", _, _, key, *_) | ("XINFO", _, key, *_):
            return str(key)
        case ("XREAD", *rest):
            return str(rest[rest.index("STREAMS") + 1])
        case (_, key, *_):
            return str(key)
    return ""


def _text(host: bytes | str | None) -> str:
    return host.decode() if isinstance(host, bytes) else host or ""
