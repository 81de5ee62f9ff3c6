"""Who sends a request, and what they may do."""

from dataclasses import dataclass, field
from typing import Final

from app.admin.roles import PERMISSIONS, Permission, Role, refusal
from app.errors import Forbidden, NotThere

OPERATOR: Final = "operator"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sends a request: an operator, or the holder of an access key.

    `actor` is their name in the audit log: `operator`, `operator:NAME` or `key:ID`.
    `business_id` is empty for an operator, and for nobody else. `address` is where the
    request came from, empty for a command; `session_id` names the session by which they are
    signed in, empty for a token or key. Both vary for one and the same principal.
    """

    actor: str
    role: Role
    business_id: str = ""
    address: str = field(default="", compare=False)
    session_id: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Raise ValueError unless exactly the operators have no business."""
        if self.is_operator == bool(self.business_id):
            raise ValueError(f"{self.role} with business {self.business_id!r}")

    @property
    def is_operator(self) -> bool:
        """Return whether they may do everything, with every business."""
        return self.role is Role.OPERATOR

    def may(self, permission: Permission) -> bool:
        """Return whether their role permits this, with their own business."""
        return permission in PERMISSIONS[self.role]

    def owns(self, business_id: str) -> bool:
        """Return whether this business is within their reach."""
        return self.is_operator or self.business_id == business_id

    def demand(self, permission: Permission, business_id: str | None = None) -> None:
        """Check that they may do this, with this business where one is named.

        Raises:
            NotThere: it is another business's, whose existence they may not learn.
            Forbidden: their role does not permit it.
        """
        if business_id is not None and not self.owns(business_id):
            raise NotThere(f"there is no business {business_id!r}", others=business_id)
        if not self.may(permission):
            raise Forbidden(refusal(self.role, permission))

    def scope(self, permission: Permission, asked: str | None = None) -> str | None:
        """Return the business to which a request is limited; None for all of them.

        For the holder of a key it is their own; for an operator the one `asked` for.

        Raises:
            NotThere: another business is asked for.
            Forbidden: their role does not permit it.
        """
        self.demand(permission, asked or None)
        return asked or None if self.is_operator else self.business_id


def operator_name(actor: str) -> str:
    """Return an operator's name: that in ADMIN_TOKEN, or `operator` for a token without one."""
    return actor.removeprefix(f"{OPERATOR}:")


THE_OPERATOR: Final = Principal(OPERATOR, Role.OPERATOR)
