"""Access keys, and other secrets that are shown once: made, recognised, digested."""

import hashlib
import re
import secrets
from typing import NamedTuple

from app.admin.principal import Principal
from app.admin.roles import KEY_ROLES, Role
from app.store.access import AccessKey

KEY_PREFIX = "mbk_"
# mbk_, the key's id, and 32 random bytes in base64url (RFC 4648, 5).
_KEY = re.compile(r"mbk_(?P<id>[0-9a-f]{12})_[A-Za-z0-9_-]{43}")
KEY_ID = re.compile(r"[0-9a-f]{12}")
# No token, key or cookie that is looked at is longer.
MOST_CHARACTERS = 1024


class NewKey(NamedTuple):
    """A key as its owner is shown it, once, and its id."""

    id: str
    text: str


def new_key() -> NewKey:
    """Make an access key."""
    key_id = secrets.token_hex(6)
    return NewKey(key_id, f"{KEY_PREFIX}{key_id}_{secrets.token_urlsafe(32)}")


def has_expired(key: AccessKey, now_ms: int) -> bool:
    """Return whether a key's time is over."""
    return 0 < key.expires_at <= now_ms


def role_of(key: AccessKey) -> Role | None:
    """Return a key's role; None for one that this version does not know."""
    return Role(key.role) if key.role in KEY_ROLES else None


def holder_of(key: AccessKey, now_ms: int) -> Principal | None:
    """Return who holds a key; None when it has expired, or its role is unknown."""
    role = role_of(key)
    if role is None or has_expired(key, now_ms):
        return None
    return Principal(f"key:{key.id}", role, key.business_id)


def new_session_secret() -> str:
    """Make what a session's cookie holds: 32 random bytes in base64url."""
    return secrets.token_urlsafe(32)


def is_key(shown: str) -> bool:
    """Tell whether this has the form of an access key."""
    return _KEY.fullmatch(shown) is not None


def digest_of(secret: str) -> str:
    """Give the SHA-256 of a secret in hexadecimal digits: all that is stored of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
