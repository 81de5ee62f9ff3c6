"""Cookies of those who sign in, and requests that other sites' pages send in their name."""

from collections.abc import Iterable
from ipaddress import ip_network

import pytest
from fastapi import Request
from fastapi.responses import Response

from app.admin.attempts import ADMIN_LIMIT, AttemptLimiter
from app.admin.audit_log import AuditLog
from app.admin.audit_store import MemoryAuditStore
from app.admin.principal import THE_OPERATOR
from app.administration.access_keys import digest_of
from app.administration.gate import Gate, csrf_token
from app.errors import FormExpired, SignInRequired, TooManyAttempts
from app.metrics import Metrics
from app.store.memory_access import MemoryAccess
from app.web.visitors import Visitors

TOKEN = "an operator's token, long enough"
PUBLIC = "https://bridge.example.com"
PROXY = "10.0.0.1"


def visitors(http_base: str = PUBLIC) -> Visitors:
    access = MemoryAccess(lambda: 1000.0)
    gate = Gate(
        access,
        AuditLog(MemoryAuditStore(), lambda: 1000.0, lambda: 1000.0),
        [digest_of(TOKEN)],
        AttemptLimiter(access, lambda: 1000.0, Metrics()),
        wall_clock=lambda: 1000.0,
    )
    return Visitors(gate, (ip_network("10.0.0.0/8"),), http_base)


def request(
    headers: Iterable[tuple[str, str]] = (), *, method: str = "POST", peer: str = PROXY
) -> Request:
    sent = [("host", "bridge.example.com"), *headers]
    return Request(
        {
            "type": "http",
            "method": method,
            "path": "/",
            "client": (peer, 1234),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent],
        }
    )


async def cookie_of(known: Visitors) -> tuple[str, list[str]]:
    """Sign in; give the cookie as a browser sends it, and what it was given with."""
    response = Response()
    await known.sign_in(request(), TOKEN, response)
    cookie, *attributes = response.headers["set-cookie"].split("; ")
    return cookie, attributes


async def test_on_https_a_cookie_is_for_this_host_and_https_alone() -> None:
    cookie, attributes = await cookie_of(visitors())
    assert cookie.startswith("__Host-media-bridge=")
    assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= set(attributes)
    assert not any(one.lower().startswith("domain") for one in attributes)


async def test_on_http_a_cookie_is_not_for_https_alone() -> None:
    cookie, attributes = await cookie_of(visitors("http://localhost:8000"))
    assert cookie.startswith("media-bridge=")
    assert "HttpOnly" in attributes
    assert "Secure" not in attributes


async def test_a_cookie_is_good_until_its_owner_signs_out() -> None:
    known = visitors()
    cookie, _ = await cookie_of(known)
    asked = request([("cookie", cookie)], method="GET")
    assert await known.principal(asked) == THE_OPERATOR
    signed_in = await known.signed_in(asked)
    assert signed_in is not None
    response = Response()
    await known.sign_out(signed_in, response)
    assert "Max-Age=0" in response.headers["set-cookie"]
    with pytest.raises(SignInRequired):
        await known.principal(asked)


ELSEWHERE = [
    [("origin", "https://evil.example.com")],
    [("origin", "https://bridge.example.com.evil.example")],
    [("origin", "null")],
    [("origin", "https://[")],
    [("sec-fetch-site", "cross-site")],
    [("sec-fetch-site", "same-site")],
    [("origin", PUBLIC), ("sec-fetch-site", "cross-site")],
]
HERE = [
    [],
    [("origin", PUBLIC)],
    [("origin", "http://bridge.example.com")],  # the proxy speaks http to us
    [("origin", PUBLIC), ("sec-fetch-site", "same-origin")],
    [("sec-fetch-site", "none")],
]


@pytest.mark.parametrize("headers", ELSEWHERE)
async def test_another_site_s_page_neither_signs_in_nor_sends_a_form(
    headers: list[tuple[str, str]],
) -> None:
    known = visitors()
    with pytest.raises(FormExpired):
        await known.sign_in(request(headers), TOKEN, Response())
    signed_in = await known.sign_in(request(), TOKEN, Response())
    with pytest.raises(FormExpired):
        known.check_form(request(headers), signed_in, csrf_token(signed_in))


@pytest.mark.parametrize("headers", HERE)
async def test_a_page_of_ours_does_both(headers: list[tuple[str, str]]) -> None:
    known = visitors()
    signed_in = await known.sign_in(request(headers), TOKEN, Response())
    known.check_form(request(headers), signed_in, csrf_token(signed_in))
    with pytest.raises(FormExpired):
        known.check_form(request(headers), signed_in, "")


@pytest.mark.parametrize(
    "given",
    [
        [("authorization", f"Basic {TOKEN}")],
        [("authorization", TOKEN)],
        [("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")],
        [("authorization", "")],
    ],
)
async def test_a_token_is_shown_once_and_as_bearer(given: list[tuple[str, str]]) -> None:
    known = visitors()
    with pytest.raises(SignInRequired):
        await known.principal(request(given))
    shown = [("authorization", f"bearer  {TOKEN}")]
    assert await known.principal(request(shown)) == THE_OPERATOR


async def test_a_wrong_token_is_not_made_good_by_a_cookie() -> None:
    known = visitors()
    cookie, _ = await cookie_of(known)
    with pytest.raises(SignInRequired):
        await known.principal(request([("cookie", cookie), ("authorization", "Bearer x")]))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (PROXY, "198.51.100.7", "198.51.100.7"),
        (PROXY, "1.2.3.4, 198.51.100.7", "198.51.100.7"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        (PROXY, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ],
)
async def test_guesses_are_counted_for_whom_the_proxies_name(
    peer: str, forwarded: str, address: str
) -> None:
    known = visitors()
    asked = request([("x-forwarded-for", forwarded)] if forwarded else [], peer=peer)
    assert known.address(asked) == address
    for _ in range(ADMIN_LIMIT.failures):
        with pytest.raises(SignInRequired):
            await known.sign_in(asked, "wrong", Response())
    with pytest.raises(TooManyAttempts):
        await known.sign_in(asked, TOKEN, Response())
    elsewhere = request([("x-forwarded-for", "203.0.113.9")])
    assert await known.sign_in(elsewhere, TOKEN, Response())


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"), [(PROXY, "nonsense", PROXY), ("", "", "unknown")]
)
async def test_an_address_that_many_share_is_not_refused_for_what_one_of_them_tries(
    peer: str, forwarded: str, address: str
) -> None:
    known = visitors()
    asked = request([("x-forwarded-for", forwarded)] if forwarded else [], peer=peer)
    assert known.address(asked) == address
    for _ in range(ADMIN_LIMIT.failures):
        with pytest.raises(SignInRequired):
            await known.sign_in(asked, "wrong", Response())
    with pytest.raises(TooManyAttempts):
        await known.sign_in(asked, "wrong", Response())
    assert await known.sign_in(asked, TOKEN, Response())
