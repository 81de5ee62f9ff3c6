"""Connections for writing to a Redis Cluster: one to each node that is needed."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

from app.errors import BrokerError, BrokerLost, BrokerRefused, BrokerReplaced
from app.pubsub.redis_errors import error_kind
from app.pubsub.redis_link import PING, Part, connected, discard, exchange, last_replies
from app.redis_url import RedisUrl
from app.topology import CONNECTION_ERRORS, Address, Pipe, SlotMap, redirection, slot_of

MAX_REDIRECTIONS = 4


class ClusterLink:
    """Send one transaction for each slot, and follow a slot where it goes."""

    def __init__(self, where: RedisUrl, slots: SlotMap) -> None:
        self._where = where
        self._slots = slots
        self._connections: dict[Address, tuple[Pipe, object]] = {}
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
        pending = await self._targets(by_slot)
        await self._check_identities(pending)
        for _ in range(MAX_REDIRECTIONS):
            answers = await self._send(
                {slot: [parts[place] for place in by_slot[slot]] for slot in pending}, pending
            )
            redirected: dict[int, tuple[Address, bool]] = {}
            for slot, answer in answers.items():
                cause = answer.__cause__ if isinstance(answer, BrokerError) else None
                target = redirection(cause)
                if target is not None:
                    redirected[slot] = target
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
        pending = await self._targets(self._served_by)
        await self._check_identities(pending)
        for address in {address for address, _ in pending.values()}:
            for reply in await self._to_node(address, False, [[Part("", PING)]]):
                if isinstance(reply, BrokerError):
                    raise reply

    async def _targets(self, slots: Iterable[int]) -> dict[int, tuple[Address, bool]]:
        try:
            return {slot: (await self._slots.node_of(slot), False) for slot in slots}
        except RedisError as error:
            raise BrokerRefused(error_kind(error), str(error)) from error

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
        error: BrokerError
        try:
            link, _ = await self._connected(address)
            answers = await exchange(link, groups, asking=asking)
        except BrokerRefused as refused:
            self._slots.doubt()
            error = refused
        except CONNECTION_ERRORS as failure:
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

    async def _connected(self, address: Address) -> tuple[Pipe, object]:
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
