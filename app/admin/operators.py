"""Operators: whose token each one in ADMIN_TOKEN is."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from app.admin.access_keys import digest_of
from app.admin.principal import OPERATOR, THE_OPERATOR, Principal
from app.admin.roles import Role


@dataclass(frozen=True, slots=True)
class OperatorIdentity:
    """An operator, and the id of the token that proves it; the id admits nobody."""

    principal: Principal
    token_id: str


class Operators:
    """Know operators by their tokens.

    `names` has each operator's name by the SHA-256 digest, in hexadecimal, of their token. The
    name is empty for a token without one: all who have such a token are `operator`.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._by_digest = {
            digest: OperatorIdentity(_principal(name), _token_id(digest))
            for digest, name in names.items()
        }
        self._by_id = {one.token_id: one for one in self._by_digest.values()}

    def __len__(self) -> int:
        """Return how many tokens there are."""
        return len(self._by_digest)

    def find(self, digest: str) -> OperatorIdentity | None:
        """Return whose token has this digest, comparing in constant time."""
        found = [
            one for known, one in self._by_digest.items() if hmac.compare_digest(known, digest)
        ]
        return found[0] if found else None

    def of_token(self, token_id: str) -> Principal | None:
        """Return whose token has this id; None when it is no longer in ADMIN_TOKEN."""
        found = self._by_id.get(token_id)
        return found.principal if found else None

    def token_ids(self, actor: str | None = None) -> list[str]:
        """Return the ids of all tokens, or of one operator's."""
        return [
            one.token_id
            for one in self._by_digest.values()
            if actor is None or one.principal.actor == actor
        ]


def _principal(name: str) -> Principal:
    return Principal(f"{OPERATOR}:{name}", Role.OPERATOR) if name else THE_OPERATOR


def _token_id(digest: str) -> str:
    """Return what a session calls an operator's token; version 0.1 computes the same."""
    return digest_of(f"operator {digest}")[:16]
