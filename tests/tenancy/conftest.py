"""The deployments on which the matrix is played."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import lines_with
from tests.tenancy.world import World, a_world

DEPLOYMENTS = {
    "one process": {"replicas": 1},
    "two workers": {"replicas": 1, "workers": 2},
    "two replicas": {"replicas": 2},
}


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Return two businesses on a running deployment."""
    yield from deployed(request.param, tmp_path_factory.mktemp("tenancy"))


def deployed(deployment: str, directory: Path) -> Iterator[World]:
    """Run a deployment, and check at its end that no request ended in a traceback."""
    with a_world(directory, **DEPLOYMENTS[deployment]) as made:
        yield made
        for service in (made.near, made.far):
            assert not lines_with(service.logged(), "Traceback")
