"""The gate: who a token, a key or a session's cookie belongs to."""

import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import NoReturn

from app.admin.access_keys import MOST_CHARACTERS, digest_of, has_expired, holder_of, is_key
from app.admin.attempts import AttemptLimiter, WayIn
from app.admin.audit_log import AuditLog
from app.admin.operators import Operators
from app.admin.principal import Principal
from app.admin.sessions import Sessions
from app.credentials.addresses import ClientSource
from app.errors import FormExpired, KeyExpired, SignInRequired
from app.store.access import Access, AccessKey, Session

log = logging.getLogger(__name__)

USE_NOTED_EVERY_MS = 60_000
SIGN_IN = "send Authorization: Bearer with ADMIN_TOKEN or with an access key"
NO_OPERATOR = (
    "operator access is off: set ADMIN_TOKEN to 32 random characters or more, and start again"
)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Somebody at a browser; `secret` is for their cookie, and for nobody else to see."""

    principal: Principal
    secret: str = field(repr=False)


class Gate:
    """Tell who asks: an operator by their token, others by an access key or a session.

    `wall_clock` returns Unix seconds; `has_business` whether a business is there: a key or session
    of one that was deleted admits nobody. An operator's token needs no store.
    """

    def __init__(
        self,
        access: Access,
        operators: Operators,
        sessions: Sessions,
        audit: AuditLog,
        attempts: AttemptLimiter,
        *,
        wall_clock: Callable[[], float],
        has_business: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._access = access
        self._operators = operators
        self._sessions = sessions
        self.audit = audit
        self._attempts = attempts
        self._wall_clock = wall_clock
        self._has_business = has_business

    @property
    def has_operator(self) -> bool:
        """Tell whether ADMIN_TOKEN is set, so that anybody can be an operator."""
        return bool(len(self._operators))

    async def by_bearer(self, shown: str, address: str) -> Principal:
        """Tell whose token or key this is, sent from `address`.

        The right one is served whatever else came from there: a neighbour's wrong
        keys must not stop a program.

        Raises:
            SignInRequired: it is nobody's, or has expired.
            TooManyAttempts: it is nobody's, and too many such came from there.
        """
        found = await self._find(shown)
        if found is None:
            await self._refuse(WayIn.ADMIN_BEARER, ClientSource(address), shown)
        return replace(found[0], address=address)

    async def sign_in(
        self, shown: str, address: str, *, is_shared: bool = False, browser: str = ""
    ) -> SignedIn:
        """Begin a session for whoever shows a token or key in the sign-in form.

        With `is_shared`, many clients have this address: the right key is accepted
        however many of them failed. `browser` names theirs in the list of sessions.

        Raises:
            SignInRequired: it is nobody's, or has expired.
            TooManyAttempts: too many wrong ones came from this address; then the right
                one is refused as well, so that trying on tells nothing.
        """
        source = ClientSource(address, is_shared)
        await self._attempts.check(WayIn.SIGN_IN, source)
        found = await self._find(shown.strip())
        if found is None:
            await self._refuse(WayIn.SIGN_IN, source, shown)
        principal, key_id = replace(found[0], address=address), found[1]
        session, secret = await self._sessions.begin(principal, key_id, browser)
        if await self._holder(session) is None:
            # The key was revoked, or its business deleted, before the session was stored.
            await self._access.end_session(session)
            raise SignInRequired("this token or key was revoked a moment ago")
        return SignedIn(replace(principal, session_id=session.id), secret)

    async def by_session(self, secret: str, address: str = "") -> SignedIn | None:
        """Return whose session this is; None when it is over, or what it was begun with is."""
        session = await self._sessions.find(secret, address)
        holder = await self._holder(session) if session else None
        if session is None or holder is None:
            return None
        return SignedIn(replace(holder, address=address, session_id=session.id), secret)

    async def sign_out(self, signed_in: SignedIn) -> None:
        """End a session."""
        await self._sessions.sign_out(signed_in.principal, signed_in.secret)

    async def _find(self, shown: str) -> tuple[Principal, str] | None:
        """Tell whose this is, and the id of what was shown."""
        if not shown or len(shown) > MOST_CHARACTERS:
            return None
        digest = digest_of(shown)
        if (operator := self._operators.find(digest)) is not None:
            return operator.principal, operator.token_id
        if not is_key(shown) or (key := await self._access.key_of(digest)) is None:
            return None
        if has_expired(key, self._now_ms()):
            # It was right once: no guess, so it is not counted.
            raise KeyExpired("this access key has expired; ask an operator for a new one")
        holder = await self._used(key)
        return (holder, key.id) if holder else None

    async def _used(self, key: AccessKey) -> Principal | None:
        """Return who holds a key, and note its use; None where its business was deleted."""
        if not await self._has_business(key.business_id):
            return None
        holder, now_ms = holder_of(key, self._now_ms()), self._now_ms()
        if holder is not None and abs(now_ms - key.last_used_at) >= USE_NOTED_EVERY_MS:
            await self._access.note_use(key, now_ms)
        return holder

    async def _holder(self, session: Session) -> Principal | None:
        """Return whose a session is now, by what it was begun with."""
        if not session.business_id:
            return self._operators.of_token(session.key_id)
        key = await self._access.key(session.business_id, session.key_id)
        return await self._used(key) if key is not None else None

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000)

    async def _refuse(self, way: WayIn, source: ClientSource, shown: str) -> NoReturn:
        peer = {"peer": source.address}
        log.warning("[admin] ❌ A wrong token or key came from %s", source.address, extra=peer)
        if shown.strip():  # nothing else was compared
            await self.audit.note_wrong_credentials(source.address, f"sign-in by {way}")
            await self._attempts.note_failure(way, source, shown)
        raise SignInRequired(
            "this token or key is not known here, or was revoked"
            + ("" if self.has_operator else f" ({NO_OPERATOR})")
        )


def csrf_token(signed_in: SignedIn) -> str:
    """Give what every form of this session, and X-CSRF-Token, must hold."""
    return hmac.new(signed_in.secret.encode(), b"csrf", hashlib.sha256).hexdigest()


def check_csrf(signed_in: SignedIn, given: str) -> None:
    """Raise FormExpired unless a form, or a header, holds this session's token."""
    if not hmac.compare_digest(csrf_token(signed_in).encode(), given.encode("utf-8", "replace")):
        raise FormExpired(
            "this form is not of your session: load the page again, and send it once more"
        )
