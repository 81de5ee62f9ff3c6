"""The configuration port: what is configured, as those who administer it read and edit it.

Calls read the same records through `base.Store`, from memory that is at most half a second old.
Every method raises StoreUnavailable when the store cannot be reached in time; none serves
what was read before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from app.errors import BusinessDeleted, FieldsInvalid, NumberTaken
from app.plans import DIALLED, Business, Plan

# So many businesses are named in a refusal.
NAMED: Final = 10
EDITED: Final = "somebody else has saved or deleted it since you read it; read it anew"
HAS_CALLS: Final = "calls of this business are live; end them, or try again when they have ended"

Record = TypeVar("Record", Plan, Business)


@dataclass(frozen=True, slots=True)
class Stored(Generic[Record]):
    """A record, and its version: how often it has been written. An edit names the one it is of."""

    record: Record
    version: int


class Deletion(msgspec.Struct, frozen=True):
    """A business's deletion: when it began (Unix ms), and whether nothing is left.

    `claims` are keys that led to the business.
    """

    at: int
    finished: bool = False
    claims: list[str] = []


class Configuration(Protocol):
    """Read and edit plans and businesses, each atomically, for all replicas.

    In every edit `version` is that of the record it was made from, or None to
    take whatever stands. Edits wait for each other. An edit that is cut off by a
    fault may have been made; it leaves nothing that an edit after it stumbles over.

    Raises in every edit but `add_…` and `save_secrets`:
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

    async def has_business(self, business_id: str) -> bool:
        """Return whether a business is there, and was not deleted; never from memory."""

    async def add_business(self, business: Business) -> Stored[Business]:
        """Store a new business, or raise AlreadyThere or NumberTaken, naming the number.

        Its plan must be there, else FieldsInvalid. BusinessDeleted: its id was another's.
        """

    async def save_business(self, business: Business, version: int | None) -> Stored[Business]:
        """Replace a business that is there; as `add_business`.

        A number that it no longer has is free for others at once.
        """

    async def delete_business(self, business_id: str, version: int | None) -> None:
        """Delete a business, its numbers and secrets, or raise BusinessHasCalls.

        Its id is never free again. It is under deletion until `finish_deletion`; until then
        this may be called again, with any version. The rest of its data is not touched.
        """

    async def finish_deletion(self, business_id: str) -> None:
        """Note that nothing is left of a deleted business."""

    async def deletion_of(self, business_id: str) -> Deletion | None:
        """Return what is known of a business's deletion; None where it was not deleted."""

    async def deleted_since(self, at: int) -> list[str]:
        """Return the businesses that were deleted at or after a time (Unix ms)."""

    async def sealed_secrets(self, business_id: str) -> Mapping[str, str]:
        """Give a business's secrets by name, each sealed as `credentials.sealing` does."""

    async def save_secrets(self, business_id: str, sealed: Mapping[str, str]) -> None:
        """Store secrets beside those that are there; an empty one is removed.

        Raises:
            NotThere: there is no such business.
        """

    async def business_ids(self) -> list[str]:
        """Return the id of every business, also of one whose record cannot be read."""

    async def replace_secret(self, business_id: str, name: str, before: str, after: str) -> bool:
        """Replace a sealed secret; return False where it is not `before` any more."""


def no_such_plan(name: str) -> FieldsInvalid:
    """Refuse a business whose plan is not there."""
    return FieldsInvalid({"plan": f"there is no plan {name!r}; make it first, or choose another"})


def taken(name: str) -> NumberTaken:
    """Refuse what is another business's, without telling whose."""
    what = f"the number {name}" if DIALLED.fullmatch(name) else "one of the Exotel pairs"
    return NumberTaken(f"{what} is another business's; take it from there first")


def was_deleted(business_id: str) -> BusinessDeleted:
    """Return the refusal of an id that a deleted business had."""
    return BusinessDeleted(
        f"a business {business_id!r} was deleted, and its id cannot be used again; choose another"
    )


def still_has(users: Sequence[str]) -> str:
    """Say which businesses have a plan that is to be deleted."""
    shown = ", ".join(users[:NAMED]) + (", …" if len(users) > NAMED else "")
    return f"businesses have this plan: {shown}; give them another one first"
