"""Named operators, roles and sessions, in a browser."""

import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.looking import DESKTOP, PHONE, Eyes, eyes
from tests.service import Service, service_alone
from tests.waiting import WAIT_SECONDS
from tests.web.admins import Caller, bearer

ALICE, PLAIN = "a" * 40, "p" * 40
BUSINESS = "business-1"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run an instance with two operators, one of whom has a name."""
    directory = tmp_path_factory.mktemp("roles")
    with service_alone(directory, ADMIN_TOKEN=f"alice={ALICE},{PLAIN}") as running:
        yield running


def key_of(service: Service, role: str, label: str, **more: int) -> str:
    body = {"label": label, "role": role, **more}
    answer = Caller(service, bearer(PLAIN))("POST", f"/businesses/{BUSINESS}/keys", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def navigation(seen: Eyes) -> list[str]:
    return seen.page.get_by_role("navigation", name="Main").get_by_role("link").all_inner_texts()


@pytest.mark.parametrize("size", ["desk", "phone"])
def test_pages_say_who_is_signed_in_and_as_what(
    browser: Browser, named: Service, size: str
) -> None:
    who = {ALICE: "alice operator", key_of(named, "viewer", "Screen"): f"{BUSINESS} viewer"}
    for secret, words in who.items():
        with eyes(browser, PHONE if size == "phone" else DESKTOP) as seen:
            seen.sign_in(named, secret)
            expect(seen.page.locator(".who .name")).to_contain_text(words)
            seen.look(f"roles-{words.split()[1]}-{size}")


@pytest.mark.parametrize(
    ("role", "pages"),
    [
        ("viewer", ["Overview", "Live calls", "Calls", "Usage"]),
        ("agent", ["Overview", "Live calls", "Calls", "Usage"]),
        ("admin", ["Overview", "Live calls", "Calls", "Business", "Plan", "Persons", "Audit log"]),
    ],
)
def test_each_role_has_the_pages_it_may_see_and_no_others(
    browser: Browser, named: Service, role: str, pages: list[str]
) -> None:
    with eyes(browser) as seen:
        seen.sign_in(named, key_of(named, role, f"The {role}"))
        assert navigation(seen) == pages
        for name in pages:
            seen.page.get_by_role("navigation", name="Main").get_by_role("link", name=name).nth(
                0
            ).click()
            expect(seen.page.get_by_role("heading", level=1)).to_be_visible()
        for path in ("", "/numbers", "/secrets", "/keys", "/sessions"):
            answer = seen.page.goto(f"{named.url}/admin/businesses/{BUSINESS}{path}")
            assert answer is not None
            assert answer.status == (200 if role == "admin" else 403), path
            if role != "admin":
                seen.expect_complaint("403")
        expect(seen.page.get_by_role("button", name="Issue key")).to_have_count(0)


def test_a_form_of_another_role_is_refused_when_it_is_sent(named: Service) -> None:
    key = key_of(named, "viewer", "Sender")
    with httpx.Client(base_url=named.url, verify=False, timeout=WAIT_SECONDS) as client:
        client.post("/admin/sign-in", data={"key": key})
        csrf = client.get("/admin/sessions").text.partition('name="csrf" value="')[2][:64]
        for path in (
            f"/admin/businesses/{BUSINESS}",
            f"/admin/businesses/{BUSINESS}/keys",
            f"/admin/businesses/{BUSINESS}/secrets",
            f"/admin/businesses/{BUSINESS}/sessions/end-all",
            "/admin/calls/CA0/end",
            "/admin/new-business",
        ):
            answer = client.post(path, data={"csrf": csrf, "label": "x", "role": "admin"})
            assert answer.status_code == 403, path
            assert "This cannot be done" in answer.text, path
        erased = client.post("/admin/calls/CA0/erase", data={"csrf": csrf, "last4": "CA0"})
        assert erased.status_code == 403


def test_an_operator_issues_a_key_with_a_role_and_an_expiry(
    browser: Browser, named: Service
) -> None:
    with eyes(browser) as seen:
        seen.sign_in(named, ALICE)
        seen.page.goto(f"{named.url}/admin/businesses/{BUSINESS}/keys")
        expect(seen.page.get_by_role("radio", name="Viewer")).to_be_checked()
        seen.page.get_by_label("For whom").fill("The night desk")
        seen.page.get_by_role("radio", name="Agent").check()
        seen.page.get_by_label("Expires after").select_option("7 days")
        seen.page.get_by_role("button", name="Issue key").click()
        key = seen.page.get_by_label("Access key").input_value()
        row = seen.page.get_by_role("row", name="The night desk")
        expect(row).to_contain_text("Agent")
        expect(row).to_contain_text("never")
        seen.look("roles-keys")
    me = Caller(named, bearer(key))("GET", "/me").json()
    assert me["role"] == "agent"
    listed = Caller(named, bearer(PLAIN))("GET", f"/businesses/{BUSINESS}/keys").json()["items"]
    [made] = [one for one in listed if one["label"] == "The night desk"]
    assert 6 * 86_400_000 < made["expires_at"] - time.time() * 1000 < 8 * 86_400_000


def test_an_expired_key_is_told_so(browser: Browser, named: Service) -> None:
    key = key_of(named, "viewer", "Brief", expires_at=int(time.time() * 1000) + 1500)
    time.sleep(1.6)
    with eyes(browser) as seen:
        seen.page.goto(f"{named.url}/admin/sign-in")
        seen.page.get_by_label("Operator token or access key").fill(key)
        seen.page.get_by_role("button", name="Sign in").click()
        expect(seen.page.get_by_role("alert")).to_contain_text("has expired")
        seen.expect_complaint("401")


def test_sessions_are_seen_and_ended(browser: Browser, named: Service) -> None:
    key = key_of(named, "admin", "Office")
    with eyes(browser) as operator, eyes(browser) as office, eyes(browser) as elsewhere:
        operator.sign_in(named, ALICE)
        office.sign_in(named, key)
        elsewhere.sign_in(named, key)
        operator.page.goto(f"{named.url}/admin/businesses/{BUSINESS}/sessions")
        expect(operator.page.get_by_role("row", name="Office")).to_have_count(2)
        operator.look("roles-sessions-business")
        office.page.get_by_role("link", name="Sessions").click()
        other = office.page.get_by_role("row", name="Office").filter(has_not_text="this browser")
        expect(other).to_contain_text("Chrome on Linux")
        expect(other).to_contain_text("127.0.0.1")
        other.get_by_text("End…").click()
        other.get_by_role("button").click()
        expect(office.page.get_by_role("status")).to_contain_text("Ended.")
        elsewhere.page.goto(f"{named.url}/admin")
        assert "/admin/sign-in" in elsewhere.page.url
        elsewhere.sign_in(named, key)
        office.page.get_by_text("Sign out everywhere…").click()
        office.page.get_by_role("button", name="Sign out everywhere").click()
        expect(office.page.get_by_role("status")).to_have_text("You are signed out everywhere.")
        elsewhere.page.goto(f"{named.url}/admin")
        assert "/admin/sign-in" in elsewhere.page.url
        operator.page.goto(f"{named.url}/admin/sessions")
        expect(operator.page.get_by_role("row", name="alice").first).to_contain_text("this browser")


def test_a_live_page_says_that_its_session_has_ended(browser: Browser, named: Service) -> None:
    key = key_of(named, "viewer", "Wall")
    with eyes(browser) as seen:
        seen.sign_in(named, key, onward="/admin/live")
        expect(seen.page.locator("#link")).to_have_text("Following")
        Caller(named, bearer(key))("DELETE", "/sessions")
        expect(seen.page.locator("#link")).to_contain_text("load the page again", timeout=30_000)
        seen.expect_complaint("401")
