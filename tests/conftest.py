"""What every test may use: a real Redis server, and small things to publish."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from app.tools.embedded import EmbeddedRedis
from tests.examples import LONG, ORDINARY
from tests.service import (
    Service,
    service_alone,
)

# How long an example takes is the machine's affair.
settings.register_profile(ORDINARY, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(ORDINARY)
settings.register_profile(LONG)


def pytest_configure() -> None:
    """Let programs that tests start hear of Ctrl-C.

    A shell has what it runs in the background ignore it (POSIX, Shell Command
    Language, 2.11), and what is ignored is inherited.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a real Redis server that lives as long as the test run."""
    directory: Path = tmp_path_factory.mktemp("redis")
    with EmbeddedRedis(directory, persistent=False) as redis:
        yield redis.url


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a running instance that enforces signatures and tickets, on a Redis of its own."""
    with service_alone(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def open_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a running instance with ALLOW_UNSIGNED, on a Redis of its own."""
    with service_alone(tmp_path_factory.mktemp("open-service"), ALLOW_UNSIGNED="true") as running:
        yield running
