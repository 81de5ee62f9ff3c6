"""A service, its Redis, and the proxy between them: where faults are played."""

import asyncio
import os
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.load import BUSINESSES
from tests.chaos.reading import Connect, connector
from tests.redis_process import HOST, RedisProcess
from tests.service import Service, http_client, running_service

READY_SECONDS = 20.0
PASSWORD = "canary-redis"
_KIND = re.compile(r'^bridge_broker_errors_total\{kind="(\w+)"\} ([\d.e+]+)$', re.MULTILINE)


@dataclass(frozen=True)
class Stage:
    """What a fault is done to, and what tells of it.

    The service reaches Redis through `proxy`; everybody else goes straight there.
    """

    directory: Path
    redis: RedisProcess
    proxy: FaultProxy
    service: Service
    rng: random.Random

    @property
    def connect(self) -> Connect:
        """Give a maker of clients to Redis that wait for as long as a fault takes."""
        return connector(lambda: self.redis.url)

    async def broker_errors(self) -> Counter[str]:
        """Read how many failed writes of each kind the service has counted."""
        text = await self.metrics()
        return Counter({kind: int(float(count)) for kind, count in _KIND.findall(text)})

    async def metrics(self) -> str:
        """Read the service's series."""
        async with http_client() as client:
            answer = await client.get(f"{self.service.url}/metrics")
        return answer.text

    @property
    def memory(self) -> int:
        """Give the service's resident memory in bytes (proc(5), /proc/PID/statm)."""
        statm = Path(f"/proc/{self.service.process.pid}/statm").read_text(encoding="ascii")
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def open_files(self) -> int:
        """Count the service's file descriptors."""
        return len(os.listdir(f"/proc/{self.service.process.pid}/fd"))


@asynccontextmanager
async def staged(
    directory: Path, rng: random.Random, *, fsync: str | None = "everysec", **variables: str
) -> AsyncIterator[Stage]:
    """Run a service that is ready, with a Redis of its own behind a proxy."""
    redis = RedisProcess(directory / "redis", fsync=fsync, password=PASSWORD)
    await asyncio.to_thread(redis.start)
    try:
        async with FaultProxy(redis.port, rng) as proxy:
            url = f"redis://:{PASSWORD}@{HOST}:{proxy.port}/0"
            async with serving(directory, url, **variables) as service:
                try:
                    yield Stage(directory, redis, proxy, service, rng)
                finally:
                    # The service writes its last while the proxy still stands.
                    proxy.calm()
    finally:
        await asyncio.to_thread(redis.terminate)


@asynccontextmanager
async def serving(directory: Path, redis_url: str, **variables: str) -> AsyncIterator[Service]:
    """Run a service that is ready, with the businesses that `live_calls` rings."""
    businesses = str(_prepare(directory))
    variables = {"BUSINESSES_FILE": businesses, "LOG_LEVEL": "WARNING", **variables}
    running = running_service(directory, redis_url, **variables)
    # In a thread: the loop serves the proxy meanwhile.
    service = await asyncio.to_thread(running.__enter__)
    try:
        await ready(service)
        yield service
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


def _prepare(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    businesses = directory / "large.toml"
    businesses.write_text(BUSINESSES, encoding="utf-8")
    return businesses


async def ready(service: Service) -> None:
    """Wait until the service would take a call."""
    deadline = time.monotonic() + READY_SECONDS
    async with http_client() as client:
        while time.monotonic() < deadline:
            answer = await client.get(f"{service.url}/health/ready")
            if answer.status_code == httpx.codes.OK:
                return
            await asyncio.sleep(0.05)
    raise AssertionError(f"the service is not ready: {service.logged()[-1000:]}")
