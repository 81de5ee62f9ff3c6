"""Own clients' tokens: JWTs by one pinned algorithm.

Pure: a token and the rules go in, who it speaks for comes out, or an error that
does not quote it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm
from jwt.types import Options

from app.errors import CredentialsInvalid, TokenExpired, TokenInvalid
from app.plans import IDENTIFIER
from app.secret_strength import weakness_of

Key = RSAPublicKey | bytes

TOKEN_MAX_CHARS = 8192
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
class BearerToken:
    """A token that is shown and not yet checked; `key_id` is its `kid`, or empty."""

    text: str = field(repr=False)
    key_id: str


@dataclass(frozen=True, slots=True)
class OwnClient:
    """A client whose token holds: whose it is, and for which interaction, if for one."""

    business_id: str
    interaction_id: str | None


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
    if weakness := weakness_of("JWT_SECRET", [secret]):
        raise ValueError(f"JWT_SECRET {weakness}")
    try:
        return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except UnicodeEncodeError:
        raise ValueError("JWT_SECRET is not valid Unicode") from None
    except jwt.InvalidKeyError:
        raise ValueError("JWT_SECRET holds a public key, a certificate or a JWK") from None


def read_token(text: str) -> BearerToken:
    """Read a token's outside; what it claims is not checked yet.

    Raises:
        TokenInvalid: it cannot be read.
    """
    if len(text) > TOKEN_MAX_CHARS:
        raise TokenInvalid(f"the token is longer than {TOKEN_MAX_CHARS} characters")
    if not text.isascii():
        raise TokenInvalid("the token cannot be read")
    try:
        header = jwt.get_unverified_header(text)
    except jwt.PyJWTError as error:
        raise _token_invalid(error) from None
    return BearerToken(text, header.get("kid", ""))


def own_client(token: BearerToken, rules: JwtRules | None, now: float) -> OwnClient:
    """Check a token; `now` is in Unix seconds.

    Raises:
        CredentialsInvalid: no key is configured.
        TokenInvalid, TokenExpired: it does not hold.
    """
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
