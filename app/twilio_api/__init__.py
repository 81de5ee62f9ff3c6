"""Twilio's REST API, as far as the bridge needs it: to end a call, or give it other TwiML."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import httpx
import msgspec

from app.metrics import Metrics

log = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 2.0
# One request, from the first byte to the last.
REQUEST_SECONDS: Final = 5.0
ATTEMPTS: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.5
# Twilio may name a longer pause; nobody waits longer for a call's end.
LONGEST_PAUSE_SECONDS: Final = 30.0
AT_A_TIME: Final = 8
MAX_ANSWER_BYTES: Final = 16 * 1024

# twilio.com/docs/api/errors: "resource not found" and "invalid call state".
_CALL_IS_OVER = frozenset({20404, 21220})


class Outcome(StrEnum):
    """What came of a request; the labels of a metric."""

    DONE = "done"
    GONE = "gone"
    NO_CREDENTIALS = "no_credentials"
    UNAUTHORIZED = "unauthorized"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an account's requests are signed with."""

    account_sid: str
    auth_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CarrierCall:
    """A call as Twilio knows it, and whose business it is; empty where not known.

    `own_account` tells that a token of this business's own signed its stream.
    """

    call_sid: str
    account_sid: str
    business_id: str
    own_account: bool = False


CredentialsFor = Callable[[CarrierCall], Awaitable[Credentials | None]]


def client() -> httpx.AsyncClient:
    """Make the client that a `TwilioApi` asks with; it follows no redirect."""
    timeout = httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS)
    return httpx.AsyncClient(timeout=timeout, follow_redirects=False)


def credentials_of_one_account(account_sid: str, auth_token: str) -> CredentialsFor:
    """Give an account's credentials for its own calls, and none for any other's.

    Without SID or token there are none at all.
    """
    known = Credentials(account_sid, auth_token) if account_sid and auth_token else None

    async def credentials_for(call: CarrierCall) -> Credentials | None:
        return known if known and known.account_sid == call.account_sid else None

    return credentials_for


class _Problem(msgspec.Struct, frozen=True):
    """The body of an error: Twilio's own code (twilio.com/docs/usage/twilios-response)."""

    code: int = 0


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    code: int = 0
    retry_after: float = 0.0


class TwilioApi:
    """Ask Twilio's REST API, in the name of the account that a call belongs to.

    What Twilio did not take (429, 5xx, no connection) is asked again, after pauses
    that grow; what it refused is not.

    `base_url` has no trailing slash; `credentials_for` gives an account's
    credentials, or None, and then nothing is asked; `jitter` gives 0 to 1. At most
    `AT_A_TIME` requests are under way; the others wait.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        credentials_for: CredentialsFor,
        metrics: Metrics,
        *,
        jitter: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._base_url = base_url
        self._credentials_for = credentials_for
        self._metrics = metrics
        self._jitter = jitter
        self._sleep = sleep
        self._room = asyncio.Semaphore(AT_A_TIME)
        self._is_barred = False

    async def end_call(self, call: CarrierCall) -> Outcome:
        """End a call, whatever it is doing; never raises.

        "Specifying completed will attempt to hang up a call even if it's already in
        progress" (twilio.com/docs/voice/api/call-resource). A call that is over
        already is GONE.
        """
        return await self._change(call, "end_call", {"Status": "completed"}, "ended")

    async def redirect_call(self, call: CarrierCall, twiml: str) -> Outcome:
        """Have a live call go on with this TwiML, whatever it is doing; never raises.

        "Twiml: TwiML instructions for the call Twilio will use without fetching Twiml from
        url parameter" (twilio.com/docs/voice/api/call-resource).
        """
        return await self._change(call, "redirect_call", {"Twiml": twiml}, "transferred")

    async def close(self) -> None:
        """Let go of its connections."""
        await self._client.aclose()

    async def _change(
        self, call: CarrierCall, what: str, form: dict[str, str], done: str
    ) -> Outcome:
        credentials = await self._credentials_for(call)
        if credentials is None:
            outcome, why = Outcome.NO_CREDENTIALS, "no credentials for its account"
        else:
            path = f"/2010-04-01/Accounts/{credentials.account_sid}/Calls/{call.call_sid}.json"
            outcome, why = await self._post(path, form, credentials)
        self._metrics.twilio_requests.labels(what, outcome).inc()
        self._tell(call, outcome, why, done)
        return outcome

    def _tell(self, call: CarrierCall, outcome: Outcome, why: str, done: str) -> None:
        was_barred, self._is_barred = self._is_barred, outcome is Outcome.UNAUTHORIZED
        if outcome is Outcome.DONE:
            log.info("[Twilio] Call %s %s", call.call_sid, done)
        elif outcome is Outcome.GONE:
            log.debug("[Twilio] Call %s was over already", call.call_sid)
        elif outcome is Outcome.UNAUTHORIZED and not was_barred:
            log.error(
                "[Twilio] ❌ Twilio does not accept the account SID of call %s with its auth token "
                "(the first of TWILIO_AUTH_TOKEN, or of its business's own): "
                "calls are left to their TwiML",
                call.call_sid,
            )
        elif outcome is not Outcome.UNAUTHORIZED:
            log.warning("[Twilio] ⚠️ Call %s could not be %s: %s", call.call_sid, done, why)

    async def _post(
        self, path: str, form: dict[str, str], credentials: Credentials
    ) -> tuple[Outcome, str]:
        """Post a form until it is answered for good, `ATTEMPTS` times at most."""
        why = ""
        for attempt in range(ATTEMPTS):
            named_pause = 0.0
            try:
                async with self._room, asyncio.timeout(REQUEST_SECONDS):
                    answer = await self._send(self._base_url + path, form, credentials)
            except (httpx.HTTPError, TimeoutError) as error:
                why = type(error).__name__
            else:
                why = f"answered {answer.status}, code {answer.code}"
                if not _may_change(answer.status):
                    return _outcome_of(answer), why
                named_pause = answer.retry_after
            if attempt + 1 < ATTEMPTS:
                own_pause = FIRST_PAUSE_SECONDS * 2**attempt * (0.5 + self._jitter())
                await self._sleep(min(max(own_pause, named_pause), LONGEST_PAUSE_SECONDS))
        return Outcome.UNREACHABLE, why

    async def _send(self, url: str, form: dict[str, str], credentials: Credentials) -> _Answer:
        auth = httpx.BasicAuth(credentials.account_sid, credentials.auth_token)
        # Compressed, a short answer could be a long one.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with self._client.stream(
            "POST", url, data=form, auth=auth, headers=headers
        ) as response:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    break
        return _Answer(response.status_code, _code_in(bytes(body)), _pause_in(response.headers))


def _may_change(status: int) -> bool:
    return status == httpx.codes.TOO_MANY_REQUESTS or status >= 500


def _outcome_of(answer: _Answer) -> Outcome:
    if httpx.codes.is_success(answer.status):
        return Outcome.DONE
    if answer.status == httpx.codes.NOT_FOUND or answer.code in _CALL_IS_OVER:
        return Outcome.GONE
    if answer.status == httpx.codes.UNAUTHORIZED:
        return Outcome.UNAUTHORIZED
    return Outcome.REFUSED


def _code_in(body: bytes) -> int:
    try:
        return msgspec.json.decode(body, type=_Problem).code
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return 0


def _pause_in(headers: httpx.Headers) -> float:
    """Read Retry-After in its seconds' form (RFC 9110, 10.2.3); 0 without."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0
