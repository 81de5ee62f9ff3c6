"""Calls placed while a browser is open, whose loop has this thread for itself."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from websockets.exceptions import ConnectionClosed

from app.tools.caller import Call, Carrier, new_call, speech_frames
from tests.service import TOKEN, Service, http_client, receipt_of

Found = TypeVar("Found")


def aside(doing: Coroutine[object, object, Found]) -> Found:
    """Run a coroutine in a thread of its own, to its end."""
    with meanwhile(doing) as done:
        return done.result()


@contextmanager
def meanwhile(doing: Coroutine[object, object, Found]) -> Iterator[Future[Found]]:
    """Run a coroutine in a thread of its own while the block runs, and wait for it."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(asyncio.run, doing)


async def ring(service: Service, call: Call) -> None:
    """Let a call ring, and never stream."""
    async with http_client() as client:
        await Carrier(service.url, TOKEN).ring(client, call)


async def speak(service: Service, call: Call, frames: Sequence[bytes]) -> Call:
    """Place a call that says these frames in real time, and wait for its receipt."""
    carrier = Carrier(service.url, TOKEN)
    async with http_client() as client:
        target = await carrier.ring(client, call)
    with suppress(ConnectionClosed):  # the service may end it first
        await carrier.stream(call, target, frames)
    await receipt_of(service, call.stream_sid)
    return call


def placed(service: Service, to_number: str, frames: list[bytes]) -> Call:
    """Place a call, and wait for its receipt."""
    return aside(speak(service, new_call(to_number), frames))


class Talk(Sequence[bytes]):
    """Speech that goes on until it is told to stop."""

    def __init__(self) -> None:
        self._frames = speech_frames()[50:]
        self._over = threading.Event()

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, at: int) -> bytes:  # type: ignore[override]
        if self._over.is_set():
            raise IndexError(at)
        return self._frames[at % len(self._frames)]

    def stop(self) -> None:
        """Have said enough."""
        self._over.set()


@contextmanager
def talking(service: Service, to_number: str) -> Iterator[Call]:
    """Hold a live call while the block runs, or until somebody else ends it."""
    call, talk = new_call(to_number), Talk()
    with meanwhile(speak(service, call, talk)) as done:
        try:
            yield call
        finally:
            talk.stop()
        done.result()
