"""Notices of reached limits, posted to businesses' own URLs: bounded, signed, never inwards."""

import asyncio
import hashlib
import hmac
import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import httpx
import msgspec

from app.hosts import is_public_address
from app.metrics import Metrics

log = logging.getLogger(__name__)

# One try, from the name's look-up to the answer's status.
TRY_SECONDS: Final = 5.0
TRIES: Final = 4
FIRST_PAUSE_SECONDS: Final = 2.0
MAX_WAITING: Final = 1_000
# Of one business: it has four limits a month, and an edit of its plan makes new ones.
MAX_OF_BUSINESS: Final = 20
# A receiver that hangs holds up no more than one of these.
AT_A_TIME: Final = 4
SIGNATURE: Final = "X-Media-Bridge-Signature"


class Outcome(StrEnum):
    """What came of a notice; the labels of a metric."""

    SENT = "sent"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    UNTRUSTED = "untrusted"
    FORBIDDEN_ADDRESS = "forbidden_address"
    NO_URL = "no_url"
    NO_ROOM = "no_room"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a business is told, and the secret that signs it; empty where it has none."""

    url: str
    secret: str = field(default="", repr=False)


class Notice(msgspec.Struct, frozen=True):
    """A limit that a business has reached: `used` of `allowed`, in calls or minutes.

    `id` is the same however often it is sent. `at` is in RFC 3339.
    """

    event: str
    id: str
    business_id: str
    month: str
    limit: str
    allowed: float
    used: float
    at: str


def notice_of(
    business_id: str, month: str, limit: str, allowed: float, used: float, at: int, *, is_hard: bool
) -> Notice:
    """Draw up a notice; `at` is Unix ms."""
    kind = "hard" if is_hard else "soft"
    return Notice(
        event=f"usage.{kind}_limit_reached",
        id=f"{business_id}:{month}:{limit}:{allowed:g}",
        business_id=business_id,
        month=month,
        limit=limit,
        allowed=allowed,
        used=round(used, 1),
        at=f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}",
    )


EndpointOf = Callable[[str], Awaitable[Endpoint | None]]
Resolve = Callable[[str, int], Awaitable[list[str]]]


def client() -> httpx.AsyncClient:
    """Make the client that posts notices: no redirect, no proxy, no cookie.

    It trusts the authorities of SSL_CERT_FILE or SSL_CERT_DIR where one is set.
    """
    return httpx.AsyncClient(
        # By itself a client that takes no proxy from the environment takes no authority either.
        verify=httpx.create_ssl_context(),
        timeout=TRY_SECONDS,
        follow_redirects=False,
        trust_env=False,
        limits=httpx.Limits(max_keepalive_connections=0),
    )


async def resolve(host: str, port: int) -> list[str]:
    """Look a name up; OSError when it has no address."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, proto=6)  # TCP
    return [str(address[0]) for *_, address in found]


class Notices:
    """Post notices, each up to four times; what is answered 2xx is sent.

    Anything else than 429 and 5xx is a refusal, and a receiver whose certificate is not
    good for its name is asked once. Of the addresses that a name has, one that is
    public is connected to, the very one that was looked at: a name that leads
    elsewhere the next moment changes nothing. With `allow_private` any will do.
    `wall_clock` gives Unix seconds, `jitter` 0 to 1.
    """

    def __init__(
        self,
        endpoint_of: EndpointOf,
        http: httpx.AsyncClient,
        metrics: Metrics,
        *,
        allow_private: bool,
        wall_clock: Callable[[], float],
        jitter: Callable[[], float],
        resolve: Resolve = resolve,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._endpoint_of = endpoint_of
        self._http = http
        self._metrics = metrics
        self._allow_private = allow_private
        self._wall_clock = wall_clock
        self._jitter = jitter
        self._resolve = resolve
        self._sleep = sleep
        # By business, of which those that no task posts for are `_ready`.
        self._waiting: dict[str, deque[Notice]] = {}
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._count_waiting = 0

    def put(self, notice: Notice) -> None:
        """Take a notice; nobody waits for it."""
        of_business = self._waiting.get(notice.business_id, ())
        if self._count_waiting >= MAX_WAITING or len(of_business) >= MAX_OF_BUSINESS:
            self._count(notice, Outcome.NO_ROOM)
            return
        if notice.business_id not in self._waiting:
            self._waiting[notice.business_id] = deque()
            self._ready.put_nowait(notice.business_id)
        self._waiting[notice.business_id].append(notice)
        self._count_waiting += 1

    async def run(self) -> None:
        """Post until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_A_TIME):
                tasks.create_task(self._post_all())

    async def open(self) -> None:
        """Do nothing: connections are made when they are needed."""

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.aclose()

    async def _post_all(self) -> None:
        while True:
            # One at a time of each business: a receiver that hangs holds up no other's.
            business_id = await self._ready.get()
            waiting = self._waiting[business_id]
            notice = waiting.popleft()
            self._count_waiting -= 1
            try:
                outcome = await self._deliver(notice)
            except Exception:
                log.exception("[Usage] A notice to %s failed", notice.business_id)
                outcome = Outcome.UNREACHABLE
            self._count(notice, outcome)
            if waiting:
                self._ready.put_nowait(business_id)
            else:
                del self._waiting[business_id]

    async def _deliver(self, notice: Notice) -> Outcome:
        endpoint = await self._endpoint_of(notice.business_id)
        if endpoint is None:
            return Outcome.NO_URL
        body = msgspec.json.encode(notice)
        for attempt in range(TRIES):
            try:
                async with asyncio.timeout(TRY_SECONDS):
                    status = await self._post(endpoint, body)
            except httpx.InvalidURL:
                return Outcome.REFUSED
            except (httpx.HTTPError, OSError, TimeoutError) as error:
                if _is_untrusted(error):
                    return Outcome.UNTRUSTED
            else:
                if status is None:
                    return Outcome.FORBIDDEN_ADDRESS
                if 200 <= status < 300:
                    return Outcome.SENT
                if status != httpx.codes.TOO_MANY_REQUESTS and status < 500:
                    return Outcome.REFUSED
            if attempt + 1 < TRIES:
                await self._sleep(FIRST_PAUSE_SECONDS * 4**attempt * (0.5 + self._jitter()))
        return Outcome.UNREACHABLE

    async def _post(self, endpoint: Endpoint, body: bytes) -> int | None:
        """Post once; give the status, or None where nothing may be posted to."""
        url = httpx.URL(endpoint.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        address = await self._address(url.host, port)
        if address is None:
            return None
        headers = {"Content-Type": "application/json", "Host": url.netloc.decode("ascii")}
        if endpoint.secret:
            headers[SIGNATURE] = signature(endpoint.secret, int(self._wall_clock()), body)
        # TLS asks for, and checks, the name; the connection is to the address.
        named = {"sni_hostname": url.host}
        async with self._http.stream(
            "POST", url.copy_with(host=address), content=body, headers=headers, extensions=named
        ) as response:
            return response.status_code

    async def _address(self, host: str, port: int) -> str | None:
        found = await self._resolve(host, port)
        return next((one for one in found if self._allow_private or is_public_address(one)), None)

    def _count(self, notice: Notice, outcome: Outcome) -> None:
        self._metrics.usage_notices.labels(outcome).inc()
        if outcome is Outcome.SENT:
            log.info("[Usage] %s was told of %s", notice.business_id, notice.limit)
        elif outcome is not Outcome.NO_URL:
            log.warning(
                "[Usage] ⚠️ %s could not be told of %s: %s",
                *(notice.business_id, notice.limit, outcome),
            )


def signature(secret: str, at: int, body: bytes) -> str:
    """Sign a body, together with the time (Unix seconds), so that it cannot be replayed later."""
    signed = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256)
    return f"t={at},v1={signed.hexdigest()}"


def _is_untrusted(error: BaseException | None) -> bool:
    """Tell whether it came of a certificate; httpx has errors in errors."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None
