"""A browser, for a module's tests at a time: its loop must not outlive them."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import chromium
from tests.browser.looking import OPERATOR_TOKEN
from tests.service import Service, service_alone


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give a Chromium, or skip."""
    with chromium.launched("--autoplay-policy=no-user-gesture-required") as launched:
        yield launched


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a running instance that an operator may sign in to, on a Redis of its own."""
    with service_alone(tmp_path_factory.mktemp("bridge"), ADMIN_TOKEN=OPERATOR_TOKEN) as running:
        yield running
