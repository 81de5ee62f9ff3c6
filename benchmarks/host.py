"""What is measured, and on what: a private service, its Redis, cores and their time."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from redis import Redis

from app.errors import LocalError
from app.tools.embedded import HOST, EmbeddedRedis, free_port
from benchmarks.processes import cpu_seconds, queued_seconds

NUMBER = "+15005550006"
# Its calls may be spoken into.
TALKING_NUMBER = "+15005550007"
PLAN = "large"
START_SECONDS = 20.0
STOP_SECONDS = 15.0
# As many calls as settings and plans allow: the webhook's callers never stream, and
# each holds its slot until the ticket's 60 s are over.
MAX_CALLS = 100_000
BUSINESSES = f"""
[plans.{PLAN}]
max_concurrent_calls = {MAX_CALLS}
tracks = "inbound"
retention_seconds = 60

[businesses.measured]
name = "Measured"
plan = "{PLAN}"
numbers = ["{NUMBER}"]

[plans.talking]
max_concurrent_calls = {MAX_CALLS}
retention_seconds = 60
return_audio = true

[businesses.talking]
name = "Talking"
plan = "talking"
numbers = ["{TALKING_NUMBER}"]
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

    def of_service(self, processes: int = 1) -> frozenset[int]:
        """Give the cores of a service: all that there are when it has several processes."""
        own = frozenset() if self.service is None else frozenset({self.service})
        return own | self.load if processes > 1 or not own else own


@dataclass(frozen=True, slots=True)
class Service:
    """A running service to be measured, and the Redis it writes to.

    `media_url` is where calls go that no webhook sends; empty where one must be asked.
    `admin_token` is the operator's; empty where there is none.
    """

    url: str
    auth_token: str
    number: str
    redis_url: str
    redis_version: str
    pid: int
    redis_pid: int
    log: Path
    greeting_bytes: int
    media_url: str = ""
    admin_token: str = ""

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
def private_service(cores: Cores, workers: int = 1) -> Iterator[Service]:
    """Run the service on its core, with an empty Redis of its own.

    Signatures and tickets are enforced, as for a carrier. Several workers have all cores.

    Raises:
        LocalError: one of the two did not start.
    """
    with private_directory() as directory:
        businesses = directory / "businesses.toml"
        businesses.write_text(BUSINESSES, encoding="utf-8")
        url, token = f"http://{HOST}:{free_port()}", secrets.token_hex(16)
        admin_token = secrets.token_hex(32)
        environment = {
            "PUBLIC_URL": url,
            "TWILIO_AUTH_TOKEN": token,
            "SECRET_KEY": secrets.token_hex(32),
            "ADMIN_TOKEN": admin_token,
            "BUSINESSES_FILE": str(businesses),
            "MAX_CALLS": str(MAX_CALLS),
            "LOG_LEVEL": "WARNING",
        }
        command = [sys.executable, "-m", "app", "serve", "--workers", str(workers)]
        with running(command, environment, url, cores.of_service(workers), directory) as service:
            _wait_until_ready(service)
            yield replace(
                service,
                auth_token=token,
                media_url="",
                admin_token=admin_token,
                greeting_bytes=service.log.stat().st_size,
            )


@contextmanager
def private_directory() -> Iterator[Path]:
    """Make a directory for one service's files."""
    with tempfile.TemporaryDirectory(prefix="media-bridge-bench-") as name:
        yield Path(name)


@contextmanager
def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    url: str,
    cores: frozenset[int],
    directory: Path,
) -> Iterator[Service]:
    """Run a service until it accepts connections, with an empty Redis of its own.

    It is told HOST, PORT and REDIS_URL, and what stands in `environment`.

    Raises:
        LocalError: one of the two did not start.
    """
    port = urlsplit(url).port or 0
    with EmbeddedRedis(directory, persistent=False) as redis:
        with Redis.from_url(redis.url) as client:
            server = client.info("server")
        known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        known |= {"HOST": HOST, "PORT": str(port), "REDIS_URL": redis.url, **environment}
        log = directory / "service.log"
        with _process(command, known, log, cores) as process:
            _wait_until_listening(port, process, log)
            yield Service(
                url=url,
                auth_token="",
                number=NUMBER,
                redis_url=redis.url,
                redis_version=server["redis_version"],
                pid=process.pid,
                redis_pid=server["process_id"],
                log=log,
                greeting_bytes=log.stat().st_size,
                media_url=f"{url.replace('http', 'ws', 1)}/twilio-media",
            )


@contextmanager
def _process(
    command: Sequence[str], environment: Mapping[str, str], log: Path, cores: frozenset[int]
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output, _on(cores):
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _on(cores: frozenset[int]) -> Iterator[None]:
    """Start processes on other cores than ours: a child has its parent's from its first thread."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def _wait_until_listening(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
            return
        time.sleep(0.1)
    raise LocalError(f"the service did not start; its log ends: {_ending(log)}")


def _wait_until_ready(service: Service) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{service.url}/health/ready").status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise LocalError(f"the service did not get ready; its log ends: {_ending(service.log)}")


def _ending(log: Path) -> str:
    """Give a log's last words, on one line."""
    words = log.read_text(encoding="utf-8", errors="replace")[-500:].split()
    return " ".join(words) or "nothing"


def _difference(later: float | None, earlier: float | None) -> float | None:
    return None if later is None or earlier is None else later - earlier
