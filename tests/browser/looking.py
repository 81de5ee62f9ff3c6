"""What is asked of every page: no complaint of the browser, none of axe, and a picture."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page

from tests.service import Service
from tests.waiting import WAIT_SECONDS

SCREENSHOTS = Path(__file__).parent.parent.parent / "data" / "screenshots"
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
OPERATOR_TOKEN = "an-operator-token-of-the-tests-0123456789"
GRAVE = {"serious", "critical"}


class Eyes:
    """A page, and what the browser complained of while it was open."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        page.on(
            "console",
            lambda message: (
                self.complaints.append(f"{page.url}: {message.text}")
                if message.type in ("error", "warning")
                else None
            ),
        )

    def sign_in(self, service: Service, key: str = OPERATOR_TOKEN, onward: str = "/admin") -> None:
        """Sign in by the form, and go on to a page."""
        self.page.goto(service.url + onward)
        self.page.get_by_label("Operator token or access key").fill(key)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("button", name="Sign out").wait_for()

    def expect_complaint(self, words: str) -> None:
        """Take what the browser says of an answer that is meant to be a refusal."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not (found := [one for one in self.complaints if words in one]):
            assert time.monotonic() < deadline, self.complaints
            self.page.wait_for_timeout(10)
        self.complaints.remove(found[0])

    def look(self, name: str, schemes: Sequence[str] = ("light", "dark")) -> None:
        """Ask axe in each colour scheme, look for overflow, and keep pictures."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        for scheme in schemes:
            self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            self.page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}.png", full_page=True)
            found = Axe().run(self.page).response["violations"]
            grave = [
                f"{name} {scheme}: {one['id']}: {one['help']}: "
                + "; ".join(node["html"] for node in one["nodes"])
                for one in found
                if one["impact"] in GRAVE
            ]
            assert not grave, grave
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert self.page.evaluate(wide) <= 0, f"{name} is wider than its window"


@contextmanager
def eyes(browser: Browser, viewport: dict[str, int] = DESKTOP, **how: object) -> Iterator[Eyes]:
    """Open a page in a fresh profile; at the end nothing may have been complained of."""
    context: BrowserContext = browser.new_context(
        viewport=viewport,  # type: ignore[arg-type]
        **how,  # type: ignore[arg-type]
    )
    try:
        seen = Eyes(context.new_page())
        yield seen
        assert not seen.complaints, seen.complaints
    finally:
        context.close()
