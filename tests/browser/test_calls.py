"""Calls in a browser: found, looked at, heard, downloaded, erased."""

import io
import re
import wave

import pytest
from playwright.sync_api import Browser, expect

from app.audio import mulaw_to_pcm16
from app.tools.caller import Call, new_call, speech_frames
from tests.browser.calling import aside, placed, ring
from tests.browser.looking import OPERATOR_TOKEN, PHONE, Eyes, eyes
from tests.browser.test_editing import issue_key, press
from tests.service import NUMBER, Service, service_alone

FORWARDED = "+15005550003"


@pytest.fixture(scope="module")
def spoken(bridge: Service) -> Call:
    """Give a call that has ended, with two seconds of speech on both tracks."""
    return placed(bridge, FORWARDED, speech_frames()[50:150])


def open_call(seen: Eyes, service: Service, call: Call, business: str = "forwarding") -> None:
    seen.page.goto(f"{service.url}/admin/calls/{call.call_sid}?business={business}")


def test_a_call_is_found_looked_at_and_downloaded(
    browser: Browser, bridge: Service, spoken: Call
) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge)
        seen.look("overview-with-calls")
        seen.page.get_by_role("link", name="Calls", exact=True).click()
        row = seen.page.get_by_role("row", name=spoken.from_number).first
        expect(row).to_contain_text("ended")
        seen.look("calls-list")
        row.get_by_role("link").click()
        seen.page.get_by_role("img", name=re.compile("inbound track")).wait_for()
        expect(seen.page.locator("svg.track")).to_have_count(2)
        expect(seen.page.get_by_text("200 of 200 frames delivered")).to_be_visible()
        expect(seen.page.locator(".timeline")).to_contain_text("Stream ended")
        with seen.page.expect_download() as download:
            seen.page.get_by_role("link", name="Download WAV").click()
        downloaded = download.value.path().read_bytes()
        seen.look("call-ended")
    with wave.open(io.BytesIO(downloaded)) as recording:
        assert (recording.getnchannels(), recording.getframerate()) == (2, 8000)
        heard = recording.readframes(recording.getnframes())
    spoken_pcm = b"".join(map(mulaw_to_pcm16, speech_frames()[50:150]))
    assert b"".join(heard[at : at + 2] for at in range(0, len(heard), 4)) == spoken_pcm


def test_the_player_plays(browser: Browser, bridge: Service, spoken: Call) -> None:
    with eyes(browser, PHONE) as seen:
        seen.sign_in(bridge)
        open_call(seen, bridge, spoken)
        audio = seen.page.locator("audio")
        audio.evaluate("async (audio) => { await audio.play(); }")
        seen.page.wait_for_function("() => document.querySelector('audio').ended", timeout=30_000)
        assert audio.evaluate("(audio) => audio.duration") == pytest.approx(2.0, abs=0.01)
        seen.look("call-ended-phone")


def test_a_list_is_narrowed(browser: Browser, bridge: Service, spoken: Call) -> None:
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/calls")
        for state, rows in (("ended", 1), ("rejected", 0)):
            seen.page.get_by_label("State").select_option(state)
            press(seen.page, "Show")
            expect(seen.page.get_by_role("row", name=spoken.from_number)).to_have_count(rows)
        expect(seen.page.get_by_text("No call is like that.")).to_be_visible()
        seen.page.goto(f"{bridge.url}/admin/calls?from=yesterday")
        seen.expect_complaint("422")
        expect(seen.page.get_by_text("must be a day such as")).to_be_visible()
        seen.page.goto(f"{bridge.url}/admin/calls?state=odd")
        seen.expect_complaint("422")


def test_another_business_sees_nothing_of_a_call(
    browser: Browser, bridge: Service, spoken: Call
) -> None:
    with eyes(browser) as operator:
        operator.sign_in(bridge)
        key = issue_key(operator, bridge, "business-2")
    with eyes(browser) as seen:
        seen.sign_in(bridge, key)
        expect(seen.page.get_by_role("heading", level=1)).to_have_text("Overview")
        seen.page.goto(f"{bridge.url}/admin/calls")
        expect(seen.page.get_by_text("No calls yet.")).to_be_visible()
        for business in ("", "?business=forwarding", "?business=business-2"):
            answer = seen.page.goto(f"{bridge.url}/admin/calls/{spoken.call_sid}{business}")
            assert answer is not None
            assert answer.status == 404
            seen.expect_complaint("404")
            expect(seen.page.locator("body")).not_to_contain_text(spoken.from_number)


def test_a_call_is_erased_by_who_types_its_last_characters(
    browser: Browser, bridge: Service
) -> None:
    call = placed(bridge, NUMBER, speech_frames()[50:60])
    with eyes(browser) as seen:
        seen.sign_in(bridge)
        open_call(seen, bridge, call, "business-1")
        seen.page.get_by_text("Erase this call…").click()
        seen.page.get_by_label("To confirm").fill("....")
        press(seen.page, "Erase for ever")
        seen.expect_complaint("422")
        expect(seen.page.get_by_role("alert")).to_contain_text("not its last 4")
        seen.page.get_by_label("To confirm").fill(call.call_sid[-4:])
        press(seen.page, "Erase for ever")
        expect(seen.page.get_by_role("status")).to_contain_text("Erased.")
        open_call(seen, bridge, call, "business-1")
        seen.expect_complaint("404")
        seen.page.goto(f"{bridge.url}/admin/audit")
        expect(seen.page.get_by_role("row", name="call erased")).to_contain_text(call.call_sid)
        seen.look("audit-erased")


def test_what_strangers_name_stays_text(browser: Browser, bridge: Service) -> None:
    hostile = '"><script>alert(1)</script>\u202e'
    call = new_call(NUMBER, from_number=hostile)

    aside(ring(bridge, call))
    with eyes(browser) as seen:
        seen.sign_in(bridge, onward="/admin/calls")
        expect(seen.page.get_by_role("row", name="<script>")).to_have_count(1)
        open_call(seen, bridge, call, "business-1")
        expect(seen.page.get_by_role("heading", level=1)).to_contain_text("<script>")
        seen.look("call-hostile")


def test_without_calls_the_pages_say_how_to_get_one(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("empty")
    tried = service_alone(directory, ADMIN_TOKEN=OPERATOR_TOKEN, ALLOW_UNSIGNED="true")
    with tried as empty, eyes(browser) as seen:
        seen.sign_in(empty)
        expect(seen.page.get_by_text("make call")).to_be_visible()
        expect(seen.page.get_by_text("Place a call.")).to_be_visible()
        expect(seen.page.locator(".note.warn")).to_contain_text("append-only")
        seen.look("overview-first-steps")
        seen.page.goto(f"{empty.url}/admin/calls")
        expect(seen.page.get_by_text("No calls yet.")).to_be_visible()
