"""Live calls in a browser: they appear, are heard, obey their plan, and are ended."""

import json
import re

from playwright.sync_api import Browser, Locator, Page, expect

from app.tools.caller import new_call, speech_frames
from tests.browser.calling import aside, speak, talking
from tests.browser.looking import PHONE, eyes
from tests.browser.test_editing import create_business, create_plan, issue_key, press
from tests.service import NUMBER, Service, receipt_of

FORWARDED = "+15005550003"


def row_of(page: Page, call_sid: str) -> Locator:
    return page.locator(f".call[data-call='{call_sid}']")


def listen(page: Page, name: str) -> None:
    """Listen, until something is heard; then stop."""
    press(page, name)
    page.wait_for_function("() => document.querySelector('.heard').value > 0.01")
    expect(page.get_by_role("button", name="Stop listening")).to_be_visible()
    press(page, "Stop listening")
    expect(page.get_by_role("button", name=name, exact=True)).to_be_visible()


def test_a_live_call_appears_is_heard_and_goes(browser: Browser, bridge: Service) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/live")
        expect(seen.page.get_by_text("Nobody is calling right now.")).to_be_visible()
        expect(seen.page.get_by_text("Following")).to_be_visible()
        seen.look("live-nobody")
        with talking(bridge, FORWARDED) as call:
            row = row_of(seen.page, call.call_sid)
            expect(row).to_contain_text(call.from_number)
            expect(row.locator(".level")).to_have_count(2)
            seen.page.wait_for_function(
                "() => [...document.querySelectorAll('.level meter')].every((m) => m.value > -60)"
            )
            expect(row.locator(".time")).not_to_have_text("0:00")
            expect(row.locator(".gaps")).to_have_text("0")
            listen(seen.page, "Listen")
            seen.look("live-call")
            row.get_by_role("link").click()
            listen(seen.page, "Listen live")
            seen.look("call-live")
            seen.page.goto(f"{bridge.url}/admin")
            expect(seen.page.locator("[data-figure=live]")).to_have_text("1")
            seen.look("overview-live")
            seen.page.goto(f"{bridge.url}/admin/live")
            expect(row).to_be_visible()
        expect(row).to_have_count(0)
        expect(seen.page.get_by_text("Nobody is calling right now.")).to_be_visible()


def test_a_live_call_fits_a_phone(browser: Browser, bridge: Service) -> None:
    with eyes(browser, PHONE) as seen, talking(bridge, FORWARDED) as call:
        seen.sign_in(bridge, onward="/admin/live")
        expect(row_of(seen.page, call.call_sid).locator(".level")).to_have_count(2)
        seen.look("live-call-phone")


def test_a_live_call_is_ended_once_confirmed(browser: Browser, bridge: Service) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/live")
        with talking(bridge, NUMBER) as call:
            row = row_of(seen.page, call.call_sid)
            row.get_by_text("End call…").click()
            row.get_by_role("button", name="End it now").click()
            expect(seen.page.get_by_role("status").first).to_have_text("The call is being ended.")
            assert aside(receipt_of(bridge, call.stream_sid))["end_reason"] == "ended_by_admin"
        seen.page.goto(f"{bridge.url}/admin/calls/{call.call_sid}?business=business-1")
        expect(seen.page.locator(".timeline")).to_contain_text("an admin ended it")
        seen.page.goto(f"{bridge.url}/admin/audit")
        # The log has also that it was looked at.
        of_call = seen.page.get_by_role("row", name=call.call_sid)
        expect(of_call.filter(has_text="call ended")).to_have_count(1)


def test_a_changed_plan_binds_the_next_call_and_not_the_live_one(
    browser: Browser, bridge: Service
) -> None:
    number = "+15005550111"
    with eyes(browser) as seen:
        seen.sign_in(bridge)
        create_plan(seen, bridge, "obeyed")
        create_business(seen, bridge, "obedient", "obeyed", number)
        with talking(bridge, number) as first:
            seen.page.goto(f"{bridge.url}/admin/live")
            expect(row_of(seen.page, first.call_sid)).to_be_visible()
            seen.page.goto(f"{bridge.url}/admin/plans/obeyed")
            seen.page.get_by_label("Longest call").fill("1")
            seen.page.get_by_label("Sample rate").select_option("16000")
            press(seen.page, "Save")
            expect(seen.page.get_by_role("status")).to_contain_text("Saved.")
            seen.page.wait_for_timeout(1000)  # what is promised, and no sooner
            second = aside(speak(bridge, new_call(number), speech_frames()[50:300]))
        receipts = [aside(receipt_of(bridge, one.stream_sid)) for one in (first, second)]
        assert [one["end_reason"] for one in receipts] == ["stop", "max_call_seconds"]
        for call, rate in ((first, "8,000 Hz"), (second, "16,000 Hz")):
            seen.page.goto(f"{bridge.url}/admin/calls/{call.call_sid}?business=obedient")
            expect(seen.page.locator(".facts")).to_contain_text(rate)
        seen.page.goto(f"{bridge.url}/admin/businesses/obedient/usage")
        expect(seen.page.get_by_role("row").nth(1)).to_contain_text(re.compile(r"\d{4}-\d\d2"))
        seen.look("usage")


def test_another_business_watches_nothing_of_a_call(browser: Browser, bridge: Service) -> None:
    with eyes(browser) as operator, eyes(browser) as seen:
        operator.sign_in(bridge)
        seen.sign_in(bridge, issue_key(operator, bridge, "business-2"), onward="/admin/live")
        operator.page.goto(f"{bridge.url}/admin/live")
        expect(seen.page.get_by_text("Following")).to_be_visible()
        with talking(bridge, NUMBER) as call:
            expect(row_of(operator.page, call.call_sid)).to_be_visible()
            with talking(bridge, "+15005550002") as own:
                expect(row_of(seen.page, own.call_sid)).to_be_visible()
                expect(seen.page.locator(".call")).to_have_count(1)
                told = seen.page.evaluate(
                    "async () => [await (await fetch('/api/v1/live')).json(),"
                    f" (await fetch('/api/v1/calls/{call.call_sid}/live.pcm')).status,"
                    f" (await fetch('/api/v1/calls/{call.call_sid}/audio.wav')).status]"
                )
        seen.expect_complaint("404")
        seen.expect_complaint("404")
        assert call.call_sid not in json.dumps(told)
        assert told[1:] == [404, 404]
