"""Cookies of those who sign in, and requests that other sites' pages send in their name."""

from collections.abc import Iterable
from ipaddress import ip_network

import pytest
from fastapi import Request
from fastapi.responses import Response

from app.admin.access_keys import digest_of
from app.admin.attempts import ADMIN_LIMIT, AttemptLimiter
from app.admin.audit_log import AuditLog
from app.admin.audit_store import MemoryAuditStore
from app.admin.operators import Operators
from app.admin.principal import THE_OPERATOR
from app.admin.sessions import Sessions
from app.administration.gate import Gate, csrf_token
from app.credentials.addresses import FORWARDED_FOR
from app.errors import FormExpired, InsecureSignIn, SignInRequired, TooManyAttempts
from app.metrics import Metrics
from app.store.memory_access import MemoryAccess
from app.web.visitors import Visitors, browser_name

TOKEN = "an operator's token, long enough"
PUBLIC = "https://bridge.example.com"
PROXY = "10.0.0.1"


async def no_business(business_id: str) -> bool:
    return False


def visitors(http_base: str = PUBLIC, client_header: str = FORWARDED_FOR) -> Visitors:
    access = MemoryAccess(lambda: 1000.0)
    operators = Operators({digest_of(TOKEN): ""})
    audit = AuditLog(MemoryAuditStore(), lambda: 1000.0, lambda: 1000.0)
    gate = Gate(
        access,
        operators,
        Sessions(access, operators, audit, lambda: 1000.0),
        audit,
        AttemptLimiter(access, lambda: 1000.0, Metrics()),
        wall_clock=lambda: 1000.0,
        has_business=no_business,
    )
    return Visitors(gate, (ip_network("10.0.0.0/8"),), http_base, client_header)


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


LOCAL = "http://localhost:8000"
INTERNAL = "http://bridge.internal:8000"
BY_PROXY = [("x-forwarded-proto", "https")]
FROM_HTTPS_PAGE = [("origin", "https://bridge.example.com")]


def asked_at(
    host: str, headers: Iterable[tuple[str, str]] = (), peer: str = "192.0.2.1"
) -> Request:
    found = request(headers, peer=peer)
    found.scope["headers"][0] = (b"host", host.encode())
    return found


@pytest.mark.parametrize(
    ("http_base", "asked", "secure"),
    [
        (PUBLIC, asked_at("bridge.example.com"), True),
        (PUBLIC, asked_at("localhost:8000"), True),
        ("", asked_at("bridge.example.com", BY_PROXY, PROXY), True),
        ("", asked_at("bridge.example.com", [("x-forwarded-proto", "http, https")], PROXY), True),
        ("", asked_at("bridge.example.com", FROM_HTTPS_PAGE), True),
        ("", asked_at("localhost:8000"), False),
        ("", asked_at("127.0.0.1:8000"), False),
        ("", asked_at("[::1]:8000"), False),
        (LOCAL, asked_at("localhost:8000"), False),
        (INTERNAL, asked_at("bridge.internal:8000"), False),
        (INTERNAL, asked_at("bridge.internal:8000", BY_PROXY, PROXY), True),
    ],
)
async def test_cookie_is_for_https_only_unless_signed_in_on_this_machine(
    http_base: str, asked: Request, secure: bool
) -> None:
    response = Response()
    signed_in = await visitors(http_base).sign_in(asked, TOKEN, response)
    assert signed_in.principal == THE_OPERATOR
    cookie, *attributes = response.headers["set-cookie"].split("; ")
    assert "HttpOnly" in attributes
    assert ("Secure" in attributes) is secure
    assert cookie.startswith("__Host-") is http_base.startswith("https")


@pytest.mark.parametrize(
    ("http_base", "asked"),
    [
        ("", asked_at("bridge.example.com")),
        ("", asked_at("192.168.1.5:8000")),
        ("", asked_at("")),
        ("", asked_at("localhost.example.com")),
        ("", asked_at("bridge.example.com", [("origin", "http://bridge.example.com")])),
        # Nobody but a trusted proxy is believed.
        ("", asked_at("bridge.example.com", BY_PROXY)),
        ("", asked_at("bridge.example.com", [("x-forwarded-proto", "https, http")], PROXY)),
        (PUBLIC, asked_at("bridge.example.com", [("x-forwarded-proto", "http")], PROXY)),
        (PUBLIC, asked_at("192.168.1.5:8000")),
        (LOCAL, asked_at("192.168.1.5:8000")),
    ],
)
async def test_nobody_signs_in_over_a_network_in_the_clear(http_base: str, asked: Request) -> None:
    response = Response()
    with pytest.raises(InsecureSignIn, match="PUBLIC_URL"):
        await visitors(http_base).sign_in(asked, TOKEN, response)
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    ("http_base", "asked", "is_offered"),
    [
        (PUBLIC, asked_at("bridge.example.com"), True),
        (PUBLIC, asked_at("192.168.1.5:8000"), False),
        (PUBLIC, asked_at("bridge.example.com", [("x-forwarded-proto", "http")], PROXY), False),
        ("", asked_at("bridge.example.com"), False),
        # The browser will say by its Origin whether this is true.
        ("", asked_at("bridge.example.com", BY_PROXY), True),
        ("", asked_at("localhost:8000"), True),
    ],
)
def test_offers_no_form_on_a_connection_that_is_plainly_in_the_clear(
    http_base: str, asked: Request, is_offered: bool
) -> None:
    assert visitors(http_base).may_be_encrypted(asked) is is_offered


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0",
         "Firefox on Windows"),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
         "Chrome/131.0.0.0 Safari/537.36", "Chrome on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) "
         "Chrome/131.0 Safari/537.36 Edg/131.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 "
         "(KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/131.0 Mobile Safari/537.36",
         "Chrome on Android"),
        ("curl/8.5.0", "Another browser"),
        ("<script>alert(1)</script>\x9b", "Another browser"),
        ("", "Another browser"),
    ],
)  # fmt: skip
def test_names_a_browser_by_known_names_only(user_agent: str, name: str) -> None:
    assert browser_name(user_agent) == name


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


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        (PROXY, [("x-real-ip", "198.51.100.7")], "198.51.100.7"),
        # What Railway's edge sends, whatever the client put into either header.
        (
            PROXY,
            [("x-real-ip", "198.51.100.7"), ("x-forwarded-for", "198.51.100.7, 203.0.113.40")],
            "198.51.100.7",
        ),
        (PROXY, [("x-forwarded-for", "203.0.113.40")], PROXY),
        (PROXY, [("x-real-ip", "nonsense")], PROXY),
        ("192.0.2.1", [("x-real-ip", "198.51.100.7")], "192.0.2.1"),
    ],
)
def test_the_header_that_names_the_client_can_be_another(
    peer: str, headers: list[tuple[str, str]], address: str
) -> None:
    known = visitors(client_header="x-real-ip")
    assert known.address(request(headers, peer=peer)) == address
