"""Who is behind a request: by Authorization, or by the cookie of a session."""

from typing import Final
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import Response

from app.admin.principal import Principal
from app.admin.sessions import LONGEST_SECONDS
from app.administration.gate import (
    NO_OPERATOR,
    SIGN_IN,
    Gate,
    SignedIn,
    check_csrf,
)
from app.businesses.shares import PoolLimits, Shares
from app.credentials.addresses import (
    FORWARDED_FOR,
    ClientSource,
    Network,
    client_address,
    client_source,
    is_in,
)
from app.errors import (
    Forbidden,
    FormExpired,
    InsecureSignIn,
    NotThere,
    SignInRequired,
    TooManyRequests,
)
from app.hosts import is_loopback

CSRF_HEADER = "x-csrf-token"
# RFC 9110, 9.2.1: what does not ask for a change.
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

# Of the API and the pages, from the moment that it is known who asks until the answer begins.
REQUESTS = PoolLimits(total=256, of_business=32, of_businesses=224)


class Visitors:
    """Know who sends a request, and keep the cookies of those who signed in.

    `http_base` is PUBLIC_URL, or empty. A session's cookie never crosses a network in the
    clear: who signs in by https gets one for https only, and over plain http nobody can sign
    in, except on this machine, or where PUBLIC_URL itself says http.
    `client_header` is where trusted proxies name their clients.
    """

    def __init__(
        self,
        gate: Gate,
        trusted_proxies: tuple[Network, ...],
        http_base: str,
        client_header: str = FORWARDED_FOR,
    ) -> None:
        self.gate = gate
        # What each asks takes its turn with all the others' in one process.
        self.requests = Shares("requests at once", REQUESTS, TooManyRequests)
        self._trusted = trusted_proxies
        self._client_header = client_header
        self._origin = http_base
        self._is_https = http_base.startswith("https://")
        # RFC 6265bis, 4.1.3.2: `__Host-` is taken from this host alone, over https.
        self.cookie_name = "__Host-media-bridge" if self._is_https else "media-bridge"

    async def principal(self, request: Request) -> Principal:
        """Tell who asks the API.

        A session's cookie admits what changes nothing; with X-CSRF-Token, and from
        a page of ours, the rest too.

        Raises:
            SignInRequired, TooManyAttempts: nobody we know.
            FormExpired: somebody we know, but perhaps another site's page in their name.
        """
        given = request.headers.getlist("authorization")
        if given:
            return await self.gate.by_bearer(_bearer(given), self.address(request))
        signed_in = await self.signed_in(request)
        if signed_in is None:
            raise SignInRequired(SIGN_IN if self.gate.has_operator else f"{SIGN_IN}; {NO_OPERATOR}")
        if request.method not in _SAFE_METHODS:
            try:
                self.check_form(request, signed_in, request.headers.get(CSRF_HEADER, ""))
            except FormExpired as error:
                await self.note_refusal(signed_in.principal, "a change by cookie", error)
                raise
        return signed_in.principal

    async def signed_in(self, request: Request) -> SignedIn | None:
        """Tell whose session a request is of; None for a stranger, or when it is over."""
        secret = request.cookies.get(self.cookie_name, "")
        return await self.gate.by_session(secret, self.address(request))

    async def sign_in(self, request: Request, shown: str, response: Response) -> SignedIn:
        """Begin a session for whoever shows a token or key, and give its cookie to `response`.

        Raises:
            SignInRequired, TooManyAttempts: it is nobody's, or too many such came.
            FormExpired: the form stood on another site's page.
            InsecureSignIn: the connection is not encrypted.
        """
        check_origin(request, self._origin)
        self.check_connection(request)
        source = self.source(request)
        signed_in = await self.gate.sign_in(
            shown,
            source.address,
            is_shared=source.is_shared,
            browser=browser_name(request.headers.get("user-agent", "")),
        )
        response.set_cookie(
            self.cookie_name,
            signed_in.secret,
            max_age=int(LONGEST_SECONDS),
            path="/",
            secure=self._is_https or self.came_by_https(request),
            httponly=True,
            # Not strict: a link that somebody sends is to find who signed in.
            samesite="lax",
        )
        return signed_in

    async def sign_out(self, signed_in: SignedIn, response: Response) -> None:
        """End a session, and have its cookie forgotten."""
        await self.gate.sign_out(signed_in)
        self.forget_cookie(response)

    def forget_cookie(self, response: Response) -> None:
        """Have a browser forget its session's cookie."""
        response.delete_cookie(
            self.cookie_name, path="/", secure=self._is_https, httponly=True, samesite="lax"
        )

    async def note_refusal(self, who: Principal, what: str, error: Exception) -> None:
        """Record in the audit log that somebody known was refused, if that is what happened."""
        if isinstance(error, NotThere) and error.others:
            await self.gate.audit.note_refusal(who, what, "other_business", error.others)
        elif isinstance(error, Forbidden | FormExpired):
            await self.gate.audit.note_refusal(who, what, error.reason)

    def check_connection(self, request: Request) -> None:
        """Raise InsecureSignIn if what is typed here would cross a network in the clear."""
        host = request.headers.get("host", "")
        is_public_url = bool(host) and f"http://{host}" == self._origin
        if self.came_by_https(request) or is_loopback(_hostname(host)) or is_public_url:
            return
        raise InsecureSignIn(
            "this connection is not encrypted, so the token and the session could be read on the "
            "way: open this page by https, and set PUBLIC_URL to that address. Behind a proxy that "
            "ends TLS, name it in TRUSTED_PROXIES"
        )

    def may_be_encrypted(self, request: Request) -> bool:
        """Return whether to offer the sign-in form at all.

        Before the form is sent a browser does not name its origin, and a proxy that is not
        trusted may speak the truth: only what is plainly in the clear is turned away.
        """
        try:
            self.check_connection(request)
        except InsecureSignIn:
            is_trusted = self._is_from_proxy(request)
            return not is_trusted and _forwarded_proto(request) == "https"
        return True

    def came_by_https(self, request: Request) -> bool:
        """Return whether a browser reached this service by https, through whatever proxy.

        What a trusted proxy says is decisive. Without such, it is so at the address that
        PUBLIC_URL names, and where the browser itself names https as the origin of its page.
        """
        forwarded = _forwarded_proto(request) if self._is_from_proxy(request) else ""
        if forwarded:
            return forwarded == "https"
        here = f"https://{request.headers.get('host', '')}"
        return request.url.scheme == "https" or here in (
            self._origin,
            request.headers.get("origin", ""),
        )

    def _is_from_proxy(self, request: Request) -> bool:
        peer = request.client.host if request.client else ""
        address = client_address(peer, (), self._trusted)
        return address is not None and is_in(address, self._trusted)

    def check_form(self, request: Request, signed_in: SignedIn, token: str) -> None:
        """Raise FormExpired unless this comes from a page of this session."""
        check_origin(request, self._origin)
        check_csrf(signed_in, token)

    def address(self, request: Request) -> str:
        """Return the address a request comes from, of IPv6 its /64."""
        return self.source(request).address

    def source(self, request: Request) -> ClientSource:
        """Return where a request comes from, and whether many clients may share that."""
        peer = request.client.host if request.client else ""
        forwarded_for = request.headers.getlist(self._client_header)
        return client_source(peer, forwarded_for, self._trusted)


def check_origin(request: Request, own_origin: str) -> None:
    """Raise FormExpired for what a browser says comes from another site's page.

    A browser that says nothing of it is an old one, or none; then the form's
    token alone decides. Sources: w3.org/TR/fetch-metadata; RFC 6454, 7.
    """
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin", "")
    is_ours = origin in ("", own_origin) or _netloc(origin) == request.headers.get("host", "")
    if site not in ("same-origin", "none") or not is_ours:
        raise FormExpired("this form was not sent from a page of this service")


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _hostname(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _forwarded_proto(request: Request) -> str:
    """Return the scheme that the nearest proxy says it was asked by."""
    said = ",".join(request.headers.getlist("x-forwarded-proto"))
    return said.rpartition(",")[2].strip().lower()


# In the order in which they are looked for: many browsers also name those that follow.
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Macintosh", "Mac"),
    ("Linux", "Linux"),
)


def browser_name(user_agent: str) -> str:
    """Return a browser's short name, such as "Firefox on Windows"; never its own words."""
    browser = next((name for sign, name in _BROWSERS if sign in user_agent), "Another browser")
    system = next((name for sign, name in _SYSTEMS if sign in user_agent), "")
    return f"{browser} on {system}" if system else browser


def _bearer(given: list[str]) -> str:
    # RFC 9110, 11.4 and 11.1: the scheme is case-insensitive.
    scheme, _, token = given[0].strip(" \t").partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer":
        raise SignInRequired(SIGN_IN)
    return token.strip(" ")
