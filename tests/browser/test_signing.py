"""Signing in and out, in a browser."""

import re

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.looking import DESKTOP, OPERATOR_TOKEN, PHONE, SCREENSHOTS, eyes
from tests.service import Service, service_alone
from tests.waiting import WAIT_SECONDS

KEY = "Operator token or access key"


@pytest.mark.parametrize("size", ["desk", "phone"])
def test_an_operator_signs_in_and_out(browser: Browser, bridge: Service, size: str) -> None:
    with eyes(browser, PHONE if size == "phone" else DESKTOP) as seen:
        seen.page.goto(f"{bridge.url}/admin")
        assert seen.page.url.endswith("/admin/sign-in")
        seen.look(f"sign-in-{size}")
        seen.sign_in(bridge, onward="/admin/audit?before=")
        assert seen.page.url.endswith("/admin/audit?before=")
        expect(seen.page.get_by_role("heading", level=1)).to_have_text("Audit log")
        seen.look(f"audit-{size}")
        seen.page.get_by_role("button", name="Sign out").click()
        expect(seen.page.get_by_role("status")).to_have_text("You are signed out.")
        seen.page.goto(f"{bridge.url}/admin/audit")
        assert "/admin/sign-in" in seen.page.url


def test_signing_in_takes_no_mouse(browser: Browser, bridge: Service) -> None:
    with eyes(browser) as seen:
        seen.page.goto(f"{bridge.url}/admin/audit")
        # A browser focuses a field some time after the page is there.
        expect(seen.page.get_by_label("Operator token or access key")).to_be_focused()
        seen.page.keyboard.type(OPERATOR_TOKEN)
        seen.page.keyboard.press("Enter")
        expect(seen.page.get_by_role("heading", level=1)).to_have_text("Audit log")
        seen.page.keyboard.press("Tab")
        focused = seen.page.locator(":focus")
        expect(focused).to_have_text("Skip to content")
        seen.page.keyboard.press("Enter")
        expect(seen.page.locator("main")).to_be_focused()


def test_nobody_signs_in_by_a_page_of_another_site(bridge: Service) -> None:
    with httpx.Client(verify=False, timeout=WAIT_SECONDS) as client:
        answer = client.post(
            f"{bridge.url}/admin/sign-in",
            data={"key": OPERATOR_TOKEN},
            headers={"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"},
        )
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("onward", "reached"),
    [
        ("/admin/audit?before=1-1", "/admin/audit?before=1-1"),
        ("https://elsewhere.example/admin", "/admin"),
        ("//elsewhere.example/admin", "/admin"),
        ("/\\elsewhere.example/admin", "/admin"),
        ("/admin\\..\\elsewhere", "/admin"),
        ("/admin/..", "/admin"),
        ("/admin/%2e%2e/docs", "/admin"),
        ("/admin/x\\y", "/admin"),
        ("/administrator", "/admin"),
        ("javascript:alert(1)", "/admin"),
        ("/admin/\r\nX: y", "/admin"),
        ("http://[", "/admin"),
        ("", "/admin"),
    ],
)
def test_signing_in_leads_nowhere_else(bridge: Service, onward: str, reached: str) -> None:
    with httpx.Client(verify=False, timeout=WAIT_SECONDS) as client:
        form = {"key": OPERATOR_TOKEN, "next": onward}
        answer = client.post(f"{bridge.url}/admin/sign-in", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, reached)


def test_a_form_without_its_token_does_nothing(bridge: Service) -> None:
    with httpx.Client(verify=False, timeout=WAIT_SECONDS) as client:
        client.post(f"{bridge.url}/admin/sign-in", data={"key": OPERATOR_TOKEN})
        answer = client.post(f"{bridge.url}/admin/sign-out", data={"csrf": "0" * 64})
        assert answer.status_code == 403
        assert "This form is out of date" in answer.text
        assert client.get(f"{bridge.url}/admin/audit").status_code == 200


def test_a_form_that_cannot_be_read_is_refused_in_words(bridge: Service) -> None:
    with httpx.Client(verify=False, timeout=WAIT_SECONDS) as client:
        for body in (b"key=%ff%fe", b"&".join([b"a=1"] * 300), b"key=" + b"x" * 70_000):
            answer = client.post(
                f"{bridge.url}/admin/sign-in",
                content=body,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )
            assert answer.status_code == 400
            assert "This cannot be done" in answer.text


def test_pages_carry_their_policy(bridge: Service) -> None:
    with httpx.Client(verify=False, timeout=WAIT_SECONDS) as client:
        answer = client.get(f"{bridge.url}/admin/sign-in")
        policy = answer.headers["content-security-policy"]
        for rule in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
            assert rule in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        [style] = re.findall(r'href="(/admin/static/admin.css\?\w+)"', answer.text)
        assert "immutable" in client.get(bridge.url + style).headers["cache-control"]
        assert client.get(f"{bridge.url}/admin/static/..%2fpages.py").status_code in (303, 404)
        assert client.get(f"{bridge.url}/admin/static/other.css").status_code == 404


def test_a_wrong_key_is_refused_and_too_many_are_told_to_wait(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        service_alone(tmp_path_factory.mktemp("tried"), ADMIN_TOKEN=OPERATOR_TOKEN) as tried,
        eyes(browser) as seen,
    ):
        seen.page.goto(f"{tried.url}/admin/sign-in")
        problem = seen.page.get_by_role("alert")
        for _ in range(10):
            seen.page.get_by_label(KEY).fill("mbk_wrong")
            seen.page.get_by_role("button", name="Sign in").click()
            expect(problem).to_have_text("This token or key is not known here, or was revoked.")
            seen.expect_complaint("401")
        seen.page.get_by_label(KEY).fill(OPERATOR_TOKEN)
        seen.page.get_by_role("button", name="Sign in").click()
        expect(problem).to_contain_text("Wait five minutes")
        seen.expect_complaint("429")
        seen.look("sign-in-too-many")


def test_without_an_admin_token_the_page_says_what_to_do(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with service_alone(tmp_path_factory.mktemp("bare")) as bare, eyes(browser) as seen:
        seen.page.goto(f"{bare.url}/admin")
        expect(seen.page.get_by_text("ADMIN_TOKEN is not set")).to_be_visible()
        seen.look("sign-in-no-operator")


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_apis_document_is_shown_without_a_request_to_another_origin(
    browser: Browser, bridge: Service, path: str
) -> None:
    with eyes(browser) as seen:
        asked: list[str] = []
        seen.page.on("request", lambda request: asked.append(request.url))
        seen.page.goto(bridge.url + path)
        expect(seen.page.get_by_role("heading", level=1)).to_contain_text("twilio-media-bridge")
        seen.page.get_by_text("/api/v1/me").first.click()
        expect(seen.page.get_by_role("button", name="Try it out")).to_be_visible()
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        seen.page.screenshot(path=SCREENSHOTS / f"reference{path.replace('/', '-')}.png")
        assert len(asked) > 4
        assert [one for one in asked if not one.startswith((bridge.url, "data:"))] == []
