"""The keys of an issuer: read, kept, refreshed, and not at a stranger's bidding."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from app.credentials.jwks import (
    FRESH_SECONDS,
    MAX_BYTES,
    MAX_KEYS,
    RETRY_SECONDS,
    JwksKeys,
    fetch_jwks,
    parse_jwks,
)
from tests.waiting import WAIT_SECONDS

URL = "https://issuer.example.com/jwks.json?secret=canary"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()


def number(value: int) -> str:
    data = value.to_bytes((value.bit_length() + 7) // 8)
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(kid: object = "a", key: rsa.RSAPublicKey = KEY, **more: object) -> dict[str, Any]:
    numbers = key.public_numbers()
    return {"kty": "RSA", "kid": kid, "n": number(numbers.n), "e": number(numbers.e), **more}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in jwk("b").items() if key != name}


def key_set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


# ------------------------------------------------------------------------- reading


def test_keys_are_found_by_their_kid() -> None:
    body = key_set(jwk("a"), jwk("b", OTHER, use="sig", alg="RS256", x5t="x", key_ops=["verify"]))
    assert parse_jwks(body) == {"a": KEY, "b": OTHER}


IGNORED = {
    "no kid": without("kid"),
    "an empty kid": jwk(""),
    "a kid that is a number": jwk(1),
    "no kty": without("kty"),
    "no n": without("n"),
    "no e": without("e"),
    "n that is no base64": {**jwk("b"), "n": "!"},
    "n that is a number": {**jwk("b"), "n": 1},
    "n that is empty": {**jwk("b"), "n": ""},
    "e that is even": {**jwk("b"), "e": number(65536)},
    "1024 bits": jwk("b", SMALL),
    "a curve": {"kty": "EC", "kid": "b", "crv": "P-256", "x": "AA", "y": "AA"},
    "a secret": {"kty": "oct", "kid": "b", "k": "c2VjcmV0"},
    "for encryption": jwk("b", use="enc"),
    "of another algorithm": jwk("b", alg="RS512"),
    "of an algorithm of secrets": jwk("b", alg="HS256"),
    "a text": "b",
    "null": None,
    "a list": [jwk("b")],
}


@pytest.mark.parametrize("entry", IGNORED.values(), ids=IGNORED.keys())
def test_a_key_that_cannot_be_used_is_ignored_and_the_others_hold(entry: object) -> None:
    assert parse_jwks(key_set(entry, jwk("a"))) == {"a": KEY}
    with pytest.raises(ValueError, match="no RSA key"):
        parse_jwks(key_set(entry))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "no key set"),
        (b"<html>", "no key set"),
        (b"[]", "no key set"),
        (b"null", "no key set"),
        (b"{}", "no key set"),
        (b'{"keys":{}}', "no key set"),
        (b'{"keys":null}', "no key set"),
        (b"\xff\xfe", "no key set"),
        (b'{"keys":' + b"[" * 20_000, "no key set"),
        (b'{"keys":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "no key set"),
        (b'{"keys":[]}', "no RSA key"),
        (key_set(jwk("a")) + b" " * MAX_BYTES, "too long"),
        (key_set(*(jwk(f"k{index}") for index in range(MAX_KEYS + 1))), "more than"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else "",
)
def test_what_is_no_key_set_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_jwks(body)


def test_a_full_key_set_is_taken() -> None:
    assert len(parse_jwks(key_set(*(jwk(f"k{index}") for index in range(MAX_KEYS))))) == MAX_KEYS


@given(st.binary(max_size=100) | st.text(max_size=100).map(lambda text: key_set(text, {text: 1})))
def test_whatever_an_issuer_sends_it_is_a_key_set_or_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        parse_jwks(body)


# ------------------------------------------------------------------------- keeping


class Issuer:
    """An issuer whose answer a test sets, and the clock beside it."""

    def __init__(self, body: bytes | Exception) -> None:
        self.body = body
        self.now = 1000.0
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        await self.open.wait()
        if isinstance(self.body, Exception):
            raise self.body
        return self.body

    def keys(self) -> JwksKeys:
        return JwksKeys(URL, self.fetch, lambda: self.now)


async def settled() -> None:
    """Let tasks that have nothing to wait for run to their end."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_keys_are_fetched_once_and_kept_for_ten_minutes() -> None:
    issuer = Issuer(key_set(jwk("a")))
    keys = issuer.keys()
    assert issuer.asked == []
    assert await keys.keys_for("a") == {"a": KEY}
    issuer.now += FRESH_SECONDS - 1
    assert await keys.keys_for("a") == {"a": KEY}
    await settled()
    assert issuer.asked == [URL]
    issuer.now += 1
    issuer.body = key_set(jwk("a", OTHER))
    # The old keys serve while the new ones are on their way.
    assert await keys.keys_for("a") == {"a": KEY}
    await settled()
    assert await keys.keys_for("a") == {"a": OTHER}
    assert len(issuer.asked) == 2


async def test_an_unknown_kid_refreshes_the_keys_at_most_once_in_thirty_seconds() -> None:
    issuer = Issuer(key_set(jwk("a")))
    keys = issuer.keys()
    await keys.keys_for("a")
    issuer.body = key_set(jwk("b", OTHER))
    for kid in ("b", "c", "", "../../dev/null"):
        assert await keys.keys_for(kid) == {"a": KEY}
    assert len(issuer.asked) == 1
    issuer.now += RETRY_SECONDS
    assert await keys.keys_for("b") == {"b": OTHER}
    assert await keys.keys_for("c") == {"b": OTHER}
    assert len(issuer.asked) == 2


BROKEN = {
    "no answer": httpx.ConnectTimeout("canary"),
    "a fault": OSError("canary"),
    "no key set": b"canary",
    "no key": b'{"keys":[]}',
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
async def test_keys_stay_in_use_while_the_issuer_fails(
    body: bytes | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer(key_set(jwk("a")))
    keys = issuer.keys()
    await keys.keys_for("a")
    issuer.body = body
    issuer.now += FRESH_SECONDS
    for _ in range(3):
        assert await keys.keys_for("a") == {"a": KEY}
        await settled()
    assert (len(issuer.asked), keys.failures) == (2, 1)
    assert "JWT_JWKS_URL gave no keys" in caplog.text
    assert "canary" not in caplog.text + repr(keys)
    issuer.body = key_set(jwk("a", OTHER))
    issuer.now += RETRY_SECONDS
    await keys.keys_for("a")
    await settled()
    assert await keys.keys_for("a") == {"a": OTHER}


async def test_without_keys_the_answer_is_empty_until_the_issuer_is_back() -> None:
    issuer = Issuer(OSError())
    keys = issuer.keys()
    assert await keys.keys_for("a") == {}
    issuer.body = key_set(jwk("a"))
    assert await keys.keys_for("a") == {}
    issuer.now += RETRY_SECONDS
    assert await keys.keys_for("a") == {"a": KEY}


async def test_all_who_wait_share_one_fetch_and_none_ends_it_for_the_others() -> None:
    issuer = Issuer(key_set(jwk("a")))
    issuer.open.clear()
    keys = issuer.keys()
    waiting = [asyncio.create_task(keys.keys_for("a")) for _ in range(5)]
    await settled()
    waiting[0].cancel()
    await settled()
    issuer.open.set()
    assert await asyncio.gather(*waiting[1:]) == [{"a": KEY}] * 4
    assert len(issuer.asked) == 1


async def test_an_issuer_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.credentials.jwks.FETCH_SECONDS", 0.05)
    issuer = Issuer(key_set(jwk("a")))
    issuer.open.clear()
    keys = issuer.keys()
    assert await asyncio.wait_for(keys.keys_for("a"), WAIT_SECONDS) == {}
    assert keys.failures == 1


# ------------------------------------------------------------------------ fetching


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve one answer on loopback; gives its URL and what was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/jwks.json", asked


def http(status: str, body: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""])
    return head.encode() + body


async def test_the_body_is_fetched_as_it_stands() -> None:
    body = key_set(jwk("a"))
    async with answering(http("200 OK", body)) as (url, asked):
        assert await fetch_jwks(url) == body
    assert b"accept-encoding: identity" in asked[0].lower()


@pytest.mark.parametrize(
    "answer",
    [
        lambda url: http("302 Found", b"", f"Location: {url}"),
        lambda url: http("500 Oops", b""),
        lambda url: http("404 Not Found", key_set(jwk("a"))),
        lambda url: b"SSH-2.0-OpenSSH\r\n",
        lambda url: b"",
    ],
    ids=["a redirect", "500", "404", "not HTTP", "nothing"],
)
async def test_an_answer_but_200_is_a_failure_and_no_redirect_is_followed(
    answer: Callable[[str], bytes],
) -> None:
    async with answering(http("200 OK", key_set(jwk("a")))) as (elsewhere, asked_elsewhere):
        async with answering(answer(elsewhere)) as (url, _):
            with pytest.raises(httpx.HTTPError):
                await fetch_jwks(url)
        assert asked_elsewhere == []


async def test_an_answer_without_end_is_cut_off() -> None:
    async with answering(http("200 OK", b" " * (MAX_BYTES * 4))) as (url, _):
        with pytest.raises(ValueError, match="too long"):
            await fetch_jwks(url)
