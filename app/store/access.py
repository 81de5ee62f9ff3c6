"""The access port: who may administer, who has tried to, and what was done.

Every method but `open` and `close` raises StoreUnavailable when the store
cannot be reached in time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

MOST_ATTEMPTS = 100
MOST_ENTRIES = 100_000


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


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done: by whom, to what, and what changed; never a secret's value.

    `at` is Unix ms. `actor` is `operator` or `key:ID`; `action` two words such as `plan.saved`.
    `id` is given by the store, and is in order.
    """

    at: int
    actor: str
    action: str
    target: str
    business_id: str = ""
    data: Mapping[str, str | int] = field(default_factory=dict)
    id: str = ""


class Access(Protocol):
    """Keep keys, sessions, attempts and the audit log, for all replicas."""

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
        """Revoke a business's keys, and drop its own view of the audit log: it is no more.

        The log of all that was done keeps what it has.
        """

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

    async def record(self, entry: AuditEntry) -> AuditEntry:
        """Append to the audit log; give the entry with its id.

        About MOST_ENTRIES are kept of all, and of each business.
        """

    async def audit_log(
        self, business_id: str | None, before: str = "", limit: int = 50
    ) -> list[AuditEntry]:
        """Give what was done to a business, or with None all that was done, the latest first.

        `before` is the id of the last entry of the page before, given for the same business.
        """
