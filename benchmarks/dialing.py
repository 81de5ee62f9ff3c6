"""Calls placed on a service, as a carrier places them."""

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx
from twilio.request_validator import RequestValidator

from app.errors import LocalError
from app.media import Track
from app.tools.caller import Call, Carrier, StreamTarget
from app.wire import twilio
from benchmarks.host import Service
from benchmarks.line import TEXT, Line, client_frame, connect
from benchmarks.speech import Speech

DIALS_AT_ONCE = 10
LOCALHOST = "127.0.0.1"


async def dial(service: Service, speeches: Sequence[Speech]) -> list[Line]:
    """Place the calls: webhook and ticket where there are, socket, `connected` and `start`.

    Raises:
        LocalError: a call could not be placed.
    """
    carrier = Carrier(service.url, service.auth_token)
    few = asyncio.Semaphore(DIALS_AT_ONCE)

    async def place(client: httpx.AsyncClient, call: Call) -> Line:
        async with few:
            if service.media_url:
                target = StreamTarget(service.media_url, {}, (Track.INBOUND,))
            else:
                target = await carrier.ring(client, call)
            line = await _connect(service, target.url)
            line.write(client_frame(TEXT, twilio.connected_message().encode()))
            start = twilio.start_message(
                call.stream_sid,
                call.call_sid,
                account_sid=call.account_sid,
                tracks=target.tracks,
                params=target.parameters,
            )
            line.write(client_frame(TEXT, start.encode()))
        return line

    try:
        async with httpx.AsyncClient() as client:
            return await asyncio.gather(*(place(client, speech.call) for speech in speeches))
    except httpx.HTTPError as error:
        raise LocalError(f"a call could not be placed: {error!r}") from error


async def connect_media(service: Service, source: str) -> Line:
    """Open a media socket for which no webhook was asked, from a loopback address.

    Raises:
        LocalError: it was refused.
    """
    url = service.media_url or service.url.replace("http", "ws", 1) + "/twilio-media"
    return await _connect(service, url, source)


async def _connect(service: Service, url: str, source: str = LOCALHOST) -> Line:
    parts = urlsplit(url)
    headers = {}
    if service.auth_token:
        sign = RequestValidator(service.auth_token).compute_signature
        headers["X-Twilio-Signature"] = sign(url, {})
    return await connect(parts.hostname or "", parts.port or 80, parts.path, headers, source=source)
