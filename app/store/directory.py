"""Businesses and plans as Redis keeps them, and as they are remembered."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Final, TypeVar
from uuid import uuid4

from app.plans import DIALLED, IDENTIFIER, Business, Directory, Plan
from app.store.reach import RedisReach, text
from app.store.remembered import Remembered

log = logging.getLogger(__name__)

# There once configuration was stored: what is deleted does not come back from a file. It holds
# the version of the configuration, which each edit changes at its end.
CONFIGURED: Final = "configured"
# In place of a version: an edit is under way, or broke off. Version 0.1 writes it at the
# beginning of each edit, and never changes it at the end.
EDITING: Final = "1"
# Beside a record's own fields: how often it was written.
VERSION = "version"

_T = TypeVar("_T")


class RedisDirectory(RedisReach):
    """Read what is configured; what is confirmed serves while Redis is away."""

    @cached_property
    def _remembered(self) -> Remembered:
        return Remembered(self._clock)

    @property
    def answers_from_memory(self) -> bool:
        """Return whether memory has decided since the configuration was last confirmed."""
        return self._remembered.was_used

    async def load_if_empty(self, directory: Directory) -> bool:
        """Take over `directory` when nothing is configured; tell whether it was.

        The indexes come last: a load that breaks off is begun anew the next
        time, and two replicas that load the same at once do no harm.
        """
        for index in (CONFIGURED, "plans", "businesses"):
            if await self._ask("EXISTS", index):
                return False
        directory = await self._without_deleted(directory)
        commands: list[tuple[str, ...]] = []
        for plan in directory.plans:
            commands.append(("HSET", plan_key(plan.name), VERSION, "1", *written(plan)))
        for business in directory.businesses:
            key = business_key(business.id)
            commands.append(("HSET", key, VERSION, "1", *written(business)))
            commands += [("SET", name, business.id) for name in claimed_by(business)]
        commands += [("SADD", "businesses", business.id) for business in directory.businesses]
        commands += [("SADD", "plans", plan.name) for plan in directory.plans]
        if commands:
            commands.append(("SET", CONFIGURED, new_version()))
        for command in commands:
            await self._ask(*command)
        return bool(commands)

    async def _without_deleted(self, directory: Directory) -> Directory:
        """Leave out businesses whose id was deleted: it is not used again."""
        kept = []
        for business in directory.businesses:
            if await self._ask("EXISTS", tombstone_key(business.id)):
                log.error(
                    "[server] BUSINESSES_FILE names %s, which was deleted: it is left out, since "
                    "the id of a deleted business cannot be used again",
                    business.id,
                )
            else:
                kept.append(business)
        return replace(directory, businesses=tuple(kept))

    async def plan(self, name: str) -> Plan | None:
        """Give the plan of this name."""

        async def read() -> Plan | None:
            stored = await self._hash(plan_key(name))
            return Plan.from_fields({**stored, "name": name}) if stored else None

        if not IDENTIFIER.fullmatch(name):
            return None
        return await self._recall(plan_key(name), read)

    async def business(self, business_id: str) -> Business | None:
        """Give the business of this id."""

        async def read() -> Business | None:
            stored = await self._hash(business_key(business_id))
            return Business.from_fields({**stored, "id": business_id}) if stored else None

        if not IDENTIFIER.fullmatch(business_id):
            return None
        return await self._recall(business_key(business_id), read)

    async def business_of_number(self, dialled: str) -> Business | None:
        """Give the business that owns this number."""
        return await self._owner(_number_key(dialled)) if DIALLED.fullmatch(dialled) else None

    async def business_of_pair(self, digest: str) -> Business | None:
        """Give the business that has this Exotel pair for its own."""
        return await self._owner(_pair_key(digest))

    async def _owner(self, key: str) -> Business | None:
        async def read() -> str | None:
            owner = await self._ask("GET", key)
            if owner is None:
                return None
            # A claim that its owner does not list is left of an edit that broke off.
            business = await self.business(text(owner))
            return business.id if business and key in claimed_by(business) else None

        owner = await self._recall(key, read)
        return await self.business(owner) if owner is not None else None

    async def secrets_of(self, business_id: str) -> Mapping[str, str]:
        """Give a business's secrets by name, each sealed."""

        async def read() -> Mapping[str, str] | None:
            return await self._hash(secrets_key(business_id)) or None

        if not IDENTIFIER.fullmatch(business_id):
            return {}
        return await self._recall(secrets_key(business_id), read) or {}

    async def lookup(self, business_id: str) -> tuple[Business, Plan] | None:
        """Give a business with its plan; None when either is missing."""
        business = await self.business(business_id)
        plan = await self.plan(business.plan) if business else None
        return (business, plan) if business and plan else None

    async def _hash(self, key: str) -> dict[str, str]:
        stored = await self._ask("HGETALL", key)
        return {text(name): text(value) for name, value in stored.items()}

    async def _recall(self, key: str, read: Callable[[], Awaitable[_T | None]]) -> _T | None:
        return await self._remembered.recall(key, read)

    def _forget(self, *keys: str) -> None:
        """Read these again the next time: they were edited here."""
        self._remembered.forget(*keys)


def new_version() -> str:
    """Return a version that the configuration never had."""
    return uuid4().hex


def written(record: Plan | Business) -> tuple[str, ...]:
    """Give a record as names and values of a hash, in turn."""
    return tuple(part for pair in record.as_fields().items() for part in pair)


def claimed_by(business: Business) -> dict[str, str]:
    """Give the keys that lead to a business, each with the name that it is found by."""
    numbers = {_number_key(form): form for form in business.dialled_forms}
    return numbers | {_pair_key(digest): digest for digest in business.exotel_pairs}


def plan_key(name: str) -> str:
    """Name a plan's hash."""
    return f"plan:{{{name}}}"


def business_key(business_id: str) -> str:
    """Name a business's hash."""
    return f"business:{{{business_id}}}"


def secrets_key(business_id: str) -> str:
    """Name the hash of a business's secrets, in the slot of the business."""
    return f"business:{{{business_id}}}:secrets"


def tombstone_key(business_id: str) -> str:
    """Return the key that says that a business was deleted, in the slot of its live keys."""
    return f"live:{{{business_id}}}:deleted"


def answered_key(call_sid: str) -> str:
    """Return the key that says for which business a call was answered."""
    return f"answered:{{{call_sid}}}"


def _pair_key(digest: str) -> str:
    return f"exotel:{{{digest}}}"


def _number_key(e164: str) -> str:
    return f"number:{{{e164}}}"
