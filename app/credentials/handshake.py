"""Who opens a socket at `/v1/ingest`: own clients by token, Exotel by pair or address.

Pure: what a handshake shows goes in, who is there comes out, or one of the
errors named here. Secrets compare in constant time and stand in no message.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.credentials.addresses import Network, client_address, is_in
from app.credentials.tokens import BearerToken, JwtRules, OwnClient, own_client, read_token
from app.errors import (
    CredentialsInvalid,
    CredentialsMissing,
    ExotelNotSupported,
    OriginRefused,
)

PAIR_MAX_CHARS = 1024


@dataclass(frozen=True, slots=True)
class IngestPolicy:
    """Whom this service admits at `/v1/ingest`.

    `exotel_pairs` are texts `KEY:TOKEN`, any of which is good; `waive` is
    ALLOW_UNSIGNED. Without `jwt` no token is taken.
    """

    support_exotel: bool = False
    exotel_pairs: tuple[str, ...] = field(default=(), repr=False)
    exotel_networks: tuple[Network, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    waive: bool = False
    jwt: JwtRules | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What a handshake shows of who is there.

    `authorization`, `forwarded_for` and `origin` are all values of their headers,
    in order; `peer` is the address of the socket's other end. `ticket_holds` tells
    whether the URL's ticket is ours and in time, and is None without a ticket.
    """

    authorization: tuple[str, ...] = field(default=(), repr=False)
    peer: str = ""
    forwarded_for: tuple[str, ...] = ()
    ticket_holds: bool | None = None
    origin: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BasicPair:
    """A pair that is shown and not yet checked, as `pair_digest` has it."""

    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExotelPeer:
    """A connection taken for Exotel's, and what it was admitted by.

    `pair_digest` is that of the pair it showed, by which a business's own pair
    is found; empty unless `how` is `basic`.
    """

    how: Literal["basic", "address", "ticket", "waived"]
    pair_digest: str = field(default="", repr=False)


def detect(
    shown: Shown,
    policy: IngestPolicy,
    now: float,
    known_digests: Callable[[str], bool],
) -> OwnClient | ExotelPeer:
    """Tell who opens a socket at `/v1/ingest`, or refuse it.

    `now` is in Unix seconds; `known_digests` tells whether a `pair_digest` is
    of a pair that a business has of its own. Credentials that are shown decide,
    also under `waive`: no address and no ticket makes up for wrong ones.

    Raises:
        CredentialsInvalid: the credentials are unreadable, or none we know.
        CredentialsMissing: there are none, and the address is not Exotel's.
        TokenInvalid, TokenExpired: the token does not hold.
        ExotelNotSupported: it has no token, and SUPPORT_EXOTEL is not set.
        OriginRefused: it has no token, and is a browser.
    """
    credentials = read_credentials(shown.authorization)
    if isinstance(credentials, BearerToken):
        return own_client(credentials, policy.jwt, now)
    if not policy.support_exotel:
        raise ExotelNotSupported(
            "there is no Bearer token, and Exotel is served only with SUPPORT_EXOTEL=true"
        )
    if not policy.waive:
        refuse_origin(shown.origin)
    if credentials is not None:
        known = _is_among(credentials.digest, policy.exotel_pairs)
        if not (known or known_digests(credentials.digest)):
            raise CredentialsInvalid(
                "the Basic credentials fit neither EXOTEL_API_KEY and EXOTEL_API_TOKEN"
                " nor a business's own pair"
            )
        return ExotelPeer("basic", credentials.digest)
    if shown.ticket_holds:
        return ExotelPeer("ticket")
    address = client_address(shown.peer, shown.forwarded_for, policy.trusted_proxies)
    if address is not None and is_in(address, policy.exotel_networks):
        return ExotelPeer("address")
    if policy.waive:
        return ExotelPeer("waived")
    if shown.ticket_holds is False:
        raise CredentialsInvalid("the ticket in the URL is not ours, or its time has passed")
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
