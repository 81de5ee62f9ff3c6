"""Every page in every state: readable, escaped, quiet, on a desk and on a phone."""

import json

import pytest
from playwright.sync_api import Browser, Route

from app.web.admin.pages import STATIC, STATIC_TYPES
from tests.browser.gallery import FIGURES, PAGES
from tests.browser.looking import DESKTOP, PHONE, Eyes, eyes

ORIGIN = "http://localhost"


def serve(seen: Eyes) -> None:
    """Answer what the page asks for, without a server."""

    def answer(route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN).partition("?")[0]
        if path.startswith("/admin/static/"):
            file = STATIC / path.rpartition("/")[2]
            route.fulfill(body=file.read_bytes(), content_type=STATIC_TYPES[file.suffix])
        elif path.endswith("/events"):
            told = f"event: figures\ndata: {json.dumps(FIGURES)}\n\n"
            route.fulfill(body=told, content_type="text/event-stream")
        elif path.endswith(".wav"):
            route.fulfill(body=b"", content_type="audio/wav")
        else:
            made = PAGES[path.strip("/")]()
            headers = {name: value for name, value in made.headers.items()}
            route.fulfill(status=made.status_code, body=bytes(made.body), headers=headers)

    seen.page.route("**/*", answer)


@pytest.mark.parametrize("size", ["desk", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_serious_fault(browser: Browser, name: str, size: str) -> None:
    with eyes(browser, PHONE if size == "phone" else DESKTOP) as seen:
        serve(seen)
        seen.page.goto(f"{ORIGIN}/{name}")
        if name == "live":
            seen.page.locator(".call").nth(1).wait_for()
        # Colours are the same on a phone.
        seen.look(f"gallery-{name}-{size}", ("light",) if size == "phone" else ("light", "dark"))


def test_a_page_works_without_scripts(browser: Browser) -> None:
    with eyes(browser, java_script_enabled=False) as seen:
        serve(seen)
        for name in PAGES:
            seen.page.goto(f"{ORIGIN}/{name}")
            assert seen.page.locator("h1").count() == 1, name


def test_text_of_strangers_stays_text(browser: Browser) -> None:
    with eyes(browser) as seen:
        serve(seen)
        for name in PAGES:
            seen.page.goto(f"{ORIGIN}/{name}")
            if name == "live":
                seen.page.locator(".call").nth(1).wait_for()
            assert seen.page.locator("img:not([src*='/admin/static/'])").count() == 0
            assert seen.page.locator("[onerror]").count() == 0
