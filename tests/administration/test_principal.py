"""Who may do what: an operator everything, a business's admin what is theirs."""

import pytest

from app.administration.principal import (
    OF_BUSINESS_ADMIN,
    THE_OPERATOR,
    Permission,
    Principal,
)
from app.errors import Forbidden, NotThere

ADMIN = Principal("key:k1", "shop")


@pytest.mark.parametrize("permission", Permission)
def test_an_operator_may_everything_with_all_of_it(permission: Permission) -> None:
    THE_OPERATOR.demand(permission)
    THE_OPERATOR.demand(permission, "shop")
    assert THE_OPERATOR.scope(permission) is None
    assert THE_OPERATOR.scope(permission, "") is None
    assert THE_OPERATOR.scope(permission, "shop") == "shop"


@pytest.mark.parametrize("permission", sorted(OF_BUSINESS_ADMIN))
def test_a_business_admin_may_what_is_theirs_with_their_own(permission: Permission) -> None:
    ADMIN.demand(permission)
    ADMIN.demand(permission, "shop")
    assert ADMIN.scope(permission) == ADMIN.scope(permission, "shop") == "shop"


@pytest.mark.parametrize("permission", sorted(set(Permission) - OF_BUSINESS_ADMIN))
def test_what_is_an_operators_alone_is_forbidden_to_others(permission: Permission) -> None:
    with pytest.raises(Forbidden):
        ADMIN.demand(permission, "shop")
    with pytest.raises(Forbidden):
        ADMIN.scope(permission)


@pytest.mark.parametrize("permission", Permission)
@pytest.mark.parametrize("other", ["bank", "sho", "shop ", "Shop"])
def test_another_business_is_not_there(permission: Permission, other: str) -> None:
    with pytest.raises(NotThere):
        ADMIN.demand(permission, other)
    with pytest.raises(NotThere):
        ADMIN.scope(permission, other)
    assert not ADMIN.owns(other)


def test_money_keys_and_numbers_are_an_operators_alone() -> None:
    assert set(Permission) - OF_BUSINESS_ADMIN == {
        Permission.EDIT_EVERY_FIELD,
        Permission.CREATE_BUSINESS,
        Permission.DELETE_BUSINESS,
        Permission.EDIT_PLANS,
        Permission.ISSUE_KEYS,
        Permission.READ_SERVICE,
        Permission.SPEAK,
    }
