"""A TCP proxy in front of a server, which delays, starves, cuts and swallows."""

import asyncio
import random
import socket
import struct
from collections import Counter
from contextlib import suppress
from typing import Self

from tests.redis_process import HOST, fixed_port

READ_BYTES = 65_536
CHUNKS_ON_THE_WAY = 64
# How long a server that is answering falls silent when its answer is whole.
QUIET_SECONDS = 0.005
# SO_LINGER on, zero seconds: close() sends RST (socket(7), tcp(7)).
RESET = struct.pack("ii", 1, 0)


class FaultProxy:
    """Stand between clients and `upstream_port`, on a port of its own.

    The faults are attributes, and hold from the next chunk on: `latency` and
    `jitter` (seconds a way), `bytes_per_second` (both ways, each connection;
    0: no limit), `slice_bytes` (write in so small parts; 0: whole), `blackhole`
    (take everything, hand on nothing until it is over), `swallow_share` (of
    answers thrown away, 0 to 1, drawn from `rng`). `swallows` are as many more
    to throw away for sure.

    An answer that is swallowed is one to a request which holds `swallow_of`: the
    server has run it, nobody hears, and the connection is reset. `injected`
    counts what was done.
    """

    def __init__(self, upstream_port: int, rng: random.Random) -> None:
        self.port = fixed_port()
        self.latency = 0.0
        self.jitter = 0.0
        self.bytes_per_second = 0
        self.slice_bytes = 0
        self.swallow_share = 0.0
        self.swallow_of = b"XADD"
        self.swallows = 0
        self.injected: Counter[str] = Counter()
        self._upstream_port = upstream_port
        self._rng = rng
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, self.port)
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def blackhole(self) -> bool:
        """Tell whether everything is held back."""
        return not self._open.is_set()

    @blackhole.setter
    def blackhole(self, held: bool) -> None:
        if held:
            self._open.clear()
            self.injected["blackhole"] += 1
        else:
            self._open.set()

    def calm(self) -> None:
        """End every fault."""
        self.latency = self.jitter = self.swallow_share = 0.0
        self.bytes_per_second = self.slice_bytes = self.swallows = 0
        self.blackhole = False

    def reset(self) -> int:
        """Reset every connection; count them."""
        links = list(self._links)
        for link in links:
            link.reset()
        self.injected["reset"] += len(links)
        return len(links)

    # ------------------------------------------------------------- for its links

    def swallows_now(self) -> bool:
        """Draw whether the answer that comes now is thrown away."""
        sure = self.swallows > 0
        if not sure and not (self.swallow_share and self._rng.random() < self.swallow_share):
            return False
        self.swallows -= sure
        self.injected["swallow"] += 1
        return True

    def delay(self) -> float:
        """Draw how long a chunk is on its way, in seconds."""
        return self.latency + self.jitter * self._rng.random()

    async def until_open(self) -> None:
        """Wait while everything is held back."""
        await self._open.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self.until_open()
        try:
            upstream = await asyncio.open_connection(HOST, self._upstream_port)
        except OSError:
            _reset(writer)
            return
        link = _Link(self, (reader, writer), upstream)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)


_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection through the proxy: a pump each way."""

    def __init__(self, proxy: FaultProxy, client: _End, upstream: _End) -> None:
        self._proxy = proxy
        self._client = client
        self._upstream = upstream
        self._is_write = False

    async def run(self) -> None:
        """Pump until either side closes."""
        (from_client, to_client), (from_upstream, to_upstream) = self._client, self._upstream
        pumps = [
            asyncio.create_task(self._pump(from_client, to_upstream, answers=False)),
            asyncio.create_task(self._pump(from_upstream, to_client, answers=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            to_client.close()
            to_upstream.close()

    def reset(self) -> None:
        """Reset both sides."""
        _reset(self._client[1])
        _reset(self._upstream[1])

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_ON_THE_WAY)
        delivery = asyncio.create_task(self._deliver(on_the_way, writer))
        clock = asyncio.get_running_loop().time
        try:
            while data := await reader.read(READ_BYTES):
                await self._proxy.until_open()
                if answers and self._is_write:
                    if self._proxy.swallows_now():
                        await self._swallow(reader)
                        return
                    self._is_write = False
                elif not answers and self._proxy.swallow_of in data:
                    self._is_write = True
                await on_the_way.put((clock() + self._proxy.delay(), data))
            await on_the_way.join()
        except OSError:
            return
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)

    async def _swallow(self, reader: asyncio.StreamReader) -> None:
        """Throw away the whole answer, so that all of the request has run; then reset."""
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(QUIET_SECONDS):
                    if not await reader.read(READ_BYTES):
                        break
        self.reset()

    async def _deliver(
        self, on_the_way: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter
    ) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, data = await on_the_way.get()
            try:
                await asyncio.sleep(max(0.0, due - clock()))
                await self._write(data, writer)
            except OSError:
                return
            finally:
                on_the_way.task_done()

    async def _write(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        while data:
            # Looked at anew for each part: a fault that ends is over at once.
            rate = self._proxy.bytes_per_second
            size = self._proxy.slice_bytes or (rate // 10 if rate else len(data))
            part, data = data[:size], data[size:]
            await self._proxy.until_open()
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(len(part) / rate if rate else 0)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
