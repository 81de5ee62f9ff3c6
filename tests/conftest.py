"""What every test may use: a real Redis server, and small things to publish."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.tools.embedded import EmbeddedRedis


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a real Redis server that lives as long as the test run."""
    directory: Path = tmp_path_factory.mktemp("redis")
    with EmbeddedRedis(directory, persistent=False) as redis:
        yield redis.url
