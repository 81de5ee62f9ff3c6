"""Live calls that speak in real time, each frame with a content of its own."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.media import Track
from app.tools.caller import FRAME_BYTES, FRAME_MS, Call, Carrier, StreamTarget, new_call
from app.wire import twilio
from tests.businesses import business, plan
from tests.service import TOKEN, Service, http_client, signature

FRAME_SECONDS = FRAME_MS / 1000
FRAMES_PER_SECOND = 50
FIRST_SEQ = 2  # `start` has 1
DIALS_AT_ONCE = 10
END_SECONDS = 30.0
# A generator this busy sends late, and is measured instead of the service.
BUSY = 0.85
NUMBER = "+15005550006"
FORWARDED_NUMBER = "+15005550003"
BUSINESSES = (
    plan("large", max_concurrent_calls=100_000, tracks="inbound")
    + plan("large-both", max_concurrent_calls=100_000, tracks="both")
    + business("listening", "large", NUMBER)
    + business("forwarding", "large-both", FORWARDED_NUMBER, forward_to="+14155550199")
)


def payload_of(seed: int, caller: int, frame: int) -> bytes:
    """Make one frame's mu-law audio: no other frame of the run has the same."""
    return hashlib.shake_128(f"{seed}/{caller}/{frame}".encode()).digest(FRAME_BYTES)


@dataclass(slots=True)
class Caller:
    """One live call, and how much of it was put on its socket.

    `closed_early` is the close code that the service sent before it was told
    to stop; None as long as it sent none.
    """

    seed: int
    number: int
    call: Call
    tracks: tuple[Track, ...]
    socket: ClientConnection
    sent: int = 0
    stopped: bool = False
    closed_early: int | None = None
    late: list[float] = field(default_factory=list)

    @property
    def stream(self) -> str:
        """Give the stream's SID."""
        return self.call.stream_sid

    def track_of(self, frame: int) -> Track:
        """Tell whose audio a frame is; two tracks take turns."""
        return self.tracks[frame % len(self.tracks)]

    def ts_of(self, frame: int) -> int:
        """Tell a frame's media time in ms."""
        return frame // len(self.tracks) * FRAME_MS

    def payload(self, frame: int) -> bytes:
        """Give a frame's audio, as it was or would be sent."""
        return payload_of(self.seed, self.number, frame)

    async def speak(self, begin: float, ending: asyncio.Event) -> None:
        """Send frames from `begin` on, each when it is due, until `ending`."""
        while not ending.is_set():
            due = begin + self.ts_of(self.sent) / 1000
            ahead = due - time.perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
            self.late.append(max(0.0, time.perf_counter() - due))
            frame = self.sent
            message = twilio.media_message(
                self.stream,
                self.payload(frame),
                seq=FIRST_SEQ + frame,
                chunk=1 + frame // len(self.tracks),
                timestamp=self.ts_of(frame),
                track=self.track_of(frame),
            )
            try:
                await self.socket.send(message)
            except ConnectionClosed:
                self.closed_early = self.socket.close_code or 0
                return
            self.sent += 1

    async def hang_up(self) -> None:
        """Send `stop`, and wait for the service's close."""
        if self.closed_early is not None or self.stopped:
            return
        self.stopped = True
        stop = twilio.stop_message(self.stream, self.call.call_sid, seq=FIRST_SEQ + self.sent)
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.socket.send(stop)
                await self.socket.wait_closed()
        except ConnectionClosed:
            self.closed_early = self.socket.close_code or 0


class Load:
    """Calls that speak side by side, spread evenly over a frame's time."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self.callers = callers
        self._endings = [asyncio.Event() for _ in callers]
        begin = time.perf_counter() + FRAME_SECONDS
        self._cpu = time.process_time()
        self._since = time.perf_counter()
        self._speaking = [
            asyncio.create_task(
                caller.speak(begin + FRAME_SECONDS * place / len(callers), self._endings[place])
            )
            for place, caller in enumerate(callers)
        ]
        self.busy = 0.0

    @property
    def streams(self) -> list[str]:
        """Give the SIDs of all streams."""
        return [caller.stream for caller in self.callers]

    @property
    def sent(self) -> int:
        """Count the frames sent so far."""
        return sum(caller.sent for caller in self.callers)

    @property
    def frames_per_second(self) -> int:
        """Tell how many frames a second all callers send."""
        return sum(FRAMES_PER_SECOND * len(caller.tracks) for caller in self.callers)

    @property
    def closed_early(self) -> list[Caller]:
        """Give the calls that the service closed before they hung up."""
        return [caller for caller in self.callers if caller.closed_early is not None]

    @property
    def late_p99(self) -> float:
        """Tell by how many seconds frames were sent late, at the 99th percentile."""
        late = sorted(value for caller in self.callers for value in caller.late)
        return late[int(len(late) * 0.99)] if late else 0.0

    @property
    def caution(self) -> str:
        """Say so when the generator was too busy to keep its pace; else nothing."""
        if self.busy <= BUSY:
            return ""
        return f"the generator's core was {self.busy:.0%} busy: the generator was the limit"

    async def hang_up(self, callers: Sequence[Caller] | None = None) -> None:
        """End calls as callers do: all, or these."""
        chosen = self.callers if callers is None else callers
        places = [place for place, caller in enumerate(self.callers) if caller in chosen]
        for place in places:
            self._endings[place].set()
        await asyncio.gather(*(self._speaking[place] for place in places))
        if callers is None:
            elapsed = time.perf_counter() - self._since
            self.busy = (time.process_time() - self._cpu) / elapsed
        await asyncio.gather(*(caller.hang_up() for caller in chosen))

    async def wait_until_closed(self) -> None:
        """Wait until the service has closed every call."""
        await asyncio.gather(*self._speaking)

    async def close(self) -> None:
        """Let go of every socket."""
        for task in self._speaking:
            task.cancel()
        await asyncio.gather(*self._speaking, return_exceptions=True)
        await asyncio.gather(
            *(caller.socket.close() for caller in self.callers), return_exceptions=True
        )


@asynccontextmanager
async def live_calls(
    service: Service, calls: int, *, seed: int, both: bool = False
) -> AsyncIterator[Load]:
    """Place calls by webhook, ticket and socket; they speak until they are hung up."""
    callers = await _dial(service, calls, seed, FORWARDED_NUMBER if both else NUMBER)
    load = Load(callers)
    try:
        yield load
    finally:
        await load.close()


async def _dial(service: Service, calls: int, seed: int, number: str) -> list[Caller]:
    carrier = Carrier(service.url, TOKEN)
    few = asyncio.Semaphore(DIALS_AT_ONCE)

    async def dial(client: httpx.AsyncClient, place: int) -> Caller:
        call = new_call(number)
        async with few:
            target = await carrier.ring(client, call)
            socket = await open_stream(call, target)
        return Caller(seed, place, call, target.tracks, socket)

    async with http_client() as client:
        return await asyncio.gather(*(dial(client, place) for place in range(calls)))


async def open_stream(call: Call, target: StreamTarget) -> ClientConnection:
    """Open the media socket of a call that was rung, and send its `start`."""
    headers = {"X-Twilio-Signature": signature(target.url)}
    # A carrier sends no pings of its own.
    socket = await connect(
        target.url, additional_headers=headers, compression=None, ping_interval=None
    )
    await socket.send(twilio.connected_message())
    await socket.send(
        twilio.start_message(
            call.stream_sid,
            call.call_sid,
            account_sid=call.account_sid,
            tracks=target.tracks,
            params=target.parameters,
        )
    )
    return socket
