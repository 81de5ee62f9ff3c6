"""A carrier that plays what it is sent: in real time, with a buffer, marks and `clear`.

It reads each message as strictly as the vendors' pages write it.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from app.audio import pcm16_to_mulaw
from app.media import Encoding, MediaFormat
from app.wire import exotel, twilio
from tests.waiting import WAIT_SECONDS, until

TWILIO_FORMAT = MediaFormat(Encoding.MULAW, 8000)


def read_strictly(message: str | bytes, id_name: str, stream_sid: str) -> tuple[str, Any]:
    """Read a message to a carrier; give its event, and its audio or its mark's name.

    "Extra/missing fields, unknown event, wrong streamSid": Twilio's warning 31951; "Do not
    use binary format": 31950.
    """
    assert isinstance(message, str)
    fields = json.loads(message)
    event = fields.pop("event")
    assert fields.pop(id_name) == stream_sid
    if event == "clear":
        assert fields == {}
        return event, None
    body = fields.pop(event)
    assert fields == {}
    [(name, value)] = body.items()
    if event == "media":
        assert name == "payload"
        return event, base64.b64decode(value, validate=True)
    assert (event, name) == ("mark", "name")
    return event, value


@dataclass
class Listener:
    """The far end of a stream that is spoken into."""

    socket: ClientConnection
    stream_sid: str
    format: MediaFormat = TWILIO_FORMAT
    sent: bytes = b""
    messages: list[tuple[float, str, Any]] = field(default_factory=list)
    echoes: bool = True
    is_closed: asyncio.Event = field(default_factory=asyncio.Event)
    _played_until: float = 0.0
    _marks: list[tuple[float, str]] = field(default_factory=list)
    _seq: int = 1000
    _spoken: int = 0
    _spoken_ms: int = 0

    @property
    def is_twilio(self) -> bool:
        return self.stream_sid.startswith("MZ")

    def of(self, event: str) -> list[Any]:
        """Give what came in messages of one kind."""
        return [value for _, name, value in self.messages if name == event]

    async def speak(self, pcm16: bytes) -> None:
        """Say something into the call (8 kHz), as fast as it goes."""
        audio = pcm16_to_mulaw(pcm16) if self.is_twilio else pcm16
        frame = self.format.bytes_per_second // (50 if self.is_twilio else 10)
        for at in range(0, len(audio), frame):
            self._seq, self._spoken = self._seq + 1, self._spoken + 1
            payload = audio[at : at + frame]
            place = {"seq": self._seq, "chunk": self._spoken, "timestamp": self._spoken_ms}
            self._spoken_ms += round(self.format.duration_ms(len(payload)))
            kind = twilio if self.is_twilio else exotel
            await self.socket.send(kind.media_message(self.stream_sid, payload, **place))

    async def press(self, digit: str) -> None:
        """Press a key."""
        self._seq += 1
        kind = twilio if self.is_twilio else exotel
        await self.socket.send(kind.dtmf_message(self.stream_sid, digit, seq=self._seq))

    async def heard(self, audio: bytes) -> None:
        """Wait until at least so much has come."""
        await until(lambda: len(self.sent) >= len(audio), lambda: len(self.sent))

    async def closed(self) -> tuple[int, str]:
        """Wait for the service's close."""
        await asyncio.wait_for(self.is_closed.wait(), WAIT_SECONDS)
        return self.socket.close_code or 0, self.socket.close_reason or ""

    async def run(self) -> None:
        reading = asyncio.create_task(self._read())
        echoing = asyncio.create_task(self._echo())
        try:
            await asyncio.gather(reading, echoing)
        finally:
            reading.cancel()
            echoing.cancel()

    async def _read(self) -> None:
        now = asyncio.get_running_loop().time
        id_name = "streamSid" if self.is_twilio else "stream_sid"
        with suppress(ConnectionClosed):
            while True:
                event, value = read_strictly(await self.socket.recv(), id_name, self.stream_sid)
                self.messages.append((now(), event, value))
                if event == "media":
                    self.sent += value
                    seconds = self.format.duration_ms(len(value)) / 1000
                    self._played_until = max(now(), self._played_until) + seconds
                elif event == "mark":
                    self._marks.append((self._played_until, value))
                else:
                    # "empties the audio buffer and sends back mark messages matching any
                    # remaining marks"
                    self._played_until = now()
                    self._marks = [(now(), name) for _, name in self._marks]
        self.is_closed.set()

    async def _echo(self) -> None:
        while not self.is_closed.is_set():
            now = asyncio.get_running_loop().time()
            due = [name for at, name in self._marks if at <= now]
            self._marks = [(at, name) for at, name in self._marks if at > now]
            for name in due if self.echoes else ():
                self._seq += 1
                kind = twilio if self.is_twilio else exotel
                with suppress(ConnectionClosed):
                    await self.socket.send(kind.mark_message(self.stream_sid, name, seq=self._seq))
            await asyncio.sleep(0.005)


@asynccontextmanager
async def listening(
    socket: ClientConnection, stream_sid: str, audio: MediaFormat = TWILIO_FORMAT
) -> AsyncIterator[Listener]:
    """Play what comes over a socket until the block ends."""
    listener = Listener(socket, stream_sid, audio)
    running = asyncio.create_task(listener.run())
    try:
        yield listener
    finally:
        running.cancel()
        found = await asyncio.gather(running, return_exceptions=True)
        failed = [one for one in found if isinstance(one, AssertionError)]
        assert not failed, failed
