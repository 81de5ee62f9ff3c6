"""A real Redis server that can be hurt; `redis_groups` has Sentinels and clusters."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from redis import Redis
from redis.exceptions import RedisError

from app.tools.embedded import find_server
from tests.tls_relay import TlsRelay

HOST = "127.0.0.1"
START_SECONDS = 20.0
STOP_SECONDS = 5.0
# Below the range from which the kernel takes ports for outgoing connections: a
# server that is killed finds its port free again, also after a while.
PORTS = range(12_000, 32_000)
_GIVEN: set[int] = set()
# What usleep(1) really takes.
SLEEP_US = 55
# Ends the server when we end, however we do, frozen or not.
UNTIL_PARENT_ENDS = """
exec 3<&0
(read -r _ <&3; kill -9 0) >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
"""


def fixed_port() -> int:
    """Find a loopback port that stays ours while nobody listens on it."""
    for port in random.SystemRandom().sample(PORTS, 100):
        # A server may take a while until it listens on the port it was given.
        if port in _GIVEN:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            _GIVEN.add(port)
            return port
    raise AssertionError("no port is free")


def eventually(holds: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Wait until something holds; fail with `what` when it never does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(RedisError, OSError):
            if holds():
                return
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")


class RedisProcess:
    """A Redis server on a fixed port with its own directory, as a context manager.

    `fsync` is the append-only file's (`everysec`, `always`, `no`); None keeps
    nothing on disk. `options` are further ones of redis.conf, without dashes.
    With `tls`, a directory of `ca.crt`, `server.crt` and `server.key`, it is reached
    by TLS, which a relay speaks: not every server does. With `config` it is a Sentinel,
    which reads that at its first start and rewrites it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        fsync: str | None = "everysec",
        password: str = "",
        options: Mapping[str, str] | None = None,
        tls: Path | None = None,
        config: str | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.port = fixed_port()
        self.password = password
        self._fsync = fsync
        self.options = dict(options or {})
        self._tls = tls.resolve() if tls else None
        self._own_port = fixed_port() if tls else self.port
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._relay: TlsRelay | None = None

    @property
    def url(self) -> str:
        """Give the URL, password included."""
        scheme = "rediss" if self._tls else "redis"
        user = f":{quote(self.password, safe='')}@" if self.password else ""
        ca = f"?ssl_ca_certs={self._tls / 'ca.crt'}" if self._tls else ""
        return f"{scheme}://{user}{HOST}:{self.port}/0{ca}"

    @property
    def pid(self) -> int:
        """Give the process id; 0 while it does not run."""
        return self._process.pid if self._process else 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.terminate()

    # ---------------------------------------------------------------- its life

    def start(self, *, wait: bool = True) -> None:
        """Start it on its port, with the data of its directory; wait until it answers."""
        assert self._process is None
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "redis.log").open("ab") as output:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", UNTIL_PARENT_ENDS, "sh", find_server(), *self._arguments()],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if self._tls:
            self._relay = TlsRelay(self.port, self._own_port, self._tls)
        if wait:
            try:
                self.wait_until_up()
            except BaseException:
                self.kill()
                raise

    def wait_until_up(self) -> None:
        """Wait until it answers, and has read its data."""
        try:
            eventually(self._is_up, f"the server on port {self.port} answers")
        except AssertionError as error:
            log = (self.directory / "redis.log").read_text(errors="replace")[-1000:]
            raise AssertionError(f"{error}; its log ends: {log}") from error

    def freeze(self) -> None:
        """Stop it as it stands: connections stay open, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """End it in good order, frozen or not; no effect when it does not run."""
        self._end(signal.SIGTERM)

    def restart(self, *, wait: bool = True) -> None:
        """Start it again after a kill, or after ending it: same port, same data."""
        self.terminate()
        self.start(wait=wait)

    def _end(self, sig: int) -> None:
        process, self._process = self._process, None
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.close()
        if process is None:
            return
        process.send_signal(sig)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()

    def _arguments(self) -> list[str]:
        options = {
            "bind": HOST,
            "port": str(self._own_port),
            "dir": str(self.directory),
            "daemonize": "no",
        }
        if self._config is not None:
            path = self.directory / "sentinel.conf"
            if not path.exists():
                path.write_text(self._config, encoding="utf-8")
            return [str(path), "--sentinel", *_flags(options)]
        options |= {"save": "", "enable-debug-command": "yes"}
        # A replica would wait 5 s for others to come.
        options |= {"repl-diskless-sync-delay": "0"}
        options |= {"appendonly": "yes" if self._fsync else "no"}
        if self._fsync:
            options |= {"appendfsync": self._fsync}
        if self.password:
            options |= {"requirepass": self.password, "masterauth": self.password}
        return _flags(options | self.options)

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the server on port {self.port} ended by itself")
        info = self.command("INFO")
        return bool(info["process_id"] == self.pid and not info.get("loading"))

    def forget(self, size: int) -> None:
        """Cut so many bytes off the end of its log, after a kill.

        So it is when the disk was busy: with `everysec` Redis puts a write off for
        up to 2 s, and answers all the same. Source: redis.io, "Diagnosing latency
        issues", "Latency due to AOF and disk I/O".
        """
        assert self._process is None
        log = max((self.directory / "appendonlydir").glob("*.incr.aof"))
        os.truncate(log, max(0, log.stat().st_size - size))

    def load_slowly(self, seconds: float) -> None:
        """Let later starts read their data for about `seconds` (LOADING); 0: quickly again."""
        self.options.pop("key-load-delay", None)
        if not seconds:
            return
        files = (self.directory / "appendonlydir").glob("*.incr.aof")
        commands = max(1, sum(file.read_bytes().count(b"\n*") for file in files))
        # redis.conf, key-load-delay: µs for each command; -n: 1 µs for one of n.
        each = seconds / commands * 1e6 - SLEEP_US
        delay = each if each >= 1 else min(-1, -SLEEP_US * commands / seconds / 1e6)
        self.options["key-load-delay"] = str(int(delay))

    # ------------------------------------------------------------ what it is told

    def client(self, seconds: float | None = 5.0, **more: Any) -> Redis:
        """Make a client of its own, which never retries; close it after use."""
        return Redis.from_url(self.url, socket_timeout=seconds, **more)

    def command(self, *words: str | int | bytes) -> Any:
        """Run one command on a connection of its own."""
        with self.client() as client:
            return client.execute_command(*words)

    def configure(self, name: str, value: str) -> None:
        """Run CONFIG SET."""
        self.command("CONFIG", "SET", name, value)

    def kill_clients(self) -> int:
        """Close every connection of other clients; count them."""
        closed: int = self.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return closed

    def pause_clients(self, ms: int) -> None:
        """Leave every other client's commands without an answer for so long."""
        self.command("CLIENT", "PAUSE", ms)

    def replicate(self, master: "RedisProcess | None") -> None:
        """Make it a read-only replica of `master`, or a master again."""
        self.command("REPLICAOF", *((HOST, master.port) if master else ("NO", "ONE")))

    def fail_snapshots(self) -> None:
        """Let its last snapshot have failed, so that it refuses writes with MISCONF."""
        (self.directory / "dump.rdb").unlink(missing_ok=True)
        (self.directory / "dump.rdb").mkdir()
        self.configure("save", "3600 1000000")
        self._begin_snapshot()
        eventually(lambda: self._snapshot() == "err", "the snapshot fails")

    def mend_snapshots(self) -> None:
        """Let a snapshot succeed, so that it takes writes again."""
        (self.directory / "dump.rdb").rmdir()
        self._begin_snapshot()
        eventually(lambda: self._snapshot() == "ok", "the snapshot succeeds")
        self.configure("save", "")

    def _begin_snapshot(self) -> None:
        # Refused while the append-only file is being rewritten.
        eventually(lambda: bool(self.command("BGSAVE")), "a snapshot is begun")

    def _snapshot(self) -> str:
        info = self.command("INFO", "persistence")
        return "" if info["rdb_bgsave_in_progress"] else info["rdb_last_bgsave_status"]


def _flags(options: Mapping[str, str]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name}", value)]
