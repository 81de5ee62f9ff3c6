"""Requests as a carrier makes them: no redirect followed, no proxy of ours, bounded answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
from twilio.request_validator import RequestValidator

MAX_ANSWER_BYTES = 64 * 1024
REQUEST_SECONDS = 5.0
SIGNATURE = "X-Twilio-Signature"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered; header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def error(self) -> str:
        """Give the word by which this service names an error; empty where it is another's."""
        return self._said("error")

    @property
    def detail(self) -> str:
        """Give this service's sentence about its error."""
        return self._said("detail")

    @property
    def content_type(self) -> str:
        """Give the media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def body(self) -> dict[str, Any]:
        """Give a JSON object; empty where it is none."""
        try:
            found = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _said(self, name: str) -> str:
        value = self.body().get(name, "")
        return value if isinstance(value, str) else ""


class Asker:
    """Ask a service over HTTP, in Twilio's name where `auth_token` is not empty.

    Every method raises httpx.HTTPError when no whole answer comes.
    """

    def __init__(self, client: httpx.AsyncClient, origin: str, auth_token: str) -> None:
        self._client = client
        self._origin = origin
        self._validator = RequestValidator(auth_token) if auth_token else None

    @property
    def signs(self) -> bool:
        """Tell whether requests are signed."""
        return self._validator is not None

    def signed(self, url: str, form: Mapping[str, str] | None = None) -> dict[str, str]:
        """Give the header that Twilio would send to this URL; none without a token."""
        if self._validator is None:
            return {}
        return {SIGNATURE: self._validator.compute_signature(url, dict(form or {}))}

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask for a path."""
        return await self._send("GET", path, headers=dict(headers or {}))

    async def post(self, path: str, form: Mapping[str, str]) -> Answer:
        """Post a form, signed as Twilio signs it."""
        headers = {"Content-Type": FORM, **self.signed(self._origin + path, form)}
        return await self._send("POST", path, headers=headers, content=urlencode(form))

    async def _send(self, method: str, path: str, **sent: Any) -> Answer:
        body = bytearray()
        try:
            async with self._client.stream(method, self._origin + path, **sent) as response:
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        break
        except httpx.InvalidURL as error:
            # httpx reads a redirect's Location, though it does not follow it.
            raise httpx.RemoteProtocolError(f"a Location that is no URL ({error})") from error
        text = bytes(body[:MAX_ANSWER_BYTES]).decode("utf-8", "replace")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, text)


def client(verify: Any) -> httpx.AsyncClient:
    """Make the client that an `Asker` asks with; `verify` is an SSL context."""
    return httpx.AsyncClient(
        verify=verify,
        timeout=REQUEST_SECONDS,
        follow_redirects=False,
        trust_env=False,
        # Compressed, a short answer could be a long one.
        headers={"Accept-Encoding": "identity"},
    )


def words_of(error: Exception) -> str:
    """Say what went wrong with a request."""
    return str(error) or type(error).__name__
