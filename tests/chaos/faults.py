"""The faults that a broker can have, each begun and ended by a context manager."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass

from redis.exceptions import RedisError

from tests.chaos.stage import Stage
from tests.redis_process import HOST

KILL_EVERY_SECONDS = 0.1
NOBODY = 1
FORGOTTEN_BYTES = 20_000
TINY_BYTES = "1"

Injection = Callable[[Stage, float], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault by name.

    `inject(stage, seconds)` begins it, and ends it with the block. It lasts
    `shortest` to `longest` seconds where chance says how long. One of `kinds`
    must have been counted when it lasted `shown_after` seconds or more; none
    where it only slows.
    """

    name: str
    inject: Injection
    kinds: frozenset[str]
    shown_after: float = 1.0
    shortest: float = 0.1
    longest: float = 1.5


@asynccontextmanager
async def frozen(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """Redis hangs: SIGSTOP."""
    stage.redis.freeze()
    try:
        yield
    finally:
        stage.redis.thaw()


@asynccontextmanager
async def killed(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """Redis crashes, and is started again: on return it answers PING."""
    await asyncio.to_thread(stage.redis.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.redis.restart)


@asynccontextmanager
async def killed_and_forgetful(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """Redis crashes, and has lost the last of what it had said was written."""
    await asyncio.to_thread(stage.redis.kill)
    await asyncio.to_thread(stage.redis.forget, FORGOTTEN_BYTES)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.redis.restart)


@asynccontextmanager
async def clients_killed(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """Every connection is closed by Redis, ten times a second."""

    async def kill_and_again() -> None:
        while True:
            await asyncio.to_thread(stage.redis.kill_clients)
            await asyncio.sleep(KILL_EVERY_SECONDS)

    killing = asyncio.create_task(kill_and_again())
    try:
        yield
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)


def swallowing(share: float) -> Injection:
    """Make a fault in which a share of all writes run, and nobody hears of it."""

    @asynccontextmanager
    async def replies_swallowed(stage: Stage, seconds: float) -> AsyncIterator[None]:
        stage.proxy.swallow_share = share
        try:
            yield
        finally:
            stage.proxy.swallow_share = 0.0

    return replies_swallowed


@asynccontextmanager
async def connections_reset(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """Every connection is reset on its way, once."""
    stage.proxy.reset()
    yield


@asynccontextmanager
async def blackhole(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """The network takes everything and hands on nothing."""
    stage.proxy.blackhole = True
    try:
        yield
    finally:
        stage.proxy.blackhole = False


def slow(*, latency: float = 0.0, jitter: float = 0.0, rate: int = 0, slices: int = 0) -> Injection:
    """Make a fault of a network that is slow in one of these ways."""

    @asynccontextmanager
    async def slowed(stage: Stage, seconds: float) -> AsyncIterator[None]:
        proxy = stage.proxy
        proxy.latency, proxy.jitter = latency, jitter
        proxy.bytes_per_second, proxy.slice_bytes = rate, slices
        try:
            yield
        finally:
            proxy.latency = proxy.jitter = 0.0
            proxy.bytes_per_second = proxy.slice_bytes = 0

    return slowed


@asynccontextmanager
async def readonly(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """Redis becomes the replica of a master that cannot be reached."""
    await asyncio.to_thread(stage.redis.command, "REPLICAOF", HOST, NOBODY)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.redis.replicate, None)


@asynccontextmanager
async def out_of_memory(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """Redis has reached its maxmemory, and evicts nothing."""
    await asyncio.to_thread(stage.redis.configure, "maxmemory", TINY_BYTES)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.redis.configure, "maxmemory", "0")


@asynccontextmanager
async def no_permission(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """The service's user may not XADD."""
    await asyncio.to_thread(stage.redis.command, "ACL", "SETUSER", "default", "-xadd")
    try:
        yield
    finally:
        await asyncio.to_thread(stage.redis.command, "ACL", "SETUSER", "default", "+@all")


@asynccontextmanager
async def wrong_password(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """The password is another, and every connection has to show it anew."""
    redis, right = stage.redis, stage.redis.password

    def change(password: str) -> None:
        redis.configure("requirepass", password)
        redis.password = password
        redis.kill_clients()

    await asyncio.to_thread(change, "another")
    try:
        yield
    finally:
        await asyncio.to_thread(change, right)


@asynccontextmanager
async def snapshots_fail(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """Redis cannot save its snapshots, and so takes no writes: MISCONF."""
    await asyncio.to_thread(stage.redis.fail_snapshots)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.redis.mend_snapshots)


@asynccontextmanager
async def paused(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """Redis leaves all clients waiting: CLIENT PAUSE."""
    await asyncio.to_thread(stage.redis.pause_clients, int(seconds * 1000))
    yield


@asynccontextmanager
async def asleep(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """Redis runs one long command: DEBUG SLEEP."""

    def sleep() -> None:
        with suppress(RedisError, OSError), stage.redis.client(seconds + 10) as client:
            client.execute_command("DEBUG", "SLEEP", str(seconds))

    sleeping = threading.Thread(target=sleep)
    sleeping.start()
    try:
        yield
    finally:
        await asyncio.to_thread(sleeping.join)


@asynccontextmanager
async def loading(stage: Stage, seconds: float) -> AsyncIterator[None]:
    """Redis crashes, and takes `seconds` to read its data when it is back: LOADING."""
    redis = stage.redis
    await asyncio.to_thread(redis.kill)
    await asyncio.to_thread(redis.load_slowly, seconds)
    await asyncio.to_thread(redis.restart, wait=False)
    try:
        yield
    finally:
        await asyncio.to_thread(redis.wait_until_up)
        redis.load_slowly(0)


CUT = frozenset({"connection", "timeout"})

FAULTS: Sequence[Fault] = (
    # The writer waits 2 s for a reply, and half a second before it tries again.
    Fault("frozen", frozen, frozenset({"timeout"}), shown_after=3.0, shortest=0.3, longest=4.0),
    Fault("killed", killed, CUT, shortest=0.5, longest=2.0),
    Fault("clients killed", clients_killed, CUT),
    Fault("replies swallowed", swallowing(0.25), CUT),
    Fault("connections reset", connections_reset, CUT, longest=0.3),
    Fault("blackhole", blackhole, CUT, shown_after=3.0, longest=4.0),
    Fault("latency 50 ms", slow(latency=0.05, jitter=0.02), frozenset()),
    Fault("latency 500 ms", slow(latency=0.5), frozenset(), longest=3.0),
    Fault("64 kB/s", slow(rate=64_000), frozenset(), longest=3.0),
    Fault("sliced", slow(slices=512), frozenset()),
    Fault("READONLY", readonly, frozenset({"readonly"})),
    Fault("OOM", out_of_memory, frozenset({"oom"})),
    Fault("NOPERM", no_permission, frozenset({"noperm"})),
    Fault("wrong password", wrong_password, frozenset({"auth"})),
    Fault("MISCONF", snapshots_fail, frozenset({"misconf"})),
    Fault("CLIENT PAUSE", paused, frozenset({"timeout"}), shown_after=3.0, longest=4.0),
    Fault("DEBUG SLEEP", asleep, frozenset({"timeout"}), shown_after=3.0, longest=4.0),
    Fault("LOADING", loading, frozenset({"loading"}), shown_after=1.0, shortest=1.0, longest=3.0),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
