"""A service whose callers hear what workers say."""

from collections.abc import AsyncIterator, Iterator, Mapping

import pytest

from tests.playback.talking import BUSINESSES, CALLS, Talk
from tests.service import Service, lines_with, service_alone


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    path = tmp_path_factory.mktemp("businesses") / "talking.toml"
    path.write_text(BUSINESSES, encoding="utf-8")
    return {
        "BUSINESSES_FILE": str(path),
        "ALLOW_UNSIGNED": "true",
        "SUPPORT_EXOTEL": "true",
        "EXOTEL_DEFAULT_BUSINESS": "talking",
        "JWT_SECRET": "j" * 32,
    }


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, settings: Mapping[str, str]
) -> Iterator[Service]:
    with service_alone(tmp_path_factory.mktemp("talking"), **settings) as running:
        yield running
        assert not lines_with(running.logged(), "Traceback")


@pytest.fixture(params=CALLS)
async def talk(request: pytest.FixtureRequest, service: Service) -> AsyncIterator[Talk]:
    """Give a call that may be spoken into, of each carrier."""
    async with CALLS[request.param](service) as made:
        yield made
