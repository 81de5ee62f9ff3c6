"""Twilio's REST API, asked of a stand-in that answers as Twilio may, and as it should not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from app import twilio_api
from app.metrics import Metrics
from app.twilio_api import (
    AT_A_TIME,
    ATTEMPTS,
    LONGEST_PAUSE_SECONDS,
    MAX_ANSWER_BYTES,
    CarrierCall,
    Outcome,
    TwilioApi,
    credentials_of_one_account,
)
from tests.twilio_stand_in import RESET, Answer, StandIn, problem, standing_in
from tests.waiting import WAIT_SECONDS, until

ACCOUNT = "AC" + "1" * 32
OTHER_ACCOUNT = "AC" + "2" * 32
TOKEN = "canary-auth-token"
CALL = CarrierCall("CA" + "3" * 32, ACCOUNT, "business-1")


class Asking:
    """An API client, the pauses it made, and what it counted."""

    def __init__(self, url: str, account_sid: str = ACCOUNT, token: str = TOKEN) -> None:
        self.pauses: list[float] = []
        self._metrics = Metrics()
        self.client = twilio_api.client()
        self.api = TwilioApi(
            self.client,
            url,
            credentials_of_one_account(account_sid, token),
            self._metrics,
            jitter=lambda: 0.5,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def end(self, call: CarrierCall = CALL) -> Outcome:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.api.end_call(call)

    def counted(self, outcome: Outcome) -> float:
        labels = {"what": "end_call", "outcome": outcome}
        return self._metrics.registry.get_sample_value("bridge_twilio_requests_total", labels) or 0


@asynccontextmanager
async def asking(answers: Sequence[Answer] = (Answer(),)) -> AsyncIterator[tuple[Asking, StandIn]]:
    async with standing_in(answers) as stand_in:
        asking = Asking(stand_in.url)
        try:
            yield asking, stand_in
        finally:
            await asking.api.close()


async def test_a_call_is_ended_as_twilio_documents_it() -> None:
    async with asking() as (twilio, stand_in):
        assert await twilio.end() is Outcome.DONE
        [asked] = stand_in.asked
    assert asked.method == "POST"
    assert asked.path == f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL.call_sid}.json"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert asked.form == {"Status": ["completed"]}
    assert asked.credentials == f"{ACCOUNT}:{TOKEN}"
    assert twilio.counted(Outcome.DONE) == 1


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        pytest.param(problem(404, 20404), Outcome.GONE, id="no such call"),
        pytest.param(problem(400, 21220), Outcome.GONE, id="call is over"),
        pytest.param(Answer(404, b"not JSON"), Outcome.GONE, id="no such call, in no words"),
        pytest.param(problem(401, 20003), Outcome.UNAUTHORIZED, id="wrong token"),
        pytest.param(problem(403, 20403), Outcome.REFUSED, id="forbidden"),
        pytest.param(problem(400, 20001), Outcome.REFUSED, id="a bad request"),
        pytest.param(Answer(302, b"", ("Location: /",)), Outcome.REFUSED, id="a redirect"),
        pytest.param(Answer(200, b"[" * 10_000), Outcome.DONE, id="done, in strange words"),
        pytest.param(Answer(400, b'{"code": "x"}'), Outcome.REFUSED, id="an odd code"),
        pytest.param(Answer(400, b" " * MAX_ANSWER_BYTES * 4), Outcome.REFUSED, id="a long one"),
    ],
)
async def test_what_twilio_decided_is_not_asked_again(answer: Answer, outcome: Outcome) -> None:
    async with asking([answer]) as (twilio, stand_in):
        assert await twilio.end() is outcome
        assert len(stand_in.asked) == 1
    assert twilio.counted(outcome) == 1
    assert twilio.pauses == []


@pytest.mark.parametrize("fault", [RESET, problem(500, 20500), Answer(503, b""), Answer(429, b"")])
async def test_what_twilio_did_not_take_is_asked_again_after_growing_pauses(fault: Answer) -> None:
    async with asking([fault, fault, Answer()]) as (twilio, stand_in):
        assert await twilio.end() is Outcome.DONE
        assert len(stand_in.asked) == 3
    assert twilio.pauses == [0.5, 1.0]
    assert twilio.counted(Outcome.DONE) == 1
    assert twilio.counted(Outcome.UNREACHABLE) == 0


async def test_no_call_is_asked_for_without_end() -> None:
    async with asking([RESET]) as (twilio, stand_in):
        assert await twilio.end() is Outcome.UNREACHABLE
        assert len(stand_in.asked) == ATTEMPTS
    assert len(twilio.pauses) == ATTEMPTS - 1
    assert twilio.counted(Outcome.UNREACHABLE) == 1


@pytest.mark.parametrize(
    ("named", "pause"),
    [("7", 7.0), ("0", 0.5), ("86400", LONGEST_PAUSE_SECONDS), ("soon", 0.5), ("-1", 0.5)],
)
async def test_a_pause_that_twilio_names_is_kept_within_reason(named: str, pause: float) -> None:
    busy = problem(429, 20429, f"Retry-After: {named}")
    async with asking([busy, Answer()]) as (twilio, _):
        assert await twilio.end() is Outcome.DONE
    assert twilio.pauses == [pause]


@pytest.mark.parametrize("slow", [Answer(delay=5), Answer(drip=0.1)], ids=["late", "by drops"])
async def test_an_answer_that_is_too_slow_counts_as_none(
    slow: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio_api, "REQUEST_SECONDS", 1.0)
    async with asking([slow, Answer()]) as (twilio, stand_in):
        assert await twilio.end() is Outcome.DONE
        assert len(stand_in.asked) == 2


async def test_where_nobody_listens_it_is_given_up() -> None:
    twilio = Asking("http://127.0.0.1:1")
    assert await twilio.end() is Outcome.UNREACHABLE
    await twilio.api.close()


async def test_only_so_many_are_asked_at_a_time() -> None:
    async with asking() as (twilio, stand_in):
        stand_in.gate.clear()
        ending = [asyncio.create_task(twilio.end()) for _ in range(3 * AT_A_TIME)]
        await until(lambda: stand_in.under_way == AT_A_TIME)
        await asyncio.sleep(0.1)  # in which more would come
        stand_in.gate.set()
        assert set(await asyncio.gather(*ending)) == {Outcome.DONE}
    assert stand_in.most == AT_A_TIME


@pytest.mark.parametrize(
    ("account_sid", "token", "call"),
    [
        pytest.param("", TOKEN, CALL, id="no account"),
        pytest.param(ACCOUNT, "", CALL, id="no token"),
        pytest.param("", "", CarrierCall("CA1", "", ""), id="nothing at all"),
        pytest.param(ACCOUNT, TOKEN, CarrierCall("CA1", OTHER_ACCOUNT, ""), id="another's call"),
        pytest.param(ACCOUNT, TOKEN, CarrierCall("CA1", "", ""), id="nobody's call"),
    ],
)
async def test_a_call_of_another_account_is_left_alone(
    account_sid: str, token: str, call: CarrierCall
) -> None:
    async with standing_in() as stand_in:
        twilio = Asking(stand_in.url, account_sid, token)
        assert await twilio.end(call) is Outcome.NO_CREDENTIALS
        assert stand_in.asked == []
        await twilio.api.close()
    assert twilio.counted(Outcome.NO_CREDENTIALS) == 1


async def test_wrong_credentials_are_told_once_until_they_are_right_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = problem(401, 20003)
    async with asking([wrong, wrong, Answer(), wrong, wrong]) as (twilio, _):
        for _ in range(5):
            await twilio.end()
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 2
    assert CALL.call_sid in told[0].getMessage()


async def test_no_credential_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    faults = [problem(401, 20003), problem(403, 20403), *[RESET] * ATTEMPTS, Answer()]
    async with asking(faults) as (twilio, _):
        for _ in range(4):
            await twilio.end()
        assert TOKEN not in repr(await credentials_of_one_account(ACCOUNT, TOKEN)(CALL))
    assert TOKEN not in caplog.text
    assert "Basic" not in caplog.text
    assert CALL.call_sid in caplog.text
