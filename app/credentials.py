"""Who may use `/v1/ingest`: own clients by token, Exotel by pair or address.

Pure: what a handshake shows goes in, who is there comes out, or one of the
errors named here. Secrets compare in constant time and stand in no message.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import Any, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm
from jwt.types import Options

from app.errors import (
    CredentialsInvalid,
    CredentialsMissing,
    ExotelNotSupported,
    TokenExpired,
    TokenInvalid,
)
from app.plans import IDENTIFIER

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Key = RSAPublicKey | bytes

TOKEN_MAX_CHARS = 8192
PAIR_MAX_CHARS = 1024
MIN_SECRET_CHARACTERS = 32
# NIST SP 800-131A.
MIN_RSA_BITS = 2048
# A time in milliseconds is later than this one, and so is infinity.
_LATEST_TIME = 100_000_000_000


@dataclass(frozen=True, slots=True)
class JwtRules:
    """How an own client's token is checked.

    `keys` are found by the token's `kid`; the one named "" serves every token
    whose `kid` names no other. RS256 takes RSA public keys, HS256 takes bytes.
    `audience` and `issuer` are compared when set; `leeway_seconds` is what the
    clocks may differ by.
    """

    algorithm: Literal["RS256", "HS256"]
    keys: Mapping[str, Key] = field(repr=False)
    audience: str | None = None
    issuer: str | None = None
    leeway_seconds: float = 5.0


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

    `authorization` and `forwarded_for` are all values of their headers, in
    order; `peer` is the address of the socket's other end. `ticket_holds` tells
    whether the URL's ticket is ours and in time, and is None without a ticket.
    """

    authorization: tuple[str, ...] = field(default=(), repr=False)
    peer: str = ""
    forwarded_for: tuple[str, ...] = ()
    ticket_holds: bool | None = None


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token that is shown and not yet checked; `key_id` is its `kid`, or empty."""

    text: str = field(repr=False)
    key_id: str


@dataclass(frozen=True, slots=True)
class BasicPair:
    """A pair that is shown and not yet checked, as `pair_digest` has it."""

    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OwnClient:
    """A client whose token holds: whose it is, and for which interaction, if for one."""

    business_id: str
    interaction_id: str | None


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
    """
    credentials = read_credentials(shown.authorization)
    if isinstance(credentials, BearerToken):
        return _own_client(credentials, policy.jwt, now)
    if not policy.support_exotel:
        raise ExotelNotSupported(
            "there is no Bearer token, and Exotel is served only with SUPPORT_EXOTEL=true"
        )
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
    if address is not None and _is_in(address, policy.exotel_networks):
        return ExotelPeer("address")
    if policy.waive:
        return ExotelPeer("waived")
    if shown.ticket_holds is False:
        raise CredentialsInvalid("the ticket in the URL is not ours, or its time has passed")
    raise CredentialsMissing(
        f"there is no Authorization header, and {address or 'the address'} is not in"
        " EXOTEL_ALLOWED_IPS"
    )


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
            return _read_token(rest.lstrip(" "))
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


# ---------------------------------------------------------------------- addresses


def client_address(
    peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]
) -> Address | None:
    """Find the client's address: the right-most that no trusted proxy has.

    Each proxy appends whom it heard, so what stands left of that address was
    written by a stranger. `forwarded_for` are the values of `X-Forwarded-For`,
    read only if `peer` is a trusted proxy; with a hop that is no address, or
    none but proxies, the answer is `peer`. None if that is no address.
    """
    socket_address = _address(peer)
    if socket_address is None or not _is_in(socket_address, trusted):
        return socket_address
    for hop in reversed(",".join(forwarded_for).split(",")):
        address = _address(hop)
        if address is None:
            break
        if not _is_in(address, trusted):
            return address
    return socket_address


# Some proxies append the port: 192.0.2.1:443, [2001:db8::1]:443.
_WITH_PORT = re.compile(r"\[([0-9a-fA-F:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


def _address(text: str) -> Address | None:
    text = text.strip(" \t")
    if found := _WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A socket for both families shows an IPv4 peer as ::ffff:192.0.2.1.
    return getattr(address, "ipv4_mapped", None) or address


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


# ------------------------------------------------------------------------- tokens


def rules_from(
    public_key_pem: str, secret: str, audience: str, issuer: str, leeway_seconds: float
) -> JwtRules | None:
    r"""Read JWT_PUBLIC_KEY or JWT_SECRET, whichever is set; None if neither is.

    The key is PEM; it may stand on one line, with `\n` written out. An empty
    audience or issuer is not checked.

    Raises:
        ValueError: the key or secret is unusable, or both are set; the sentence
            begins with the variable's name.
    """
    if public_key_pem and secret:
        raise ValueError("JWT_SECRET must not be set beside JWT_PUBLIC_KEY")
    if public_key_pem:
        keys: dict[str, Key] = {"": _read_public_key(public_key_pem)}
        return JwtRules("RS256", keys, audience or None, issuer or None, leeway_seconds)
    if secret:
        keys = {"": _read_secret(secret)}
        return JwtRules("HS256", keys, audience or None, issuer or None, leeway_seconds)
    return None


def _read_public_key(pem: str) -> RSAPublicKey:
    if "PRIVATE KEY" in pem:
        raise ValueError("JWT_PUBLIC_KEY holds a private key: set its public half")
    try:
        key = load_pem_public_key(pem.replace("\\n", "\n").strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("JWT_PUBLIC_KEY is not a public key in PEM") from None
    if not isinstance(key, RSAPublicKey):
        raise ValueError("JWT_PUBLIC_KEY is not an RSA key, as RS256 needs")
    if key.key_size < MIN_RSA_BITS:
        raise ValueError(f"JWT_PUBLIC_KEY has fewer than {MIN_RSA_BITS} bits")
    return key


def _read_secret(secret: str) -> bytes:
    if len(secret) < MIN_SECRET_CHARACTERS:
        raise ValueError(f"JWT_SECRET must have at least {MIN_SECRET_CHARACTERS} characters")
    try:
        return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except UnicodeEncodeError:
        raise ValueError("JWT_SECRET is not valid Unicode") from None
    except jwt.InvalidKeyError:
        raise ValueError("JWT_SECRET holds a public key, a certificate or a JWK") from None


def _read_token(text: str) -> BearerToken:
    if len(text) > TOKEN_MAX_CHARS:
        raise TokenInvalid(f"the token is longer than {TOKEN_MAX_CHARS} characters")
    if not text.isascii():
        raise TokenInvalid("the token cannot be read")
    try:
        header = jwt.get_unverified_header(text)
    except jwt.PyJWTError as error:
        raise _token_invalid(error) from None
    return BearerToken(text, header.get("kid", ""))


def _own_client(token: BearerToken, rules: JwtRules | None, now: float) -> OwnClient:
    if rules is None:
        raise CredentialsInvalid(
            "a Bearer token cannot be checked: set JWT_PUBLIC_KEY, JWT_JWKS_URL or JWT_SECRET"
        )
    claims = _verified_claims(token, rules)
    _check_times(claims, now, rules.leeway_seconds)
    business_id = _identifier(claims, "business_id")
    tenant_id = _identifier(claims, "tenant_id")
    if business_id and tenant_id and business_id != tenant_id:
        raise TokenInvalid("the token's tenant_id and business_id differ")
    owner = tenant_id or business_id
    if owner is None:
        raise TokenInvalid("the token has no tenant_id")
    return OwnClient(owner, _identifier(claims, "interaction_id"))


def _verified_claims(token: BearerToken, rules: JwtRules) -> dict[str, Any]:
    key = rules.keys.get(token.key_id) or rules.keys.get("")
    if not key:
        raise TokenInvalid("no key is known for the token's kid")
    options: Options = {
        "require": ["exp"],
        # PyJWT would compare times with its own clock.
        "verify_exp": False,
        "verify_iat": False,
        "verify_nbf": False,
        # It would refuse an audience that nobody asked for.
        "verify_aud": rules.audience is not None,
        "strict_aud": True,
    }
    try:
        return jwt.decode(
            token.text,
            key,
            algorithms=[rules.algorithm],
            options=options,
            audience=rules.audience,
            issuer=rules.issuer,
        )
    except jwt.PyJWTError as error:
        # Without its cause: PyJWT's own words may quote the token.
        raise _token_invalid(error) from None


def _token_invalid(error: jwt.PyJWTError) -> TokenInvalid:
    match error:
        case jwt.InvalidAlgorithmError():
            return TokenInvalid("the token is signed by an algorithm that is not taken")
        case jwt.InvalidSignatureError():
            return TokenInvalid("the token's signature does not fit the key")
        case jwt.MissingRequiredClaimError(claim=claim):
            return TokenInvalid(f"the token has no {claim}")
        case jwt.InvalidAudienceError():
            return TokenInvalid("the token's aud is not JWT_AUDIENCE")
        case jwt.InvalidIssuerError():
            return TokenInvalid("the token's iss is not JWT_ISSUER")
    return TokenInvalid("the token cannot be read")


def _check_times(claims: Mapping[str, Any], now: float, leeway: float) -> None:
    for name in ("iat", "nbf"):
        begins = _time(claims, name)
        if begins is not None and begins > now + leeway:
            raise TokenInvalid(f"the token's {name} lies in the future")
    ends = _time(claims, "exp")
    if ends is None or ends <= now - leeway:
        raise TokenExpired("the token's exp has passed")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value: float | None = claims.get(name)
    if value is None:
        return None
    # RFC 7519, 2: NumericDate, "A JSON numeric value"; and true is an int in Python.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _LATEST_TIME:
        raise TokenInvalid(f"the token's {name} is not a time in Unix seconds")
    return value


def _identifier(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
        raise TokenInvalid(f"the token's {name} is not of the form {IDENTIFIER.pattern}")
    return value
