"""A browser, for a module's tests at a time: its loop must not outlive them."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser import chromium
from tests.browser.looking import OPERATOR_TOKEN
from tests.service import Service, service_alone
from tests.waiting import WAIT_SECONDS


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give a Chromium, or skip."""
    path = chromium.found()
    if not path:
        pytest.skip(chromium.ABSENT)
    with sync_playwright() as playwright:
        # As root a sandbox cannot be had; nothing is opened but our own pages.
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        launched = playwright.chromium.launch(executable_path=path, args=arguments)
        expect.set_options(timeout=WAIT_SECONDS * 1000)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a running instance that an operator may sign in to, on a Redis of its own."""
    with service_alone(tmp_path_factory.mktemp("bridge"), ADMIN_TOKEN=OPERATOR_TOKEN) as running:
        yield running
