"""The configuration port: what is configured, as those who administer it read and edit it.

Calls read the same records through `base.Store`, from memory that is at most a second old.
Every method raises StoreUnavailable when the store cannot be reached in time; none serves
what was read before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from app.plans import Business, Plan

Record = TypeVar("Record", Plan, Business)


@dataclass(frozen=True, slots=True)
class Stored(Generic[Record]):
    """A record, and its version: how often it has been written. An edit names the one it is of."""

    record: Record
    version: int


class Configuration(Protocol):
    """Read and edit plans and businesses, each atomically, for all replicas.

    In every edit `version` is that of the record it was made from, or None to
    take whatever stands.

    Raises in every edit:
        EditedMeanwhile: another version stands, or none.
    """

    async def stored_plans(self) -> list[Stored[Plan]]:
        """Give every plan, by name."""

    async def stored_plan(self, name: str) -> Stored[Plan] | None:
        """Give the plan of this name."""

    async def add_plan(self, plan: Plan) -> Stored[Plan]:
        """Store a new plan, or raise AlreadyThere."""

    async def save_plan(self, plan: Plan, version: int | None) -> Stored[Plan]:
        """Replace a plan that is there."""

    async def delete_plan(self, name: str, version: int | None) -> None:
        """Delete a plan, or raise PlanInUse, naming the businesses that have it."""

    async def stored_businesses(self) -> list[Stored[Business]]:
        """Give every business, by id."""

    async def stored_business(self, business_id: str) -> Stored[Business] | None:
        """Give the business of this id."""

    async def add_business(self, business: Business) -> Stored[Business]:
        """Store a new business, or raise AlreadyThere or NumberTaken, naming the number.

        Its plan must be there, else FieldsInvalid.
        """

    async def save_business(self, business: Business, version: int | None) -> Stored[Business]:
        """Replace a business that is there; as `add_business`.

        A number that it no longer has is free for others at once.
        """

    async def delete_business(self, business_id: str, version: int | None) -> None:
        """Delete a business, its numbers, secrets and keys, or raise BusinessHasCalls."""

    async def sealed_secrets(self, business_id: str) -> Mapping[str, str]:
        """Give a business's secrets by name, each sealed as `credentials.sealing` does."""

    async def save_secrets(self, business_id: str, sealed: Mapping[str, str]) -> None:
        """Store secrets beside those that are there; an empty one is removed."""
