"""Whether a WebSocket opens, and if not, who is in its way."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
)

from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import Finding, skipped, well
from app.tools.doctor.address import Address
from app.tools.doctor.asking import Answer, Asker

TWILIO_MEDIA = "/twilio-media"
INGEST = "/v1/ingest"
OPEN_SECONDS = 5.0
# From a ping to its pong, over any network.
PONG_SECONDS = 3.0


class _Directly(connect):
    """A connection that follows no redirect, as Twilio's does not."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Take a redirect for what it is here: a refusal."""
        return exc


@asynccontextmanager
async def opened(
    url: str, context: ssl.SSLContext, headers: Mapping[str, str]
) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket as a carrier does; raises what `websockets` raises."""
    more: dict[str, Any] = {"ssl": context} if url.startswith("wss:") else {}
    async with _Directly(
        url,
        additional_headers=headers,
        compression=None,
        proxy=None,
        open_timeout=OPEN_SECONDS,
        ping_interval=None,
        close_timeout=1.0,
        **more,
    ) as socket:
        yield socket


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What became of a handshake: `answer` where it was answered, else why not."""

    answer: Answer | None = None
    why: str = ""
    # A 101 whose key does not fit, or that is no HTTP/1.1.
    is_garbled: bool = False
    is_silent: bool = False

    @property
    def is_open(self) -> bool:
        """Tell whether a WebSocket stands, and messages pass."""
        return self.answer is None and not (self.why or self.is_garbled or self.is_silent)


async def try_upgrade(url: str, context: ssl.SSLContext, headers: Mapping[str, str]) -> Upgraded:
    """Open a WebSocket, send a ping, and close it."""
    try:
        async with opened(url, context, headers) as socket:
            try:
                async with asyncio.timeout(PONG_SECONDS):
                    await (await socket.ping())
            except TimeoutError:
                socket.transport.abort()
                return Upgraded(is_silent=True)
            except ConnectionClosed as closed:
                return Upgraded(why=f"it opens and is closed at once: {closed}")
            return Upgraded()
    except InvalidStatus as refused:
        response = refused.response
        text = (response.body or b"")[:4096].decode("utf-8", "replace")
        shown = {name.lower(): value for name, value in response.headers.raw_items()}
        return Upgraded(Answer(response.status_code, shown, text))
    except InvalidMessage:
        return Upgraded(why="the connection ends without an answer")
    except InvalidHandshake as error:
        return Upgraded(why=str(error), is_garbled=True)
    except TimeoutError:
        return Upgraded(why="no answer comes")
    except OSError as error:
        return Upgraded(why=error.strerror or type(error).__name__)


@dataclass(frozen=True, slots=True)
class UpgradeChecks:
    """The checks of the two WebSocket paths; `exotel_pair` is `KEY:TOKEN`, or empty."""

    address: Address
    asker: Asker
    context: ssl.SSLContext
    exotel_pair: str
    exotel_wanted: bool

    async def twilio(self) -> Sequence[Finding]:
        """Open `/twilio-media` as Twilio does."""
        url = self.address.ws_origin + TWILIO_MEDIA
        tried = await try_upgrade(url, self.context, self.asker.signed(url))
        return [twilio_finding(tried, is_signed=self.asker.signs)]

    async def ingest(self) -> Sequence[Finding]:
        """Open `/v1/ingest` as Exotel does."""
        headers = {}
        if self.exotel_pair:
            encoded = base64.b64encode(self.exotel_pair.encode()).decode()
            headers["Authorization"] = f"Basic {encoded}"
        tried = await try_upgrade(self.address.ws_origin + INGEST, self.context, headers)
        return [ingest_finding(tried, is_wanted=self.exotel_wanted or bool(self.exotel_pair))]


def twilio_finding(tried: Upgraded, *, is_signed: bool) -> Finding:
    """Judge what `/twilio-media` answered."""
    error = tried.answer.error if tried.answer else ""
    if error == "signature_missing" and not is_signed:
        return well(
            "twilio_socket", "The upgrade arrives; unsigned, it is refused as it should be."
        )
    if error == "signature_missing":
        return CAUSES["signature_stripped"].finding("The upgrade arrives without its signature.")
    return _upgrade_finding(tried, TWILIO_MEDIA)


def ingest_finding(tried: Upgraded, *, is_wanted: bool) -> Finding:
    """Judge what `/v1/ingest` answered; `is_wanted` tells that Exotel is to be served."""
    error = tried.answer.error if tried.answer else ""
    match error:
        case "exotel_not_supported" if is_wanted:
            said = "Exotel's connection is answered 401: SUPPORT_EXOTEL is not true there."
            return CAUSES["ingest_exotel_off"].finding(said)
        case "exotel_not_supported":
            said = "The upgrade arrives. Exotel is not served there (SUPPORT_EXOTEL is not true)."
            return skipped("ingest_socket", said)
        case "credentials_invalid":
            said = "Exotel's credentials are answered 401."
            return CAUSES["ingest_credentials"].finding(said)
        case "credentials_missing":
            said = "The upgrade arrives; without credentials it is refused as it should be."
            return well("ingest_socket", said)
    found = _upgrade_finding(tried, INGEST)
    if not found.cause:
        return well("ingest_socket", found.found)
    return CAUSES["ingest_upgrade_failed"].finding(f"{found.found} {found.why}")


def _upgrade_finding(tried: Upgraded, path: str) -> Finding:
    """Say who is in the way of an upgrade; the causes are of Twilio's path."""
    if tried.is_open:
        return well("twilio_socket", f"A WebSocket opens at {path} (101), and messages pass.")
    if tried.is_silent:
        said = f"A WebSocket opens at {path}, and a ping is not answered."
        return CAUSES["socket_holds_messages"].finding(said)
    if tried.is_garbled:
        said = f"GET {path} is answered by what is no WebSocket: {tried.why}."
        return CAUSES["socket_garbled"].finding(said)
    answer = tried.answer
    if answer is None:
        said = f"GET {path} with Upgrade: {tried.why}."
        return CAUSES["socket_refused"].finding(said, path=path, status="with nothing")
    said = f"GET {path} is answered {answer.status} instead of 101."
    if answer.error == "upgrade_required" or answer.status in (400, 426):
        return CAUSES["upgrade_stripped"].finding(said)
    if 300 <= answer.status < 400:
        where = answer.headers.get("location", "")[:200]
        return CAUSES["socket_redirects"].finding(said, path=path, where=where or "nowhere")
    if answer.error and answer.error != "not_found":
        said = f"{said[:-1]} ({answer.error}: {answer.detail[:160]})."
    elif answer.status in (200, 404, 405, 501):
        return CAUSES["socket_wrong_path"].finding(said, path=path)
    return CAUSES["socket_refused"].finding(said, path=path, status=answer.status)
