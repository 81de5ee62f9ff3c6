"""The access port: who may administer, and who has tried to.

Every method but `open` and `close` raises StoreUnavailable when the store
cannot be reached in time.
"""

from dataclasses import dataclass
from typing import Protocol

MOST_ATTEMPTS = 100
# Begun with one key or token; the oldest end first.
MOST_SESSIONS = 100
SESSION_ID_CHARACTERS = 16
# The role of keys that version 0.1 issued.
ADMIN_ROLE = "admin"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key of a business; the key itself is kept nowhere, only its SHA-256 digest.

    Times are Unix ms. `last_used_at` is exact to a minute, 0 if the key was never used;
    `expires_at` is 0 if it does not expire. Version 0.1 stored neither `role` nor
    `expires_at`: its keys are admins' and do not expire.
    """

    id: str
    business_id: str
    label: str
    digest: str
    created_at: int
    last_used_at: int = 0
    role: str = ADMIN_ROLE
    expires_at: int = 0

    @property
    def is_limited(self) -> bool:
        """Return whether version 0.1, which knows neither roles nor expiry, must refuse it."""
        return self.role != ADMIN_ROLE or self.expires_at != 0


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody signed in with a browser: an operator, or the holder of an access key.

    Held under the SHA-256 digest of the cookie's secret. `actor` is what the audit log calls them.
    It is good for as long as what it was begun with: `key_id` is that of the access key, or for
    an operator, whose `business_id` is empty, that of the token. Times are Unix ms;
    `last_used_at` is exact to a minute. A session that version 0.1 began has `began_at` 0, and
    nothing of what follows it, until this version first sees it.
    """

    digest: str
    actor: str
    business_id: str = ""
    key_id: str = ""
    began_at: int = 0
    last_used_at: int = 0
    address: str = ""
    browser: str = ""

    @property
    def id(self) -> str:
        """Return what names it in a list; it admits nobody."""
        return self.digest[:SESSION_ID_CHARACTERS]


class Access(Protocol):
    """Keep keys, sessions and attempts, for all replicas."""

    async def open(self) -> None:
        """Make ready; does not fail when the store is away."""

    async def close(self) -> None:
        """Let go of every connection."""

    async def add_key(self, key: AccessKey) -> None:
        """Store a new key, or raise NotThere where its business was deleted; atomic."""

    async def key_of(self, digest: str) -> AccessKey | None:
        """Find the key that has this digest."""

    async def key(self, business_id: str, key_id: str) -> AccessKey | None:
        """Give a business's key of this id."""

    async def keys_of(self, business_id: str) -> list[AccessKey]:
        """Give a business's keys, the oldest first."""

    async def revoke_key(self, business_id: str, key_id: str) -> bool:
        """Remove a key, for every request from now on; False when there is none."""

    async def note_use(self, key: AccessKey, now_ms: int) -> None:
        """Remember when a key was last used; no effect on one that is revoked."""

    async def forget(self, business_id: str) -> None:
        """Revoke a deleted business's keys; none can be added after that."""

    async def begin_session(self, session: Session, seconds: float) -> None:
        """Store a session for this long after its last use.

        The oldest of more than MOST_SESSIONS begun with the same key or token end.
        """

    async def session_of(self, digest: str, seconds: float) -> Session | None:
        """Find a session, and keep it for this long again."""

    async def save_session(self, session: Session) -> None:
        """Store what has changed of a session, unless it has ended meanwhile."""

    async def sessions_of(self, key_id: str) -> list[Session]:
        """Return the sessions begun with a key or token, the newest first."""

    async def end_session(self, session: Session) -> None:
        """End a session, for every request from now on."""

    async def note_attempt(self, address: str, seconds: float) -> int:
        """Count a wrong key from an address for so long; give how many count now.

        No more than MOST_ATTEMPTS are remembered.
        """

    async def attempts_of(self, address: str) -> int:
        """Count the wrong keys that still count."""
