"""Workers that share calls: handing over, failing, stopping; real processes among them."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.consumer import Call, CallTakenOver, work
from app.consumer import redis as sharing
from tests.consumer.bridge import START, Bridge
from tests.consumer.reading import all_of, next_call, numbers, some, worker
from tests.waiting import WAIT_SECONDS, until


@contextmanager
def a_worker(redis_url: str, notes: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker of group `g` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.consumer.handing_over", redis_url, "g", str(notes)]
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def noted(notes: Path) -> list[str]:
    """Give what a worker has done, but for the line it may be killed in."""
    return notes.read_text().split("\n")[:-1] if notes.exists() else []


def ids(first: int, last: int) -> list[str]:
    return [f"MZ1 {START}-{n}" for n in range(first, last + 1)]


async def test_a_worker_that_is_killed_is_taken_over_from_where_it_acknowledged(
    bridge: Bridge, redis_url: str, tmp_path: Path
) -> None:
    call = await bridge.begin("MZ1")
    with a_worker(redis_url, tmp_path / "first") as first:
        await bridge.say("MZ1", 1, 50)
        await until(lambda: len(noted(tmp_path / "first")) >= 30)
        first.send_signal(signal.SIGKILL)
        first.wait()
    done = noted(tmp_path / "first")
    with a_worker(redis_url, tmp_path / "second"):
        await bridge.say("MZ1", 51, 80)
        await bridge.end(call, 81)
        await until(lambda: "MZ1 stop" in noted(tmp_path / "second"))
    rest = noted(tmp_path / "second")
    # Nothing is missing; what was done and not acknowledged any more is done twice.
    assert done == ids(1, len(done))
    assert rest[:-1] in (ids(len(done) + 1, 80), ids(len(done), 80))


async def test_two_workers_share_calls_and_one_that_is_told_to_stop_hands_over_at_once(
    bridge: Bridge, redis_url: str, tmp_path: Path
) -> None:
    notes = [tmp_path / "first", tmp_path / "second"]
    with a_worker(redis_url, notes[0]) as first, a_worker(redis_url, notes[1]) as second:
        call = await bridge.begin("MZ1")
        await bridge.say("MZ1", 1, 20)
        await until(lambda: len(noted(notes[0])) + len(noted(notes[1])) == 20)
        holder, heir = (0, 1) if noted(notes[0]) else (1, 0)
        stopping = (first, second)[holder]
        stopping.terminate()
        assert await asyncio.to_thread(stopping.wait, WAIT_SECONDS) == 0
        await bridge.say("MZ1", 21, 30)
        await bridge.end(call, 31)
        await until(lambda: "MZ1 stop" in noted(notes[heir]))
    assert noted(notes[holder]) == ids(1, 20)
    assert noted(notes[heir]) == [*ids(21, 30), "MZ1 stop"]


async def test_a_worker_that_stood_still_is_told_that_its_call_is_anothers(
    bridge: Bridge, redis_url: str, redis: Redis
) -> None:
    await bridge.begin("MZ1")
    await bridge.say("MZ1", 1, 5)
    async with worker(redis_url, "g") as slow:
        call = await next_call(slow)
        [item, *_] = await some(call, 3)
        # As if it had stood still for longer than its lease.
        for task in slow._tasks:
            task.cancel()
        async with worker(redis_url, "g") as heir:
            taken = await next_call(heir)
            assert numbers(await some(taken, 5)) == [1, 2, 3, 4, 5]
            with pytest.raises(CallTakenOver):
                await call.ack(item)
            with pytest.raises(CallTakenOver):
                await all_of(call)


@asynccontextmanager
async def working(
    redis_url: str, handle: Callable[[Call], object], **options: object
) -> AsyncIterator["asyncio.Task[None]"]:
    """Run a worker in this process."""
    task = asyncio.create_task(work(redis_url, handle, group="g", start="kept", **options))  # type: ignore[arg-type]
    yield task
    task.cancel()
    await asyncio.wait({task})


async def test_calls_are_handled_side_by_side_up_to_a_number(
    bridge: Bridge, redis_url: str
) -> None:
    for n in range(5):
        await bridge.whole(f"MZ{n}", 1)
    under_way, most, done = 0, 0, 0
    may_end = asyncio.Event()

    async def handle(call: Call) -> None:
        nonlocal under_way, most, done
        under_way += 1
        most = max(most, under_way)
        await may_end.wait()
        assert numbers(await all_of(call)) == [1]
        under_way -= 1
        done += 1

    async with working(redis_url, handle, at_once=3):
        await until(lambda: under_way == 3)
        may_end.set()
        await until(lambda: done == 5)
    assert most == 3


async def test_a_call_whose_handling_fails_is_tried_again_and_then_given_up(
    bridge: Bridge,
    redis_url: str,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sharing, "FAILED_SECONDS", 0.05)
    await bridge.whole("MZ1", 5)
    begun: list[list[int]] = []

    async def handle(call: Call) -> None:
        begun.append(numbers(await some(call, 2)))
        raise ZeroDivisionError

    async with working(redis_url, handle):
        await until(lambda: "nobody tries again" in caplog.text)
    # Of each two items the second was not acknowledged.
    assert begun == [[1, 2], [2, 3], [3, 4]]
    assert await redis.zrange("consumer:{g}:done", 0, -1) == [f"MZ1@{START}".encode()]


async def test_a_call_is_done_when_its_handling_returns(
    bridge: Bridge, redis_url: str, redis: Redis
) -> None:
    await bridge.whole("MZ1", 5)
    may_end, has_ended = asyncio.Event(), asyncio.Event()

    async def handle(call: Call) -> None:
        await all_of(call)
        has_ended.set()
        await may_end.wait()

    async with working(redis_url, handle):
        await has_ended.wait()
        assert await redis.zcard("consumer:{g}:done") == 0
        may_end.set()
        await until(lambda: redis.zcard("consumer:{g}:done"))


async def test_whoever_cancels_a_worker_hears_of_it(bridge: Bridge, redis_url: str) -> None:
    await bridge.begin("MZ1")
    taken = asyncio.Event()

    async def handle(call: Call) -> None:
        taken.set()
        await all_of(call)

    async with working(redis_url, handle) as task:
        await taken.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with worker(redis_url, "g") as heir:
        assert (await next_call(heir)).stream_sid == "MZ1"


def test_importing_the_consumer_brings_no_service_along() -> None:
    heavy = ("fastapi", "uvicorn", "jinja2", "twilio", "httpx", "app.settings")
    code = f"import sys, app.consumer; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "[]\n", ran.stderr
