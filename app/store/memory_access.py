"""Access as a process that stands alone keeps it; it forgets all when it ends."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from app.errors import NotThere
from app.store.access import MOST_ATTEMPTS, MOST_SESSIONS, AccessKey, Session

# Of those who are signed in, and of addresses: the oldest are forgotten first.
MOST_REMEMBERED = 10_000


class MemoryAccess:
    """Keep everything in this process. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._keys: dict[tuple[str, str], AccessKey] = {}
        self._sessions: dict[str, tuple[Session, float]] = {}
        self._attempts: dict[str, deque[float]] = {}
        self._forgotten: set[str] = set()

    async def open(self) -> None:
        """Do nothing: memory is there."""

    async def close(self) -> None:
        """Do nothing: memory goes with the process."""

    # --------------------------------------------------------------------- keys

    async def add_key(self, key: AccessKey) -> None:
        """Store a new key, or raise NotThere where its business was deleted."""
        if key.business_id in self._forgotten:
            raise NotThere("there is no such business")
        self._keys[key.business_id, key.id] = key

    async def key_of(self, digest: str) -> AccessKey | None:
        """Find the key that has this digest."""
        return next((key for key in self._keys.values() if key.digest == digest), None)

    async def key(self, business_id: str, key_id: str) -> AccessKey | None:
        """Give a business's key of this id."""
        return self._keys.get((business_id, key_id))

    async def keys_of(self, business_id: str) -> list[AccessKey]:
        """Give a business's keys, the oldest first."""
        found = [key for key in self._keys.values() if key.business_id == business_id]
        return sorted(found, key=lambda key: (key.created_at, key.id))

    async def revoke_key(self, business_id: str, key_id: str) -> bool:
        """Remove a key, for every request from now on; False when there is none."""
        self._end_sessions(key_id)
        return self._keys.pop((business_id, key_id), None) is not None

    async def note_use(self, key: AccessKey, now_ms: int) -> None:
        """Remember when a key was last used; no effect on one that is revoked."""
        if (known := await self.key(key.business_id, key.id)) is not None:
            self._keys[key.business_id, key.id] = replace(known, last_used_at=now_ms)

    async def forget(self, business_id: str) -> None:
        """Revoke a deleted business's keys."""
        self._forgotten.add(business_id)
        for place in [place for place in self._keys if place[0] == business_id]:
            self._end_sessions(self._keys.pop(place).id)

    # ------------------------------------------------------ sessions and attempts

    async def begin_session(self, session: Session, seconds: float) -> None:
        """Store a session for this long after its last use."""
        _make_room(self._sessions)
        self._sessions[session.digest] = session, self._clock() + seconds
        for old in (await self.sessions_of(session.key_id))[MOST_SESSIONS:]:
            await self.end_session(old)

    async def session_of(self, digest: str, seconds: float) -> Session | None:
        """Find a session, and keep it for this long again."""
        found = self._sessions.pop(digest, None)
        if found is None or found[1] <= self._clock():
            return None
        self._sessions[digest] = found[0], self._clock() + seconds
        return found[0]

    async def save_session(self, session: Session) -> None:
        """Store what has changed of a session, unless it has ended meanwhile."""
        if (known := self._sessions.get(session.digest)) is not None:
            self._sessions[session.digest] = session, known[1]

    async def sessions_of(self, key_id: str) -> list[Session]:
        """Return the sessions begun with a key or token, the newest first."""
        found = [
            session
            for session, until in self._sessions.values()
            if session.key_id == key_id and until > self._clock()
        ]
        return sorted(found, key=lambda one: (-one.began_at, one.digest))

    async def end_session(self, session: Session) -> None:
        """End a session, for every request from now on."""
        self._sessions.pop(session.digest, None)

    def _end_sessions(self, key_id: str) -> None:
        for digest in [one.digest for one, _ in self._sessions.values() if one.key_id == key_id]:
            del self._sessions[digest]

    async def note_attempt(self, address: str, seconds: float) -> int:
        """Count a wrong key from an address for so long; give how many count now."""
        await self.attempts_of(address)
        _make_room(self._attempts)
        attempts = self._attempts.setdefault(address, deque(maxlen=MOST_ATTEMPTS))
        attempts.append(self._clock() + seconds)
        return len(attempts)

    async def attempts_of(self, address: str) -> int:
        """Count the wrong keys that still count."""
        attempts = self._attempts.get(address, deque())
        while attempts and attempts[0] <= self._clock():
            attempts.popleft()
        if not attempts:
            self._attempts.pop(address, None)
        return len(attempts)


def _make_room(remembered: dict[str, tuple[Session, float]] | dict[str, deque[float]]) -> None:
    if len(remembered) >= MOST_REMEMBERED:
        del remembered[next(iter(remembered))]
