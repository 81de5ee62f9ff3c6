"""What an account has at Twilio: its numbers, where they call, and what went wrong lately."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import httpx
import msgspec

from app.errors import TwilioApiError
from app.twilio_api import Credentials

# A page of 100 alerts, which quote what was answered.
MAX_BODY_BYTES: Final = 2**20
ALERTS: Final = 100
Body = TypeVar("Body")


class PhoneNumber(msgspec.Struct, frozen=True):
    """A number of the account, as Twilio has it; what is not set is empty.

    Source: twilio.com/docs/phone-numbers/api/incomingphonenumber-resource. "If a
    `voice_application_sid` is present, we ignore all of the voice urls"; a trunk does the same.
    """

    sid: str
    phone_number: str
    voice_url: str | None = ""
    voice_method: str | None = "POST"
    voice_fallback_url: str | None = ""
    status_callback: str | None = ""
    status_callback_method: str | None = "POST"
    voice_application_sid: str | None = ""
    trunk_sid: str | None = ""


class Alert(msgspec.Struct, frozen=True):
    """One error that Twilio noted (twilio.com/docs/usage/monitor-alert)."""

    error_code: str
    date_created: str = ""
    log_level: str = ""


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Where a number's calls, and their status, are told."""

    voice_url: str
    status_callback: str


class _Numbers(msgspec.Struct):
    incoming_phone_numbers: list[PhoneNumber]


class _Alerts(msgspec.Struct):
    alerts: list[Alert]


class _Problem(msgspec.Struct):
    code: int = 0
    message: str = ""


class TwilioAccount:
    """Ask Twilio about one account.

    `base_url` and `monitor_url` have no trailing slash. Every method raises
    TwilioApiError when Twilio does not answer, or not as it is documented.
    """

    def __init__(
        self, client: httpx.AsyncClient, base_url: str, monitor_url: str, credentials: Credentials
    ) -> None:
        self._client = client
        self._numbers = (
            f"{base_url}/2010-04-01/Accounts/{credentials.account_sid}/IncomingPhoneNumbers"
        )
        self._monitor = monitor_url
        self._auth = httpx.BasicAuth(credentials.account_sid, credentials.auth_token)

    async def number(self, number: str) -> PhoneNumber | None:
        """Give what is set for a number (E.164), None where the account has none such."""
        query = urlencode({"PhoneNumber": number, "PageSize": 20})
        body = await self._ask("GET", f"{self._numbers}.json?{query}")
        # Twilio takes it for a pattern: a longer number may have it inside.
        found = _read(body, _Numbers).incoming_phone_numbers
        return next((one for one in found if one.phone_number == number), None)

    async def alerts(self, since: str) -> list[Alert]:
        """Give the latest alerts from a day on (`YYYY-MM-DD`, UTC), 100 at most."""
        query = urlencode({"StartDate": since, "PageSize": ALERTS})
        body = await self._ask("GET", f"{self._monitor}/v1/Alerts?{query}")
        return _read(body, _Alerts).alerts[:ALERTS]

    async def connect(self, sid: str, webhooks: Webhooks) -> PhoneNumber:
        """Let a number call these webhooks by POST; give what then is set."""
        form = {
            "VoiceUrl": webhooks.voice_url,
            "VoiceMethod": "POST",
            "StatusCallback": webhooks.status_callback,
            "StatusCallbackMethod": "POST",
        }
        return _read(await self._ask("POST", f"{self._numbers}/{sid}.json", form), PhoneNumber)

    async def _ask(self, method: str, url: str, form: Mapping[str, str] | None = None) -> bytes:
        # Compressed, a short answer could be a long one.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        sent: dict[str, Any] = {"auth": self._auth, "headers": headers}
        if form is not None:
            sent["data"] = dict(form)
        body = bytearray()
        try:
            async with self._client.stream(method, url, **sent) as response:
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise TwilioApiError("answered more than is read", response.status_code)
        except httpx.HTTPError as error:
            raise TwilioApiError(f"cannot be reached: {type(error).__name__}") from error
        if not response.is_success:
            problem = _problem(bytes(body))
            said = f"answered {response.status_code}, code {problem.code}"
            raise TwilioApiError(said, response.status_code, problem.code)
        return bytes(body)


def _read(body: bytes, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise TwilioApiError("answered what is not documented") from error


def _problem(body: bytes) -> _Problem:
    try:
        return msgspec.json.decode(body, type=_Problem)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return _Problem()
