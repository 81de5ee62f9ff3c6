"""Roles and what each one permits: one table, from which checks, refusals and pages follow."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What somebody is to the service: an operator, or the role of an access key."""

    OPERATOR = "operator"
    VIEWER = "viewer"
    AGENT = "agent"
    ADMIN = "admin"


# The roles that an access key can have, the one that may least first.
KEY_ROLES: Final = (Role.VIEWER, Role.AGENT, Role.ADMIN)


class Permission(StrEnum):
    """An action, worded to complete the refusal "you may not …"."""

    READ_BUSINESS = "read a business"
    EDIT_BUSINESS = "edit a business"
    EDIT_EVERY_FIELD = "edit what only an operator may"
    CREATE_BUSINESS = "create a business"
    DELETE_BUSINESS = "delete a business"
    EDIT_SECRETS = "set a business's secrets"
    READ_PLANS = "read a plan"
    EDIT_PLANS = "create, edit or delete a plan"
    READ_KEYS = "list a business's keys"
    ISSUE_KEYS = "issue a key"
    REVOKE_KEYS = "revoke a key"
    MANAGE_SESSIONS = "see or end other people's sessions"
    READ_USAGE = "read a business's usage"
    READ_CALLS = "read calls, listen to them and watch them"
    END_CALLS = "end a call"
    SPEAK = "speak into a call"
    ERASE_CALLS = "erase a call"
    EXPORT = "export a business's data"
    FIND_PERSONS = "find a person by their number"
    ERASE_PERSONS = "erase a person by their number"
    READ_AUDIT = "read the audit log"
    READ_SERVICE = "read how the service as a whole is doing"


_VIEWER: Final = frozenset({Permission.READ_CALLS, Permission.READ_USAGE})
_AGENT: Final = _VIEWER | {Permission.END_CALLS, Permission.SPEAK}
_ADMIN: Final = _AGENT | {
    Permission.READ_BUSINESS,
    Permission.EDIT_BUSINESS,
    Permission.EDIT_SECRETS,
    Permission.READ_PLANS,
    Permission.READ_KEYS,
    # Revoking only takes access away. Issuing is an operator's: a stolen key could otherwise
    # issue another, which would outlive its own revocation.
    Permission.REVOKE_KEYS,
    Permission.MANAGE_SESSIONS,
    Permission.ERASE_CALLS,
    Permission.EXPORT,
    Permission.FIND_PERSONS,
    Permission.ERASE_PERSONS,
    Permission.READ_AUDIT,
}

# A key's role permits these things with its own business; an operator, with every business.
PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = {
    Role.OPERATOR: frozenset(Permission),
    Role.VIEWER: _VIEWER,
    Role.AGENT: _AGENT,
    Role.ADMIN: _ADMIN,
}


def role_names(roles: Iterable[Role]) -> str:
    """Return roles as English text: "an agent or admin key, or an operator"."""
    known = frozenset(roles)
    keys = [role for role in KEY_ROLES if role in known]
    if not keys:
        return "an operator"
    article = "an" if keys[0][0] in "ao" else "a"
    return f"{article} {' or '.join(keys)} key, or an operator"


def refusal(role: Role, permission: Permission) -> str:
    """Return what to answer when this role does not permit this: what is wrong, and who may."""
    allowed = role_names(one for one, permits in PERMISSIONS.items() if permission in permits)
    article = "an" if role[0] in "ao" else "a"
    return f"with {article} {role} key you may not {permission}; {allowed} may"
