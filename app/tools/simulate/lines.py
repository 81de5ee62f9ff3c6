"""How callers reach a service: Twilio's webhook and Exotel's stream URL, or a socket at once."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import httpx

from app.errors import CallRefused
from app.media import MediaFormat, Track
from app.tools.caller import Call, Carrier, StreamTarget, parse_twiml
from app.tools.service import (
    Credentials,
    check_socket,
    read_service_url,
    stream_url_in,
    words_of,
)
from app.tools.simulate.asked import Asked, Caller, CarrierName
from app.tools.simulate.script import (
    EXOTEL_FORMS,
    TWILIO_FORM,
    Cue,
    Reached,
    exotel_script,
    twilio_script,
)

_OWN_PATH: Final = {"twilio": "/twilio-voice", "exotel": "/exotel-stream-url"}


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service is: its base, what is rung, or the socket that is opened at once.

    `ringing` and `socket` are URLs, one of them empty. Without a `status_url` nobody
    hears that a call has ended.
    """

    base: str
    ringing: str = ""
    socket: str = ""
    status_url: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call's audio goes: its socket, what the handshake shows, and its TwiML's words.

    `form` is that of the audio, both ways.
    """

    url: str
    headers: dict[str, str] = field(repr=False)
    target: StreamTarget
    form: MediaFormat


class Line(Protocol):
    """A carrier's side of a call."""

    async def ring(self, call: Call) -> Place:
        """Ask where a call's audio shall go.

        Raises:
            CallRefused: nowhere, or what was answered cannot be read.
            httpx.HTTPError: there is no answer.
        """

    def script(self, call: Call, place: Place, caller: Caller, reached: Reached) -> Iterator[Cue]:
        """Give what the carrier sends there, with the marks that it has reached."""

    async def hang_up(self, call: Call, seconds: float) -> bool | None:
        """Say that a call has ended; tell whether that was taken, None where nobody is told."""


def service_at(url: str, carrier: CarrierName) -> Service:
    """Read the URL of a service, of its webhook, or of its socket.

    Raises:
        CommandFailed: it is no such URL.
    """
    parts, scheme = read_service_url(url)
    base = urlunsplit((scheme, parts.netloc.rpartition("@")[2], "", "", ""))
    if parts.scheme != scheme:
        return Service(base, socket=url)
    if parts.path.rstrip("/"):
        return Service(base, ringing=url)
    status_url = f"{base}/twilio-status" if carrier == "twilio" else ""
    return Service(base, ringing=base + _OWN_PATH[carrier], status_url=status_url)


def line_of(
    asked: Asked, service: Service, credentials: Credentials, client: httpx.AsyncClient
) -> Line:
    """Give the line of the carrier that is asked for."""
    if asked.carrier == "exotel":
        return ExotelLine(asked, service, credentials.exotel_pair, client)
    return TwilioLine(asked, service, credentials.auth_token, client)


class TwilioLine:
    """Twilio's: the voice webhook's TwiML names the socket, the status callback hears the end."""

    def __init__(
        self, asked: Asked, service: Service, auth_token: str, client: httpx.AsyncClient
    ) -> None:
        self._asked = asked
        self._service = service
        self._client = client
        self._carrier = Carrier(service.base, auth_token)

    async def ring(self, call: Call) -> Place:
        """Call the voice webhook; see `Line`."""
        if self._service.socket:
            said = {
                "businessId": self._asked.business_id,
                "callSid": call.call_sid,
                "from": call.from_number,
                "to": call.to_number,
            }
            params = {name: value for name, value in said.items() if value}
            target = StreamTarget(self._service.socket, params, (Track.INBOUND,))
        else:
            url = self._of_business(self._service.ringing)
            answer = await self._carrier.post(self._client, url, call, "ringing")
            if answer.status_code != httpx.codes.OK:
                raise CallRefused(f"the webhook answered {words_of(answer)}")
            target = parse_twiml(answer.text)
            check_socket(target.url)
        return Place(target.url, self._carrier.signed(target.url), target, TWILIO_FORM)

    def script(self, call: Call, place: Place, caller: Caller, reached: Reached) -> Iterator[Cue]:
        """Give what Twilio sends."""
        return twilio_script(call, place.target, caller, self._asked.digits, reached)

    async def hang_up(self, call: Call, seconds: float) -> bool | None:
        """Call the status callback; see `Line`."""
        if not self._service.status_url:
            return None
        url = self._of_business(self._service.status_url)
        more = {"CallDuration": str(round(seconds)), "SequenceNumber": "1"}
        try:
            answer = await self._carrier.post(self._client, url, call, "completed", **more)
        except httpx.HTTPError:
            return False
        return answer.is_success

    def _of_business(self, url: str) -> str:
        return _with_query(url, {"businessId": self._asked.business_id})


class ExotelLine:
    """Exotel's: a request for the stream's URL, and a pair for both where there is one."""

    def __init__(
        self, asked: Asked, service: Service, pair: str, client: httpx.AsyncClient
    ) -> None:
        self._asked = asked
        self._service = service
        self._client = client
        encoded = base64.b64encode(pair.encode()).decode()
        self._headers = {"Authorization": f"Basic {encoded}"} if pair else {}

    async def ring(self, call: Call) -> Place:
        """Ask for the stream's URL; see `Line`."""
        business = {"businessId": self._asked.business_id}
        if self._service.socket:
            url = _with_query(self._service.socket, business)
        else:
            asked = {
                "CallSid": call.call_sid,
                "CallFrom": call.from_number,
                "CallTo": call.to_number,
                "Direction": "incoming",
                **business,
            }
            where = _with_query(self._service.ringing, asked)
            answer = await self._client.get(where, headers=self._headers)
            if answer.status_code != httpx.codes.OK:
                raise CallRefused(f"the request for a stream URL was answered {words_of(answer)}")
            url = stream_url_in(answer.content)
        # At the rate that the URL asks for.
        said = parse_qs(urlsplit(url).query).get("sample-rate", [""])[0]
        form = next((one for one in EXOTEL_FORMS if str(one.sample_rate) == said), EXOTEL_FORMS[0])
        return Place(url, self._headers, StreamTarget(url, {}, (Track.INBOUND,)), form)

    def script(self, call: Call, place: Place, caller: Caller, reached: Reached) -> Iterator[Cue]:
        """Give what Exotel sends."""
        return exotel_script(call, place.form, caller, self._asked.digits, reached)

    async def hang_up(self, call: Call, seconds: float) -> bool | None:
        """Tell nobody: Exotel's socket says it all."""
        return None


def _with_query(url: str, more: dict[str, str]) -> str:
    added = urlencode({name: value for name, value in more.items() if value})
    parts = urlsplit(url)
    query = "&".join(part for part in (parts.query, added) if part)
    return urlunsplit(parts._replace(query=query))
