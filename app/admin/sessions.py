"""Sessions of people who signed in with a browser: how long they last, who sees and ends them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from app.admin.access_keys import MOST_CHARACTERS, digest_of, holder_of, new_session_secret
from app.admin.audit_log import AuditLog
from app.admin.operators import Operators
from app.admin.principal import Principal, operator_name
from app.admin.roles import Permission, Role
from app.errors import NotThere
from app.store.access import Access, Session

# After its last use, and in all. A session that is watched or used all the time still ends.
IDLE_SECONDS: Final = 12 * 3600.0
LONGEST_SECONDS: Final = 7 * 24 * 3600.0
NOTED_EVERY_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session in a list.

    `name` is the operator's, or the label of the key. It ends at `ends_at` (Unix ms) unless
    it is used before.
    """

    session: Session
    holder: Principal
    name: str
    ends_at: int


class Sessions:
    """Begin, find, list and end sessions. `wall_clock` returns Unix seconds."""

    def __init__(
        self,
        access: Access,
        operators: Operators,
        audit: AuditLog,
        wall_clock: Callable[[], float],
    ) -> None:
        self._access = access
        self._operators = operators
        self._audit = audit
        self._wall_clock = wall_clock

    async def begin(self, who: Principal, key_id: str, browser: str) -> tuple[Session, str]:
        """Begin a session, and return it with the secret for its cookie.

        `key_id` names the access key or operator's token that was shown.
        """
        self._audit.check_pace_of_sign_ins(who)
        secret, now_ms = new_session_secret(), self._now_ms()
        session = Session(
            digest_of(secret),
            who.actor,
            who.business_id,
            key_id,
            began_at=now_ms,
            last_used_at=now_ms,
            address=who.address,
            browser=browser,
        )
        await self._access.begin_session(session, IDLE_SECONDS)
        await self._audit.note(who, "session.begun", who.actor, who.business_id)
        return session, secret

    async def find(self, secret: str, address: str) -> Session | None:
        """Return the session that a cookie's secret belongs to; None when it is over."""
        if not secret or len(secret) > MOST_CHARACTERS:
            return None
        session = await self._access.session_of(digest_of(secret), IDLE_SECONDS)
        if session is None:
            return None
        now_ms = self._now_ms()
        # Version 0.1 does not write when a session began: count from the first sight of it.
        began_at = session.began_at or now_ms
        if now_ms >= began_at + LONGEST_SECONDS * 1000:
            await self._access.end_session(session)
            return None
        if abs(now_ms - session.last_used_at) >= NOTED_EVERY_MS:
            session = replace(
                session,
                began_at=began_at,
                last_used_at=now_ms,
                address=address or session.address,
            )
            await self._access.save_session(session)
        return session

    async def sign_out(self, who: Principal, secret: str) -> None:
        """End the session that a cookie's secret belongs to."""
        session = await self._access.session_of(digest_of(secret), IDLE_SECONDS)
        if session is not None:
            await self._end(who, session)

    async def visible(self, who: Principal, business_id: str | None = None) -> list[ListedSession]:
        """Return the sessions that somebody may see, the newest first.

        An operator sees all operators' sessions, or those of the business that is named. The
        holder of a key sees those of their business, or without MANAGE_SESSIONS their own.

        Raises:
            NotThere: another business is named.
        """
        if who.is_operator and business_id is None:
            found = await self._of_operators()
        elif who.may(Permission.MANAGE_SESSIONS):
            scope = who.scope(Permission.MANAGE_SESSIONS, business_id)
            found = await self._of_business(scope or who.business_id)
        elif business_id is None or who.owns(business_id):
            found = await self._own(who)
        else:
            raise NotThere(f"there is no business {business_id!r}")
        return sorted(found, key=lambda one: (-one.session.began_at, one.session.id))

    async def end(self, who: Principal, session_id: str, business_id: str | None = None) -> None:
        """End one session that they see.

        Raises:
            NotThere: they see no such session.
        """
        for one in await self.visible(who, business_id):
            if one.session.id == session_id:
                await self._end(who, one.session)
                return
        raise NotThere("there is no session of this id; it may have ended already")

    async def end_own(self, who: Principal) -> int:
        """Sign somebody out everywhere, and return how many sessions that ended.

        These are the sessions begun with their token or key, the present one included.
        """
        return await self._end_all(who, await self._own(who), who.actor, who.business_id)

    async def end_of_business(self, who: Principal, business_id: str) -> int:
        """End all sessions of a business, and return how many there were.

        Raises:
            NotThere: it is another business's.
            Forbidden: their role does not permit it.
        """
        who.demand(Permission.MANAGE_SESSIONS, business_id)
        found = await self._of_business(business_id)
        return await self._end_all(who, found, business_id, business_id)

    async def _of_operators(self, actor: str | None = None) -> list[ListedSession]:
        found: list[ListedSession] = []
        for token_id in self._operators.token_ids(actor):
            if (holder := self._operators.of_token(token_id)) is not None:
                found += await self._begun_with(token_id, holder, operator_name(holder.actor))
        return found

    async def _of_business(self, business_id: str, actor: str | None = None) -> list[ListedSession]:
        found: list[ListedSession] = []
        for key in await self._access.keys_of(business_id):
            holder = holder_of(key, self._now_ms())
            if holder is not None and actor in (None, holder.actor):
                found += await self._begun_with(key.id, holder, key.label)
        return found

    async def _own(self, who: Principal) -> list[ListedSession]:
        if who.role is Role.OPERATOR:
            return await self._of_operators(who.actor)
        return await self._of_business(who.business_id, who.actor)

    async def _begun_with(self, key_id: str, holder: Principal, name: str) -> list[ListedSession]:
        now_ms = self._now_ms()
        listed = [
            ListedSession(session, holder, name, _ends_at(session))
            for session in await self._access.sessions_of(key_id)
        ]
        return [one for one in listed if one.ends_at > now_ms]

    async def _end(self, who: Principal, session: Session) -> None:
        await self._access.end_session(session)
        data = {"session": session.id}
        await self._audit.note(who, "session.ended", session.actor, session.business_id, data)

    async def _end_all(
        self, who: Principal, found: list[ListedSession], target: str, business_id: str
    ) -> int:
        for one in found:
            await self._access.end_session(one.session)
        data = {"sessions": len(found)}
        await self._audit.note(who, "sessions.ended", target, business_id, data)
        return len(found)

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000)


def _ends_at(session: Session) -> int:
    idle = session.last_used_at + int(IDLE_SECONDS * 1000)
    return min(idle, session.began_at + int(LONGEST_SECONDS * 1000))
