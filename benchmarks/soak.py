"""What does not go away: `make soak MINUTES=10`, or `python -m benchmarks.soak`.

A private service holds some live calls all the time. A thousand more come and go
(webhook, ticket, socket, a second of audio, stop) to warm it up; open files and tasks
are counted before and after another thousand. Then nothing but the live calls is left,
and memory is looked at twice a second: what calls leave behind is in the table's last
line, and not in the slope.
"""

import argparse
import asyncio
import os
import platform
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import uvloop
from websockets.exceptions import WebSocketException

from app.errors import BridgeError, LocalError
from app.tools.caller import Carrier, new_call, speech_frames
from benchmarks.host import Service, part_cores, private_service
from benchmarks.processes import cpu_model
from benchmarks.trend import Trend

FRAMES_A_SECOND = 50
# Shorter than the plan's longest call; then a line begins another.
LINE_SECONDS = 1800
AT_ONCE = 20
# As many webhooks at once as there may be connections to Redis, and more: the pool
# has its full size before anything is counted.
BURST = 100
# Longer than the service's figures are apart, and than a lease takes to go.
SETTLE_SECONDS = 30.0
# After this, what came and went does not show in memory any more.
WARM_UP_SECONDS = 60.0
SAMPLE_SECONDS = 0.5
MOST_MB_AN_HOUR = 1.0
EXIT_NOT_HELD = 1
EXIT_NOT_MEASURED = 2


@dataclass(frozen=True, slots=True)
class Held:
    """What the service holds; memory in bytes: what is resident, and what of it is no file's.

    Its proportional share (PSS) would tell of whoever else maps the same libraries.
    """

    files: int
    tasks: int
    resident: int
    anonymous: int


@dataclass(frozen=True, slots=True)
class Soak:
    """What was found; `samples` are seconds with `Held.resident` and `.anonymous`."""

    lines: int
    calls: int
    before: Held
    after: Held
    samples: list[tuple[float, int, int]]
    refused: int
    warnings: int


async def soak(service: Service, *, lines: int, calls: int, seconds: float) -> Soak:
    """Hold `lines` calls for `seconds`, and let `calls` more come and go meanwhile.

    Raises:
        LocalError: a call could not be placed, or the service cannot be looked into.
    """
    ends = time.monotonic() + seconds
    # No connection of a webhook's stays: each call has its own.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits) as client:
        return await _soak(service, _Callers(service, client), lines, calls, ends)


async def _soak(service: Service, callers: "_Callers", lines: int, calls: int, ends: float) -> Soak:
    async with callers.live(lines):
        # As many as will be counted: pools and memory have what the most at once need.
        await callers.burst(BURST)
        await callers.come_and_go(calls)
        await asyncio.sleep(SETTLE_SECONDS)
        before = await held(service)
        await callers.come_and_go(calls)
        await asyncio.sleep(SETTLE_SECONDS)
        after = await held(service)
        await asyncio.sleep(WARM_UP_SECONDS - SETTLE_SECONDS)
        samples = []
        while time.monotonic() < ends:
            samples.append((time.monotonic(), *memory(service.pid)))
            await asyncio.sleep(SAMPLE_SECONDS)
    return Soak(lines, calls, before, after, samples, callers.refused, service.warnings())


class _Callers:
    """Who calls the service."""

    def __init__(self, service: Service, client: httpx.AsyncClient) -> None:
        self._client = client
        self._number = service.number
        self._carrier = Carrier(service.url, service.auth_token)
        self._speech = speech_frames()
        self.refused = 0

    @asynccontextmanager
    async def live(self, lines: int) -> AsyncIterator[None]:
        """Keep so many calls live."""
        tasks = [asyncio.create_task(self._talk_on()) for _ in range(lines)]
        try:
            yield
            if any(task.done() for task in tasks):
                raise LocalError("a call that was to stay live has ended")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def burst(self, calls: int) -> None:
        """Announce so many calls at once, which never stream."""
        rings = (self._carrier.ring(self._client, new_call(self._number)) for _ in range(calls))
        await asyncio.gather(*rings)

    async def come_and_go(self, calls: int) -> None:
        """Place so many calls of a second, some at once."""
        few = asyncio.Semaphore(AT_ONCE)

        async def call() -> None:
            async with few:
                with suppress(BridgeError):
                    await self._call(1.0)
                    return
                self.refused += 1

        await asyncio.gather(*(call() for _ in range(calls)))

    async def _talk_on(self) -> None:
        while True:
            await self._call(LINE_SECONDS)

    async def _call(self, seconds: float) -> None:
        call, count = new_call(self._number), round(seconds * FRAMES_A_SECOND)
        frames = (self._speech * (count // len(self._speech) + 1))[:count]
        try:
            target = await self._carrier.ring(self._client, call)
            await self._carrier.stream(call, target, frames)
        except (httpx.HTTPError, WebSocketException, OSError) as error:
            raise LocalError(f"a call failed: {error!r}") from error


async def held(service: Service) -> Held:
    """Look at what the service holds: files and memory from outside, tasks by its metrics.

    Raises:
        LocalError: this platform, or the service, does not tell.
    """
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{service.url}/metrics")).text
    await asyncio.sleep(SAMPLE_SECONDS)  # so that this connection is gone again
    tasks = [line.split()[1] for line in text.splitlines() if line.startswith("bridge_tasks ")]
    if not tasks:
        raise LocalError("the service does not tell how many tasks it has")
    return Held(_open_files(service.pid), int(float(tasks[0])), *memory(service.pid))


def _open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError as error:
        raise LocalError(f"this platform does not tell what is open: {error}") from error


def memory(pid: int) -> tuple[int, int]:
    """Give a process's RSS in bytes, and its anonymous part (proc(5), /proc/PID/smaps_rollup).

    Raises:
        LocalError: this platform does not tell.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError as error:
        raise LocalError(f"this platform does not tell a process's memory: {error}") from error
    found = {line.split()[0]: int(line.split()[1]) * 1024 for line in text.splitlines()[1:]}
    return found["Rss:"], found["Anonymous:"]


def report(found: Soak) -> tuple[list[str], bool]:
    """Draw the table, in Markdown; tell whether everything held that could be judged."""
    per_hour = 3600 / 1e6
    resident, anonymous = (
        Trend.of([(sample[0], sample[place]) for sample in found.samples]) * per_hour
        for place in (1, 2)
    )
    minutes = (found.samples[-1][0] - found.samples[0][0]) / 60 if found.samples else 0.0
    before, after = found.before, found.after
    rows = [
        ("open files", "± 0", f"{before.files}, {after.files}", _same(before.files, after.files)),
        ("tasks", "± 0", f"{before.tasks}, {after.tasks}", _same(before.tasks, after.tasks)),
        *(
            (
                f"{name}, slope over {minutes:.0f} min",
                f"≤ {MOST_MB_AN_HOUR:g} MB/h",
                f"{trend.slope:+.2f} ± {trend.margin:.2f} MB/h",
                trend.verdict(MOST_MB_AN_HOUR),
            )
            for name, trend in (("RSS", resident), ("anonymous memory", anonymous))
        ),
        ("calls refused", "0", str(found.refused), _same(0, found.refused)),
    ]
    lines = [
        f"| {found.lines} live calls; {found.calls:,} came and went | to hold | measured | |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"RSS {before.resident / 1e6:.1f} MB before the calls, {after.resident / 1e6:.1f} MB "
        f"after; {found.warnings:,} warnings of the service. Margins are of 95 %.",
    ]
    return lines, not any(row[-1] == "not held" for row in rows)


def _same(wanted: int, found: int) -> str:
    return "held" if wanted == found else "not held"


def main() -> int:
    """Soak and print: 1 when something did not hold, 2 when nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long, in all; 5 or more")
    parser.add_argument("--lines", type=int, default=20, help="calls that are live all the time")
    parser.add_argument("--calls", type=int, default=1000, help="calls that come and go")
    asked = parser.parse_args()
    try:
        with private_service(part_cores()) as service:
            version = service.redis_version
            load = soak(service, lines=asked.lines, calls=asked.calls, seconds=asked.minutes * 60)
            lines, has_held = report(uvloop.run(load))
    except BridgeError as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return EXIT_NOT_MEASURED
    print(f"{cpu_model()}, Python {platform.python_version()}, Redis {version}, ", end="")
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n")
    print("\n".join(lines))
    return 0 if has_held else EXIT_NOT_HELD


if __name__ == "__main__":
    sys.exit(main())
