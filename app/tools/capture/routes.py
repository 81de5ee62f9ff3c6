"""How a captured call comes to a service: which URL, what is shown there, what `start` says."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx
import jwt

from app.errors import CallRefused, CaptureError, CommandFailed
from app.tools.caller import Call, Carrier
from app.tools.capture.fresh import FreshCall, start_message
from app.tools.capture.load import Capture
from app.tools.service import (
    NOBODYS_NUMBER,
    Credentials,
    read_service_url,
    stream_url_in,
    words_of,
)

TWILIO_PATH = "/twilio-media"
INGEST_PATH = "/v1/ingest"
# A number that is nobody's, too.
CALLER = "+15005550009"


@dataclass(frozen=True, slots=True)
class Whom:
    """Whom to call: a business by its id, or a number; both may be empty."""

    business_id: str = ""
    to_number: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call's socket goes, the headers it shows, and its `start`, if it has one."""

    url: str
    start: str | None
    signature: str = field(default="", repr=False)
    basic: str = field(default="", repr=False)
    bearer: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Give the headers of the handshake."""
        if self.signature:
            return {"X-Twilio-Signature": self.signature}
        if self.basic:
            pair = base64.b64encode(self.basic.encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {"Authorization": f"Bearer {self.bearer}"} if self.bearer else {}


def service_at(url: str, capture: Capture) -> str:
    """Give a service's base, `http://HOST[:PORT]`, of its URL or one of its socket's.

    Raises:
        CommandFailed: it is no such URL.
        CaptureError: it is another carrier's socket than the capture's.
    """
    parts, scheme = read_service_url(url)
    path = parts.path.rstrip("/")
    own = TWILIO_PATH if capture.carrier == "twilio" else INGEST_PATH
    if path not in ("", own):
        if path in (TWILIO_PATH, INGEST_PATH):
            raise CaptureError(
                f"{capture.path} is a capture of carrier {capture.carrier}, which streams to "
                f"{own}; {path} takes another's"
            )
        raise CommandFailed(
            f"{url!r} has a path; name the service alone, {scheme}://{parts.netloc}"
        )
    return urlunsplit((scheme, parts.netloc, "", "", ""))


class Router:
    """Find each call of a capture its way to the service at `base`."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        base: str,
        capture: Capture,
        whom: Whom,
        credentials: Credentials,
    ) -> None:
        self.base = base
        self._client = client
        self._ws_base = "ws" + base.removeprefix("http")
        self._capture = capture
        self._whom = whom
        self._credentials = credentials

    def new_call(self, call: FreshCall) -> FreshCall:
        """Give a call the ids that its credentials fix."""
        named = self._claims.get("interaction_id")
        if self._capture.carrier == "client" and named:
            return FreshCall(str(named), "", "")
        return call

    async def route(self, call: FreshCall) -> Route:
        """Ring where that is to be done, and give the call's way.

        Raises:
            CallRefused: the service turned the call away, or does not know who calls.
            CommandFailed: it cannot be reached, or it is not known whom to call.
        """
        try:
            match self._capture.carrier:
                case "twilio":
                    return await self._twilio(call)
                case "exotel":
                    return await self._exotel(call)
                case "client":
                    return self._client_route(call)
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise CommandFailed(f"no service answers at {self.base}: {why}") from error

    async def _twilio(self, call: FreshCall) -> Route:
        business_id, to_number = self._callee
        token = self._credentials.auth_token
        if not token:
            # Such as ALLOW_UNSIGNED takes: the URL tells whose it is, `start` does not differ.
            query = {"businessId": business_id, "to": to_number}
            params = {name: value for name, value in query.items() if value}
            url = f"{self._ws_base}{TWILIO_PATH}?{urlencode(params)}"
            return Route(url, start_message(self._capture, call, params))
        ringing = Call(
            call.call_sid, call.stream_sid, call.account_sid, CALLER, to_number or NOBODYS_NUMBER
        )
        carrier = Carrier(self.base, token)
        target = await carrier.ring(self._client, ringing, business_id)
        start = start_message(self._capture, call, target.parameters)
        return Route(target.url, start, signature=carrier.signature(target.url))

    @property
    def _callee(self) -> tuple[str, str]:
        """Give the business's id or the number that is called; one may be empty."""
        if self._whom.business_id or self._whom.to_number:
            return self._whom.business_id, self._whom.to_number
        facts = self._capture.facts
        body = self._capture.fields.get("start")
        params = body.get("customParameters") if isinstance(body, dict) else None
        said = params.get("businessId", "") if isinstance(params, dict) else ""
        business_id = (facts.business_id if facts else "") or str(said)
        if not business_id and self._capture.carrier == "twilio":
            raise CommandFailed(
                f"{self._capture.path} does not say whose call it is: name a business by "
                "--business, or a number by --to"
            )
        return business_id, ""

    async def _exotel(self, call: FreshCall) -> Route:
        business_id, to_number = self._callee
        facts = self._capture.facts
        query = {
            name: value
            for name, value in (facts.query if facts else {}).items()
            if name in ("sample-rate", "sample_rate")
        }
        query |= {"callSid": call.call_sid, "businessId": business_id}
        others = {"to": to_number} if to_number else {}
        start = None
        if self._capture.start is not None:
            start = start_message(self._capture, call, {}, **others)
        url = f"{self._ws_base}{INGEST_PATH}?{_encoded(query)}"
        pair = self._credentials.exotel_pair
        if pair:
            return Route(url, start, basic=pair)
        asked = {"CallSid": call.call_sid, "CallTo": to_number, "businessId": business_id}
        answer = await self._client.get(f"{self.base}/exotel-stream-url?{_encoded(asked)}")
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return Route(url, start)  # it knows no address of its own; its socket may be open
        if answer.status_code != httpx.codes.OK:
            raise CallRefused(f"/exotel-stream-url answered {words_of(answer)}")
        given = urlsplit(stream_url_in(answer.content))
        ticketed = f"{given.query}&{_encoded(query)}" if given.query else _encoded(query)
        return Route(urlunsplit(given._replace(query=ticketed)), start)

    def _client_route(self, call: FreshCall) -> Route:
        token = self._credentials.client_token
        if not token:
            raise CommandFailed("INGEST_TOKEN is not set: the token that an own client shows")
        url = f"{self._ws_base}{INGEST_PATH}"
        tenant = self._claims.get("tenant_id") or self._claims.get("business_id") or ""
        named = {
            name: str(tenant)
            for name in ("tenant_id", "business_id")
            if tenant and name in self._capture.fields
        }
        return Route(url, start_message(self._capture, call, {}, **named), bearer=token)

    @property
    def _claims(self) -> Mapping[str, object]:
        """Read what the client's token says; whether it is good, the service finds out."""
        try:
            claims: Mapping[str, object] = jwt.decode(
                self._credentials.client_token, options={"verify_signature": False}
            )
        except jwt.PyJWTError:
            return {}
        return claims


def _encoded(query: Mapping[str, str]) -> str:
    return urlencode({name: value for name, value in query.items() if value})
