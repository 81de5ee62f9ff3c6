"""What is shown at `/v1/ingest` and `/exotel-stream-url`, and what that permits.

Own clients show a token, Exotel a pair, an address or a ticket. Pure: what a request shows
goes in, its authorization comes out, or one of the errors named here. Secrets compare in
constant time and stand in no message.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.carriers.authorization import Authorization, Proof, Purpose
from app.credentials.addresses import FORWARDED_FOR, Network, client_address, is_in
from app.credentials.tokens import BearerToken, JwtRules, own_client, read_token
from app.errors import (
    CredentialsInvalid,
    CredentialsMissing,
    ExotelNotSupported,
    OriginRefused,
    PurposeMismatch,
)

PAIR_MAX_CHARS = 1024


@dataclass(frozen=True, slots=True)
class IngestPolicy:
    """Whom this service admits at `/v1/ingest`.

    `exotel_pairs` are texts `KEY:TOKEN`, any of which is good; `waive` is
    ALLOW_UNSIGNED. `client_header` is where trusted proxies name their clients.
    Without `jwt` no token is taken.
    """

    support_exotel: bool = False
    exotel_pairs: tuple[str, ...] = field(default=(), repr=False)
    exotel_networks: tuple[Network, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    client_header: str = FORWARDED_FOR
    waive: bool = False
    jwt: JwtRules | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What a handshake shows of who is there.

    `authorization`, `forwarded_for` and `origin` are all values of their headers,
    in order; `peer` is the address of the socket's other end. `has_ticket` tells whether
    the URL carries a ticket, and `ticket` what it permits, None where it does not hold.
    """

    authorization: tuple[str, ...] = field(default=(), repr=False)
    peer: str = ""
    forwarded_for: tuple[str, ...] = ()
    has_ticket: bool = False
    ticket: Authorization | None = None
    origin: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BasicPair:
    """A pair that is shown and not yet checked, as `pair_digest` has it."""

    digest: str = field(repr=False)


def detect(
    shown: Shown,
    policy: IngestPolicy,
    purpose: Purpose,
    now: float,
    owner_of: Callable[[str], str],
) -> Authorization:
    """Return what a request's credential permits, or refuse it.

    `now` is in Unix seconds; `owner_of` returns the business that has a pair of its own, by
    the pair's digest, or an empty id. A pair that is among the shared ones speaks for the
    service, whichever business has it too. Credentials that are shown decide, also under
    `waive`: no address and no ticket makes up for wrong ones. Under `waive` tickets are
    ignored.

    Raises:
        CredentialsInvalid: the credentials are unreadable, or none we know.
        CredentialsMissing: there are none, and the address is not Exotel's.
        TokenInvalid, TokenExpired: the token does not hold.
        ExotelNotSupported: it has no token, and SUPPORT_EXOTEL is not set.
        OriginRefused: it has no token, and is a browser.
        PurposeMismatch: it has nothing but a ticket, which does not get a stream URL.
    """
    credentials = read_credentials(shown.authorization)
    if isinstance(credentials, BearerToken):
        client = own_client(credentials, policy.jwt, now)
        return Authorization(Proof.JWT, purpose, client.business_id, client.interaction_id or "")
    if not policy.support_exotel:
        raise ExotelNotSupported(
            "there is no Bearer token, and Exotel is served only with SUPPORT_EXOTEL=true"
        )
    if not policy.waive:
        refuse_origin(shown.origin)
    if credentials is not None:
        if _is_among(credentials.digest, policy.exotel_pairs):
            return Authorization(Proof.EXOTEL_SHARED_PAIR, purpose)
        owner = owner_of(credentials.digest)
        if not owner:
            raise CredentialsInvalid(
                "the Basic credentials fit neither EXOTEL_API_KEY and EXOTEL_API_TOKEN"
                " nor a business's own pair"
            )
        return Authorization(Proof.EXOTEL_OWN_PAIR, purpose, owner, pair=credentials.digest)
    if shown.ticket is not None and shown.ticket.purpose is purpose and not policy.waive:
        return shown.ticket
    address = client_address(shown.peer, shown.forwarded_for, policy.trusted_proxies)
    if address is not None and is_in(address, policy.exotel_networks):
        return Authorization(Proof.EXOTEL_ADDRESS, purpose)
    if policy.waive:
        return Authorization(Proof.WAIVED, purpose)
    if shown.has_ticket:
        if purpose is not Purpose.OPEN_STREAM:
            raise PurposeMismatch("a ticket opens one stream, and gets no stream URL")
        raise CredentialsInvalid(
            "the ticket in the URL was not issued here, has been used, or its minute has passed"
        )
    raise CredentialsMissing(
        f"there is no Authorization header, and {address or 'the address'} is not in"
        " EXOTEL_ALLOWED_IPS"
    )


def refuse_origin(origin: Sequence[str]) -> None:
    """Raise OriginRefused for a handshake that carries an Origin; no carrier's does.

    A browser sends one from any page it shows (RFC 6455, 10.2), and with it what
    proves who its user is: an address, a Basic pair it remembers. A token is not
    sent that way, so clients with a token may carry an Origin: some libraries
    send one always.
    """
    if origin:
        raise OriginRefused("the handshake carries an Origin, as a browser's does; no carrier's")


def read_credentials(authorization: Sequence[str]) -> BearerToken | BasicPair | None:
    """Read the values of `Authorization`; what they hold is not checked yet.

    For a caller that must look up a key or a pair before it calls `detect`.

    Raises:
        CredentialsInvalid: there are two headers, or one of another scheme, or
            the pair cannot be read.
        TokenInvalid: the token cannot be read.
    """
    if not authorization:
        return None
    if len(authorization) > 1:
        raise CredentialsInvalid("there is more than one Authorization header")
    # RFC 9110, 11.4: credentials = auth-scheme [ 1*SP ( token68 / … ) ], and
    # 11.1: the scheme is a "case-insensitive token".
    scheme, _, rest = authorization[0].strip(" \t").partition(" ")
    match scheme.lower():
        case "bearer":
            return read_token(rest.lstrip(" "))
        case "basic":
            return BasicPair(pair_digest(_read_pair(rest.lstrip(" "))))
    raise CredentialsInvalid("the Authorization header is neither Bearer nor Basic")


def pair_digest(pair: str) -> str:
    """Give the SHA-256 of a text `KEY:TOKEN` in hexadecimal digits."""
    return hashlib.sha256(pair.encode("utf-8", "surrogatepass")).hexdigest()


def _read_pair(encoded: str) -> str:
    if len(encoded) > PAIR_MAX_CHARS:
        raise CredentialsInvalid("the Basic credentials are too long")
    try:
        pair = base64.b64decode(encoded, validate=True).decode("ascii")
    except ValueError:
        raise CredentialsInvalid("the Basic credentials are not base64 of ASCII") from None
    key, _, token = pair.partition(":")
    if not key or not token:
        raise CredentialsInvalid("the Basic credentials are not of the form KEY:TOKEN")
    return pair


def _is_among(digest: str, pairs: Sequence[str]) -> bool:
    found = False
    for pair in pairs:
        # No early end: the time must not tell which pair it was.
        found |= hmac.compare_digest(pair_digest(pair), digest)
    return found
