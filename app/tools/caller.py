"""A carrier for trying things: calls the webhook as Twilio does, and streams speech.

It knows the service only from outside: HTTP, TwiML and a WebSocket.
"""

import asyncio
import secrets
import time
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode
from xml.etree import ElementTree

import httpx
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import connect

from app.audio import pcm16_to_mulaw
from app.errors import CallRefused, CaptureError
from app.media import Track
from app.wire import twilio

FRAME_MS = 20
FRAME_BYTES = 160
SPEECH = Path(__file__).with_name("speech.wav")
ANSWER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class StreamTarget:
    """Where TwiML sends a call's audio, and the parameters it gives along.

    With `is_two_way` it is a `<Connect>` stream: of others Twilio sends no digits.
    """

    url: str
    parameters: dict[str, str]
    tracks: tuple[Track, ...]
    is_two_way: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a made-up caller: ids of Twilio's form, and its two numbers."""

    call_sid: str
    stream_sid: str
    account_sid: str
    from_number: str
    to_number: str


def new_call(to_number: str, from_number: str = "+15005550009") -> Call:
    """Make up a call that nobody has made before."""
    hexes = [secrets.token_hex(16) for _ in range(3)]
    return Call("CA" + hexes[0], "MZ" + hexes[1], "AC" + hexes[2], from_number, to_number)


def speech_frames(path: Path = SPEECH) -> list[bytes]:
    """Read a recording (8 kHz, mono, PCM16 WAV) as mu-law frames of 20 ms.

    Raises:
        CaptureError: it is not such a recording.
    """
    try:
        with wave.open(str(path)) as recording:
            form = (recording.getframerate(), recording.getnchannels(), recording.getsampwidth())
            audio = recording.readframes(recording.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise CaptureError(f"{path} cannot be read: {error}") from error
    if form != (8000, 1, 2):
        raise CaptureError(f"{path} must be 8 kHz, mono, 16 bit")
    encoded = pcm16_to_mulaw(audio)
    whole = len(encoded) - len(encoded) % FRAME_BYTES
    return [encoded[at : at + FRAME_BYTES] for at in range(0, whole, FRAME_BYTES)]


class Carrier:
    """Place calls on a service, signed with an account's token.

    `public_url` is the service's own PUBLIC_URL: what is signed. An empty
    `auth_token` signs nothing.
    """

    def __init__(self, public_url: str, auth_token: str) -> None:
        self._public_url = public_url
        self._validator = RequestValidator(auth_token) if auth_token else None

    async def ring(
        self, client: httpx.AsyncClient, call: Call, business_id: str = ""
    ) -> StreamTarget:
        """Call the voice webhook, and read the TwiML it answers with.

        With `business_id` it is the webhook URL of that business.

        Raises:
            CallRefused: the answer has no stream.
            httpx.HTTPError: there is no answer.
        """
        of_business = f"?{urlencode({'businessId': business_id})}" if business_id else ""
        url = f"{self._public_url}/twilio-voice{of_business}"
        answer = await self.post(client, url, call, "ringing")
        if answer.status_code != httpx.codes.OK:
            raise CallRefused(f"the webhook answered {answer.status_code}: {answer.text[:500]}")
        return parse_twiml(answer.text)

    async def post(
        self,
        client: httpx.AsyncClient,
        url: str,
        call: Call,
        status: str,
        **more: str,
    ) -> httpx.Response:
        """Tell a webhook or a callback of a call's status, signed, with `more` fields.

        Raises:
            httpx.HTTPError: there is no answer.
        """
        form = {
            "AccountSid": call.account_sid,
            "ApiVersion": "2010-04-01",
            "CallSid": call.call_sid,
            "CallStatus": status,
            "CallerZip": "",
            "Direction": "inbound",
            "From": call.from_number,
            "To": call.to_number,
            **more,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        headers |= self.signed(url, form)
        return await client.post(url, content=urlencode(form), headers=headers)

    async def stream(
        self,
        call: Call,
        target: StreamTarget,
        frames: Sequence[bytes],
        *,
        pace: float = 1.0,
        on_frame: Callable[[int], None] = lambda sent: None,
    ) -> None:
        """Send frames as Twilio does: `pace` 1 is real time, 0 as fast as it goes."""
        headers = self.signed(target.url)
        async with connect(target.url, additional_headers=headers, compression=None) as socket:
            started = time.monotonic()
            for sent, message in enumerate(_messages(call, target, frames)):
                await socket.send(message)
                on_frame(sent)
                due = sent / len(target.tracks) * FRAME_MS / 1000 * pace
                ahead = started + due - time.monotonic()
                if ahead > 0:
                    await asyncio.sleep(ahead)
            async with asyncio.timeout(ANSWER_SECONDS):
                await socket.wait_closed()

    def signed(self, url: str, form: Mapping[str, str] | None = None) -> dict[str, str]:
        """Give the header that signs a form, or without one a handshake; none without a token."""
        signature = self.signature(url, form)
        return {"X-Twilio-Signature": signature} if signature else {}

    def signature(self, url: str, form: Mapping[str, str] | None = None) -> str:
        """Sign a form, or without one a handshake; empty without a token."""
        if self._validator is None:
            return ""
        return str(self._validator.compute_signature(url, dict(form or {})))


def parse_twiml(document: str) -> StreamTarget:
    """Find the stream in a TwiML document.

    Raises:
        CallRefused: there is none, or it is no XML.
    """
    try:
        answer = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise CallRefused(f"the webhook's answer is no TwiML: {error}") from error
    stream = answer.find(".//Stream")
    if stream is None:
        said = " ".join(words.text or "" for words in answer.iter("Say"))
        raise CallRefused(f"the caller hears {said or 'the busy tone'!r}, and nothing is streamed")
    both = stream.get("track") == "both_tracks"
    return StreamTarget(
        stream.get("url", ""),
        {item.get("name", ""): item.get("value", "") for item in stream.iter("Parameter")},
        tuple(Track) if both else (Track.INBOUND,),
        is_two_way=answer.find(".//Connect/Stream") is not None,
    )


def _messages(call: Call, target: StreamTarget, frames: Sequence[bytes]) -> Iterator[str]:
    yield twilio.connected_message()
    yield twilio.start_message(
        call.stream_sid,
        call.call_sid,
        account_sid=call.account_sid,
        tracks=target.tracks,
        params=target.parameters,
    )
    seq = 1
    for chunk, frame in enumerate(frames, 1):
        for track in target.tracks:
            seq += 1
            yield twilio.media_message(
                call.stream_sid,
                frame,
                seq=seq,
                chunk=chunk,
                timestamp=(chunk - 1) * FRAME_MS,
                track=track,
            )
    yield twilio.stop_message(
        call.stream_sid, call.call_sid, seq=seq + 1, account_sid=call.account_sid
    )
