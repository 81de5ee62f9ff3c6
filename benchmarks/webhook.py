"""Load on the voice webhook: signed requests on a schedule, or as many as are answered."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import httptools
from twilio.request_validator import RequestValidator

from app.errors import LocalError
from app.tools.caller import Call, new_call
from benchmarks.host import Service, Usage
from benchmarks.latency import Latencies

# Twilio gives a webhook 15 s.
ANSWER_SECONDS = 15.0
READ_BYTES = 65_536
OK = 200
NO_ANSWER = 0


class Webhook(Protocol):
    """Where calls are announced, and with whose token."""

    @property
    def url(self) -> str:
        """Give the service's public URL."""

    @property
    def auth_token(self) -> str:
        """Give the account's token."""

    @property
    def number(self) -> str:
        """Give a number that the service answers."""


@dataclass(frozen=True, slots=True)
class WebhookLoad:
    """What became of the requests after the warm-up.

    `welcomed` counts the 200s whose TwiML has a stream; `failed` the others than
    200 by status, 0 when no answer came. `late` is by how much the generator
    missed its own schedule; `latencies` hold that too.
    """

    rate: int
    requests: int
    welcomed: int
    failed: Counter[int]
    latencies: Latencies
    late: Latencies
    warnings: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and when, in seconds; `status` is 0 when nothing did."""

    status: int
    body: bytes
    latency: float
    late: float

    @property
    def welcomes(self) -> bool:
        """Tell whether the call may stream."""
        return self.status == OK and b"<Stream" in self.body


async def load_webhook(service: Service, *, rate: int, seconds: int, warm_up: int) -> WebhookLoad:
    """Send `rate` requests a second for `warm_up` and then `seconds` seconds.

    Every request is a call of its own and has its time beforehand; its latency
    runs from that time, so that a stall counts for all it held up.

    Raises:
        LocalError: not one of them was answered.
    """
    requests = signed_requests(service, rate * seconds)
    warming = signed_requests(service, rate * warm_up)
    callers = Callers(service.url)
    try:
        await send_on_schedule(callers, warming, rate)
        before = Usage.now(service)
        answers = await send_on_schedule(callers, requests, rate)
        usage = Usage.now(service).since(before)
    finally:
        callers.close()
    if all(answer.status == NO_ANSWER for answer in answers):
        raise LocalError("the webhook answered none of its requests")
    return WebhookLoad(
        rate=rate,
        requests=len(requests),
        welcomed=sum(answer.welcomes for answer in answers),
        failed=Counter(answer.status for answer in answers if answer.status != OK),
        latencies=Latencies.of([answer.latency for answer in answers]),
        late=Latencies.of([answer.late for answer in answers]),
        warnings=service.warnings(),
        usage=usage,
    )


async def send_on_schedule(
    callers: "Callers", requests: Sequence[bytes], rate: float
) -> list[Answer]:
    """Send `rate` requests a second, each in its time, whatever became of the others."""
    async with asyncio.TaskGroup() as tasks:
        begun = time.perf_counter()
        asked = []
        for number, request in enumerate(requests):
            due = begun + number / rate
            ahead = due - time.perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
            asked.append(tasks.create_task(_ask(callers, request, due)))
    return [task.result() for task in asked]


async def send_in_turn(
    callers: "Callers", requests: Sequence[bytes], *, connections: int, seconds: float
) -> list[Answer]:
    """Send over so many connections, each its next when it is answered, for so long."""
    waiting = iter(requests)
    until = time.perf_counter() + seconds
    answers = []

    async def talk() -> None:
        while (now := time.perf_counter()) < until and (request := next(waiting, None)):
            answers.append(await _ask(callers, request, now))

    await asyncio.gather(*(talk() for _ in range(connections)))
    return answers


async def _ask(callers: "Callers", request: bytes, due: float) -> Answer:
    # The loop's timers count in whole ms, so it may begin a little early.
    begun = time.perf_counter()
    counted_from = min(due, begun)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            status, body = await callers.ask(request)
    except (OSError, httptools.HttpParserError):
        # TimeoutError is an OSError.
        status, body = NO_ANSWER, b""
    latency = time.perf_counter() - counted_from
    return Answer(status, body, latency, late=begun - counted_from)


def signed_requests(service: Webhook, count: int) -> list[bytes]:
    """Write the webhook requests of calls that nobody has made before."""
    sign = RequestValidator(service.auth_token).compute_signature
    return [_request(service, sign, new_call(service.number)) for _ in range(count)]


def _request(service: Webhook, sign: Callable[[str, dict[str, str]], str], call: Call) -> bytes:
    url = f"{service.url}/twilio-voice"
    form = {
        "AccountSid": call.account_sid,
        "ApiVersion": "2010-04-01",
        "CallSid": call.call_sid,
        "CallStatus": "ringing",
        "Direction": "inbound",
        "From": call.from_number,
        "To": call.to_number,
    }
    body = urlencode(form).encode()
    signature = sign(url, form)
    head = (
        f"POST /twilio-voice HTTP/1.1\r\n"
        f"Host: {urlsplit(url).netloc}\r\n"
        f"X-Twilio-Signature: {signature}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Callers:
    """Keep-alive connections: an idle one takes the next request, else a new one does."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._idle: list[_Connection] = []

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; give the answer's status and body."""
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            answer = await connection.ask(request)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close every connection; call it when all have been answered."""
        for connection in self._idle:
            connection.close()

    async def _connect(self) -> "_Connection":
        return _Connection(*await asyncio.open_connection(self._url.hostname, self._url.port))


class _Connection:
    """One HTTP/1.1 connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and wait for its answer."""
        self._writer.write(request)
        content = _Content()
        parser = httptools.HttpResponseParser(content)
        while not content.complete:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise ConnectionResetError("closed before the answer was whole")
            parser.feed_data(data)
        return parser.get_status_code(), bytes(content.body)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


class _Content:
    """What httptools tells of an answer."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True
