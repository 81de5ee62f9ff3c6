"""The gate: who a token, a key or a session's cookie belongs to."""

import hashlib
import hmac
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from app.admin.attempts import AttemptLimiter, WayIn
from app.admin.audit_log import AuditLog
from app.admin.principal import THE_OPERATOR, Principal
from app.admin.roles import Role
from app.administration.access_keys import (
    MOST_CHARACTERS,
    digest_of,
    is_key,
    new_session_secret,
)
from app.credentials.addresses import ClientSource
from app.errors import FormExpired, SignInRequired
from app.store.access import Access, AccessKey, Session

log = logging.getLogger(__name__)

# After its last use.
SESSION_SECONDS = 12 * 3600.0
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
    """Tell who asks.

    `token_digests` are SHA-256 digests, in hexadecimal, of the tokens that are an
    operator's; without any there is no operator. `wall_clock` gives Unix seconds.
    An operator's token needs no store.
    """

    def __init__(
        self,
        access: Access,
        audit: AuditLog,
        token_digests: Sequence[str],
        attempts: AttemptLimiter,
        *,
        wall_clock: Callable[[], float],
    ) -> None:
        self._access = access
        self.audit = audit
        self._tokens = tuple(token_digests)
        self._attempts = attempts
        self._wall_clock = wall_clock

    @property
    def has_operator(self) -> bool:
        """Tell whether ADMIN_TOKEN is set, so that anybody can be an operator."""
        return bool(self._tokens)

    async def by_bearer(self, shown: str, address: str) -> Principal:
        """Tell whose token or key this is, sent from `address`.

        The right one is served whatever else came from there: a neighbour's wrong
        keys must not stop a program.

        Raises:
            SignInRequired: it is nobody's.
            TooManyAttempts: it is nobody's, and too many such came from there.
        """
        found = await self._find(shown)
        if found is None:
            await self._refuse(WayIn.ADMIN_BEARER, ClientSource(address), shown)
        return replace(found[0], address=address)

    async def sign_in(self, shown: str, address: str, *, is_shared: bool = False) -> SignedIn:
        """Begin a session for whoever shows a token or key in the sign-in form.

        With `is_shared`, many clients have this address: the right key is accepted
        however many of them failed.

        Raises:
            SignInRequired: it is nobody's.
            TooManyAttempts: too many wrong ones came from this address; then the right
                one is refused as well, so that trying on tells nothing.
        """
        source = ClientSource(address, is_shared)
        await self._attempts.check(WayIn.SIGN_IN, source)
        found = await self._find(shown.strip())
        if found is None:
            await self._refuse(WayIn.SIGN_IN, source, shown)
        principal, key_id = replace(found[0], address=address), found[1]
        secret = new_session_secret()
        session = Session(digest_of(secret), principal.actor, principal.business_id, key_id)
        await self._access.begin_session(session, SESSION_SECONDS)
        await self.audit.note(principal, "session.begun", principal.actor, principal.business_id)
        return SignedIn(principal, secret)

    async def by_session(self, secret: str, address: str = "") -> SignedIn | None:
        """Return whose session this is; None when it is over, or what it was begun with is."""
        if not secret or len(secret) > MOST_CHARACTERS:
            return None
        session = await self._access.session_of(digest_of(secret), SESSION_SECONDS)
        if session is None or not await self._still_holds(session):
            return None
        role = Role.ADMIN if session.business_id else Role.OPERATOR
        return SignedIn(Principal(session.actor, role, session.business_id, address), secret)

    async def sign_out(self, signed_in: SignedIn) -> None:
        """End a session."""
        await self._access.end_session(digest_of(signed_in.secret))
        who = signed_in.principal
        await self.audit.note(who, "session.ended", who.actor, who.business_id)

    async def _find(self, shown: str) -> tuple[Principal, str] | None:
        """Tell whose this is, and the id of what was shown."""
        if not shown or len(shown) > MOST_CHARACTERS:
            return None
        digest = digest_of(shown)
        known = [one for one in self._tokens if hmac.compare_digest(one, digest)]
        if known:
            return THE_OPERATOR, _token_id(known[0])
        if not is_key(shown) or (key := await self._access.key_of(digest)) is None:
            return None
        await self._note_use(key)
        return Principal(f"key:{key.id}", Role.ADMIN, key.business_id), key.id

    async def _note_use(self, key: AccessKey) -> None:
        now_ms = int(self._wall_clock() * 1000)
        if abs(now_ms - key.last_used_at) >= USE_NOTED_EVERY_MS:
            await self._access.note_use(key, now_ms)

    async def _still_holds(self, session: Session) -> bool:
        if not session.business_id:
            return session.key_id in map(_token_id, self._tokens)
        key = await self._access.key(session.business_id, session.key_id)
        if key is not None:
            await self._note_use(key)
        return key is not None

    async def _refuse(self, way: WayIn, source: ClientSource, shown: str) -> NoReturn:
        peer = {"peer": source.address}
        log.warning("[admin] ❌ A wrong token or key came from %s", source.address, extra=peer)
        if shown.strip():  # nothing else was compared
            await self.audit.note_wrong_credentials(source.address, f"sign-in by {way}")
            await self._attempts.note_failure(way, source, shown)
        raise SignInRequired(
            "this token or key is not known here, or was revoked"
            + ("" if self._tokens else f" ({NO_OPERATOR})")
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


def _token_id(digest: str) -> str:
    """Name an operator's token, in a session, without what would admit anybody."""
    return digest_of(f"operator {digest}")[:16]
