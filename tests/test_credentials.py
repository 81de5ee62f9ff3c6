"""Who is let in at `/v1/ingest`, and that nobody else is, whatever they send."""

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from app.carriers.authorization import Authorization, Proof, Purpose
from app.credentials.addresses import ClientSource, Network, client_address, client_source
from app.credentials.handshake import (
    BasicPair,
    IngestPolicy,
    Shown,
    detect,
    pair_digest,
    read_credentials,
)
from app.credentials.tokens import TOKEN_MAX_CHARS, BearerToken, JwtRules, rules_from
from app.errors import (
    CredentialsInvalid,
    CredentialsMissing,
    ExotelNotSupported,
    OriginRefused,
    PurposeMismatch,
    RemoteError,
    TokenExpired,
    TokenInvalid,
)

NOW = 1_800_000_000.0
AUDIENCE = "media-bridge"
ISSUER = "https://issuer.example.com/"
SECRET = "a-secret-of-at-least-32-characters"
LEEWAY = 5.0


def pem_of(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = pem_of(PRIVATE.public_key())

RSA_RULES = JwtRules("RS256", {"": PRIVATE.public_key()}, leeway_seconds=LEEWAY)
STRICT_RULES = replace(RSA_RULES, audience=AUDIENCE, issuer=ISSUER)
JWKS_RULES = replace(RSA_RULES, keys={"current": PRIVATE.public_key()})
HMAC_RULES = JwtRules("HS256", {"": SECRET.encode()}, leeway_seconds=LEEWAY)

GOOD = {"tenant_id": "tenant-abc", "interaction_id": "int-123", "exp": NOW + 60, "iat": NOW}
NO_ID: dict[str, Any] = {"exp": NOW + 60}
OTHERS_WORD = {**GOOD, "aud": AUDIENCE, "iss": ISSUER}


# ------------------------------------------------- tokens, made without the library


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def segments(claims: object, header: object) -> str:
    parts = (
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)
    )
    return ".".join(base64url(part) for part in parts)


def rs256(claims: object = GOOD, key: rsa.RSAPrivateKey = PRIVATE, **header: object) -> str:
    """Sign a token with RSA; `claims` that are bytes stand as they are."""
    signed = segments(claims, {"alg": "RS256", "typ": "JWT", **header})
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{base64url(signature)}"


def hs256(claims: object = GOOD, key: str | bytes = SECRET, **header: object) -> str:
    """Sign a token with HMAC."""
    signed = segments(claims, {"alg": "HS256", **header})
    secret = key if isinstance(key, bytes) else key.encode()
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def unsigned(alg: object, claims: object = GOOD) -> str:
    return segments(claims, {"alg": alg}) + "."


def with_header(header: bytes) -> str:
    """Sign a token whose header is these bytes."""
    signed = segments(GOOD, header)
    signature = PRIVATE.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{base64url(signature)}"


def without(claim: str) -> dict[str, Any]:
    return {name: value for name, value in OTHERS_WORD.items() if name != claim}


OPEN_STREAM = Purpose.OPEN_STREAM


def nobody(_digest: str) -> str:
    return ""


def own_client(business_id: str, call_sid: str = "") -> Authorization:
    return Authorization(Proof.JWT, OPEN_STREAM, business_id, call_sid)


def exotel(proof: Proof, business_id: str = "") -> Authorization:
    return Authorization(proof, OPEN_STREAM, business_id)


def bearer(token: str, rules: JwtRules | None) -> Authorization:
    shown = Shown(authorization=(f"Bearer {token}",))
    return detect(
        shown, IngestPolicy(support_exotel=True, waive=True, jwt=rules), OPEN_STREAM, NOW, nobody
    )


TENANT = own_client("tenant-abc", "int-123")
HOLDS = {
    "RS256": (rs256(), RSA_RULES, TENANT),
    "HS256": (hs256(), HMAC_RULES, TENANT),
    "HS256 of a secret's own kid": (hs256(kid="any"), HMAC_RULES, TENANT),
    "a kid that one key need not know": (rs256(kid="../../dev/null"), RSA_RULES, TENANT),
    "a kid that finds its key": (rs256(kid="current"), JWKS_RULES, TENANT),
    "no interaction": (rs256({**NO_ID, "tenant_id": "t"}), RSA_RULES, own_client("t")),
    "an interaction that is null": (
        rs256({**GOOD, "interaction_id": None}),
        RSA_RULES,
        own_client("tenant-abc"),
    ),
    "business_id": (rs256({**NO_ID, "business_id": "b"}), RSA_RULES, own_client("b")),
    "both names of one": (rs256({**GOOD, "business_id": "tenant-abc"}), RSA_RULES, TENANT),
    "audience and issuer": (rs256(OTHERS_WORD), STRICT_RULES, TENANT),
    "audience and issuer that nobody asked for": (rs256(OTHERS_WORD), RSA_RULES, TENANT),
    "an audience list that nobody asked for": (rs256({**GOOD, "aud": ["x"]}), RSA_RULES, TENANT),
    "exp within the leeway": (rs256({**GOOD, "exp": NOW - 4}), RSA_RULES, TENANT),
    "iat within the leeway": (rs256({**GOOD, "iat": NOW + 5}), RSA_RULES, TENANT),
    "nbf within the leeway": (rs256({**GOOD, "nbf": NOW + 5}), RSA_RULES, TENANT),
    "times in fractions": (rs256({**GOOD, "exp": NOW + 0.5, "iat": NOW - 0.5}), RSA_RULES, TENANT),
    "the longest token": (
        rs256({**GOOD, "x": "y" * (3 * (TOKEN_MAX_CHARS - len(rs256())) // 4 - 16)}),
        RSA_RULES,
        TENANT,
    ),
}


@pytest.mark.parametrize(("token", "rules", "expected"), HOLDS.values(), ids=HOLDS.keys())
def test_a_token_that_holds_names_its_business(
    token: str, rules: JwtRules, expected: Authorization
) -> None:
    assert bearer(token, rules) == expected


NESTED = b"[" * 2000 + b"]" * 2000
FAILS = {
    # Who signed it.
    "alg none": (unsigned("none"), RSA_RULES, "algorithm"),
    "alg None": (unsigned("None"), RSA_RULES, "algorithm"),
    "alg none under HS256": (unsigned("none"), HMAC_RULES, "algorithm"),
    "alg empty": (unsigned(""), RSA_RULES, "algorithm"),
    "alg null": (unsigned(None), RSA_RULES, "algorithm"),
    "alg a list": (unsigned(["RS256"]), RSA_RULES, "algorithm"),
    "alg a number": (unsigned(256), RSA_RULES, "algorithm"),
    "alg absent": (with_header(b'{"typ":"JWT"}'), RSA_RULES, "algorithm"),
    "RS512": (rs256(alg="RS512"), RSA_RULES, "algorithm"),
    "the public key as a secret": (hs256(key=PUBLIC_PEM), RSA_RULES, "algorithm"),
    "the public key without its last line end": (
        hs256(key=PUBLIC_PEM.strip()),
        RSA_RULES,
        "algorithm",
    ),
    "RS256 under a secret": (rs256(), HMAC_RULES, "algorithm"),
    "the public key as a secret, called RS256": (
        hs256(key=PUBLIC_PEM, alg="RS256"),
        RSA_RULES,
        "signature",
    ),
    "another's RSA key": (rs256(key=STRANGER), RSA_RULES, "signature"),
    "another's secret": (hs256(key="x" * 32), HMAC_RULES, "signature"),
    "an empty secret": (hs256(key=""), HMAC_RULES, "signature"),
    "an empty secret and a path": (hs256(key="", kid="/dev/null"), HMAC_RULES, "signature"),
    "an empty signature": (rs256().rpartition(".")[0] + ".", RSA_RULES, "signature"),
    "claims of another token": (
        ".".join(
            [
                rs256().split(".")[0],
                rs256({**GOOD, "tenant_id": "x"}).split(".")[1],
                rs256().split(".")[2],
            ]
        ),
        RSA_RULES,
        "signature",
    ),
    "a key in the header": (
        rs256(key=STRANGER, jwk={"kty": "RSA"}, jku="https://x.example", x5u="https://x.example"),
        RSA_RULES,
        "signature",
    ),
    "an empty key of ours": (hs256(key=""), replace(HMAC_RULES, keys={"": b""}), "no key"),
    "no keys of ours": (rs256(), replace(RSA_RULES, keys={}), "no key"),
    "a secret that is PEM": (
        hs256(key=PUBLIC_PEM),
        replace(HMAC_RULES, keys={"": PUBLIC_PEM.encode()}),
        "be read",
    ),
    "no kid among many keys": (rs256(), JWKS_RULES, "no key"),
    "an unknown kid": (rs256(kid="other"), JWKS_RULES, "no key"),
    "a path for a kid": (rs256(kid="../../../dev/null"), JWKS_RULES, "no key"),
    "a query for a kid": (rs256(kid="' OR 1=1 --"), JWKS_RULES, "no key"),
    "a kid that is a number": (rs256(kid=1), JWKS_RULES, "be read"),
    "a kid that is a list": (rs256(kid=["current"]), JWKS_RULES, "be read"),
    # How it is made.
    "an unknown crit": (rs256(crit=["policy"], policy=1), RSA_RULES, "be read"),
    "an empty crit": (rs256(crit=[]), RSA_RULES, "be read"),
    "a crit that is a text": (rs256(crit="b64"), RSA_RULES, "be read"),
    "a payload apart": (rs256(crit=["b64"], b64=False), RSA_RULES, "be read"),
    "100 kB": (rs256({**GOOD, "x": "y" * 75_000}), RSA_RULES, "longer"),
    "100 kB of dots": ("." * 100_000, RSA_RULES, "longer"),
    "nothing": ("", RSA_RULES, "be read"),
    "one segment": ("abc", RSA_RULES, "be read"),
    "two segments": ("abc.def", RSA_RULES, "be read"),
    "five segments": ("a.b.c.d.e", RSA_RULES, "be read"),
    "only dots": ("..", RSA_RULES, "be read"),
    "a word behind it": (rs256() + " x", RSA_RULES, "be read"),
    "a comma behind it": (rs256() + ", Basic x", RSA_RULES, "be read"),
    "not ASCII": (rs256() + "é", RSA_RULES, "be read"),
    "a lone surrogate": (rs256() + "\ud800", RSA_RULES, "be read"),
    "a NUL": (rs256() + "\x00", RSA_RULES, "be read"),
    "a header that is nested": (with_header(NESTED), RSA_RULES, "be read"),
    "a header that is no object": (with_header(b"[]"), RSA_RULES, "be read"),
    "a header that is no JSON": (with_header(b"{"), RSA_RULES, "be read"),
    "a header that is no UTF-8": (with_header(b"\xff\xfe{}"), RSA_RULES, "be read"),
    "claims that are nested": (rs256(b'{"a":' * 900 + b"1" + b"}" * 900), RSA_RULES, "no exp"),
    "claims that are nested deeper": (hs256(NESTED), HMAC_RULES, "be read"),
    "claims that are a list": (rs256([GOOD]), RSA_RULES, "be read"),
    "claims that are a text": (rs256("tenant-abc"), RSA_RULES, "be read"),
    "claims that are null": (rs256(None), RSA_RULES, "be read"),
    "claims that are no JSON": (rs256(b"tenant"), RSA_RULES, "be read"),
    "claims that are no UTF-8": (rs256(b'{"exp":"\xff"}'), RSA_RULES, "be read"),
    "claims that are empty": (rs256({}), RSA_RULES, "no exp"),
    "a number of 5,000 digits": (rs256(b'{"exp":' + b"9" * 5000 + b"}"), RSA_RULES, "be read"),
    # When it holds.
    "no exp": (rs256({"tenant_id": "t"}), RSA_RULES, "no exp"),
    "exp null": (rs256({**GOOD, "exp": None}), RSA_RULES, "no exp"),
    "exp a text": (rs256({**GOOD, "exp": str(int(NOW) + 60)}), RSA_RULES, "exp is not a time"),
    "exp true": (rs256({**GOOD, "exp": True}), RSA_RULES, "exp is not a time"),
    "exp a list": (rs256({**GOOD, "exp": [NOW + 60]}), RSA_RULES, "exp is not a time"),
    "exp NaN": (rs256({**GOOD, "exp": float("nan")}), RSA_RULES, "exp is not a time"),
    "exp infinite": (rs256({**GOOD, "exp": float("inf")}), RSA_RULES, "exp is not a time"),
    "exp 1e400": (rs256(b'{"tenant_id":"t","exp":1e400}'), RSA_RULES, "exp is not a time"),
    "exp of 400 digits": (rs256({**GOOD, "exp": 10**400}), RSA_RULES, "exp is not a time"),
    "exp in milliseconds": (rs256({**GOOD, "exp": NOW * 1000}), RSA_RULES, "Unix seconds"),
    "exp negative": (rs256({**GOOD, "exp": -1}), RSA_RULES, "exp is not a time"),
    "iat in the future": (rs256({**GOOD, "iat": NOW + 5.5}), RSA_RULES, "iat lies in the future"),
    "iat a text": (rs256({**GOOD, "iat": "now"}), RSA_RULES, "iat is not a time"),
    "nbf in the future": (rs256({**GOOD, "nbf": NOW + 5.5}), RSA_RULES, "nbf lies in the future"),
    # For whom, and whose.
    "no aud": (rs256(without("aud")), STRICT_RULES, "no aud"),
    "another aud": (rs256({**OTHERS_WORD, "aud": "other"}), STRICT_RULES, "JWT_AUDIENCE"),
    "part of the aud": (rs256({**OTHERS_WORD, "aud": AUDIENCE[:-1]}), STRICT_RULES, "JWT_AUDIENCE"),
    "a list for an aud": (rs256({**OTHERS_WORD, "aud": [AUDIENCE]}), STRICT_RULES, "JWT_AUDIENCE"),
    "a number for an aud": (rs256({**OTHERS_WORD, "aud": 1}), STRICT_RULES, "JWT_AUDIENCE"),
    "no iss": (rs256(without("iss")), STRICT_RULES, "no iss"),
    "another iss": (rs256({**OTHERS_WORD, "iss": "x"}), STRICT_RULES, "JWT_ISSUER"),
    "part of the iss": (rs256({**OTHERS_WORD, "iss": ISSUER[:-1]}), STRICT_RULES, "JWT_ISSUER"),
    "a list for an iss": (rs256({**OTHERS_WORD, "iss": [ISSUER]}), STRICT_RULES, "JWT_ISSUER"),
    "no tenant_id": (rs256({"exp": NOW + 60}), RSA_RULES, "no tenant_id"),
    "tenant_id null": (rs256({**GOOD, "tenant_id": None}), RSA_RULES, "no tenant_id"),
    "tenant_id empty": (rs256({**GOOD, "tenant_id": ""}), RSA_RULES, "tenant_id is not"),
    "tenant_id a number": (rs256({**GOOD, "tenant_id": 7}), RSA_RULES, "tenant_id is not"),
    "tenant_id a path": (rs256({**GOOD, "tenant_id": "a/b"}), RSA_RULES, "tenant_id is not"),
    "tenant_id a line more": (rs256({**GOOD, "tenant_id": "a\n"}), RSA_RULES, "tenant_id is not"),
    "tenant_id too long": (rs256({**GOOD, "tenant_id": "a" * 129}), RSA_RULES, "tenant_id is not"),
    "two businesses": (rs256({**GOOD, "business_id": "other"}), RSA_RULES, "differ"),
    "interaction_id a key": (
        rs256({**GOOD, "interaction_id": "a:{b}"}),
        RSA_RULES,
        "interaction_id is not",
    ),
    "interaction_id an object": (
        rs256({**GOOD, "interaction_id": {}}),
        RSA_RULES,
        "interaction_id is not",
    ),
}


@pytest.mark.parametrize(("token", "rules", "reason"), FAILS.values(), ids=FAILS.keys())
def test_a_token_that_does_not_hold_is_refused_and_not_quoted(
    token: str, rules: JwtRules, reason: str
) -> None:
    with pytest.raises(TokenInvalid, match=reason) as caught:
        bearer(token, rules)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    long_parts = [part for part in token.split(".") if len(part) > 8]
    assert not any(part in str(caught.value) for part in long_parts)


@pytest.mark.parametrize("exp", [NOW - 5, NOW - 3600, 1, 0])
def test_a_token_that_has_run_out_is_called_expired(exp: float) -> None:
    with pytest.raises(TokenExpired, match="exp has passed"):
        bearer(rs256({**GOOD, "exp": exp}), RSA_RULES)


def test_only_a_token_that_was_good_is_called_expired() -> None:
    with pytest.raises(TokenInvalid, match="signature"):
        bearer(rs256({**GOOD, "exp": 1}, key=STRANGER), RSA_RULES)


def test_the_leeway_is_a_setting() -> None:
    late = rs256({**GOOD, "exp": NOW - 4})
    with pytest.raises(TokenExpired):
        bearer(late, replace(RSA_RULES, leeway_seconds=4.0))
    assert bearer(late, replace(RSA_RULES, leeway_seconds=4.5)) == TENANT


def test_a_token_that_cannot_be_checked_is_refused_and_says_what_is_missing() -> None:
    with pytest.raises(CredentialsInvalid, match="JWT_PUBLIC_KEY, JWT_JWKS_URL or JWT_SECRET"):
        bearer(rs256(), None)


# ----------------------------------------------------------------- the keys we hold


def test_a_public_key_is_read_from_pem_in_any_spelling() -> None:
    for pem in (
        PUBLIC_PEM,
        PUBLIC_PEM.replace("\n", "\\n"),
        PUBLIC_PEM.replace("\n", "\r\n"),
        f"  {PUBLIC_PEM}\n\n",
        PUBLIC_PEM.strip(),
    ):
        rules = rules_from(pem, "", "", "", LEEWAY)
        assert rules is not None
        assert (rules.algorithm, rules.audience, rules.issuer) == ("RS256", None, None)
        assert bearer(rs256(), rules) == TENANT


def test_a_secret_pins_the_algorithm_of_secrets() -> None:
    rules = rules_from("", SECRET, AUDIENCE, ISSUER, 2.5)
    assert rules == JwtRules("HS256", {"": SECRET.encode()}, AUDIENCE, ISSUER, 2.5)
    assert bearer(hs256(OTHERS_WORD), rules) == TENANT


def test_without_key_and_secret_there_are_no_rules() -> None:
    assert rules_from("", "", AUDIENCE, ISSUER, LEEWAY) is None


SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024)
CURVE = ec.generate_private_key(ec.SECP256R1())
PRIVATE_PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
).decode()
BAD_KEYS = {
    "no PEM": ("abc", "", "JWT_PUBLIC_KEY is not a public key in PEM"),
    "cut off": (PUBLIC_PEM[:200], "", "JWT_PUBLIC_KEY is not a public key in PEM"),
    "its head alone": ("-----BEGIN PUBLIC KEY-----", "", "JWT_PUBLIC_KEY is not a public key"),
    "surrogates": ("\udcff" + PUBLIC_PEM, "", "JWT_PUBLIC_KEY is not a public key"),
    "a private key": (PRIVATE_PEM, "", "JWT_PUBLIC_KEY holds a private key"),
    "a curve": (pem_of(CURVE.public_key()), "", "JWT_PUBLIC_KEY is not an RSA key"),
    "1024 bits": (pem_of(SMALL.public_key()), "", "JWT_PUBLIC_KEY has fewer than 2048 bits"),
    "a short secret": ("", "x" * 31, "JWT_SECRET must have at least 32 characters"),
    "a public key for a secret": ("", PUBLIC_PEM, "JWT_SECRET holds a public key"),
    "a JWK for a secret": (
        "",
        '{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0"}',
        "JWT_SECRET holds a public key",
    ),
    "a secret of surrogates": ("", "\udcff" * 32, "JWT_SECRET is not valid Unicode"),
    "both": (PUBLIC_PEM, SECRET, "JWT_SECRET must not be set beside JWT_PUBLIC_KEY"),
}


@pytest.mark.parametrize(("pem", "secret", "problem"), BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_an_unusable_key_is_refused_in_a_plain_sentence(
    pem: str, secret: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=f"^{problem}") as caught:
        rules_from(pem, secret, "", "", LEEWAY)
    assert not any(text and text in str(caught.value) for text in (pem, secret))


# --------------------------------------------------------------------- handshakes


def basic(pair: str | bytes) -> str:
    data = pair if isinstance(pair, bytes) else pair.encode()
    return "Basic " + base64.b64encode(data).decode()


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


PAIR, OLD_PAIR, OWN_PAIR = "key:token", "old:token:with:colons", "a-business:its-token"
EXOTEL = IngestPolicy(
    support_exotel=True,
    exotel_pairs=(PAIR, OLD_PAIR),
    exotel_networks=networks("192.0.2.0/24", "2001:db8::/32"),
    trusted_proxies=networks("10.0.0.0/8"),
    jwt=RSA_RULES,
)
OPEN = replace(EXOTEL, waive=True)
BARE = IngestPolicy(support_exotel=True)
OFF = replace(EXOTEL, support_exotel=False)
OFF_AND_OPEN = replace(OFF, waive=True)
INSIDE, OUTSIDE, PROXY = "192.0.2.7", "198.51.100.7", "10.0.0.1"


TICKET = Authorization(Proof.TICKET, OPEN_STREAM, "tenant-abc", "call-1")
SHARED = exotel(Proof.EXOTEL_SHARED_PAIR)
OWN = exotel(Proof.EXOTEL_OWN_PAIR, "a-business")
ADDRESS = exotel(Proof.EXOTEL_ADDRESS)
WAIVED = exotel(Proof.WAIVED)


def from_(peer: str, *authorization: str, ticket: bool | None = None) -> Shown:
    has_ticket = ticket is not None
    return Shown(authorization, peer, has_ticket=has_ticket, ticket=TICKET if ticket else None)


def owner_of(digest: str) -> str:
    return "a-business" if digest == pair_digest(OWN_PAIR) else ""


ADMITTED = {
    "a token": (from_(OUTSIDE, f"Bearer {rs256()}"), EXOTEL, TENANT),
    "a token, in lower case": (from_(OUTSIDE, f"bearer {rs256()}"), EXOTEL, TENANT),
    "a token behind more spaces": (from_(OUTSIDE, f"  BEARER   {rs256()} "), EXOTEL, TENANT),
    "a token without SUPPORT_EXOTEL": (from_(OUTSIDE, f"Bearer {rs256()}"), OFF, TENANT),
    "a token from Exotel's address": (from_(INSIDE, f"Bearer {rs256()}"), EXOTEL, TENANT),
    "a pair": (from_(OUTSIDE, basic(PAIR)), EXOTEL, SHARED),
    "a pair, in lower case": (
        from_(OUTSIDE, basic(PAIR).replace("B", "b", 1)),
        EXOTEL,
        SHARED,
    ),
    "an older pair": (from_(OUTSIDE, basic(OLD_PAIR)), EXOTEL, SHARED),
    "a business's own pair": (from_(OUTSIDE, basic(OWN_PAIR)), EXOTEL, OWN),
    "a business's own pair and no other": (
        from_(OUTSIDE, basic(OWN_PAIR)),
        BARE,
        OWN,
    ),
    "a pair and a ticket that fails": (
        from_(OUTSIDE, basic(PAIR), ticket=False),
        EXOTEL,
        SHARED,
    ),
    "a pair under ALLOW_UNSIGNED": (from_(OUTSIDE, basic(PAIR)), OPEN, SHARED),
    "a ticket": (from_(OUTSIDE, ticket=True), EXOTEL, TICKET),
    "a ticket and nothing configured": (from_(OUTSIDE, ticket=True), BARE, TICKET),
    "an address": (from_(INSIDE), EXOTEL, ADDRESS),
    "an address of IPv6": (from_("2001:db8::7"), EXOTEL, ADDRESS),
    "an address of IPv4 in IPv6": (from_("::ffff:192.0.2.7"), EXOTEL, ADDRESS),
    "an address behind a proxy": (
        Shown(peer=PROXY, forwarded_for=(INSIDE,)),
        EXOTEL,
        ADDRESS,
    ),
    "an address and a ticket that fails": (
        from_(INSIDE, ticket=False),
        EXOTEL,
        ADDRESS,
    ),
    "an address under ALLOW_UNSIGNED": (from_(INSIDE), OPEN, ADDRESS),
    "a token in a browser": (
        Shown((f"Bearer {rs256()}",), OUTSIDE, origin=("https://app.example",)),
        EXOTEL,
        TENANT,
    ),
    "a browser under ALLOW_UNSIGNED": (
        Shown(peer=OUTSIDE, origin=("null",)),
        OPEN,
        WAIVED,
    ),
    "nothing under ALLOW_UNSIGNED": (from_(OUTSIDE), OPEN, WAIVED),
    "no address under ALLOW_UNSIGNED": (from_(""), OPEN, WAIVED),
    "an old ticket under ALLOW_UNSIGNED": (
        from_(OUTSIDE, ticket=False),
        OPEN,
        WAIVED,
    ),
}


@pytest.mark.parametrize(("shown", "policy", "expected"), ADMITTED.values(), ids=ADMITTED.keys())
def test_a_handshake_that_holds_is_let_in(
    shown: Shown, policy: IngestPolicy, expected: Authorization
) -> None:
    assert detect(shown, policy, OPEN_STREAM, NOW, owner_of) == expected


def test_a_pair_that_is_shared_speaks_for_the_service_whoever_has_it_too() -> None:
    shown = from_(OUTSIDE, basic(PAIR))
    assert detect(shown, EXOTEL, OPEN_STREAM, NOW, lambda digest: "a-business") == SHARED


@pytest.mark.parametrize("holds", [True, False])
def test_a_ticket_gets_no_stream_url(holds: bool) -> None:
    shown, url = from_(OUTSIDE, ticket=holds), Purpose.GET_STREAM_URL
    with pytest.raises(PurposeMismatch):
        detect(shown, EXOTEL, url, NOW, nobody)
    inside = replace(shown, peer=INSIDE)
    assert detect(inside, EXOTEL, url, NOW, nobody).proof is Proof.EXOTEL_ADDRESS
    for waived in (shown, inside):
        assert not detect(waived, OPEN, url, NOW, nobody).business_id


def test_under_allow_unsigned_a_ticket_is_ignored() -> None:
    assert detect(from_(OUTSIDE, ticket=True), OPEN, OPEN_STREAM, NOW, nobody) == WAIVED


@pytest.mark.parametrize("purpose", Purpose)
def test_each_credential_is_for_the_purpose_that_it_was_shown_for(purpose: Purpose) -> None:
    for headers in ((f"Bearer {rs256()}",), (basic(PAIR),), (basic(OWN_PAIR),)):
        assert detect(from_(INSIDE, *headers), EXOTEL, purpose, NOW, owner_of).purpose is purpose
    assert detect(from_(INSIDE), EXOTEL, purpose, NOW, owner_of).purpose is purpose


REFUSED: dict[str, tuple[Shown, IngestPolicy, type[RemoteError], str]] = {
    "nothing": (from_(OUTSIDE), EXOTEL, CredentialsMissing, f"{OUTSIDE} is not in EXOTEL_ALLOWED"),
    "nothing, and nothing configured": (from_(OUTSIDE), BARE, CredentialsMissing, "no Auth"),
    "no address": (from_(""), EXOTEL, CredentialsMissing, "no Authorization header"),
    "a name for an address": (from_("exotel.com"), EXOTEL, CredentialsMissing, "no Authorization"),
    "an address a stranger says": (
        Shown(peer=OUTSIDE, forwarded_for=(INSIDE,)),
        EXOTEL,
        CredentialsMissing,
        OUTSIDE,
    ),
    "an address a stranger says to the proxy": (
        Shown(peer=PROXY, forwarded_for=(f"{INSIDE}, {OUTSIDE}",)),
        EXOTEL,
        CredentialsMissing,
        OUTSIDE,
    ),
    "a ticket that fails": (from_(OUTSIDE, ticket=False), EXOTEL, CredentialsInvalid, "ticket"),
    "a browser with a pair": (
        Shown((basic(PAIR),), OUTSIDE, origin=("https://evil.example",)),
        EXOTEL,
        OriginRefused,
        "Origin",
    ),
    "a browser from Exotel's address": (
        Shown(peer=INSIDE, origin=("",)),
        EXOTEL,
        OriginRefused,
        "Origin",
    ),
    "Exotel while it is off": (from_(OUTSIDE), OFF, ExotelNotSupported, "SUPPORT_EXOTEL=true"),
    "its address while it is off": (from_(INSIDE), OFF, ExotelNotSupported, "SUPPORT_EXOTEL=true"),
    "a pair while it is off": (from_(OUTSIDE, basic(PAIR)), OFF, ExotelNotSupported, "=true"),
    "a ticket while it is off": (from_(OUTSIDE, ticket=True), OFF, ExotelNotSupported, "=true"),
    "all waived while it is off": (from_(OUTSIDE), OFF_AND_OPEN, ExotelNotSupported, "=true"),
    "a wrong token": (from_(INSIDE, f"Bearer {rs256(key=STRANGER)}"), OPEN, TokenInvalid, "sign"),
    "an old token": (
        from_(INSIDE, f"Bearer {rs256({**GOOD, 'exp': 1})}", ticket=True),
        OPEN,
        TokenExpired,
        "exp",
    ),
    "a wrong token for the pair": (
        from_(OUTSIDE, basic("key:Token")),
        EXOTEL,
        CredentialsInvalid,
        "EXOTEL_API_KEY",
    ),
    "a wrong pair from Exotel's address": (
        from_(INSIDE, basic("key:wrong")),
        EXOTEL,
        CredentialsInvalid,
        "EXOTEL_API_KEY",
    ),
    "a wrong pair and a ticket": (
        from_(OUTSIDE, basic("key:wrong"), ticket=True),
        EXOTEL,
        CredentialsInvalid,
        "fit neither",
    ),
    "a wrong pair under ALLOW_UNSIGNED": (
        from_(OUTSIDE, basic("key:wrong")),
        OPEN,
        CredentialsInvalid,
        "fit neither",
    ),
    "a pair where none is configured": (
        from_(OUTSIDE, basic(PAIR)),
        replace(BARE, waive=True),
        CredentialsInvalid,
        "fit neither",
    ),
    "halves of two pairs": (
        from_(OUTSIDE, basic("key:token:with:colons")),
        EXOTEL,
        CredentialsInvalid,
        "fit neither",
    ),
    "a pair and a line end": (
        from_(OUTSIDE, basic(PAIR + "\n")),
        EXOTEL,
        CredentialsInvalid,
        "fit neither",
    ),
    "no colon": (from_(INSIDE, basic("key")), OPEN, CredentialsInvalid, "KEY:TOKEN"),
    "no key": (from_(INSIDE, basic(":token")), OPEN, CredentialsInvalid, "KEY:TOKEN"),
    "no token": (from_(INSIDE, basic("key:")), OPEN, CredentialsInvalid, "KEY:TOKEN"),
    "an empty pair that is configured": (
        from_(OUTSIDE, basic(":")),
        replace(EXOTEL, exotel_pairs=(":",)),
        CredentialsInvalid,
        "KEY:TOKEN",
    ),
    "not base64": (from_(INSIDE, "Basic key:token"), OPEN, CredentialsInvalid, "base64"),
    "base64 cut off": (from_(INSIDE, basic(PAIR)[:-1]), OPEN, CredentialsInvalid, "base64"),
    "base64 and junk": (from_(INSIDE, basic(PAIR) + "!"), OPEN, CredentialsInvalid, "base64"),
    "not ASCII": (from_(INSIDE, basic("kéy:token")), OPEN, CredentialsInvalid, "ASCII"),
    "not UTF-8": (from_(INSIDE, basic(b"\xff:\xfe")), OPEN, CredentialsInvalid, "ASCII"),
    "a header that is not ASCII": (from_(INSIDE, "Basic é"), OPEN, CredentialsInvalid, "base64"),
    "a pair too long": (from_(INSIDE, basic("k" * 9000 + ":t")), OPEN, CredentialsInvalid, "long"),
    "Basic alone": (from_(INSIDE, "Basic"), OPEN, CredentialsInvalid, "KEY:TOKEN"),
    "Bearer alone": (from_(INSIDE, "Bearer"), OPEN, TokenInvalid, "be read"),
    "Bearer and spaces": (from_(INSIDE, "Bearer   "), OPEN, TokenInvalid, "be read"),
    "an empty header": (from_(INSIDE, ""), OPEN, CredentialsInvalid, "neither Bearer nor Basic"),
    "a tab for a space": (from_(INSIDE, f"Bearer\t{rs256()}"), OPEN, CredentialsInvalid, "neither"),
    "no scheme": (from_(INSIDE, rs256()), OPEN, CredentialsInvalid, "neither Bearer nor Basic"),
    "Digest": (from_(INSIDE, 'Digest username="k"'), OPEN, CredentialsInvalid, "neither"),
    "a scheme like ours": (from_(INSIDE, f"Bearerx {rs256()}"), OPEN, CredentialsInvalid, "neith"),
    "a pair twice": (from_(INSIDE, basic(PAIR), basic(PAIR)), OPEN, CredentialsInvalid, "than one"),
    "a token and a pair": (
        from_(INSIDE, f"Bearer {rs256()}", basic(PAIR)),
        OPEN,
        CredentialsInvalid,
        "more than one",
    ),
    "a pair and an empty header": (
        from_(INSIDE, basic(PAIR), ""),
        OPEN,
        CredentialsInvalid,
        "more than one",
    ),
}


@pytest.mark.parametrize(
    ("shown", "policy", "kind", "reason"), REFUSED.values(), ids=REFUSED.keys()
)
def test_a_handshake_that_does_not_hold_is_refused(
    shown: Shown, policy: IngestPolicy, kind: type[RemoteError], reason: str
) -> None:
    with pytest.raises(kind, match=reason) as caught:
        detect(shown, policy, OPEN_STREAM, NOW, nobody)
    assert type(caught.value) is kind
    assert caught.value.http_status == (403 if kind is OriginRefused else 401)


def test_a_caller_can_look_up_a_key_or_a_pair_before_it_decides() -> None:
    token = rs256(kid="current")
    assert read_credentials(()) is None
    assert read_credentials([f"Bearer {token}"]) == BearerToken(token, "current")
    assert read_credentials([f"Bearer {rs256()}"]) == BearerToken(rs256(), "")
    assert read_credentials([basic(PAIR)]) == BasicPair(pair_digest(PAIR))


def test_no_secret_stands_in_what_is_printed() -> None:
    token = rs256()
    shown = from_(OUTSIDE, f"Bearer {token}", basic(PAIR))
    policy = replace(EXOTEL, jwt=HMAC_RULES)
    offered = (read_credentials([f"Bearer {token}"]), read_credentials([basic(PAIR)]))
    printed = repr((shown, policy, offered))
    for secret in (token, PAIR, basic(PAIR), OLD_PAIR, SECRET, pair_digest(PAIR)):
        assert secret not in printed


def by_status(shown: Shown, policy: IngestPolicy) -> None:
    """Let nothing out but the errors that `detect` documents."""
    documented = (
        CredentialsInvalid,
        CredentialsMissing,
        TokenInvalid,
        TokenExpired,
        ExotelNotSupported,
    )
    try:
        found = detect(shown, policy, OPEN_STREAM, NOW, nobody)
    except documented:
        return
    # Whoever guesses is no client, and has no pair.
    assert found == ADDRESS or found == WAIVED


HEADER_TEXTS = st.binary(max_size=200).map(lambda data: data.decode("latin-1"))
TOKEN_BYTES = st.binary(max_size=60).map(base64url)
CLAIM_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
AUTHORIZATIONS = st.one_of(
    HEADER_TEXTS,
    HEADER_TEXTS.map("Basic {}".format),
    HEADER_TEXTS.map("Bearer {}".format),
    st.binary(max_size=60).map(basic),
    st.tuples(TOKEN_BYTES, TOKEN_BYTES, TOKEN_BYTES).map(lambda parts: "Bearer " + ".".join(parts)),
    st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "typ"]), CLAIM_VALUES).map(
        lambda header: f"Bearer {segments(GOOD, header)}.c2ln"
    ),
)


@given(
    st.lists(AUTHORIZATIONS, max_size=2),
    st.sampled_from([PROXY, INSIDE, OUTSIDE, "", "x"]) | HEADER_TEXTS,
    st.lists(HEADER_TEXTS, max_size=3),
    st.sampled_from(
        [EXOTEL, OPEN, OFF, replace(EXOTEL, jwt=HMAC_RULES), replace(EXOTEL, jwt=None)]
    ),
)
def test_whatever_bytes_come_nothing_but_the_documented_errors_follows(
    authorization: list[str], peer: str, forwarded_for: list[str], policy: IngestPolicy
) -> None:
    by_status(Shown(tuple(authorization), peer, tuple(forwarded_for)), policy)


@given(
    st.dictionaries(
        st.sampled_from(["exp", "iat", "nbf", "aud", "iss", "sub", "jti", "business_id"]),
        CLAIM_VALUES,
    )
)
def test_whatever_claims_are_signed_nothing_but_the_documented_errors_follows(
    claims: dict[str, Any],
) -> None:
    token = hs256({**OTHERS_WORD, **claims})
    for rules in (HMAC_RULES, replace(HMAC_RULES, audience=AUDIENCE, issuer=ISSUER)):
        try:
            found = bearer(token, rules)
        except (TokenInvalid, TokenExpired):
            continue
        assert found == TENANT


# ---------------------------------------------------------------------- addresses

TRUSTED = networks("10.0.0.0/8", "fd00::/8")
ADDRESSES: dict[str, tuple[str, list[str], str]] = {
    "no proxy": ("198.51.100.7", [], "198.51.100.7"),
    "no proxy, a forged header": ("198.51.100.7", ["192.0.2.7"], "198.51.100.7"),
    "a proxy without a header": ("10.0.0.1", [], "10.0.0.1"),
    "a proxy": ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
    "what the client forged": ("10.0.0.1", ["192.0.2.7, 198.51.100.7"], "198.51.100.7"),
    "two proxies": ("10.0.0.1", ["192.0.2.7, 10.0.0.2"], "192.0.2.7"),
    "two proxies and a forgery": ("10.0.0.1", ["1.1.1.1, 192.0.2.7,10.0.0.2"], "192.0.2.7"),
    "two headers": ("10.0.0.1", ["1.1.1.1", "192.0.2.7"], "192.0.2.7"),
    "two headers, the last of a proxy": ("10.0.0.1", ["192.0.2.7", "10.0.0.2"], "192.0.2.7"),
    "two headers with lists": (
        "10.0.0.1",
        ["1.1.1.1, 2.2.2.2", "192.0.2.7, 10.9.9.9"],
        "192.0.2.7",
    ),
    "a forged proxy": ("10.0.0.1", ["192.0.2.7, 10.0.0.9, 198.51.100.7"], "198.51.100.7"),
    "none but proxies": ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.1"),
    "an empty header": ("10.0.0.1", [""], "10.0.0.1"),
    "garbage": ("10.0.0.1", ["unknown"], "10.0.0.1"),
    "garbage right of an address": ("10.0.0.1", ["192.0.2.7, _hidden"], "10.0.0.1"),
    "garbage left of an address": ("10.0.0.1", ["<script>, 192.0.2.7"], "192.0.2.7"),
    "an empty hop at the end": ("10.0.0.1", ["192.0.2.7,"], "10.0.0.1"),
    "leading zeros": ("10.0.0.1", ["192.000.002.007"], "10.0.0.1"),
    "a network": ("10.0.0.1", ["192.0.2.0/24"], "10.0.0.1"),
    "tabs and spaces": ("10.0.0.1", ["\t192.0.2.7 \t"], "192.0.2.7"),
    "a port": ("10.0.0.1", ["192.0.2.7:51234"], "192.0.2.7"),
    "IPv6": ("fd00::1", ["2001:DB8::7"], "2001:db8::7"),
    "IPv6 in brackets": ("fd00::1", ["[2001:db8::7]"], "2001:db8::7"),
    "IPv6 and a port": ("fd00::1", ["[2001:db8::7]:443"], "2001:db8::7"),
    "IPv4 in IPv6": ("::ffff:10.0.0.1", ["::ffff:192.0.2.7"], "192.0.2.7"),
    "a zone": ("fe80::1%eth0", [], "fe80::1"),
    "a port beside the peer": ("10.0.0.1:80", ["192.0.2.7"], "192.0.2.7"),
}


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"), ADDRESSES.values(), ids=ADDRESSES.keys()
)
def test_the_client_is_the_right_most_address_that_no_proxy_has(
    peer: str, forwarded_for: list[str], expected: str
) -> None:
    assert client_address(peer, forwarded_for, TRUSTED) == ip_address(expected)


@pytest.mark.parametrize("peer", ["", "testclient", "/run/bridge.sock", "unix:", "10.0.0"])
def test_a_peer_without_an_address_is_nobody_and_its_header_is_not_read(peer: str) -> None:
    assert client_address(peer, ["192.0.2.7"], TRUSTED) is None


@given(st.lists(HEADER_TEXTS, max_size=4), HEADER_TEXTS)
def test_a_stranger_cannot_choose_the_address_it_is_known_by(forged: list[str], more: str) -> None:
    assert client_address(OUTSIDE, [*forged, more], TRUSTED) == ip_address(OUTSIDE)
    appended = [*forged, f"{more},{OUTSIDE}"]
    assert client_address("10.0.0.1", appended, TRUSTED) == ip_address(OUTSIDE)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        (OUTSIDE, [], ClientSource(OUTSIDE)),
        (OUTSIDE, ["192.0.2.7"], ClientSource(OUTSIDE)),
        ("10.0.0.1", [OUTSIDE], ClientSource(OUTSIDE)),
        ("10.0.0.1", [], ClientSource("10.0.0.1", is_shared=True)),
        ("10.0.0.1", ["nonsense"], ClientSource("10.0.0.1", is_shared=True)),
        ("127.0.0.1", [], ClientSource("127.0.0.1")),
        ("127.0.0.1", [OUTSIDE], ClientSource("127.0.0.1", is_shared=True)),
        ("100.64.0.3", [OUTSIDE], ClientSource("100.64.0.3", is_shared=True)),
        ("100.64.0.3", [], ClientSource("100.64.0.3")),
        ("172.17.0.1", [OUTSIDE], ClientSource("172.17.0.1", is_shared=True)),
        ("2001:db8:1:2:3::4", [], ClientSource("2001:db8:1:2::/64")),
        ("::ffff:192.0.2.1", [], ClientSource("192.0.2.1")),
        ("", [], ClientSource("unknown", is_shared=True)),
    ],
)
def test_failures_are_counted_for_a_client_or_for_an_address_that_many_share(
    peer: str, forwarded_for: list[str], expected: ClientSource
) -> None:
    assert client_source(peer, forwarded_for, TRUSTED) == expected
