"""What Twilio itself knows of a deployment."""

import time
from collections.abc import Sequence
from typing import Any

import pytest

from app import twilio_api
from app.diagnosis.alerts import MEANINGS, alert_findings
from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import Finding, Level
from app.diagnosis.steps import examine
from app.diagnosis.twilio_checks import MOST_NUMBERS, TwilioChecks
from app.twilio_api.account import TwilioAccount
from tests.twilio_account import SID, TOKEN, a_number, an_account, an_alert

NUMBER = "+15005550006"
URL = "https://bridge.example.com"
HERE = {"voice_url": f"{URL}/twilio-voice", "status_callback": f"{URL}/twilio-status"}
NOW = 1_795_273_562.0  # 2026-11-21T15:06:02Z
TODAY, YESTERDAY, BEFORE = "2026-11-21T09:00:00Z", "2026-11-20T15:07:00Z", "2026-11-20T15:00:00Z"


async def examined(
    *numbers: str, token: str = TOKEN, url: str = "", **account: Any
) -> list[Finding]:
    async def known() -> Sequence[str]:
        return numbers or (NUMBER,)

    async with an_account(**account) as stand_in, twilio_api.client() as client:
        credentials = twilio_api.Credentials(SID, token)
        base = url or stand_in.url
        asked = TwilioAccount(client, base, base, credentials)
        checks = TwilioChecks(asked, base, URL, known, lambda: NOW)
        return await examine(checks.steps(), lambda finding: None, time.monotonic)


def causes(findings: Sequence[Finding]) -> list[str]:
    return [finding.cause for finding in findings if finding.cause]


async def test_a_number_that_calls_here_is_well() -> None:
    findings = await examined(numbers=[a_number(NUMBER, **HERE)])
    assert causes(findings) == []
    assert [one.level for one in findings] == [Level.OK] * 3


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"voice_url": f"{URL}/twilio-voice?businessId=x#rc=2"}, []),
        ({"voice_url": "https://demo.twilio.com/welcome/voice/"}, ["number_calls_elsewhere"]),
        ({"voice_url": f"{URL}/twilio-voice/"}, ["number_calls_elsewhere"]),
        ({"voice_url": "http://bridge.example.com/twilio-voice"}, ["number_calls_elsewhere"]),
        ({"voice_url": "https://u:secret@old.example"}, ["number_calls_elsewhere"]),
        ({"voice_url": None}, ["number_calls_elsewhere"]),
        ({"voice_application_sid": "AP1"}, ["number_uses_application"]),
        ({"trunk_sid": "TK1"}, ["number_uses_application"]),
        ({"status_callback": ""}, ["number_without_status_callback"]),
        ({"voice_fallback_url": ""}, ["number_without_fallback"]),
        (
            {"status_callback": None, "voice_fallback_url": None},
            ["number_without_status_callback", "number_without_fallback"],
        ),
    ],
)
async def test_what_is_set_for_a_number_is_judged(
    settings: dict[str, str | None], found: list[str]
) -> None:
    findings = await examined(numbers=[a_number(NUMBER, **{**HERE, **settings})])
    assert causes(findings) == found
    assert "secret" not in str(findings)


async def test_a_number_that_the_account_does_not_have_is_named() -> None:
    longer = a_number(f"{NUMBER}7", **HERE)
    assert causes(await examined(numbers=[longer])) == ["number_unknown"]


async def test_wrong_credentials_are_told_from_a_twilio_that_is_away() -> None:
    assert causes(await examined(token="another")) == ["twilio_credentials"]
    assert causes(await examined(url="http://127.0.0.1:1")) == ["twilio_unreachable"]
    assert causes(await examined(status=503)) == ["twilio_unreachable"]
    endless = b'{"alerts": [], "incoming_phone_numbers": []%b}' % (b" " * 2**20)
    for garbage in (b"<html>", b'{"alerts": 7}', b"[" * 100_000, endless):
        assert causes(await examined(garbage=garbage)) == ["twilio_unreachable"]


async def test_only_so_many_numbers_are_asked_for() -> None:
    many = [f"+1500555{n:04}" for n in range(MOST_NUMBERS + 5)]
    findings = await examined(*many, numbers=[a_number(one, **HERE) for one in many])
    assert sum("calls this service" in one.found for one in findings) == MOST_NUMBERS
    [rest] = [one for one in findings if one.level is Level.SKIPPED]
    assert rest.found.startswith("5 more")


async def test_alerts_of_the_last_day_are_explained_with_their_likely_cause() -> None:
    alerts = [an_alert("31920", TODAY), an_alert("31920", YESTERDAY), an_alert("12300", BEFORE)]
    findings = await examined(numbers=[a_number(NUMBER, **HERE)], alerts=alerts)
    [alert] = [finding for finding in findings if finding.cause]
    assert alert.cause == "alert_stream"
    assert "31920 2 times" in alert.found
    assert "upgrade_stripped" in alert.fix
    assert "https://www.twilio.com/docs/api/errors/31920" in alert.fix


@pytest.mark.parametrize("code", [*map(str, MEANINGS), "30007", "", "x" * 10, "9" * 10])
def test_every_code_has_a_finding(code: str) -> None:
    [finding] = alert_findings([code])
    assert finding.level is Level.WARNING
    assert finding.cause == (
        MEANINGS[int(code)].kind if code in map(str, MEANINGS) else "alert_other"
    )


def test_every_likely_cause_is_one_that_the_doctor_finds() -> None:
    likely = {cause for meaning in MEANINGS.values() for cause in meaning.likely}
    assert likely <= set(CAUSES)


# PROTOCOLS, 4: those of webhooks, of TwiML and of streams that are documented.
DOCUMENTED = [
    *(11200, 11205, 11210, 11215, 11220, 12100, 12101, 12102, 12300),
    *(31901, 31902, 31903, 31910, 31920, 31921, 31922, 31923, 31924),
    *(31930, 31931, 31941, 31950, 31951),
]


@pytest.mark.parametrize("code", DOCUMENTED)
def test_the_codes_of_the_facts_are_known(code: int) -> None:
    assert code in MEANINGS


def test_the_most_frequent_comes_first_and_only_so_many() -> None:
    codes = ["11200", "31920", "31920", *map(str, range(30000, 30020))]
    found = alert_findings(codes)
    assert len(found) == 10
    assert "31920" in found[0].found
