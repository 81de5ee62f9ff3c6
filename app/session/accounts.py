"""The Twilio accounts that businesses have of their own: whose requests their tokens sign.

A token of a business's is good for what is about this business, and for nothing else.
"""

import logging
from dataclasses import dataclass, field
from typing import Final

from app.credentials.sealing import Sealing
from app.errors import SecretUnreadable
from app.plans import Business
from app.secret_strength import weakness_of
from app.store.base import Store
from app.twilio_api import CarrierCall, Credentials, CredentialsFor

log = logging.getLogger(__name__)

TWILIO_AUTH_TOKENS: Final = "twilio_auth_tokens"


@dataclass(frozen=True, slots=True)
class OwnAccount:
    """A business's own account: its SID, which may be empty, and its tokens, the current first."""

    business_id: str
    account_sid: str
    tokens: tuple[str, ...] = field(repr=False)


class OwnAccounts:
    """Find businesses' own accounts; what is unsealed is kept nowhere.

    Without `sealing`, or where a secret cannot be opened, a business has none.
    """

    def __init__(self, store: Store, sealing: Sealing | None) -> None:
        self._store = store
        self._sealing = sealing
        # Businesses are few, and only those with tokens are noted here.
        self._complained: set[str] = set()
        self._warned: set[str] = set()

    async def of_request(self, business_id: str, dialled: str) -> OwnAccount | None:
        """Give the account of the business that a request is about, by its id, else its number.

        Raises:
            StoreUnavailable: it was not read before, and cannot be now.
        """
        if business_id:
            business = await self._store.business(business_id)
        else:
            business = await self._store.business_of_number(dialled)
        return await self._account_of(business) if business else None

    def credentials(self, of_the_service: CredentialsFor) -> CredentialsFor:
        """Find what ends a call: its business's own account, or one `of_the_service`.

        The token that signed a call's stream tells which of the two. Neither ends a
        call that is another account's.
        """

        async def credentials_for(call: CarrierCall) -> Credentials | None:
            if not call.own_account:
                return await of_the_service(call)
            account = await self.of_request(call.business_id, "")
            if account is None or account.account_sid != call.account_sid:
                return None
            return Credentials(account.account_sid, account.tokens[0])

        return credentials_for

    async def _account_of(self, business: Business) -> OwnAccount | None:
        sealed = (await self._store.secrets_of(business.id)).get(TWILIO_AUTH_TOKENS, "")
        if not sealed:
            return None
        try:
            if self._sealing is None:
                raise SecretUnreadable(f"SECRET_KEY is not set: {TWILIO_AUTH_TOKENS} are of no use")
            opened = self._sealing.unseal(business.id, TWILIO_AUTH_TOKENS, sealed)
        except SecretUnreadable as error:
            if business.id not in self._complained:
                self._complained.add(business.id)
                log.error("[Twilio] ❌ Business %s has no auth tokens now: %s", business.id, error)
            return None
        self._complained.discard(business.id)
        tokens = tuple(token for token in opened.split(",") if token)
        self._warn_of_weak(business.id, tokens)
        return OwnAccount(business.id, business.twilio_account_sid, tokens) if tokens else None

    def _warn_of_weak(self, business_id: str, tokens: tuple[str, ...]) -> None:
        """Log once that a token is one which version 0.1 stored and would be refused today."""
        weakness = weakness_of(TWILIO_AUTH_TOKENS, tokens)
        if not weakness:
            self._warned.discard(business_id)
        elif business_id not in self._warned:
            self._warned.add(business_id)
            log.warning(
                "[Twilio] ⚠️ An auth token of business %s %s. Store the token that Twilio's "
                "console shows",
                *(business_id, weakness),
            )
