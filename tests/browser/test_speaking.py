"""An operator speaks into a live call: a browser with a microphone that beeps."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping

import pytest
from playwright.sync_api import Browser, expect

from app.audio import level_dbfs
from app.media import Encoding
from tests.browser import chromium
from tests.browser.calling import aside, meanwhile
from tests.browser.looking import OPERATOR_TOKEN, eyes
from tests.browser.test_editing import press
from tests.playback.conftest import settings
from tests.playback.talking import Talk, twilio_call
from tests.service import Service, service_alone
from tests.waiting import WAIT_SECONDS, until

__all__ = ["settings"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give a Chromium with a microphone that nobody need allow, or skip."""
    with chromium.launched(
        "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"
    ) as launched:
        yield launched


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, settings: Mapping[str, str]
) -> Iterator[Service]:
    more = {"ADMIN_TOKEN": OPERATOR_TOKEN, "ADMIN_MAY_SPEAK": "true"}
    with service_alone(tmp_path_factory.mktemp("speaking"), **more, **settings) as running:
        yield running


class Line:
    """A caller who listens until told to hang up."""

    def __init__(self) -> None:
        self.is_live = threading.Event()
        self.is_over = threading.Event()
        self.talk: Talk | None = None

    async def hold(self, service: Service, query: str) -> None:
        async with twilio_call(service, query) as talk:
            self.talk = talk
            self.is_live.set()
            await asyncio.to_thread(self.is_over.wait)

    def has_heard(self) -> bool:
        assert self.talk is not None
        sent = self.talk.listener.sent
        frames = (sent[at : at + 160] for at in range(0, len(sent), 160))
        return any(level_dbfs(frame, Encoding.MULAW) > -40 for frame in frames)


def _until(holds: object) -> Coroutine[object, object, object]:
    return until(holds)  # type: ignore[arg-type]


@pytest.mark.parametrize("business", ["talking", "listening"])
def test_an_operator_speaks_by_the_microphone(
    browser: Browser, house: Service, business: str
) -> None:
    line = Line()
    with eyes(browser) as seen, meanwhile(line.hold(house, f"?businessId={business}")):
        try:
            assert line.is_live.wait(WAIT_SECONDS)
            assert line.talk is not None
            path = f"/admin/calls/{line.talk.call_sid}?business={business}"
            seen.sign_in(house, onward=path)
            status = seen.page.locator(".acts .said")
            press(seen.page, "Speak into this call")
            if business == "listening":
                expect(status).to_contain_text("has no return_audio")
                seen.expect_complaint("403")
                expect(seen.page.get_by_role("button", name="Speak into this call")).to_be_visible()
                return
            expect(status).to_have_text("You are heard in the call.")
            aside(_until(line.has_heard))
            seen.look("call-speaking")
            press(seen.page, "Stop speaking")
            expect(status).to_have_text("Heard.")
            press(seen.page, "Silence")
            expect(status).to_have_text("Silenced.")
            aside(_until(lambda: line.talk and line.talk.listener.of("clear")))
            seen.page.reload()
            expect(seen.page.locator(".timeline")).to_contain_text("Spoken into")
            expect(seen.page.locator(".timeline")).to_contain_text("Silenced")
        finally:
            line.is_over.set()
