"""Who may speak: Twilio's signatures, and our one-shot stream tickets.

Whatever a stranger sends, the answer is one of the errors named here. Secrets
compare in constant time and stand in no message.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
from jwt.types import Options
from twilio.request_validator import RequestValidator

from app.carriers.authorization import Authorization, Proof, Purpose
from app.errors import (
    SignatureInvalid,
    SignatureMissing,
    TicketExpired,
    TicketInvalid,
    TicketMissing,
)

TICKET_LIFE_SECONDS = 60
TICKET_PARAMETER = "ticket"
# "The combined length of each <Parameter> name and value attributes must be
# under 500 characters" (twilio.com/docs/voice/twiml/stream).
TICKET_MAX_CHARS = 499 - len(TICKET_PARAMETER)

# Said to whoever is refused: most often PUBLIC_URL is not the URL that was called. Whoever
# calls knows it already, or one that leads there.
_CHECKED_AGAINST = "PUBLIC_URL is"

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_ALGORITHM = "HS256"
_CLAIMS = ("sub", "biz", "plan", "exp", "jti")
# What a ticket is for. Not `aud`: a checker that names no audience, as that of version 0.1,
# refuses a ticket that has one.
_USE = "use"
# The beginning of the id that this service makes up for a call whose carrier has not told
# its own yet. No carrier's call may be named so.
MADE_UP_CALL: Final = "url-"


def constant_time_equal(a: str, b: str) -> bool:
    """Compare two secrets; how long it takes tells their lengths at most."""
    return hmac.compare_digest(
        a.encode("utf-8", "surrogatepass"), b.encode("utf-8", "surrogatepass")
    )


def public_url_in(detail: str) -> str:
    """Give the PUBLIC_URL that a SignatureInvalid names; empty where it names none."""
    words = detail.partition(_CHECKED_AGAINST)[2].split()
    return words[0] if words and words[0].startswith(("http://", "https://")) else ""


class TwilioSignatures:
    """Check `X-Twilio-Signature` against the configured public address.

    `tokens` are auth tokens, the current one first; `public_http_base` and
    `public_ws_base` have no trailing slash. Without tokens nothing passes.
    """

    def __init__(self, tokens: Sequence[str], public_http_base: str, public_ws_base: str) -> None:
        self._public_bases = public_http_base, public_ws_base
        self._validators = tuple(RequestValidator(token) for token in tokens)
        self._http_bases = _with_and_without_port(public_http_base)
        self._ws_bases = _with_and_without_port(public_ws_base)

    def by(self, tokens: Sequence[str]) -> "TwilioSignatures":
        """Check what comes to the same address by other tokens."""
        return TwilioSignatures(tokens, *self._public_bases)

    @property
    def configured(self) -> bool:
        """Tell whether there is a token to check against."""
        return bool(self._validators)

    def check_webhook(
        self, path: str, query: str, params: Sequence[tuple[str, str]], signatures: Sequence[str]
    ) -> int:
        """Check a webhook's signature; give the index of the token that made it.

        `query` is as it stood in the request, byte for byte, and not decoded;
        `params` are all fields of the form, blank and repeated ones too, and
        none for a GET; `signatures` are all values of the header.
        Source: twilio.com/docs/usage/security, "Validating requests".

        Raises:
            SignatureMissing: there is no signature.
            SignatureInvalid: it does not fit, or there are two.
        """
        urls = _urls(self._http_bases, (path,), query)
        return self._check(urls, params, signatures, self._public_bases[0])

    def check_handshake(self, path: str, query: str, signatures: Sequence[str]) -> int:
        """Check a WebSocket upgrade's signature, as `check_webhook`.

        "If you are having trouble verifying a WebSocket handshake request …, try
        appending a trailing / character to the URL": both forms are good.
        """
        paths = (path, path[:-1] if path.endswith("/") else path + "/")
        urls = _urls(self._ws_bases, paths, query)
        return self._check(urls, (), signatures, self._public_bases[0])

    def _check(
        self,
        urls: Sequence[str],
        params: Sequence[tuple[str, str]],
        signatures: Sequence[str],
        base: str,
    ) -> int:
        if not any(signatures):
            raise SignatureMissing("the request carries no X-Twilio-Signature")
        if len(signatures) != 1:
            raise SignatureInvalid("the request carries more than one X-Twilio-Signature")
        form = _Form(params)
        for index, validator in enumerate(self._validators):
            for url in urls:
                try:
                    computed = validator.compute_signature(url, form)
                except UnicodeEncodeError as error:
                    raise SignatureInvalid("the request is not valid Unicode") from error
                if constant_time_equal(computed, signatures[0]):
                    return index
        raise SignatureInvalid(
            f"X-Twilio-Signature does not fit the request: {_CHECKED_AGAINST} {base}"
        )


class _Form(dict[str, list[str]]):
    """A form's fields, in the shape in which RequestValidator sees repeated ones."""

    def __init__(self, params: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        for name, value in params:
            self.setdefault(name, []).append(value)

    def getlist(self, name: str) -> list[str]:
        return self[name]


def _with_and_without_port(base: str) -> tuple[str, ...]:
    # Twilio's own words for why its libraries try both: "sig generation on back
    # end is inconsistent". The library's functions for it mistake wss for ws.
    parts = urlsplit(base)
    host = parts.netloc.removesuffix(f":{parts.port}")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    both = f"{parts.scheme}://{host}", f"{parts.scheme}://{host}:{port}"
    # As it is configured, it most likely is signed.
    return both[::-1] if parts.port else both


def _urls(bases: Sequence[str], paths: Sequence[str], query: str) -> list[str]:
    suffix = f"?{query}" if query else ""
    return [base + path + suffix for base in bases for path in paths]


class TicketUse(StrEnum):
    """The endpoint at which a ticket opens a stream."""

    TWILIO_MEDIA = "twilio"
    INGEST = "ingest"


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket permits: one stream of this call, under this business and plan.

    `call_sid` is made up (`MADE_UP_CALL`) where the ticket was issued before the carrier
    told the call's id. `expires_at` is in Unix seconds; `nonce` is what is spent.
    """

    call_sid: str
    business_id: str
    plan: str
    nonce: str = field(repr=False)
    expires_at: int

    @property
    def names_call(self) -> bool:
        """Return whether the ticket is for one call, whose id was known when it was issued."""
        return not self.call_sid.startswith(MADE_UP_CALL)

    @property
    def authorization(self) -> Authorization:
        """Return what the ticket permits whoever shows it."""
        call_sid = self.call_sid if self.names_call else ""
        return Authorization(Proof.TICKET, Purpose.OPEN_STREAM, self.business_id, call_sid)


class TicketOffice:
    """Issue and check the tickets that admit a call's stream.

    The first of `secret_keys` signs, and each of them verifies. `clock` gives Unix seconds;
    `new_nonce` gives an unguessable text of at most 22 characters. That a ticket is spent
    once is for the store to decide.
    """

    def __init__(
        self,
        secret_keys: Sequence[str],
        clock: Callable[[], float],
        new_nonce: Callable[[], str],
    ) -> None:
        self._keys = tuple(
            hmac.digest(key.encode(), b"stream-ticket", hashlib.sha256) for key in secret_keys
        )
        self._clock = clock
        self._new_nonce = new_nonce

    def issue(self, call_sid: str, business_id: str, plan: str, use: TicketUse) -> str:
        """Create a ticket that is good for a minute, at one endpoint."""
        claims = {
            "sub": call_sid,
            "biz": business_id,
            "plan": plan,
            "exp": int(self._clock()) + TICKET_LIFE_SECONDS,
            "jti": self._new_nonce(),
            _USE: use.value,
        }
        # Without `typ`, which says nothing here, the longest ticket fits into a parameter.
        return jwt.encode(claims, self._keys[0], algorithm=_ALGORITHM, headers={"typ": None})

    def check(self, ticket: str | None, call_sid: str, use: TicketUse) -> Ticket:
        """Read a ticket that permits a stream of this call at this endpoint.

        A ticket for ingest that was issued before the call's id was known permits a stream of
        any call; the caller must bind it to the one that comes.

        Raises:
            TicketInvalid: it belongs to another call; else as `read`.
        """
        found = self.read(ticket, use)
        if use is TicketUse.INGEST and not found.names_call:
            return found
        if not constant_time_equal(found.call_sid, call_sid):
            raise TicketInvalid("the ticket belongs to another call")
        return found

    def read(self, ticket: str | None, use: TicketUse) -> Ticket:
        """Read a ticket that is in time and for this endpoint, for whichever call.

        A ticket without a use was issued by version 0.1, which may run beside this one during
        a deployment; it opens a stream at either endpoint.

        Raises:
            TicketMissing: there is none.
            TicketInvalid: it is forged, or for another endpoint.
            TicketExpired: its minute has passed.
        """
        if not ticket:
            raise TicketMissing("start carries no ticket")
        if len(ticket) > TICKET_MAX_CHARS or not ticket.isascii():
            raise TicketInvalid("the ticket was not issued here")
        claims = self._claims_of(ticket)
        if claims.get(_USE, use.value) != use.value:
            raise TicketInvalid("the ticket opens a stream at another endpoint")
        found = Ticket(
            claims["sub"], claims["biz"], claims["plan"], claims["jti"], int(claims["exp"])
        )
        if self._clock() >= found.expires_at:
            raise TicketExpired("the ticket's minute has passed")
        return found

    def _claims_of(self, ticket: str) -> Mapping[str, Any]:
        # PyJWT would compare `exp` with its own clock.
        options: Options = {"require": list(_CLAIMS), "verify_exp": False}
        problem: jwt.PyJWTError | None = None
        for key in self._keys:
            try:
                return jwt.decode(ticket, key, algorithms=[_ALGORITHM], options=options)
            except jwt.PyJWTError as error:
                problem = error
        raise TicketInvalid("the ticket was not issued here") from problem
