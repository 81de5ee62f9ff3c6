"""Editing what is configured in Redis: one edit at a time, and none half seen.

An edit touches keys of many slots, which no script may in a Cluster. So edits wait for
each other at one lock, a lease that runs out when its holder dies; and each step is such
that an edit which breaks off there does no harm:

- A number is claimed before the record that lists it is written. A claim whose owner does
  not list the number is as good as none: no call follows it, and the next to want it takes it.
- The record itself is written by one script, which looks at its version.
- An index may name what is not there, but never misses what is.
- `configured` says that an edit is under way before the first step, and has a new version after
  the last: who reads the same version before and after a record has read what is in force.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import msgspec

from app.errors import (
    AlreadyThere,
    BusinessHasCalls,
    ConfigurationError,
    EditedMeanwhile,
    NotThere,
    NumberTaken,
    PlanInUse,
    StoreUnavailable,
)
from app.plans import IDENTIFIER, Business, Plan
from app.store.configuration import (
    EDITED,
    HAS_CALLS,
    Deletion,
    Record,
    Stored,
    no_such_plan,
    still_has,
    taken,
    was_deleted,
)
from app.store.directory import (
    CONFIGURED,
    EDITING,
    VERSION,
    RedisDirectory,
    business_key,
    claimed_by,
    new_version,
    plan_key,
    secrets_key,
    tombstone_key,
    written,
)
from app.store.reach import in_ms, text
from app.store.remembered import READ_AT_A_TIME
from app.store.scripts import (
    DELETE_BUSINESS,
    DELETE_RECORD,
    HAS_BUSINESS,
    RELEASE,
    REPLACE_SECRET,
    SAVE_RECORD,
    SAVE_SECRETS,
)
from app.store.usage import KEPT_SECONDS, months_until

log = logging.getLogger(__name__)

LOCK: Final = "configuration:{lock}"
USAGE_MONTHS: Final = int(KEPT_SECONDS // (28 * 86_400)) + 1
DELETED: Final = "businesses:{deleted}"
# An edit ends before its lock runs out, unless the whole process stands still.
EDIT_SECONDS: Final = 5.0
LOCK_SECONDS: Final = 15.0
LOCK_PAUSE_SECONDS: Final = 0.02

_NEW: Final = "new"
_ANY: Final = ""


class RedisConfiguration(RedisDirectory):
    """Read and edit plans and businesses in Redis."""

    # -------------------------------------------------------------------- plans

    async def stored_plans(self) -> list[Stored[Plan]]:
        """Give every plan, by name."""
        return await self._all("plans", self.stored_plan)

    async def stored_plan(self, name: str) -> Stored[Plan] | None:
        """Give the plan of this name."""
        if not IDENTIFIER.fullmatch(name):
            return None
        if not (stored := await self._hash(plan_key(name))):
            return None
        return Stored(Plan.from_fields({**stored, "name": name}), _version(stored))

    async def add_plan(self, plan: Plan) -> Stored[Plan]:
        """Store a new plan, or raise AlreadyThere."""
        async with self._editing():
            await self._ask("SADD", "plans", plan.name)
            return Stored(plan, await self._write(plan_key(plan.name), plan, _NEW))

    async def save_plan(self, plan: Plan, version: int | None) -> Stored[Plan]:
        """Replace a plan that is there."""
        async with self._editing():
            return Stored(plan, await self._write(plan_key(plan.name), plan, _expected(version)))

    async def delete_plan(self, name: str, version: int | None) -> None:
        """Delete a plan, or raise PlanInUse, naming the businesses that have it."""
        async with self._editing():
            businesses = await self.stored_businesses()
            if users := [one.record.id for one in businesses if one.record.plan == name]:
                raise PlanInUse(still_has(users))
            key = plan_key(name)
            await self._run(DELETE_RECORD, [key], _expected(version))
            await self._ask("SREM", "plans", name)
            self._forget(key)

    # --------------------------------------------------------------- businesses

    async def stored_businesses(self) -> list[Stored[Business]]:
        """Give every business, by id."""
        return await self._all("businesses", self.stored_business)

    async def stored_business(self, business_id: str) -> Stored[Business] | None:
        """Give the business of this id."""
        if not IDENTIFIER.fullmatch(business_id):
            return None
        if not (stored := await self._hash(business_key(business_id))):
            return None
        return Stored(Business.from_fields({**stored, "id": business_id}), _version(stored))

    async def has_business(self, business_id: str) -> bool:
        """Return whether a business is there, and was not deleted."""
        if not IDENTIFIER.fullmatch(business_id):
            return False
        keys = business_key(business_id), tombstone_key(business_id)
        return bool(await self._ask("EVAL", HAS_BUSINESS, len(keys), *keys))

    async def add_business(self, business: Business) -> Stored[Business]:
        """Store a new business, or raise AlreadyThere or NumberTaken, naming the number."""
        async with self._editing():
            if await self.stored_business(business.id):
                raise AlreadyThere(f"there is a business {business.id!r} already")
            if await self._was_used(business.id):
                raise was_deleted(business.id)
            await self._check_plan(business)
            async with self._claiming(business):
                await self._ask("SADD", "businesses", business.id)
                version = await self._write(business_key(business.id), business, _NEW)
            return Stored(business, version)

    async def save_business(self, business: Business, version: int | None) -> Stored[Business]:
        """Replace a business that is there; as `add_business`."""
        async with self._editing():
            before = await self.stored_business(business.id)
            if before is None or version not in (None, before.version):
                raise EditedMeanwhile(EDITED)
            await self._check_plan(business)
            async with self._claiming(business):
                key = business_key(business.id)
                saved = await self._write(key, business, str(before.version))
            await self._release(
                set(claimed_by(before.record)) - set(claimed_by(business)), business.id
            )
            return Stored(business, saved)

    async def delete_business(self, business_id: str, version: int | None) -> None:
        """Delete a business, its numbers and secrets, or raise BusinessHasCalls."""
        async with self._editing():
            before = await self.stored_business(business_id)
            deletion = await self.deletion_of(business_id)
            if before is None and deletion is None:
                raise EditedMeanwhile(EDITED)
            claims = [*claimed_by(before.record)] if before else []
            now = _in_ms(await self._ask("TIME"))
            # The index may name a business that is not deleted after all: who reads it looks.
            await self._ask("ZADD", DELETED, now, business_id)
            keys = [
                *(business_key(business_id), secrets_key(business_id)),
                *(f"live:{{{business_id}}}", tombstone_key(business_id)),
            ]
            tombstone = msgspec.json.encode(Deletion(now, claims=claims)).decode()
            await self._run(DELETE_BUSINESS, keys, _expected(version), tombstone)
            deletion = await self.deletion_of(business_id)
            await self._release(deletion.claims if deletion else claims, business_id)
            await self._ask("SREM", "businesses", business_id)
            self._forget(*keys)

    async def finish_deletion(self, business_id: str) -> None:
        """Note that nothing is left of a deleted business."""
        deletion = await self.deletion_of(business_id)
        if deletion is not None:
            finished = Deletion(deletion.at, finished=True)
            await self._ask("SET", tombstone_key(business_id), msgspec.json.encode(finished))

    async def deletion_of(self, business_id: str) -> Deletion | None:
        """Return what is known of a business's deletion."""
        if not IDENTIFIER.fullmatch(business_id):
            return None
        found = await self._ask("GET", tombstone_key(business_id))
        try:
            return None if found is None else msgspec.json.decode(found, type=Deletion)
        except msgspec.MsgspecError:
            return Deletion(0)  # it was deleted, whatever else is said of it

    async def _was_used(self, business_id: str) -> bool:
        """Return whether an id was a deleted business's; 0.1 deleted some and left their data."""
        now = _in_ms(await self._ask("TIME"))
        slots = f"live:{{{business_id}}}"
        months = [f"{slots}:usage:{month}" for month in months_until(now, USAGE_MONTHS)]
        left = tombstone_key(business_id), f"{slots}:calls", *months
        return bool(await self._ask("EXISTS", *left))

    async def deleted_since(self, at: int) -> list[str]:
        """Return the businesses that were deleted at or after a time."""
        named = map(text, await self._ask("ZRANGEBYSCORE", DELETED, at, "+inf"))
        return [business_id for business_id in named if await self.deletion_of(business_id)]

    async def sealed_secrets(self, business_id: str) -> Mapping[str, str]:
        """Give a business's secrets by name, each sealed as `credentials.sealing` does."""
        return await self._hash(secrets_key(business_id))

    async def save_secrets(self, business_id: str, sealed: Mapping[str, str]) -> None:
        """Store secrets beside those that are there; an empty one is removed."""
        async with self._editing():
            keys = [business_key(business_id), secrets_key(business_id)]
            parts = [part for pair in sealed.items() for part in pair]
            await self._run(SAVE_SECRETS, keys, *parts)
            self._forget(keys[1])

    async def confirm_configuration(self) -> str | None:
        """Look at the configuration's version, and read again what was read under another."""
        at = self._clock()
        found = text(await self._ask("GET", CONFIGURED) or b"")
        version = await self._settled() if found == EDITING else found
        if version is None:
            self._remembered.doubt()
            return None
        self._remembered.confirm(version, at)
        await self._remembered.reread()
        return version

    async def _settled(self) -> str | None:
        """Return the version after an edit that broke off, or was 0.1's; None during one."""
        token = uuid.uuid4().hex
        if not await self._ask("SET", LOCK, token, "NX", "PX", in_ms(LOCK_SECONDS)):
            return None
        try:
            # Nobody edits now. Another replica may have been faster.
            version = text(await self._ask("GET", CONFIGURED) or b"")
            if version == EDITING:
                version = new_version()
                await self._ask("SET", CONFIGURED, version)
            return version
        finally:
            with suppress(StoreUnavailable):
                await self._ask("EVAL", RELEASE, 1, LOCK, token)

    async def business_ids(self) -> list[str]:
        """Return the id of every business, also of one whose record cannot be read."""
        return sorted(map(text, await self._ask("SMEMBERS", "businesses")))

    async def replace_secret(self, business_id: str, name: str, before: str, after: str) -> bool:
        """Replace a sealed secret; return False where it is not `before` any more."""
        key = secrets_key(business_id)
        replaced = await self._ask("EVAL", REPLACE_SECRET, 1, key, name, before, after)
        self._forget(key)
        return bool(replaced)

    # ------------------------------------------------------------------ in steps

    @asynccontextmanager
    async def _editing(self) -> AsyncIterator[None]:
        """Hold the lock of all edits, for `EDIT_SECONDS` at most."""
        token = uuid.uuid4().hex
        try:
            async with asyncio.timeout(EDIT_SECONDS):
                # The one that holds it may be another process: it cannot wake us.
                while not await self._ask(  # noqa: ASYNC110
                    "SET", LOCK, token, "NX", "PX", in_ms(LOCK_SECONDS)
                ):
                    await asyncio.sleep(LOCK_PAUSE_SECONDS)
                await self._ask("SET", CONFIGURED, EDITING)
                try:
                    yield
                finally:
                    # Also where it was refused, or broke off: some steps may have been taken.
                    await self._end_edit()
        except TimeoutError as error:
            raise StoreUnavailable("other edits were under way for too long") from error
        finally:
            # Where this fails the lock runs out by itself.
            with suppress(StoreUnavailable):
                await self._ask("EVAL", RELEASE, 1, LOCK, token)

    async def _end_edit(self) -> None:
        """Change the configuration's version; where this fails, another replica does."""
        at, version = self._clock(), new_version()
        with suppress(StoreUnavailable):
            await self._ask("SET", CONFIGURED, version)
            self._remembered.confirm(version, at)

    async def _run(self, script: str, keys: list[str], *arguments: str) -> int:
        """Run a script that edits; give what it says, or raise its refusal."""
        answer = int(await self._ask("EVAL", script, len(keys), *keys, *arguments))
        match answer:
            case -1:
                raise EditedMeanwhile(EDITED)
            case -2:
                raise AlreadyThere("there is one of this name already")
            case -3:
                raise BusinessHasCalls(HAS_CALLS)
            case -4:
                raise NotThere("there is no such business")
            case -5:
                raise was_deleted(keys[0][len("business:{") : -1])
        return answer

    async def _write(self, key: str, record: Plan | Business, expected: str) -> int:
        keys = [key, tombstone_key(record.id)] if isinstance(record, Business) else [key]
        version = await self._run(SAVE_RECORD, keys, expected, *written(record))
        self._forget(key)
        return version

    async def _check_plan(self, business: Business) -> None:
        if not await self._hash(plan_key(business.plan)):
            raise no_such_plan(business.plan)

    @asynccontextmanager
    async def _claiming(self, business: Business) -> AsyncIterator[None]:
        """Claim what names a business; give back what is new of it where an edit is refused."""
        claims, new = claimed_by(business), []
        try:
            for key, name in claims.items():
                if await self._claim(key, name, business.id):
                    new.append(key)
            yield
        except (NumberTaken, AlreadyThere, EditedMeanwhile):
            await self._release(new, business.id)
            raise

    async def _claim(self, key: str, name: str, business_id: str) -> bool:
        """Claim one name; True when it was not this business's before."""
        if await self._ask("SET", key, business_id, "NX"):
            return True
        owner = text(await self._ask("GET", key) or b"")
        if owner == business_id:
            return False
        other = await self.stored_business(owner)
        if other and key in claimed_by(other.record):
            raise taken(name)
        await self._ask("SET", key, business_id)
        return True

    async def _release(self, keys: Iterable[str], business_id: str) -> None:
        for key in keys:
            await self._ask("EVAL", RELEASE, 1, key, business_id)
            self._forget(key)

    async def _all(
        self, index: str, read: Callable[[str], Awaitable[Stored[Record] | None]]
    ) -> list[Stored[Record]]:
        """Read all that an index names; what cannot be read is logged and left out."""
        names = sorted(map(text, await self._ask("SMEMBERS", index)))
        room = asyncio.Semaphore(READ_AT_A_TIME)

        async def read_one(name: str) -> Stored[Any] | None:
            try:
                async with room:
                    return await read(name)
            except ConfigurationError as error:
                log.error("[server] What is stored cannot be read: %s", error)
                return None

        return [one for one in await asyncio.gather(*map(read_one, names)) if one is not None]


def _in_ms(time: Sequence[int | str | bytes]) -> int:
    """Return the time that Redis gives, in ms."""
    seconds, microseconds = map(int, time)
    return seconds * 1000 + microseconds // 1000


def _version(stored: Mapping[str, str]) -> int:
    found = stored.get(VERSION, "")
    return int(found) if found.isdecimal() else 0


def _expected(version: int | None) -> str:
    return _ANY if version is None else str(version)
