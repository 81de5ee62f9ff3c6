"""The access port: who may administer, and who has tried to.

Every method but `open` and `close` raises StoreUnavailable when the store
cannot be reached in time.
"""

from dataclasses import dataclass
from typing import Protocol

MOST_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key of a business's admins; the key itself is kept nowhere, only its SHA-256 digest.

    Times are Unix ms; `last_used_at` is exact to a minute, 0 where it was never used.
    """

    id: str
    business_id: str
    label: str
    digest: str
    created_at: int
    last_used_at: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody signed in with a browser: an operator, or, with a key, a business's admin.

    Held under the SHA-256 digest of the cookie's secret. `actor` is what the audit log calls them.
    It is good for as long as what it was begun with: `key_id` is that of the access key, or for
    an operator, whose `business_id` is empty, that of the token.
    """

    digest: str
    actor: str
    business_id: str = ""
    key_id: str = ""


class Access(Protocol):
    """Keep keys, sessions and attempts, for all replicas."""

    async def open(self) -> None:
        """Make ready; does not fail when the store is away."""

    async def close(self) -> None:
        """Let go of every connection."""

    async def add_key(self, key: AccessKey) -> None:
        """Store a new key."""

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
        """Revoke a business's keys: it is no more."""

    async def begin_session(self, session: Session, seconds: float) -> None:
        """Keep a session for so long after its last use."""

    async def session_of(self, digest: str, seconds: float) -> Session | None:
        """Find a session, and keep it for so long again."""

    async def end_session(self, digest: str) -> None:
        """Forget a session."""

    async def note_attempt(self, address: str, seconds: float) -> int:
        """Count a wrong key from an address for so long; give how many count now.

        No more than MOST_ATTEMPTS are remembered.
        """

    async def attempts_of(self, address: str) -> int:
        """Count the wrong keys that still count."""
