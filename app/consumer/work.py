"""A worker: many calls at a time, each in a task of its own."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from app.consumer.call import Call
from app.consumer.calls import Calls, Choice, Start
from app.consumer.sharing import LEASE_SECONDS
from app.errors import CallTakenOver, StoreUnavailable

log = logging.getLogger(__name__)

STOP_SECONDS: Final = 5.0

Handler = Callable[[Call], Awaitable[None]]


async def work(
    redis_url: str,
    handle: Handler,
    *,
    group: str = "",
    at_once: int = 50,
    start: Start = "live",
    business_id: str = "",
    auto_ack: bool = True,
    lease_seconds: float = LEASE_SECONDS,
) -> None:
    """Handle calls, up to `at_once` at a time, until SIGTERM, Ctrl-C or cancelled.

    A call is done when `handle` returns. Where `handle` raises, or the worker is told to
    stop, another worker goes on with the call behind what was acknowledged; the third
    failure of a call is its last.

    Raises:
        StoreUnavailable: Redis cannot be reached at the start; later it is waited for.
        ValueError: this is no Redis URL.
    """
    choice = Choice(start, business_id, auto_ack, lease_seconds)
    async with Calls(redis_url, group, choice) as mine:
        working = asyncio.create_task(_take_all(mine, handle, at_once))
        with _told_to_stop(working.cancel):
            try:
                await working
            except asyncio.CancelledError:
                this = asyncio.current_task()
                if this is not None and this.cancelling():
                    raise


async def _take_all(mine: Calls, handle: Handler, at_once: int) -> None:
    """Take calls as there is room, until cancelled; then end what is under way."""
    room = asyncio.Semaphore(at_once)
    tasks: set[asyncio.Task[None]] = set()

    def is_over(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        room.release()

    try:
        while True:
            await room.acquire()
            call = await mine.next()
            task = asyncio.create_task(_serve(mine, handle, call))
            tasks.add(task)
            task.add_done_callback(is_over)
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)


async def _serve(mine: Calls, handle: Handler, call: Call) -> None:
    """Handle one call, and say what became of it."""
    try:
        await handle(call)
    except CallTakenOver:
        log.warning("[consumer] Another worker has taken over %s", call.name)
        await mine.leave(call)
    except Exception:
        is_tried_again = await _leave(mine, call)
        what = "it is tried again" if is_tried_again else "nobody tries again"
        log.exception("[consumer] Handling %s failed; %s", call.name, what)
    else:
        await mine.done(call)


async def _leave(mine: Calls, call: Call) -> bool:
    with suppress(StoreUnavailable):
        return await mine.leave(call, has_failed=True)
    return True  # its lease will run out


@contextmanager
def _told_to_stop(stop: Callable[[], object]) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C stop the worker in good order, where signals can be had."""
    loop = asyncio.get_running_loop()
    caught = []
    for one in (signal.SIGTERM, signal.SIGINT):
        # Not on Windows, nor outside the main thread.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(one, stop)
            caught.append(one)
    try:
        yield
    finally:
        for one in caught:
            loop.remove_signal_handler(one)
