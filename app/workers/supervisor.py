"""The process that starts workers, passes signals on to them, and replaces the dead."""

import asyncio
import logging
import os
import signal
import socket
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from app.errors import StartRefused
from app.workers.lifeline import LISTENING, UNUSABLE

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what may take, in seconds.

    `start` is from a process to a worker that listens; `stop` from the first
    signal, and `force` from the second Ctrl-C, to SIGKILL. A worker that lived
    shorter than `steady` is replaced after a pause, at most `pause`.
    """

    stop: float
    start: float = 60.0
    force: float = 5.0
    steady: float = 10.0
    first_pause: float = 0.5
    pause: float = 30.0


class Supervisor:
    """Run `count` workers until a signal stops them all.

    `command` gives a worker's command line by its slot (1, 2, …) and the
    descriptor of its lifeline. Each worker is a fresh process in a session of
    its own, so that Ctrl-C reaches it once, through us. `on_listening` is
    called once, when all listen; `on_end` with the slot of each that ended.

    The start is all or nothing. After it, a worker that ends by itself is
    replaced, until the stop.
    """

    def __init__(
        self,
        count: int,
        command: Callable[[int, int], Sequence[str]],
        environment: Mapping[str, str],
        sockets: Sequence[socket.socket],
        patience: Patience,
        *,
        on_listening: Callable[[], None],
        on_end: Callable[[int], None],
    ) -> None:
        self._count = count
        self._command = command
        self._environment = environment
        self._sockets = sockets
        self._patience = patience
        self._on_listening = on_listening
        self._on_end = on_end
        self._running: dict[int, Process] = {}
        self._listening: set[int] = set()
        self._has_started = False
        self._stop = asyncio.Event()
        self._refusal = ""
        self._failed = False

    async def run(self) -> int:
        """Run to the end; give 0 when every worker drained, 1 when one failed.

        From here to the end of the process SIGTERM and SIGINT are ours.

        Raises:
            StartRefused: a worker cannot serve with these settings.
        """
        loop = asyncio.get_running_loop()

        def take(sig: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._pass_on, sig)

        for sig in STOP_SIGNALS:
            signal.signal(sig, take)
        async with asyncio.TaskGroup() as tasks:
            for slot in range(1, self._count + 1):
                tasks.create_task(self._keep(slot))
        # A repeated signal must not cut short what our caller has left to do. The
        # loop's own handlers would be taken out, and so let it, when it closes.
        for sig in STOP_SIGNALS:
            signal.signal(sig, signal.SIG_IGN)
        if self._refusal:
            raise StartRefused(self._refusal)
        return int(self._failed)

    # ------------------------------------------------------------------- a worker

    async def _keep(self, slot: int) -> None:
        """Keep one slot filled until the stop."""
        pause = 0.0
        while not self._stop.is_set():
            began = time.monotonic()
            status, words = await self._run_worker(slot)
            self._on_end(slot)
            if self._stop.is_set():
                # SIGTERM ends one that does not listen yet, and holds no calls.
                self._failed |= status not in (0, -signal.SIGTERM)
            elif not self._has_started:
                if not words:
                    log.error("[server] Worker %d did not start: %s", slot, _ended(status))
                self._refusal = words
                self._failed = True
                self._begin_stop(signal.SIGTERM)
            else:
                steady = time.monotonic() - began >= self._patience.steady
                pause = 0.0 if steady else self._longer(pause)
                log.error(
                    "[server] Worker %d ended by itself: %s; the next starts in %.1f s",
                    *(slot, words or _ended(status), pause),
                )
                await self._sleep(pause)

    async def _run_worker(self, slot: int) -> tuple[int, str]:
        """Run one process to its end; give its exit status, and why it refused to start."""
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                reader, writer = await asyncio.open_connection(sock=ours)
                process = await self._begin(slot, theirs.fileno())
        except OSError as error:
            return 1, f"no process can be started: {error.strerror}"
        self._running[slot] = process
        if self._stop.is_set():
            self._send(slot, signal.SIGTERM)
        words = await self._hear(slot, process, reader)
        status = await process.wait()
        del self._running[slot]
        self._listening.discard(slot)
        writer.close()
        return status, words

    async def _begin(self, slot: int, lifeline: int) -> Process:
        return await asyncio.create_subprocess_exec(
            *self._command(slot, lifeline),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[lifeline, *(one.fileno() for one in self._sockets)],
            start_new_session=True,
        )

    async def _hear(self, slot: int, process: Process, reader: asyncio.StreamReader) -> str:
        """Wait until a worker listens or refuses; give the reason for which it refuses."""
        try:
            async with asyncio.timeout(self._patience.start):
                word, _, rest = (await reader.readline()).decode().strip().partition(" ")
        except TimeoutError:
            log.error("[server] Worker %d is stopped: it does not come to listen", slot)
            self._send(slot, signal.SIGKILL)
            return ""
        if word == LISTENING:
            log.info("[server] Worker %d listens, as process %d", slot, process.pid)
            self._listening.add(slot)
            if len(self._listening) == self._count and not self._has_started:
                self._has_started = True
                self._on_listening()
        return rest if word == UNUSABLE else ""

    def _longer(self, pause: float) -> float:
        return min(max(self._patience.first_pause, 2 * pause), self._patience.pause)

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    # ------------------------------------------------------------------- the stop

    def _pass_on(self, sig: int) -> None:
        """Take a signal: tell every worker at once, and as often as it comes."""
        if not self._stop.is_set():
            self._begin_stop(sig)
            return
        if sig == signal.SIGINT:
            self._kill_after(self._patience.force)
        self._tell_all(sig)

    def _begin_stop(self, sig: int) -> None:
        self._stop.set()
        # From now on the port is open as long as a worker has it.
        for one in self._sockets:
            one.close()
        self._kill_after(self._patience.stop)
        self._tell_all(sig)

    def _tell_all(self, sig: int) -> None:
        for slot in list(self._running):
            # SIGINT would be an error message from one that does not listen yet.
            self._send(slot, sig if slot in self._listening else signal.SIGTERM)

    def _kill_after(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._kill_all)

    def _kill_all(self) -> None:
        for slot in list(self._running):
            log.error("[server] Worker %d is killed: it does not stop", slot)
            self._send(slot, signal.SIGKILL)

    def _send(self, slot: int, sig: int) -> None:
        # Not process.send_signal(): before Python 3.13 (CPython gh-87744) it may reap
        # a process behind asyncio's back, whose exit status is then lost.
        with suppress(ProcessLookupError):
            os.kill(self._running[slot].pid, sig)


def _ended(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
