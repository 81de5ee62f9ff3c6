"""Businesses and their numbers: which of their fields are whose, in one table."""

from collections.abc import Mapping
from typing import Any, Final

from app.admin.audit_log import AuditLog
from app.admin.principal import Principal
from app.admin.roles import Permission
from app.administration.plans import check_version
from app.administration.records import changed, table_of, told, without_limits
from app.businesses.destinations import check_forward_to_field
from app.errors import FieldsInvalid, Forbidden, NotThere
from app.plans import BUSINESS_FIELDS, IDENTIFIER, Business, make_business
from app.store.configuration import Configuration, Stored

# What a business's admin may edit of their own; the rest is an operator's. A plan is
# what an operator sells, and a number (with the country in which it is dialled) what
# they connect: with it comes whoever calls it.
OF_ITS_ADMIN: Final = frozenset(
    {
        "name",
        "forward_to",
        "greeting",
        "consent_notice",
        "busy_message",
        "not_answered",
        "after_stream",
        "usage_webhook_url",
        "twilio_account_sid",
        "capture_calls",
    }
)
# Where a business's calls are forwarded to is checked when one of these changes.
_FORWARDING: Final = frozenset({"forward_to", "plan", "numbers", "country"})
# Written by `Secrets`, and shown to nobody.
SECRET: Final = frozenset({"exotel_pairs"})
# Phone numbers, which the audit log keeps so that they can be erased.
PERSONAL: Final = ("forward_to", "numbers")


class Businesses:
    """Read and edit businesses.

    Every method takes who asks first, and raises Forbidden, or NotThere for what
    they may not know of. `version` is that of the business that an edit was made
    from, or None to take whatever stands.
    """

    def __init__(self, configuration: Configuration, audit: AuditLog) -> None:
        self._configuration = configuration
        self._audit = audit

    async def name_of(self, who: Principal) -> str:
        """Return the name of the business that somebody belongs to; empty for an operator.

        Their key tells whose it is, so this takes no permission.
        """
        found = None if who.is_operator else await self._own(who)
        return found.record.name if found else who.business_id

    async def all(
        self, who: Principal, permission: Permission = Permission.READ_BUSINESS
    ) -> list[Stored[Business]]:
        """Return every business, by id; to the holder of a key, their own.

        `permission` is what the result is for.
        """
        who.demand(permission)
        if who.is_operator:
            return await self._configuration.stored_businesses()
        found = await self._own(who)
        return [found] if found else []

    async def _own(self, who: Principal) -> Stored[Business] | None:
        return await self._configuration.stored_business(who.business_id)

    async def get(
        self,
        who: Principal,
        business_id: str,
        permission: Permission = Permission.READ_BUSINESS,
    ) -> Stored[Business]:
        """Give the business of this id, to whoever has the `permission`."""
        if not IDENTIFIER.fullmatch(business_id):
            raise _none(business_id)
        who.demand(permission, business_id)
        found = await self._configuration.stored_business(business_id)
        if found is None:
            raise _none(business_id)
        return found

    async def create(
        self, who: Principal, business_id: object, table: Mapping[str, Any]
    ) -> Stored[Business]:
        """Store a new business; fields that are not given have their defaults.

        Raises:
            FieldsInvalid: has every field's problem; its id's is under `id`.
            AlreadyThere: there is one of this id.
            BusinessDeleted: there was one, and an id is not used again.
            NumberTaken: a number is another business's.
        """
        who.demand(Permission.CREATE_BUSINESS)
        _refuse_secrets(table)
        made = make_business(business_id, {"numbers": [], **without_limits(table)})
        await self._check_forwarding(made)
        stored = await self._configuration.add_business(made)
        data, personal = told(
            make_business(made.id, {"numbers": [], "plan": made.plan, "name": made.name}),
            made,
            secret=SECRET,
            personal=PERSONAL,
        )
        data = {**data, "plan": made.plan}
        await self._audit.note(who, "business.created", made.id, made.id, data, personal)
        return stored

    async def edit(
        self, who: Principal, business_id: str, changes: Mapping[str, Any], version: int | None
    ) -> Stored[Business]:
        """Change fields of a business; takes effect on its next call.

        Raises:
            FieldsInvalid: has every field's problem.
            Forbidden: fields are to change that are an operator's.
            NumberTaken: a number is another business's.
            EditedMeanwhile: another version stands.
        """
        before = await self.get(who, business_id, Permission.EDIT_BUSINESS)
        _refuse_secrets(changes)
        after = make_business(business_id, table_of(before.record) | without_limits(changes))
        return await self.replace(who, before, after, version)

    async def set_numbers(
        self, who: Principal, business_id: str, table: Mapping[str, Any], version: int | None
    ) -> Stored[Business]:
        """Give a business the `numbers` of the table, and no others; as `edit`."""
        await self.get(who, business_id, Permission.EDIT_EVERY_FIELD)
        if unknown := table.keys() - {"numbers"}:
            raise FieldsInvalid(dict.fromkeys(unknown, "is unknown; numbers alone are set here"))
        return await self.edit(who, business_id, {"numbers": table.get("numbers")}, version)

    async def replace(
        self,
        who: Principal,
        before: Stored[Business],
        after: Business,
        version: int | None,
    ) -> Stored[Business]:
        """Store what an edit has made of a business; as `edit`."""
        names = changed(before.record, after)
        if not names:
            check_version(before, version)
            return before
        if not who.may(Permission.EDIT_EVERY_FIELD):
            _refuse_others(set(names) - OF_ITS_ADMIN - SECRET)
        self._audit.check_pace_of_edits(who)
        if _FORWARDING & set(names):
            await self._check_forwarding(after)
        of = before.version if version is None else version
        stored = await self._configuration.save_business(after, of)
        data, personal = told(before.record, after, secret=SECRET, personal=PERSONAL)
        await self._audit.note(who, "business.saved", after.id, after.id, data, personal)
        return stored

    async def _check_forwarding(self, business: Business) -> None:
        """Raise FieldsInvalid where the business's plan does not allow its `forward_to`."""
        plan = await self._configuration.stored_plan(business.plan)
        if plan is not None:  # else storing it refuses the plan
            check_forward_to_field(plan.record, business)


def _refuse_secrets(table: Mapping[str, Any]) -> None:
    if given := SECRET & table.keys():
        raise FieldsInvalid(dict.fromkeys(given, "is a secret: set it among the secrets"))


def _refuse_others(names: set[str]) -> None:
    if names:
        shown = ", ".join(name for name in BUSINESS_FIELDS if name in names)
        raise Forbidden(f"only an operator may change {shown}; leave it as it is")


def _none(business_id: str) -> NotThere:
    return NotThere(f"there is no business {business_id[:128]!r}")
