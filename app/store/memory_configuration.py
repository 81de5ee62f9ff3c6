"""What is configured, in a process that stands alone; an edit is one step."""

from collections.abc import Callable, Mapping

from app.errors import (
    AlreadyThere,
    BusinessHasCalls,
    EditedMeanwhile,
    NotThere,
    PlanInUse,
)
from app.plans import Business, Directory, Plan
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


class MemoryConfiguration:
    """Keep plans and businesses in this process. `has_calls` tells of a business's slots."""

    def __init__(self, has_calls: Callable[[str], bool]) -> None:
        self._has_calls = has_calls
        self._plans: dict[str, Stored[Plan]] = {}
        self._businesses: dict[str, Stored[Business]] = {}
        self._owners: dict[str, str] = {}
        self._secrets: dict[str, dict[str, str]] = {}
        self._deleted: dict[str, Deletion] = {}
        self._was_configured = False

    # ------------------------------------------------------------ as calls see it

    async def load_if_empty(self, directory: Directory) -> bool:
        """Take over `directory` when nothing was ever configured; tell whether it was."""
        if self._was_configured or not (directory.plans or directory.businesses):
            return False
        self._was_configured = True
        self._plans = {plan.name: Stored(plan, 1) for plan in directory.plans}
        for business in directory.businesses:
            self._businesses[business.id] = Stored(business, 1)
            self._owners |= dict.fromkeys(_names_of(business), business.id)
        return True

    async def confirm_configuration(self) -> str | None:
        """Return a version; memory is never away."""
        return "memory" if self._was_configured else ""

    @property
    def answers_from_memory(self) -> bool:
        """Return False: what is read here is what is configured."""
        return False

    async def plan(self, name: str) -> Plan | None:
        """Give the plan of this name."""
        return stored.record if (stored := self._plans.get(name)) else None

    async def business(self, business_id: str) -> Business | None:
        """Give the business of this id."""
        return stored.record if (stored := self._businesses.get(business_id)) else None

    async def business_of_number(self, dialled: str) -> Business | None:
        """Give the business that owns this number."""
        return await self.business(self._owners.get(dialled, ""))

    async def business_of_pair(self, digest: str) -> Business | None:
        """Give the business that has this Exotel pair for its own."""
        return await self.business(self._owners.get(digest, ""))

    async def secrets_of(self, business_id: str) -> Mapping[str, str]:
        """Give a business's secrets by name, each sealed."""
        return dict(self._secrets.get(business_id, {}))

    async def lookup(self, business_id: str) -> tuple[Business, Plan] | None:
        """Give a business with its plan; None when either is missing."""
        business = await self.business(business_id)
        plan = await self.plan(business.plan) if business else None
        return (business, plan) if business and plan else None

    # ----------------------------------------------------------- as admins edit it

    async def stored_plans(self) -> list[Stored[Plan]]:
        """Give every plan, by name."""
        return [self._plans[name] for name in sorted(self._plans)]

    async def stored_plan(self, name: str) -> Stored[Plan] | None:
        """Give the plan of this name."""
        return self._plans.get(name)

    async def add_plan(self, plan: Plan) -> Stored[Plan]:
        """Store a new plan, or raise AlreadyThere."""
        _check_new(self._plans.get(plan.name))
        return self._put(self._plans, plan.name, plan)

    async def save_plan(self, plan: Plan, version: int | None) -> Stored[Plan]:
        """Replace a plan that is there."""
        _check(self._plans.get(plan.name), version)
        return self._put(self._plans, plan.name, plan)

    async def delete_plan(self, name: str, version: int | None) -> None:
        """Delete a plan, or raise PlanInUse, naming the businesses that have it."""
        users = [key for key, one in self._businesses.items() if one.record.plan == name]
        if users:
            raise PlanInUse(still_has(sorted(users)))
        _check(self._plans.get(name), version)
        del self._plans[name]

    async def stored_businesses(self) -> list[Stored[Business]]:
        """Give every business, by id."""
        return [self._businesses[id_] for id_ in sorted(self._businesses)]

    async def stored_business(self, business_id: str) -> Stored[Business] | None:
        """Give the business of this id."""
        return self._businesses.get(business_id)

    async def has_business(self, business_id: str) -> bool:
        """Return whether a business is there."""
        return business_id in self._businesses

    async def add_business(self, business: Business) -> Stored[Business]:
        """Store a new business, or raise AlreadyThere or NumberTaken, naming the number."""
        if business.id in self._deleted:
            raise was_deleted(business.id)
        _check_new(self._businesses.get(business.id))
        return self._put_business(business)

    async def save_business(self, business: Business, version: int | None) -> Stored[Business]:
        """Replace a business that is there; as `add_business`."""
        _check(self._businesses.get(business.id), version)
        return self._put_business(business)

    async def delete_business(self, business_id: str, version: int | None) -> None:
        """Delete a business, its numbers and secrets, or raise BusinessHasCalls."""
        if business_id in self._deleted:
            return
        stands = _check(self._businesses.get(business_id), version)
        if self._has_calls(business_id):
            raise BusinessHasCalls(HAS_CALLS)
        for name in _names_of(stands.record):
            del self._owners[name]
        self._secrets.pop(business_id, None)
        del self._businesses[business_id]
        self._deleted[business_id] = Deletion(0)

    async def finish_deletion(self, business_id: str) -> None:
        """Note that nothing is left of a deleted business."""
        if deletion := self._deleted.get(business_id):
            self._deleted[business_id] = Deletion(deletion.at, finished=True)

    async def deletion_of(self, business_id: str) -> Deletion | None:
        """Return what is known of a business's deletion."""
        return self._deleted.get(business_id)

    async def deleted_since(self, at: int) -> list[str]:
        """Return the businesses that this process has deleted."""
        return list(self._deleted)

    async def sealed_secrets(self, business_id: str) -> Mapping[str, str]:
        """Give a business's secrets by name, each sealed."""
        return await self.secrets_of(business_id)

    async def save_secrets(self, business_id: str, sealed: Mapping[str, str]) -> None:
        """Store secrets beside those that are there; an empty one is removed."""
        if business_id not in self._businesses:
            raise NotThere("there is no such business")
        after = {**self._secrets.get(business_id, {}), **sealed}
        self._secrets[business_id] = {name: value for name, value in after.items() if value}

    async def business_ids(self) -> list[str]:
        """Return the id of every business."""
        return sorted(self._businesses)

    async def replace_secret(self, business_id: str, name: str, before: str, after: str) -> bool:
        """Replace a sealed secret; return False where it is not `before` any more."""
        stored = self._secrets.get(business_id, {})
        if stored.get(name) != before:
            return False
        stored[name] = after
        return True

    def _put_business(self, business: Business) -> Stored[Business]:
        if business.plan not in self._plans:
            raise no_such_plan(business.plan)
        names = _names_of(business)
        for name in names:
            if self._owners.get(name, business.id) != business.id:
                raise taken(name)
        if before := self._businesses.get(business.id):
            for name in _names_of(before.record):
                del self._owners[name]
        self._owners |= dict.fromkeys(names, business.id)
        return self._put(self._businesses, business.id, business)

    def _put(self, place: dict[str, Stored[Record]], key: str, record: Record) -> Stored[Record]:
        self._was_configured = True
        stands = place.get(key)
        place[key] = Stored(record, stands.version + 1 if stands else 1)
        return place[key]


def _check_new(stands: object) -> None:
    if stands is not None:
        raise AlreadyThere("there is one of this name already")


def _check(stands: Stored[Record] | None, version: int | None) -> Stored[Record]:
    if stands is None or version not in (None, stands.version):
        raise EditedMeanwhile(EDITED)
    return stands


def _names_of(business: Business) -> tuple[str, ...]:
    return (*business.dialled_forms, *business.exotel_pairs)
