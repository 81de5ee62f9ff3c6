"""Calls placed while a browser is open, whose loop has this thread for itself."""

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from app.tools.caller import Call, Carrier, new_call
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


async def speak(service: Service, call: Call, frames: list[bytes]) -> Call:
    """Place a call that says these frames in real time, and wait for its receipt."""
    carrier = Carrier(service.url, TOKEN)
    async with http_client() as client:
        target = await carrier.ring(client, call)
    await carrier.stream(call, target, frames)
    await receipt_of(service, call.stream_sid)
    return call


def placed(service: Service, to_number: str, frames: list[bytes]) -> Call:
    """Place a call, and wait for its receipt."""
    return aside(speak(service, new_call(to_number), frames))
