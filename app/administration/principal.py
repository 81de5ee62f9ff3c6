"""Who asks, and what they may: one table."""

from dataclasses import dataclass
from enum import StrEnum

from app.errors import Forbidden, NotThere

OPERATOR = "operator"


class Permission(StrEnum):
    """What can be done, in the words of a refusal: "you may not …"."""

    READ_BUSINESS = "read a business"
    EDIT_BUSINESS = "edit a business"
    EDIT_EVERY_FIELD = "edit what only an operator may"
    CREATE_BUSINESS = "create a business"
    DELETE_BUSINESS = "delete a business"
    EDIT_SECRETS = "set a business's secrets"
    READ_PLANS = "read a plan"
    EDIT_PLANS = "create, edit or delete a plan"
    READ_KEYS = "list a business's keys"
    ISSUE_KEYS = "issue or revoke a key"
    READ_USAGE = "read a business's usage"
    READ_CALLS = "read calls, listen to them and watch them"
    END_CALLS = "end a call"
    SPEAK = "speak into a call"
    ERASE_CALLS = "erase a call"
    READ_AUDIT = "read the audit log"
    READ_SERVICE = "read how the service as a whole is doing"


# What a business's admin may, each only with what is that business's. An operator
# may everything, with all of it.
OF_BUSINESS_ADMIN = frozenset(
    {
        Permission.READ_BUSINESS,
        Permission.EDIT_BUSINESS,
        Permission.EDIT_SECRETS,
        Permission.READ_PLANS,
        Permission.READ_KEYS,
        Permission.READ_USAGE,
        Permission.READ_CALLS,
        Permission.END_CALLS,
        Permission.ERASE_CALLS,
        Permission.READ_AUDIT,
    }
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: an operator, or with an access key, a business's admin.

    `actor` is what the audit log calls them; `business_id` is empty for an operator.
    """

    actor: str
    business_id: str = ""

    @property
    def is_operator(self) -> bool:
        """Tell whether everything is theirs."""
        return not self.business_id

    def may(self, permission: Permission) -> bool:
        """Tell whether they may do this, with what is theirs."""
        return self.is_operator or permission in OF_BUSINESS_ADMIN

    def owns(self, business_id: str) -> bool:
        """Tell whether what is this business's is theirs."""
        return self.is_operator or self.business_id == business_id

    def demand(self, permission: Permission, business_id: str | None = None) -> None:
        """Pass whoever may do this, with what is this business's where one is named.

        Raises:
            NotThere: it is another business's, so they may not know of it.
            Forbidden: only an operator may do this.
        """
        if business_id is not None and not self.owns(business_id):
            raise NotThere(f"there is no business {business_id!r}")
        if not self.may(permission):
            raise Forbidden(f"with this key you may not {permission}; an operator may")

    def scope(self, permission: Permission, asked: str | None = None) -> str | None:
        """Name the business whose things are to be looked at; None for all.

        It is their own for a business's admin, and the one that is `asked` for
        for an operator.

        Raises:
            NotThere: another business's are asked for.
            Forbidden: only an operator may do this.
        """
        self.demand(permission, asked or None)
        return asked or None if self.is_operator else self.business_id


THE_OPERATOR = Principal(OPERATOR)
