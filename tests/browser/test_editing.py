"""Plans, businesses, numbers, secrets and keys, set up and changed in a browser."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.looking import PHONE, Eyes, eyes
from tests.service import Service

NAME = "Müller & <b>Söhne</b> מרפאה"


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def create_plan(seen: Eyes, service: Service, name: str, calls: str = "3") -> None:
    seen.page.goto(f"{service.url}/admin/new-plan")
    seen.page.get_by_label("Name").fill(name)
    seen.page.get_by_label("Calls at a time").fill(calls)
    press(seen.page, "Create")
    expect(seen.page.get_by_role("status")).to_have_text("Created.")


def create_business(
    seen: Eyes, service: Service, id_: str, plan: str, number: str, name: str = NAME
) -> None:
    seen.page.goto(f"{service.url}/admin/new-business")
    seen.page.get_by_label("Name", exact=True).fill(name)
    seen.page.get_by_label("Id", exact=True).fill(id_)
    seen.page.get_by_label("Number", exact=True).fill(number)
    seen.page.get_by_label("Plan", exact=True).select_option(plan)
    press(seen.page, "Create")
    expect(seen.page.get_by_role("status").first).to_have_text("Created.")


def issue_key(
    seen: Eyes, service: Service, id_: str, label: str = "Mary", role: str = "Admin"
) -> str:
    seen.page.goto(f"{service.url}/admin/businesses/{id_}/keys")
    seen.page.get_by_label("For whom").fill(label)
    seen.page.get_by_role("radio", name=role).check()
    press(seen.page, "Issue key")
    return seen.page.get_by_label("Access key").input_value()


def test_an_operator_sets_up_a_business_and_its_admin_sees_it_alone(
    browser: Browser, bridge: Service
) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge)
        create_plan(seen, bridge, "gold")
        create_business(seen, bridge, "mueller", "gold", "+4930555001")
        assert seen.page.get_by_label("A call comes in").input_value() == (
            f"{bridge.url}/twilio-voice"
        )
        press(seen.page, "Copy the URL of A call comes in")
        expect(seen.page.locator(".said").first).not_to_be_empty()
        seen.look("numbers")
        seen.page.get_by_label("Number", exact=True).fill("0800 1")
        press(seen.page, "Add number")
        expect(seen.page.get_by_role("alert")).to_contain_text("E.164")
        seen.expect_complaint("422")
        seen.page.get_by_label("Number", exact=True).fill("+15005550006")
        press(seen.page, "Add number")
        expect(seen.page.get_by_role("alert")).to_contain_text("another business's")
        seen.expect_complaint("409")
        key = issue_key(seen, bridge, "mueller")
        assert key.startswith("mbk_")
        seen.look("keys")
        seen.page.reload()
        expect(seen.page.locator("body")).not_to_contain_text(key[-20:])
    with eyes(browser) as seen:
        seen.sign_in(bridge, key)
        seen.page.get_by_role("link", name="Business", exact=True).click()
        expect(seen.page.get_by_role("heading", level=1)).to_have_text(NAME)
        seen.look("business-of-admin")
        expect(seen.page.get_by_label("Plan", exact=True)).to_be_disabled()
        expect(seen.page.get_by_role("link", name="Businesses")).to_have_count(0)
        seen.page.get_by_label("Greeting").fill("Welcome.")
        press(seen.page, "Save")
        expect(seen.page.get_by_role("status")).to_contain_text("Saved.")
        expect(seen.page.get_by_label("Greeting")).to_have_value("Welcome.")
        for path in ("business-1", "business-1/keys", "business-1/secrets", "nobody"):
            answer = seen.page.goto(f"{bridge.url}/admin/businesses/{path}")
            assert answer is not None
            assert answer.status == 404
            expect(seen.page.locator("body")).not_to_contain_text("+15005550006")
            seen.expect_complaint("404")
        for path in ("new-plan", "new-business"):
            answer = seen.page.goto(f"{bridge.url}/admin/{path}")
            assert answer is not None
            assert answer.status == 403
            seen.expect_complaint("403")
        seen.page.goto(f"{bridge.url}/admin/plans")
        expect(seen.page.get_by_label("Calls at a time")).to_have_value("3")
        expect(seen.page.get_by_role("button", name="Save")).to_have_count(0)
        seen.look("plan-of-admin")


def test_a_revoked_key_signs_its_user_out(browser: Browser, bridge: Service) -> None:
    with eyes(browser) as operator, eyes(browser) as admin:
        operator.sign_in(bridge)
        key = issue_key(operator, bridge, "business-2", label="Leaver")
        admin.sign_in(bridge, key)
        operator.page.goto(f"{bridge.url}/admin/businesses/business-2/keys")
        operator.page.get_by_role("row", name="Leaver").get_by_text("Revoke…").click()
        operator.page.get_by_role("row", name="Leaver").get_by_role("button").click()
        expect(operator.page.get_by_role("status").first).to_contain_text("Revoked.")
        admin.page.goto(f"{bridge.url}/admin/businesses/business-2")
        assert "/admin/sign-in" in admin.page.url


def test_two_who_edit_at_once_lose_nothing(browser: Browser, bridge: Service) -> None:
    with eyes(browser) as first, eyes(browser) as second:
        first.sign_in(bridge)
        create_plan(first, bridge, "shared")
        second.sign_in(bridge)
        for one in (first, second):
            one.page.goto(f"{bridge.url}/admin/plans/shared")
        first.page.get_by_label("Calls at a time").fill("5")
        first.page.get_by_label("Longest call").fill("60")
        press(first.page, "Save")
        expect(first.page.get_by_role("status")).to_contain_text("Saved.")
        second.page.get_by_label("Calls at a time").fill("7")
        second.page.get_by_label("Frame length").fill("40")
        press(second.page, "Save")
        second.expect_complaint("412")
        expect(second.page.get_by_role("alert")).to_contain_text("Somebody else saved this")
        expect(second.page.get_by_label("Calls at a time")).to_have_value("7")
        expect(second.page.get_by_text("Saved meanwhile: 5")).to_be_visible()
        expect(second.page.get_by_label("Longest call")).to_have_value("60")
        expect(second.page.get_by_label("Frame length")).to_have_value("40")
        second.look("plan-edited-meanwhile")
        first.page.reload()
        expect(first.page.get_by_label("Calls at a time")).to_have_value("5")
        press(second.page, "Save")
        expect(second.page.get_by_role("status")).to_contain_text("Saved.")
        first.page.reload()
        for field, value in (("Calls at a time", "7"), ("Longest call", "60")):
            expect(first.page.get_by_label(field)).to_have_value(value)
        expect(first.page.get_by_label("Frame length")).to_have_value("40")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("Calls at a time", "", "whole number"),
        ("Calls at a time", "many", "whole number"),
        ("Calls at a time", "0", "1 to"),
        ("Calls at a time", "9" * 400, "must be"),
        ("Frame length", "<b>20</b>", "whole number"),
        ("New calls a second", "-1", "0.01"),
        ("Minutes, hard limit", "\u202e5", "whole number"),
    ],
)
def test_what_cannot_be_stored_stays_in_the_form_with_the_reason(
    browser: Browser, bridge: Service, field: str, value: str, said: str
) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/plans/premium")
        seen.page.get_by_label(field).fill(value)
        press(seen.page, "Save")
        seen.expect_complaint("422")
        expect(seen.page.get_by_label(field)).to_have_value(value)
        expect(seen.page.get_by_label(field)).to_have_attribute("aria-invalid", "true")
        expect(seen.page.locator(".problem")).to_contain_text(said)
        seen.page.goto(f"{bridge.url}/admin/plans/premium")
        expect(seen.page.get_by_label(field)).not_to_have_value(value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Name", ""),
        ("Name", "a\u0007bell"),
        ("Name", "x" * 501),
        ("Greeting", "turned \u202e around"),
        ("Greeting", "two\nlines"),
        ("Forward to", "not a number"),
        ("Country", "XX"),
        ("Usage webhook URL", "http://plain.example"),
        ("Twilio account SID", "AC12"),
    ],
)
def test_a_business_refuses_what_a_call_could_not_use(
    browser: Browser, bridge: Service, field: str, value: str
) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/businesses/business-2")
        seen.page.get_by_label(field, exact=True).fill(value)
        press(seen.page, "Save")
        seen.expect_complaint("422")
        expect(seen.page.locator(".wrong")).to_have_count(1)
        seen.page.goto(f"{bridge.url}/admin/businesses/business-2")
        expect(seen.page.get_by_label(field, exact=True)).not_to_have_value(value)


def test_what_is_in_use_is_not_deleted(browser: Browser, bridge: Service) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/plans/premium")
        seen.page.get_by_text("Delete this plan…").click()
        press(seen.page, "Delete plan premium")
        expect(seen.page.get_by_role("alert")).to_contain_text("give them another one first")
        seen.expect_complaint("409")
        create_plan(seen, bridge, "unused")
        seen.page.get_by_text("Delete this plan…").click()
        press(seen.page, "Delete plan unused")
        expect(seen.page.get_by_role("status")).to_have_text("Deleted.")


def test_a_business_is_deleted_by_who_types_its_id_and_its_id_is_not_used_again(
    browser: Browser, bridge: Service
) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/new-business")

        def create() -> None:
            seen.page.goto(f"{bridge.url}/admin/new-business")
            seen.page.get_by_label("Name", exact=True).fill("Closing down")
            seen.page.get_by_label("Id", exact=True).fill("closing-down")
            press(seen.page, "Create")

        create()
        seen.page.goto(f"{bridge.url}/admin/businesses/closing-down")
        with seen.page.expect_download() as downloaded:
            seen.page.get_by_text("Download records (JSON lines)").click()
        assert downloaded.value.suggested_filename == "closing-down.jsonl"
        seen.page.get_by_text("Delete this business…").click()
        seen.page.get_by_label("To confirm, type its id").fill("closing")
        press(seen.page, "Delete Closing down for ever")
        seen.expect_complaint("422")
        expect(seen.page.get_by_role("alert")).to_contain_text("This is not its id")
        seen.page.get_by_label("To confirm, type its id").fill("closing-down")
        press(seen.page, "Delete Closing down for ever")
        expect(seen.page.get_by_role("status")).to_have_text("Deleted.")
        create()
        seen.expect_complaint("409")
        expect(seen.page.locator(".problem")).to_contain_text("is not used again")


def test_a_person_is_found_and_erased_on_a_page(browser: Browser, bridge: Service) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/persons")
        seen.page.get_by_label("Phone number").fill("5550177")
        press(seen.page, "Find")
        seen.expect_complaint("422")
        expect(seen.page.get_by_role("alert")).to_contain_text("international number")
        seen.page.goto(f"{bridge.url}/admin/businesses/business-2")
        seen.page.get_by_label("Forward to", exact=True).fill("+12025550177")
        press(seen.page, "Save")
        seen.page.goto(f"{bridge.url}/admin/persons")
        seen.page.get_by_label("Phone number").fill("+1 (202) 555-0177")
        press(seen.page, "Find")
        expect(seen.page.locator("#found")).to_have_text("Where they are named")
        assert "202" not in seen.page.url
        seen.page.get_by_text("Erase this person…").click()
        seen.page.get_by_label("To confirm, type").fill("erase")
        press(seen.page, "Erase for ever")
        expect(seen.page.locator("#found")).to_have_text("Erased")
        expect(seen.page.get_by_text("1 number in the audit log erased.")).to_be_visible()
        expect(seen.page.get_by_text("forward to")).to_be_visible()


def test_a_name_that_is_taken_is_refused(browser: Browser, bridge: Service) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/new-plan")
        seen.page.get_by_label("Name").fill("premium")
        press(seen.page, "Create")
        seen.expect_complaint("409")
        expect(seen.page.locator(".problem")).to_contain_text("taken")
        seen.page.goto(f"{bridge.url}/admin/new-business")
        seen.page.get_by_label("Name", exact=True).fill("Other")
        seen.page.get_by_label("Id", exact=True).fill("business-1")
        press(seen.page, "Create")
        seen.expect_complaint("409")
        expect(seen.page.locator(".problem")).to_contain_text("taken")


def test_a_form_is_filled_and_sent_by_keyboard_alone(browser: Browser, bridge: Service) -> None:
    with eyes(browser, PHONE) as seen:
        seen.sign_in(bridge, onward="/admin/plans/slow")
        for _ in range(40):
            seen.page.keyboard.press("Tab")
            if seen.page.evaluate("document.activeElement.name") == "max_concurrent_calls":
                break
        seen.page.keyboard.press("Control+A")
        seen.page.keyboard.type("4")
        seen.page.keyboard.press("Enter")
        expect(seen.page.get_by_role("status")).to_contain_text("Saved.")
        expect(seen.page.get_by_label("Calls at a time")).to_have_value("4")
        seen.look("plan-phone")


def test_a_secret_is_set_replaced_and_removed_and_never_shown(
    browser: Browser, bridge: Service
) -> None:
    token = "f00dfeed" * 4
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/businesses/business-2/secrets")
        seen.page.get_by_label("Set it to (Twilio auth tokens)").fill(f"{token}, {'0' * 32}")
        press(seen.page, "Save secrets")
        expect(seen.page.get_by_role("status")).to_have_text("Saved.")
        expect(seen.page.get_by_role("group", name="Twilio auth tokens")).to_contain_text("set")
        assert token not in seen.page.content()
        seen.look("secrets")
        seen.page.get_by_label("Set it to (Exotel pairs, typed)").fill("no pair")
        press(seen.page, "Save secrets")
        seen.expect_complaint("422")
        expect(seen.page.locator(".problem")).to_contain_text("KEY:TOKEN")
        assert "no pair" not in seen.page.content()
        seen.page.get_by_label("Remove it (Twilio auth tokens)").check()
        press(seen.page, "Save secrets")
        expect(seen.page.get_by_label("Set it to (Twilio auth tokens)")).to_have_count(1)
        seen.page.goto(f"{bridge.url}/admin/audit")
        expect(seen.page.get_by_role("row", name="secrets saved")).to_have_count(2)
        assert token not in seen.page.content()


def test_an_exotel_pair_is_generated_shown_once_and_revoked(
    browser: Browser, bridge: Service
) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/businesses/business-2/secrets")
        seen.page.get_by_label("For what").fill("Support line")
        press(seen.page, "Generate pair")
        token = seen.page.get_by_label("API token").input_value()
        assert len(token) >= 16
        assert token in seen.page.get_by_label("Stream URL with both").input_value()
        seen.look("exotel-pair")
        seen.page.goto(f"{bridge.url}/admin/businesses/business-2/secrets")
        assert token not in seen.page.content()
        row = seen.page.get_by_role("row", name="Support line")
        row.get_by_text("Revoke…").click()
        row.get_by_role("button", name="Revoke it now").click()
        expect(seen.page.get_by_text("No Exotel pairs yet.")).to_have_count(1)


def test_usage_is_downloaded_as_csv(browser: Browser, bridge: Service) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/businesses/business-2/usage")
        with seen.page.expect_download() as download:
            seen.page.get_by_role("link", name="Download as CSV").click()
        text = download.value.path().read_text(encoding="utf-8")
        assert text.startswith("month,calls,minutes,")
