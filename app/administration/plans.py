"""Plans: an operator's to edit, and a business's admin's to read where it is theirs."""

import logging
from collections.abc import Mapping
from typing import Any

from app.admin.audit_log import AuditLog
from app.admin.principal import Principal
from app.admin.roles import Permission
from app.administration.records import changed, table_of, told, without_limits
from app.businesses.warnings import warnings_of
from app.errors import EditedMeanwhile, NotThere
from app.plans import PLAN_NAME, Directory, Plan, make_plan
from app.store.configuration import Configuration, Stored

log = logging.getLogger(__name__)


class Plans:
    """Read and edit plans.

    Every method takes who asks first, and raises Forbidden, or NotThere for what
    they may not know of. `version` is that of the plan that an edit was made
    from, or None to take whatever stands.
    """

    def __init__(self, configuration: Configuration, audit: AuditLog) -> None:
        self._configuration = configuration
        self._audit = audit

    async def all(
        self, who: Principal, permission: Permission = Permission.READ_PLANS
    ) -> list[Stored[Plan]]:
        """Return every plan, by name; to the holder of a key, their business's.

        `permission` is what the result is for.
        """
        who.demand(permission)
        if who.is_operator:
            return await self._configuration.stored_plans()
        own = await self._own_plan(who)
        found = await self._configuration.stored_plan(own) if own else None
        return [found] if found else []

    async def get(self, who: Principal, name: str) -> Stored[Plan]:
        """Give the plan of this name."""
        who.demand(Permission.READ_PLANS)
        is_theirs = who.is_operator or await self._own_plan(who) == name
        if not is_theirs or not PLAN_NAME.fullmatch(name):
            raise _none(name)
        found = await self._configuration.stored_plan(name)
        if found is None:
            raise _none(name)
        return found

    async def create(self, who: Principal, name: object, table: Mapping[str, Any]) -> Stored[Plan]:
        """Store a new plan; fields that are not given have their defaults.

        Raises:
            FieldsInvalid: has every field's problem; its name's is under `name`.
            AlreadyThere: there is one of this name.
        """
        who.demand(Permission.EDIT_PLANS)
        stored = await self._configuration.add_plan(make_plan(name, without_limits(table)))
        await self._audit.note(who, "plan.created", stored.record.name)
        return stored

    async def edit(
        self, who: Principal, name: str, changes: Mapping[str, Any], version: int | None
    ) -> Stored[Plan]:
        """Change fields of a plan; takes effect on the next call of who has it.

        Raises:
            FieldsInvalid: has every field's problem.
            EditedMeanwhile: another version stands.
        """
        who.demand(Permission.EDIT_PLANS)
        before = await self.get(who, name)
        after = make_plan(name, table_of(before.record) | without_limits(changes))
        if not changed(before.record, after):
            check_version(before, version)
            return before
        stored = await self._configuration.save_plan(after, _of(before, version))
        if after.allowed_destinations != before.record.allowed_destinations:
            await self._warn_of_forwarding(after)
        data, _ = told(before.record, after)
        await self._audit.note(who, "plan.saved", name, data=data)
        return stored

    async def delete(self, who: Principal, name: str, version: int | None) -> None:
        """Delete a plan.

        Raises:
            PlanInUse: businesses have it.
            EditedMeanwhile: another version stands.
        """
        who.demand(Permission.EDIT_PLANS)
        before = await self.get(who, name)
        await self._configuration.delete_plan(name, _of(before, version))
        await self._audit.note(who, "plan.deleted", name)

    async def _warn_of_forwarding(self, plan: Plan) -> None:
        """Log which businesses of a plan have a `forward_to` that it no longer allows."""
        found = [one.record for one in await self._configuration.stored_businesses()]
        users = tuple(one for one in found if one.plan == plan.name)
        for warning in warnings_of(Directory((plan,), users), ()):
            log.warning("[admin] ⚠️ %s", warning)

    async def _own_plan(self, who: Principal) -> str:
        own = await self._configuration.stored_business(who.business_id)
        return own.record.plan if own else ""


def check_version(stored: Stored[Any], version: int | None) -> None:
    """Raise EditedMeanwhile when an edit is of another version than stands."""
    if version not in (None, stored.version):
        raise EditedMeanwhile("somebody else has saved it since you read it; read it anew")


def _of(before: Stored[Plan], version: int | None) -> int:
    """Give the version that an edit is of: what was read, where whatever stands is taken.

    The audit log then tells what was changed.
    """
    return before.version if version is None else version


def _none(name: str) -> NotThere:
    return NotThere(f"there is no plan {name[:64]!r}, or it is not yours")
