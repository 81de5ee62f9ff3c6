"""What each role may do: the whole table, written out a second time."""

import pytest

from app.admin.principal import THE_OPERATOR, Principal
from app.admin.roles import KEY_ROLES, PERMISSIONS, Permission, Role, role_names
from app.errors import Forbidden, NotThere
from tests.markdown import rows

# Who may, besides operators, who may do everything.
MATRIX: dict[Permission, str] = {
    Permission.READ_CALLS: "viewer agent admin",
    Permission.READ_USAGE: "viewer agent admin",
    Permission.END_CALLS: "agent admin",
    Permission.SPEAK: "agent admin",
    Permission.READ_BUSINESS: "admin",
    Permission.EDIT_BUSINESS: "admin",
    Permission.EDIT_SECRETS: "admin",
    Permission.READ_PLANS: "admin",
    Permission.READ_KEYS: "admin",
    Permission.REVOKE_KEYS: "admin",
    Permission.MANAGE_SESSIONS: "admin",
    Permission.ERASE_CALLS: "admin",
    Permission.EXPORT: "admin",
    Permission.FIND_PERSONS: "admin",
    Permission.ERASE_PERSONS: "admin",
    Permission.READ_AUDIT: "admin",
    Permission.ISSUE_KEYS: "",
    Permission.EDIT_EVERY_FIELD: "",
    Permission.CREATE_BUSINESS: "",
    Permission.DELETE_BUSINESS: "",
    Permission.EDIT_PLANS: "",
    Permission.READ_SERVICE: "",
}
CASES = [(permission, role) for permission in Permission for role in KEY_ROLES]


def holder(role: Role) -> Principal:
    return Principal("key:k1", role, "shop")


@pytest.mark.parametrize(("permission", "role"), CASES)
def test_role_permits_what_the_table_says_and_nothing_else(
    permission: Permission, role: Role
) -> None:
    who = holder(role)
    allowed = role in MATRIX[permission].split()
    assert who.may(permission) == allowed
    if allowed:
        who.demand(permission)
        who.demand(permission, "shop")
        assert who.scope(permission) == who.scope(permission, "shop") == "shop"
        return
    for ask in (who.demand, who.scope):
        for business_id in (None, "shop"):
            with pytest.raises(Forbidden, match=f"{role} key you may not {permission}; an?"):
                ask(permission, business_id)


@pytest.mark.parametrize("permission", Permission)
def test_operator_may_do_everything_with_every_business(permission: Permission) -> None:
    THE_OPERATOR.demand(permission)
    THE_OPERATOR.demand(permission, "shop")
    assert THE_OPERATOR.scope(permission) is None
    assert THE_OPERATOR.scope(permission, "") is None
    assert THE_OPERATOR.scope(permission, "shop") == "shop"


@pytest.mark.parametrize(("permission", "role"), CASES)
@pytest.mark.parametrize("other", ["bank", "sho", "shop ", "Shop"])
def test_another_business_is_not_found(permission: Permission, role: Role, other: str) -> None:
    who = holder(role)
    for ask in (who.demand, who.scope):
        with pytest.raises(NotThere):
            ask(permission, other)
    assert not who.owns(other)


def test_each_role_may_all_that_the_role_before_it_may() -> None:
    for less, more in zip(KEY_ROLES, KEY_ROLES[1:], strict=False):
        assert PERMISSIONS[less] < PERMISSIONS[more]


@pytest.mark.parametrize(
    ("role", "business_id"), [(Role.OPERATOR, "shop"), *((role, "") for role in KEY_ROLES)]
)
def test_only_operators_have_no_business(role: Role, business_id: str) -> None:
    with pytest.raises(ValueError, match="with business"):
        Principal("somebody", role, business_id)


@pytest.mark.parametrize(
    ("roles", "text"),
    [
        ([Role.OPERATOR], "an operator"),
        ([Role.OPERATOR, Role.ADMIN], "an admin key, or an operator"),
        ([Role.ADMIN, Role.OPERATOR, Role.AGENT], "an agent or admin key, or an operator"),
        (list(Role), "a viewer or agent or admin key, or an operator"),
    ],
)
def test_names_roles_in_words(roles: list[Role], text: str) -> None:
    assert role_names(roles) == text


def test_documentation_has_the_same_table() -> None:
    documented = {
        row[0]: [role for role, cell in zip(KEY_ROLES, row[1:4], strict=True) if cell == "yes"]
        for row in rows("docs/design.md", "### Permissions of each role")
        if len(row) == 5
    }
    assert documented == {
        str(permission): [role for role in KEY_ROLES if permission in PERMISSIONS[role]]
        for permission in Permission
    }
