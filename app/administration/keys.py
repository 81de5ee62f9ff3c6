"""Access keys of businesses: operators issue them, a business's admins list and revoke them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.admin.audit_log import AuditLog
from app.admin.principal import Principal
from app.admin.roles import Permission
from app.administration.access_keys import KEY_ID, digest_of, new_key
from app.administration.businesses import Businesses
from app.errors import FieldsInvalid, NotThere
from app.plans import Field, checks
from app.plans.fields import problems_of
from app.store.access import Access, AccessKey

MOST_KEYS: Final = 100
LABEL_MAX_CHARS: Final = 80


def _check_label(value: object) -> str:
    if len(text := checks.title(value)) > LABEL_MAX_CHARS:
        raise ValueError(f"must be at most {LABEL_MAX_CHARS} characters, has {len(text)}")
    return text


_FIELDS: Final = {"label": Field("Tells this key from others.", _check_label)}


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
        """Make a key for a business's admin; `label` in the table tells it from others.

        Raises:
            FieldsInvalid: the label says nothing or too much, or there are too many keys.
        """
        await self._businesses.get(who, business_id, Permission.ISSUE_KEYS)
        text = _label(table)
        if len(await self._access.keys_of(business_id)) >= MOST_KEYS:
            problem = f"this business has {MOST_KEYS} keys; revoke one that nobody uses first"
            raise FieldsInvalid({"label": problem})
        made = new_key()
        now_ms = int(self._wall_clock() * 1000)
        key = AccessKey(made.id, business_id, text, digest_of(made.text), now_ms)
        await self._access.add_key(key)
        await self._audit.note(who, "key.issued", key.id, business_id)
        return Issued(key, made.text)

    async def revoke(self, who: Principal, business_id: str, key_id: str) -> None:
        """Revoke a key: it admits nobody from now on, and its sessions are over."""
        await self._businesses.get(who, business_id, Permission.REVOKE_KEYS)
        if not KEY_ID.fullmatch(key_id) or not await self._access.revoke_key(business_id, key_id):
            raise NotThere("this business has no key of this id")
        await self._audit.note(who, "key.revoked", key_id, business_id)


def _label(table: Mapping[str, Any]) -> str:
    good, problems = problems_of(table, _FIELDS, ("label",))
    if problems:
        raise FieldsInvalid(problems)
    return str(good["label"])
