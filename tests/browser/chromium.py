"""A Chromium for the tests: the one on this machine, else one that can be installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.waiting import WAIT_SECONDS

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
MACOS = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
# A machine without a network gives up well before; and where it hangs, CI must still end in time.
INSTALL_SECONDS = 120.0
ABSENT = "no Chromium was found, nor could one be installed: the pages were not tried in a browser"


def found() -> str:
    """Give the path of a Chromium; empty when there is none."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    if MACOS.exists():
        return str(MACOS)
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else ""


@contextmanager
def launched(*arguments: str) -> Iterator[Browser]:
    """Start one, or skip the test."""
    path = found()
    if not path:
        pytest.skip(ABSENT)
    with sync_playwright() as playwright:
        # As root a sandbox cannot be had; nothing is opened but our own pages.
        started = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", *arguments]
        )
        expect.set_options(timeout=WAIT_SECONDS * 1000)
        yield started
        started.close()


def install() -> None:
    """Install one: Debian's where we are root, else Playwright's own for this user."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        _run("apt-get", "update")
        _run("apt-get", "install", "-y", "--no-install-recommends", "chromium")
    else:
        _run(sys.executable, "-m", "playwright", "install", "chromium-headless-shell")


def _run(*command: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(
            command,
            env=environment,
            check=False,
            timeout=INSTALL_SECONDS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
