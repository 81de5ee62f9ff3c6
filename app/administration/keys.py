"""Access keys of businesses: operators issue them, a business's admins list and revoke them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.admin.access_keys import KEY_ID, digest_of, new_key
from app.admin.audit_log import AuditLog
from app.admin.principal import Principal
from app.admin.roles import KEY_ROLES, Permission, Role
from app.administration.businesses import Businesses
from app.errors import FieldsInvalid, NotThere
from app.plans import Field, checks
from app.plans.fields import problems_of
from app.store.access import Access, AccessKey

DAY_MS: Final = 86_400_000
MOST_KEYS: Final = 100
LONGEST_LIFE_DAYS: Final = 3650
LABEL_MAX_CHARS: Final = 80


def _check_label(value: object) -> str:
    if len(text := checks.title(value)) > LABEL_MAX_CHARS:
        raise ValueError(f"must be at most {LABEL_MAX_CHARS} characters, has {len(text)}")
    return text


def _check_role(value: object) -> Role:
    if value not in KEY_ROLES:
        raise ValueError(f"must be one of {', '.join(KEY_ROLES)}")
    return Role(str(value))


def _check_expiry(now_ms: int) -> Callable[[object], int]:
    latest = now_ms + LONGEST_LIFE_DAYS * DAY_MS

    def check(value: object) -> int:
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("must be a time in Unix ms, or null for a key that does not expire")
        if not now_ms < value <= latest:
            raise ValueError(f"must be in the future, at most {LONGEST_LIFE_DAYS} days from now")
        return value

    return check


@dataclass(frozen=True, slots=True)
class Issued:
    """A new key; `text` is for its owner to see, now and never again."""

    key: AccessKey
    text: str = field(repr=False)


class Keys:
    """Issue, list and revoke keys. `wall_clock` gives Unix seconds."""

    def __init__(
        self,
        access: Access,
        businesses: Businesses,
        audit: AuditLog,
        wall_clock: Callable[[], float],
    ) -> None:
        self._access = access
        self._businesses = businesses
        self._audit = audit
        self._wall_clock = wall_clock

    async def all(self, who: Principal, business_id: str) -> list[AccessKey]:
        """Give a business's keys, the oldest first."""
        await self._businesses.get(who, business_id, Permission.READ_KEYS)
        return await self._access.keys_of(business_id)

    async def issue(self, who: Principal, business_id: str, table: Mapping[str, Any]) -> Issued:
        """Issue a key of a business; `label` in the table tells it from others.

        `role` is what it may do, without it an admin's; `expires_at` (Unix ms) is when it
        ends, without it never.

        Raises:
            FieldsInvalid: a field is unusable, or there are too many keys.
        """
        await self._businesses.get(who, business_id, Permission.ISSUE_KEYS)
        now_ms = int(self._wall_clock() * 1000)
        given = _read(table, now_ms)
        if len(await self._access.keys_of(business_id)) >= MOST_KEYS:
            problem = f"this business has {MOST_KEYS} keys; revoke one that nobody uses first"
            raise FieldsInvalid({"label": problem})
        made = new_key()
        key = AccessKey(
            made.id,
            business_id,
            given["label"],
            digest_of(made.text),
            now_ms,
            role=given.get("role", Role.ADMIN),
            expires_at=given.get("expires_at", 0),
        )
        await self._access.add_key(key)
        data: dict[str, str | int] = {"role": key.role}
        if key.expires_at:
            data["expires_at"] = key.expires_at
        await self._audit.note(who, "key.issued", key.id, business_id, data)
        return Issued(key, made.text)

    async def revoke(self, who: Principal, business_id: str, key_id: str) -> None:
        """Revoke a key: it admits nobody from now on, and its sessions are over."""
        await self._businesses.get(who, business_id, Permission.REVOKE_KEYS)
        self._audit.check_pace_of_edits(who)
        if not KEY_ID.fullmatch(key_id) or not await self._access.revoke_key(business_id, key_id):
            raise NotThere("this business has no key of this id")
        await self._audit.note(who, "key.revoked", key_id, business_id)


def _read(table: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    fields = {
        "label": Field("Tells this key from others.", _check_label),
        "role": Field("What the key may do.", _check_role),
        "expires_at": Field("When the key ends, Unix ms.", _check_expiry(now_ms)),
    }
    good, problems = problems_of(table, fields, ("label",))
    if problems:
        raise FieldsInvalid(problems)
    return good
