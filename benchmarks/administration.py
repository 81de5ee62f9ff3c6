"""Load on the administration's API under live calls: an operator's requests on a schedule."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from app.errors import LocalError
from app.web.api.route import PREFIX
from benchmarks.frames import FramesLoad, load_frames
from benchmarks.host import PLAN, Cores, Service
from benchmarks.latency import Latencies
from benchmarks.table import bent, markdown, word
from benchmarks.webhook import OK, Answer, Callers, send_on_schedule

API_P99_MS = 100
API_RATE = 20
# Calls that are over, whose waveforms are asked for: more than the service remembers.
OVER = 20
OVER_SECONDS = 15.0
# The calls begin to speak before the first request, and go on after the last.
AROUND_SECONDS = 3.0
DIAL_SECONDS = 30.0
ALL = "**all**"
LIVE, EDIT = "GET /live", f"PATCH /plans/{PLAN}"
# Stands in an edit until it is sent.
VERSION = b"VERSION"


@dataclass(frozen=True, slots=True)
class ApiLoad:
    """What became of the requests, by their routes, and of the calls meanwhile."""

    rate: int
    answers: Mapping[str, Sequence[Answer]]
    calls: FramesLoad

    @property
    def all(self) -> list[Answer]:
        """Give the answers of all routes."""
        return list(itertools.chain(*self.answers.values()))


class Operator(Callers):
    """Connections of an operator, who saves one edit after the other."""

    def __init__(self, service: Service) -> None:
        super().__init__(service.url)
        self._head = (
            f"Host: {urlsplit(service.url).netloc}\r\n"
            f"Authorization: Bearer {service.admin_token}\r\n"
        )
        self._saving = asyncio.Lock()
        self._version = b""

    def request(self, route: str, change: Mapping[str, object] | None = None) -> bytes:
        """Write a request: a method and a path below the API's, and what an edit changes."""
        method, _, path = route.partition(" ")
        body, head = b"", self._head
        if change is not None:
            body = json.dumps(change).encode()
            head += f'If-Match: "{VERSION.decode()}"\r\nContent-Type: application/json\r\n'
        first = f"{method} {PREFIX}{path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n"
        return first.encode() + body

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request, an edit when the last one is stored and with the version it told."""
        if VERSION not in request:
            return await super().ask(request)
        async with self._saving:
            status, body = await super().ask(request.replace(VERSION, self._version))
            if status == OK:
                self._version = str(json.loads(body)["version"]).encode()
        return status, body

    async def look(self, route: str) -> Any:
        """Ask what is to be known before; give the decoded answer.

        Raises:
            LocalError: it was refused.
        """
        status, body = await self.ask(self.request(route))
        if status != OK:
            raise LocalError(f"{route} answered {status}: {body[:200]!r}")
        return json.loads(body)

    async def know(self) -> None:
        """Find out which version of the plan there is."""
        self._version = str((await self.look(f"GET /plans/{PLAN}"))["version"]).encode()


def asked(
    operator: Operator, over: Sequence[str], live: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Give routes and requests without an end: each route in its turn, each call in its."""
    waveforms, calls = itertools.cycle(over), itertools.cycle([*live, *over])
    plain = (LIVE, "GET /calls", "GET /businesses", "GET /plans", "GET /audit")
    for number in itertools.count():
        for route in plain:
            yield route, operator.request(route)
        yield "GET /calls/{sid}", operator.request(f"GET /calls/{next(calls)}")
        yield EDIT, operator.request(EDIT, {"retention_seconds": 60 + number % 2})
        waveform = f"GET /calls/{next(waveforms)}/waveform"
        yield "GET /calls/{sid}/waveform", operator.request(waveform)


async def load_api(
    service: Service,
    *,
    calls: int,
    seconds: int,
    rate: int = API_RATE,
    over_seconds: float = OVER_SECONDS,
) -> ApiLoad:
    """Ask for `rate` answers a second while so many calls are live, for `seconds`.

    Some calls have ended before. As with the webhook a latency runs from the time at
    which its request was due.

    Raises:
        LocalError: a call could not be placed, or the API cannot be used at all.
    """
    await load_frames(service, calls=OVER, seconds=over_seconds)
    operator = Operator(service)
    try:
        over = [
            call["call_sid"] for call in (await operator.look("GET /calls?state=ended"))["items"]
        ]
        if len(over) < OVER:
            raise LocalError(f"of {OVER} calls the API shows {len(over)} as ended")
        await operator.know()

        async def ask() -> dict[str, list[Answer]]:
            due = itertools.islice(
                asked(operator, over, await _live(operator, calls)), rate * seconds
            )
            routes, requests = zip(*due, strict=True)
            answers: dict[str, list[Answer]] = {route: [] for route in sorted(set(routes))}
            for route, answer in zip(
                routes, await send_on_schedule(operator, requests, rate), strict=True
            ):
                answers[route].append(answer)
            return answers

        # The reader reads all the time: each frame counts, also those beside a slow answer.
        spoken = load_frames(service, calls=calls, seconds=AROUND_SECONDS + seconds, quiet=0.0)
        found, answers = await asyncio.gather(spoken, ask())
    finally:
        operator.close()
    return ApiLoad(rate, answers, found)


async def _live(operator: Operator, calls: int) -> list[str]:
    """Wait until so many calls are live; name them."""
    until = time.monotonic() + DIAL_SECONDS
    while time.monotonic() < until:
        items = (await operator.look(LIVE))["items"]
        if len(items) >= calls:
            return [item["call_sid"] for item in items]
        await asyncio.sleep(0.1)
    raise LocalError(f"of {calls} calls the API shows {len(items)} as live")


# ------------------------------------------------------------------------- the table


def api_lines(load: ApiLoad, cores: Cores) -> Iterator[str]:
    """Draw what became of the requests, route by route, and what holds."""
    title = f"{load.calls.calls} live calls, {load.rate} API requests a second"
    everything = load.all
    yield from markdown(
        (title, "requests", "not 200", "p50 ms", "p99 ms", "max ms"),
        [
            *(_row(route, answers) for route, answers in load.answers.items()),
            _row(ALL, everything),
        ],
    )
    late = Latencies.of([answer.late for answer in everything])
    p99 = Latencies.of([answer.latency for answer in everything]).p99
    failed = sum(answer.status != OK for answer in everything)
    yield ""
    yield (
        f"- the calls meanwhile: frame to readable {load.calls.latencies.p50:.1f} ms (p50), "
        f"{load.calls.latencies.p99:.1f} ms (p99); {load.calls.lost} of "
        f"{load.calls.tally.sent:,} frames lost."
    )
    yield (
        f"- requests were sent late by {late.p99:.1f} ms (p99), frames by "
        f"{load.calls.late.p99:.1f} ms; {load.calls.warnings:,} warnings of the service."
    )
    yield from (f"- the service: {note}." for note in bent([load.calls], cores))
    yield ""
    yield from markdown(
        ("to hold", "measured", ""),
        [
            (
                f"p99 of the API at most {API_P99_MS} ms, all answered 200",
                f"{p99:.1f} ms, {len(everything) - failed:,} of {len(everything):,}",
                word(p99 <= API_P99_MS and not failed),
            )
        ],
    )


def _row(route: str, answers: Sequence[Answer]) -> tuple[str, ...]:
    shown = Latencies.of([answer.latency for answer in answers])
    failed = Counter(answer.status for answer in answers if answer.status != OK)
    kinds = ", ".join(f"{status}: {count}" for status, count in sorted(failed.items()))
    return (
        route,
        f"{len(answers):,}",
        kinds or "0",
        *(f"{value:,.1f}" for value in (shown.p50, shown.p99, shown.longest)),
    )
