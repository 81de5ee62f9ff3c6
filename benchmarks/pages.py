"""What pages that show live calls cost those calls: turns without pages and with some."""

import asyncio
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, Self

import httpx
import uvloop
from playwright.sync_api import Browser, Page, sync_playwright

from app.errors import LocalError
from benchmarks.beside import END_SECONDS, beside
from benchmarks.frames import FramesLoad, load_frames
from benchmarks.host import Cores, Service
from benchmarks.table import NOTHING, bent, markdown, word
from tests.browser import chromium

PAGES = 3
START_SECONDS = 60.0
LOOK_SECONDS = 0.5
PAGE, EVENTS = "/admin/live", "/api/v1/live/events"
# A real browser is on another machine: here it gets what the load and Redis leave.
NICE = 19


@dataclass(frozen=True, slots=True)
class Turn:
    """A load of calls, and who watched them: nobody, or `who` with the most calls each saw."""

    load: FramesLoad
    who: str = ""
    shown: Sequence[int] = ()


def load_pages(service: Service, *, calls: int, seconds: int, rounds: int) -> list[Turn]:
    """Hold so many calls for `seconds`, while nobody watches and then with pages; repeat.

    Raises:
        LocalError: a call could not be placed, or the pages did not open.
    """
    path = chromium.found()
    turns = []
    for _ in range(rounds):
        turns.append(Turn(uvloop.run(load_frames(service, calls=calls, seconds=seconds))))
        with watching(service, path) as watchers:
            load = uvloop.run(load_frames(service, calls=calls, seconds=seconds))
            turns.append(Turn(load, watchers.who, watchers.end()))
    return turns


# ----------------------------------------------------------------------- who watches


class Watchers:
    """Those who watch, as the load has them: a process of its own with a page each.

    `who` names them.
    """

    def __init__(self, pipe: "Connection[Any, Any]") -> None:
        self._pipe = pipe
        if not pipe.poll(START_SECONDS):
            raise LocalError("the pages of live calls did not open")
        self.who: str = pipe.recv()

    def end(self) -> list[int]:
        """Let them go; give the most calls that each was shown at once."""
        self._pipe.send(None)
        shown: list[int] = self._pipe.recv() if self._pipe.poll(END_SECONDS) else []
        return shown


@contextmanager
def watching(service: Service, path: str) -> Iterator[Watchers]:
    """Keep the page of live calls open in some browsers; where `path` names none, its feed.

    Raises:
        LocalError: they did not open.
    """
    with beside(_watch, path, service.url, service.admin_token) as pipe:
        yield Watchers(pipe)


def _watch(path: str, url: str, token: str, pipe: "Connection[Any, Any]") -> None:
    os.nice(NICE)
    try:
        if path:
            _in_browsers(path, url, token, pipe)
        else:
            asyncio.run(_in_clients(url, token, pipe))
    except (EOFError, BrokenPipeError):
        # The parent has given up.
        return


def _in_browsers(path: str, url: str, token: str, pipe: "Connection[Any, Any]") -> None:
    with sync_playwright() as playwright, ExitStack() as opened:
        pages = []
        for _ in range(PAGES):
            # As root a sandbox cannot be had; nothing is opened but our own page.
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            opened.callback(browser.close)
            pages.append(_signed_in(browser, url, token))
        pipe.send(f"{PAGES} browsers (Chromium {browser.version.partition('.')[0]})")
        most = [0] * PAGES
        while not pipe.poll():
            pages[0].wait_for_timeout(LOOK_SECONDS * 1000)
            most = [
                max(n, page.locator(".call").count()) for n, page in zip(most, pages, strict=True)
            ]
        pipe.send(most)


def _signed_in(browser: Browser, url: str, token: str) -> Page:
    page = browser.new_page()
    page.goto(url + PAGE)
    page.get_by_label("Operator token or access key").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.locator("#link[data-state=on]").wait_for()
    return page


async def _in_clients(url: str, token: str, pipe: "Connection[Any, Any]") -> None:
    most = [0] * PAGES
    opened = asyncio.Semaphore(0)

    async def follow(place: int) -> None:
        async with client.stream("GET", EVENTS) as answer:
            answer.raise_for_status()
            opened.release()
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    told = json.loads(line.removeprefix("data:"))
                    # What happens in calls is told too; only the figures list them.
                    most[place] = max(most[place], len(told.get("items", ())))

    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=None) as client:
        tasks = [asyncio.create_task(follow(place)) for place in range(PAGES)]
        for _ in tasks:
            await opened.acquire()
        pipe.send(f"{PAGES} plain clients of {EVENTS}: no Chromium was found")
        await asyncio.to_thread(pipe.poll, None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    pipe.send(most)


# ------------------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much the median differs with pages, and by how much alike turns do.

    `noise` is NaN where there is one turn of a kind.
    """

    more: float
    noise: float

    @classmethod
    def of(cls, without: Sequence[float], pages: Sequence[float]) -> Self:
        """Compare a figure's turns."""
        more = median(pages) - median(without)
        if len(without) < 2:
            return cls(more, math.nan)
        return cls(more, max(max(kind) - min(kind) for kind in (without, pages)))

    def verdict(self) -> str:
        """Say whether the pages can be told from what turns differ by anyway."""
        if math.isnan(self.more) or math.isnan(self.noise):
            return NOTHING
        return "nothing measurable" if self.more <= self.noise else "**measurable**"


def page_lines(turns: Sequence[Turn], cores: Cores) -> Iterator[str]:
    """Draw the turns side by side, what the pages cost, and what holds."""
    loads = [turn.load for turn in turns]
    cpu = [load.counted.service_micros for load in loads]
    p99 = [load.latencies.p99 for load in loads]
    who = next((turn.who for turn in turns if turn.who), "pages")
    yield from markdown(
        (f"{loads[0].calls} live calls", *("pages" if turn.who else "no page" for turn in turns)),
        [
            ("CPU of the service, µs/frame", *(f"{value:.1f}" for value in cpu)),
            ("p50 frame to readable, ms", *(f"{load.latencies.p50:.1f}" for load in loads)),
            ("p99 frame to readable, ms", *(f"{value:.1f}" for value in p99)),
            ("frames lost", *(f"{load.lost:,} of {load.tally.sent:,}" for load in loads)),
            ("calls that each page showed", *(_shown(turn) for turn in turns)),
            ("CPU of Redis, µs/frame", *(f"{load.quiet.redis_micros:.1f}" for load in loads)),
            ("frames sent late by p99, ms", *(f"{load.late.p99:.1f}" for load in loads)),
        ],
    )
    yield ""
    yield f"- pages: {who}."
    for kind, watched in (("no page", False), ("pages", True)):
        of_kind = [turn.load for turn in turns if bool(turn.who) is watched]
        yield from (f"- {kind}: {note}." for note in bent(of_kind, cores))
    yield ""
    lost = sum(load.lost for load in loads)
    yield from markdown(
        ("to hold", "measured", ""),
        [
            _compared("CPU a frame, µs", cpu, turns),
            _compared("p99 frame to readable, ms", p99, turns),
            ("no frame lost, with pages or without", f"{lost:,}", word(not lost)),
        ],
    )


def _shown(turn: Turn) -> str:
    return ", ".join(map(str, turn.shown)) or NOTHING


def _compared(what: str, values: Sequence[float], turns: Sequence[Turn]) -> tuple[str, str, str]:
    without, pages = (
        [value for value, turn in zip(values, turns, strict=True) if bool(turn.who) is watched]
        for watched in (False, True)
    )
    found = Difference.of(without, pages)
    noise = NOTHING if math.isnan(found.noise) else f"{found.noise:.1f}"
    measured = f"{found.more:+.1f}; turns alike differ by {noise}"
    return f"pages cost nothing measurable: {what}", measured, found.verdict()
