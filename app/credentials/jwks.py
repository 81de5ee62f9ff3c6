"""The keys of a token issuer, read from its JWKS address (RFC 7517)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import httpx
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

from app.credentials.tokens import MIN_RSA_BITS

log = logging.getLogger(__name__)

FRESH_SECONDS = 600
RETRY_SECONDS = 30
FETCH_SECONDS = 5
MAX_BYTES = 64 * 1024
MAX_KEYS = 20


class _Jwk(msgspec.Struct, frozen=True):
    kty: Literal["RSA"]
    kid: str
    n: str
    e: str
    # RFC 7517, 4.2 and 4.4: both are optional.
    use: Literal["sig"] = "sig"
    alg: Literal["RS256"] = "RS256"


class _JwkSet(msgspec.Struct, frozen=True):
    keys: list[msgspec.Raw]


async def fetch_jwks(url: str) -> bytes:
    """Fetch a key set, of which `MAX_BYTES` at most are read; follows no redirect.

    Raises:
        httpx.HTTPError: there is no answer, or its status is not 200.
        ValueError: the answer is too long.
    """
    # Compressed, a short answer could be a long one.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    body = bytearray()
    async with (
        httpx.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        if response.status_code != httpx.codes.OK:
            message = f"answered {response.status_code}"
            raise httpx.HTTPStatusError(message, request=response.request, response=response)
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BYTES:
                raise ValueError("the key set is too long")
    return bytes(body)


def parse_jwks(body: bytes) -> dict[str, RSAPublicKey]:
    """Read a key set; gives the keys by `kid` that RS256 can use, and no others.

    RFC 7517, 5: "Implementations SHOULD ignore JWKs within a JWK Set that use
    'kty' values that are not understood …, that are missing required members".

    Raises:
        ValueError: it is no key set, has no usable key, or more than `MAX_KEYS`.
    """
    if len(body) > MAX_BYTES:
        raise ValueError("the key set is too long")
    try:
        entries = msgspec.json.decode(body, type=_JwkSet).keys
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError("this is no key set") from None
    keys: dict[str, RSAPublicKey] = {}
    for entry in entries:
        try:
            jwk = msgspec.json.decode(entry, type=_Jwk)
            key = RSAAlgorithm.from_jwk({"kty": jwk.kty, "n": jwk.n, "e": jwk.e})
        except (msgspec.MsgspecError, jwt.InvalidKeyError, ValueError):
            continue
        if jwk.kid and isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
            keys[jwk.kid] = key
    if not keys:
        raise ValueError("the key set has no RSA key that RS256 can use")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"the key set has more than {MAX_KEYS} keys")
    return keys


@dataclass(slots=True)
class JwksKeys:
    """Keep an issuer's keys at hand, by `kid`.

    `fetch` gives the body found at `url`, as `fetch_jwks` does; `clock` counts
    seconds and never goes back. Keys that cannot be refreshed stay in use.
    """

    url: str = field(repr=False)
    fetch: Callable[[str], Awaitable[bytes]] = field(repr=False)
    clock: Callable[[], float] = field(repr=False)
    failures: int = field(default=0, init=False)
    _keys: dict[str, RSAPublicKey] = field(default_factory=dict, init=False, repr=False)
    _fetched_at: float | None = field(default=None, init=False, repr=False)
    _tried_at: float | None = field(default=None, init=False, repr=False)
    _refreshing: asyncio.Task[None] | None = field(default=None, init=False, repr=False)

    async def keys_for(self, kid: str) -> Mapping[str, RSAPublicKey]:
        """Give the keys, among them the one named `kid` if the issuer has it.

        Waits for the issuer, `FETCH_SECONDS` at most, only where `kid` is not at
        hand. Never raises: without keys the answer is empty, and no token holds.
        """
        if (kid not in self._keys or not self._is_within(FRESH_SECONDS, self._fetched_at)) and (
            not self._is_within(RETRY_SECONDS, self._tried_at)
        ):
            self._tried_at = self.clock()
            self._refreshing = asyncio.create_task(self._refresh(), name="jwks")
        if kid not in self._keys and self._refreshing is not None:
            # Shielded: a client that goes away must not end what others wait for.
            await asyncio.shield(self._refreshing)
        return self._keys

    def _is_within(self, seconds: float, since: float | None) -> bool:
        return since is not None and self.clock() - since < seconds

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                body = await self.fetch(self.url)
            self._keys = parse_jwks(body)
        except Exception as error:
            self.failures += 1
            # Without its text: an address may hold a secret.
            log.warning("JWT_JWKS_URL gave no keys: %s", type(error).__name__)
        else:
            self._fetched_at = self.clock()
