"""A stand-in for Twilio's REST API, which answers as it is told to."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs

ENDED = json.dumps({"sid": "CA", "status": "completed"}).encode()


@dataclass(frozen=True)
class Answer:
    """An answer after `delay` seconds, its body's bytes `drip` seconds apart.

    Without a status it is a connection that is reset.
    """

    status: int = 200
    body: bytes = ENDED
    headers: tuple[str, ...] = ()
    delay: float = 0.0
    drip: float = 0.0


def problem(status: int, code: int, *headers: str) -> Answer:
    """Make an error as Twilio writes it."""
    body = json.dumps({"code": code, "message": "no", "status": status}).encode()
    return Answer(status, body, headers)


RESET = Answer(0)


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    form: dict[str, list[str]]

    @property
    def credentials(self) -> str:
        scheme, _, encoded = self.headers["authorization"].partition(" ")
        assert scheme == "Basic"
        return base64.b64decode(encoded).decode()


@dataclass
class StandIn:
    """Answers in turn; the last one for ever after, and all while `gate` is open.

    `most` counts requests at a time.
    """

    answers: list[Answer]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.asked.append(Asked(method, path, headers, parse_qs(body.decode())))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
            await asyncio.sleep(answer.delay)
        finally:
            self.under_way -= 1
        if not answer.status:
            writer.transport.abort()
            return False
        lengths = (f"Content-Length: {len(answer.body)}", "Content-Type: application/json")
        shown = "\r\n".join((f"HTTP/1.1 {answer.status} Word", *lengths, *answer.headers))
        writer.write(shown.encode() + b"\r\n\r\n")
        size = 1 if answer.drip else max(1, len(answer.body))
        for at in range(0, len(answer.body), size):
            writer.write(answer.body[at : at + size])
            await writer.drain()
            await asyncio.sleep(answer.drip)
        return True


@asynccontextmanager
async def standing_in(answers: Iterable[Answer] = (Answer(),)) -> AsyncIterator[StandIn]:
    """Stand in for Twilio's REST API, on a loopback port."""
    stand_in = StandIn(list(answers))
    server = await asyncio.start_server(stand_in._serve, "127.0.0.1", 0)
    stand_in.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield stand_in
    finally:
        server.close()
