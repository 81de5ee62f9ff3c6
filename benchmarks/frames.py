"""Load of live calls: media in real time, and a reader at the other end of Redis."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from redis.asyncio import Redis
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from app.errors import LocalError
from app.pubsub.base import audio_key, record_key
from app.tools.caller import FRAME_MS, Call, Carrier, new_call, speech_frames
from app.wire import twilio
from benchmarks.host import Service, Usage
from benchmarks.latency import Latencies

FRAME_SECONDS = FRAME_MS / 1000
FIRST_SEQ = 2  # `start` has 1
DIALS_AT_ONCE = 10
SETTLE_SECONDS = 0.5
END_SECONDS = 15.0
BLOCK_MS = 500
READ_COUNT = 1000


@dataclass(frozen=True, slots=True)
class FramesLoad:
    """What became of the frames.

    `latencies` run from a frame's write to the socket to the reply that brought
    it to the reader. `foreign` entries have a number that was never sent. `late`
    is by how much the generator missed its own schedule. `receipts` are summed
    over the calls; `max_lag_ms` is the longest of any.
    """

    calls: int
    due: int
    sent: int
    readable: int
    duplicated: int
    reordered: int
    foreign: int
    latencies: Latencies
    late: Latencies
    receipts: Counter[str]
    receipts_missing: int
    max_lag_ms: int
    warnings: int
    usage: Usage

    @property
    def lost(self) -> int:
        """Count the frames that were sent and never became readable."""
        return self.sent - self.readable


@dataclass(slots=True)
class Line:
    """One live call: its socket, what it will say, and when it said each frame."""

    call: Call
    socket: ClientConnection
    frames: list[bytes]
    stop: str
    sent_at: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)


class Reader:
    """Follow the audio of all streams over one connection, and note when each frame came."""

    def __init__(self, redis_url: str, streams: Sequence[str]) -> None:
        self._redis_url = redis_url
        self._from: dict[Any, Any] = {audio_key(stream).encode(): "0" for stream in streams}
        self.arrivals: dict[str, list[tuple[int, float]]] = {stream: [] for stream in streams}
        self._stream_of = {audio_key(stream).encode(): stream for stream in streams}

    async def run(self) -> None:
        """Read until every stream has ended."""
        # A blocking read needs a longer time-out than its block.
        async with Redis.from_url(self._redis_url, protocol=2, socket_timeout=5) as client:
            while self._from:
                answer: Any = await client.xread(self._from, READ_COUNT, BLOCK_MS)
                now = time.perf_counter()
                for key, entries in answer or ():
                    self._take(key, entries, now)

    def _take(
        self, key: bytes, entries: list[tuple[bytes, dict[bytes, bytes]]], now: float
    ) -> None:
        arrivals = self.arrivals[self._stream_of[key]]
        self._from[key] = entries[-1][0]
        for _, fields in entries:
            event = fields.get(b"event")
            if event is None:
                arrivals.append((int(fields[b"seq"]), now))
            elif event == b"end":
                del self._from[key]


async def load_frames(service: Service, *, calls: int, seconds: int) -> FramesLoad:
    """Hold `calls` calls for `seconds` of audio each, spread evenly over a frame's time.

    CPU is counted while all of them speak: without their beginnings and ends.

    Raises:
        LocalError: a call could not be placed, or none could speak.
    """
    lines = await _dial(service, calls, round(seconds / FRAME_SECONDS))
    reader = Reader(service.redis_url, [line.call.stream_sid for line in lines])
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(reader.run())
        # What the calls' beginnings left to do is not the frames' cost.
        await asyncio.sleep(SETTLE_SECONDS)
        before = Usage.now(service)
        begin = time.perf_counter() + FRAME_SECONDS
        await asyncio.gather(
            *(
                _speak(line, begin + FRAME_SECONDS * place / calls)
                for place, line in enumerate(lines)
            )
        )
        usage = Usage.now(service).since(before)
        await asyncio.gather(*(_hang_up(line) for line in lines))
        await asyncio.wait([reading], timeout=END_SECONDS)
        reading.cancel()
    if not any(line.sent_at for line in lines):
        raise LocalError("the service took none of the frames")
    receipts = await _receipts(service.redis_url, lines)
    return _summed_up(lines, reader, receipts, service.warnings(), usage)


# ---------------------------------------------------------------------- the calls


async def _dial(service: Service, calls: int, frames: int) -> list[Line]:
    """Place the calls: webhook, ticket, socket, `connected` and `start`."""
    carrier = Carrier(service.url, service.auth_token)
    sign = RequestValidator(service.auth_token).compute_signature
    speech = speech_frames()
    few = asyncio.Semaphore(DIALS_AT_ONCE)

    async def dial(client: httpx.AsyncClient) -> Line:
        call = new_call(service.number)
        async with few:
            target = await carrier.ring(client, call)
            headers = {"X-Twilio-Signature": sign(target.url, {})}
            socket = await connect(target.url, additional_headers=headers, compression=None)
            await socket.send(twilio.connected_message())
            start = twilio.start_message(
                call.stream_sid,
                call.call_sid,
                account_sid=call.account_sid,
                tracks=target.tracks,
                params=target.parameters,
            )
            await socket.send(start)
        stop = twilio.stop_message(call.stream_sid, call.call_sid, seq=FIRST_SEQ + frames)
        return Line(call, socket, _messages(call, speech, frames), stop)

    try:
        async with httpx.AsyncClient() as client:
            return await asyncio.gather(*(dial(client) for _ in range(calls)))
    except (httpx.HTTPError, WebSocketException, OSError) as error:
        raise LocalError(f"a call could not be placed: {error!r}") from error


def _messages(call: Call, speech: Sequence[bytes], frames: int) -> list[bytes]:
    payloads = itertools.islice(itertools.cycle(speech), frames)
    return [
        twilio.media_message(
            call.stream_sid,
            payload,
            seq=FIRST_SEQ + number,
            chunk=1 + number,
            timestamp=number * FRAME_MS,
        ).encode()
        for number, payload in enumerate(payloads)
    ]


async def _speak(line: Line, begin: float) -> None:
    for number, message in enumerate(line.frames):
        due = begin + number * FRAME_SECONDS
        ahead = due - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        written = time.perf_counter()
        try:
            await line.socket.send(message, text=True)
        except ConnectionClosed:
            return
        line.sent_at.append(written)
        line.late.append(max(0.0, written - due))


async def _hang_up(line: Line) -> None:
    try:
        async with asyncio.timeout(END_SECONDS):
            await line.socket.send(line.stop)
            await line.socket.wait_closed()
    except (ConnectionClosed, TimeoutError):
        # The missing receipt will tell.
        return


# -------------------------------------------------------------------- the results


async def _receipts(redis_url: str, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Fetch the receipts, those that come in time."""
    found: dict[str, dict[str, Any]] = {}
    deadline = time.perf_counter() + END_SECONDS
    async with Redis.from_url(redis_url, protocol=2) as client:
        while len(found) < len(lines) and time.perf_counter() < deadline:
            for line in lines:
                stream = line.call.stream_sid
                if stream not in found:
                    receipt: Any = await client.hget(record_key(stream), "receipt")
                    if receipt is not None:
                        found[stream] = json.loads(receipt)
            await asyncio.sleep(0.1)
    return list(found.values())


def _summed_up(
    lines: Sequence[Line],
    reader: Reader,
    receipts: Sequence[dict[str, Any]],
    warnings: int,
    usage: Usage,
) -> FramesLoad:
    latencies: list[float] = []
    duplicated = reordered = foreign = 0
    for line in lines:
        seen: set[int] = set()
        newest = 0
        for seq, readable_at in reader.arrivals[line.call.stream_sid]:
            place = seq - FIRST_SEQ
            if not 0 <= place < len(line.sent_at):
                foreign += 1
                continue
            if seq in seen:
                duplicated += 1
                continue
            seen.add(seq)
            reordered += seq < newest
            newest = max(newest, seq)
            latencies.append(readable_at - line.sent_at[place])
    totals: Counter[str] = Counter()
    for receipt in receipts:
        for name in ("received", "published", "duplicates", "carrier_gaps", "seq_resets"):
            totals[name] += receipt[name]
        for name in ("dropped", "rejected"):
            totals[name] += sum(receipt[name].values())
    return FramesLoad(
        calls=len(lines),
        due=sum(len(line.frames) for line in lines),
        sent=sum(len(line.sent_at) for line in lines),
        readable=len(latencies),
        duplicated=duplicated,
        reordered=reordered,
        foreign=foreign,
        latencies=Latencies.of(latencies),
        late=Latencies.of([late for line in lines for late in line.late]),
        receipts=totals,
        receipts_missing=len(lines) - len(receipts),
        max_lag_ms=max((receipt["max_lag_ms"] for receipt in receipts), default=0),
        warnings=warnings,
        usage=usage,
    )
