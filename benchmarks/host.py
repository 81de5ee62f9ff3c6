"""What is measured, and on what: a private service, its Redis, cores and their time."""

import os
import platform
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis import Redis

from app.errors import LocalError
from app.tools.embedded import EmbeddedRedis, free_port

NUMBER = "+15005550006"
START_SECONDS = 20.0
STOP_SECONDS = 15.0
# As many calls as settings and plans allow: the webhook's callers never stream, and
# each holds its slot until the ticket's 60 s are over.
MAX_CALLS = 100_000
BUSINESSES = f"""
[plans.large]
max_concurrent_calls = {MAX_CALLS}
tracks = "inbound"
retention_seconds = 60

[businesses.measured]
name = "Measured"
plan = "large"
numbers = ["{NUMBER}"]
"""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the service has for itself, and which the load and Redis have.

    `service` is None where nothing could be pinned; `load` is then the one core
    that there is, or empty when the platform cannot pin.
    """

    service: int | None
    load: frozenset[int]

    @property
    def redis_shares(self) -> bool:
        """Tell whether Redis has to run on the load generator's only core."""
        return len(self.load) == 1


@dataclass(frozen=True, slots=True)
class Service:
    """A running service to be measured, and the Redis it writes to."""

    url: str
    auth_token: str
    number: str
    redis_url: str
    redis_version: str
    pid: int
    redis_pid: int
    log: Path
    greeting_bytes: int

    def warnings(self) -> int:
        """Count the lines logged since it was ready; its level is WARNING."""
        return self.log.read_bytes()[self.greeting_bytes :].count(b"\n")


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of a clock and of CPU; None where they cannot be read.

    `kept_waiting` is for how long the service could have run, and another
    process had its core.
    """

    wall: float
    service: float | None
    redis: float | None
    generator: float
    kept_waiting: float | None

    @classmethod
    def now(cls, service: Service) -> "Usage":
        """Read every clock."""
        return cls(
            time.perf_counter(),
            cpu_seconds(service.pid),
            cpu_seconds(service.redis_pid),
            time.process_time(),
            queued_seconds(service.pid),
        )

    def since(self, earlier: "Usage") -> "Usage":
        """Give what was used between two readings."""
        return Usage(
            self.wall - earlier.wall,
            _difference(self.service, earlier.service),
            _difference(self.redis, earlier.redis),
            self.generator - earlier.generator,
            _difference(self.kept_waiting, earlier.kept_waiting),
        )


def part_cores() -> Cores:
    """Pin this process, and what it starts from now on, to all cores but one.

    The last core is left to the service. Without a second core, or on a platform
    that cannot pin, nothing is done.
    """
    if not hasattr(os, "sched_setaffinity"):
        return Cores(None, frozenset())
    *load, service = sorted(os.sched_getaffinity(0))
    if not load:
        return Cores(None, frozenset({service}))
    os.sched_setaffinity(0, load)
    return Cores(service, frozenset(load))


@contextmanager
def private_service(cores: Cores) -> Iterator[Service]:
    """Run the service on its core, with an empty Redis of its own.

    Signatures and tickets are enforced, as for a carrier.

    Raises:
        LocalError: one of the two did not start.
    """
    with tempfile.TemporaryDirectory(prefix="media-bridge-bench-") as name:
        directory = Path(name)
        businesses = directory / "businesses.toml"
        businesses.write_text(BUSINESSES, encoding="utf-8")
        with EmbeddedRedis(directory, persistent=False) as redis:
            with Redis.from_url(redis.url) as client:
                server = client.info("server")
            port = free_port()
            url, token = f"http://127.0.0.1:{port}", secrets.token_hex(16)
            environment = {
                "PATH": os.environ.get("PATH", ""),
                "HOST": "127.0.0.1",
                "PORT": str(port),
                "PUBLIC_URL": url,
                "REDIS_URL": redis.url,
                "TWILIO_AUTH_TOKEN": token,
                "SECRET_KEY": secrets.token_hex(32),
                "BUSINESSES_FILE": str(businesses),
                "MAX_CALLS": str(MAX_CALLS),
                "LOG_LEVEL": "WARNING",
            }
            log = directory / "service.log"
            with _process(environment, log, cores) as process:
                _wait_until_ready(url, process, log)
                yield Service(
                    url=url,
                    auth_token=token,
                    number=NUMBER,
                    redis_url=redis.url,
                    redis_version=server["redis_version"],
                    pid=process.pid,
                    redis_pid=server["process_id"],
                    log=log,
                    greeting_bytes=log.stat().st_size,
                )


def cpu_seconds(pid: int) -> float | None:
    """Give the CPU time of a process, user and system (proc(5), /proc/PID/stat)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The name stands in parentheses and may hold any; after it, utime is the 12th.
    utime, stime = stat.rpartition(")")[2].split()[11:13]
    return (int(utime) + int(stime)) / os.sysconf("SC_CLK_TCK")


def queued_seconds(pid: int) -> float | None:
    """Give for how long a process's first thread was runnable and did not run.

    Source: the kernel's Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat.
    """
    try:
        schedstat = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii")
    except OSError:
        return None
    return int(schedstat.split()[1]) / 1e9


def cpu_model() -> str:
    """Name the CPU."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextmanager
def _process(
    environment: dict[str, str], log: Path, cores: Cores
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"], env=environment, stdout=output, stderr=output
        )
    try:
        if cores.service is not None:
            # Its later threads inherit this.
            os.sched_setaffinity(process.pid, {cores.service})
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health/ready").status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    said = log.read_text(encoding="utf-8", errors="replace")[-500:]
    raise LocalError(f"the service did not start; its log ends: {said or 'nothing'}")


def _difference(later: float | None, earlier: float | None) -> float | None:
    return None if later is None or earlier is None else later - earlier
