"""Calls whose time is over: which are ended, when, and which are left to their TwiML."""

import asyncio

import pytest

from app.events import CallIdentity, EndReason
from app.plans import Plan
from app.session import hangups
from app.session.hangups import Hangups
from app.session.reception import Admitted
from app.twilio_api import CarrierCall, Outcome
from tests.samples import OPENED
from tests.waiting import WAIT_SECONDS, until

SOON, LATE = 0.05, 60.0


class Carrier:
    """A carrier that remembers what it was asked, and may wait until it `answers`."""

    def __init__(self, *, waits: bool = False) -> None:
        self.asked: list[CarrierCall] = []
        self.done = 0
        self.closed = False
        self.answers = asyncio.Event()
        if not waits:
            self.answers.set()

    async def end_call(self, call: CarrierCall) -> Outcome:
        self.asked.append(call)
        await self.answers.wait()
        self.done += 1
        return Outcome.DONE

    async def close(self) -> None:
        self.closed = True


def admitted(call_sid: str = "CA1", *, forwarded: bool = False, business_id: str = "b") -> Admitted:
    call = CallIdentity(call_sid, "MZ1", business_id, "plan", "twilio")
    return Admitted(call, Plan("plan"), "", "", OPENED, "AC1", forwarded)


async def test_a_forwarded_call_is_ended_at_once() -> None:
    carrier = Carrier()
    hangups = Hangups(carrier, twiml_seconds=LATE)
    hangups.hang_up(admitted(forwarded=True), EndReason.MAX_CALL_SECONDS)
    await until(lambda: bool(carrier.asked))
    assert carrier.asked == [CarrierCall("CA1", "AC1", "b")]
    await hangups.close(WAIT_SECONDS)


async def test_a_call_that_an_admin_ends_is_ended_at_once() -> None:
    carrier = Carrier()
    hangups = Hangups(carrier, twiml_seconds=LATE)
    hangups.hang_up(admitted(), EndReason.ENDED_BY_ADMIN)
    await until(lambda: bool(carrier.asked))
    assert carrier.asked == [CarrierCall("CA1", "AC1", "b")]
    await hangups.close(WAIT_SECONDS)


async def test_a_call_whose_twiml_does_not_end_it_is_ended_in_the_end() -> None:
    carrier = Carrier()
    hangups = Hangups(carrier, twiml_seconds=SOON)
    hangups.hang_up(admitted(), EndReason.MAX_CALL_SECONDS)
    await asyncio.sleep(0)
    assert carrier.asked == []
    await until(lambda: bool(carrier.asked))
    await hangups.close(WAIT_SECONDS)


async def test_a_call_that_its_twiml_ended_is_left_alone() -> None:
    carrier = Carrier()
    hangups = Hangups(carrier, twiml_seconds=SOON)
    hangups.hang_up(admitted("CA1"), EndReason.MAX_CALL_SECONDS)
    hangups.hang_up(admitted("CA2"), EndReason.MAX_CALL_SECONDS)
    hangups.ended("b", "CA1")
    hangups.ended("b", "CA-unheard-of")
    await until(lambda: bool(carrier.asked))
    await asyncio.sleep(2 * SOON)
    assert [call.call_sid for call in carrier.asked] == ["CA2"]
    await hangups.close(WAIT_SECONDS)


async def test_a_business_that_names_anothers_call_neither_saves_nor_shadows_it() -> None:
    carrier = Carrier()
    hangups = Hangups(carrier, twiml_seconds=SOON)
    hangups.hang_up(admitted("CA1", business_id="other"), EndReason.MAX_CALL_SECONDS)
    hangups.hang_up(admitted("CA1"), EndReason.MAX_CALL_SECONDS)
    hangups.ended("other", "CA1")
    await until(lambda: bool(carrier.asked))
    await asyncio.sleep(2 * SOON)
    assert carrier.asked == [CarrierCall("CA1", "AC1", "b")]
    await hangups.close(WAIT_SECONDS)


async def test_a_business_takes_its_share_of_what_waits_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hangups, "MAX_CALLS_OF_BUSINESS", 2)
    carrier = Carrier()
    ending = Hangups(carrier, twiml_seconds=LATE)
    begun = [ending.hang_up(admitted(f"CA{n}"), EndReason.MAX_CALL_SECONDS) for n in range(3)]
    assert [one is not None for one in begun] == [True, True, False]
    # The same call again is not one more.
    assert ending.hang_up(admitted("CA1"), EndReason.MAX_CALL_SECONDS) is begun[1]
    other = ending.hang_up(admitted("CA9", business_id="other"), EndReason.MAX_CALL_SECONDS)
    assert other is not None
    ending.ended("b", "CA0")
    await until(lambda: begun[0] is not None and begun[0].done())
    assert ending.hang_up(admitted("CA3"), EndReason.MAX_CALL_SECONDS) is not None
    await ending.close(WAIT_SECONDS)


async def test_the_end_of_a_call_that_is_being_ended_changes_nothing() -> None:
    carrier = Carrier(waits=True)
    hangups = Hangups(carrier)
    hangups.hang_up(admitted(forwarded=True), EndReason.MAX_CALL_SECONDS)
    await until(lambda: bool(carrier.asked))
    hangups.ended("b", "CA1")
    carrier.answers.set()
    await until(lambda: carrier.done == 1)
    await hangups.close(WAIT_SECONDS)


async def test_a_call_is_asked_for_once_at_a_time() -> None:
    carrier = Carrier(waits=True)
    hangups = Hangups(carrier)
    for _ in range(3):
        hangups.hang_up(admitted(forwarded=True), EndReason.MAX_CALL_SECONDS)
        await asyncio.sleep(SOON / 10)  # in which it would be asked for again
    carrier.answers.set()
    await hangups.close(WAIT_SECONDS)
    assert (len(carrier.asked), carrier.done) == (1, 1)


async def test_at_the_processs_end_what_is_asked_is_finished_and_what_waits_is_not() -> None:
    carrier = Carrier(waits=True)
    hangups = Hangups(carrier, twiml_seconds=LATE)
    before = asyncio.all_tasks()
    hangups.hang_up(admitted("CA1", forwarded=True), EndReason.MAX_CALL_SECONDS)
    hangups.hang_up(admitted("CA2"), EndReason.MAX_CALL_SECONDS)
    await until(lambda: bool(carrier.asked))
    asyncio.get_running_loop().call_later(SOON, carrier.answers.set)
    await hangups.close(WAIT_SECONDS)
    await until(lambda: asyncio.all_tasks() == before)
    assert [call.call_sid for call in carrier.asked] == ["CA1"]
    assert (carrier.done, carrier.closed) == (1, True)


async def test_a_carrier_that_does_not_answer_does_not_keep_the_process() -> None:
    carrier = Carrier(waits=True)
    hangups = Hangups(carrier)
    before = asyncio.all_tasks()
    hangups.hang_up(admitted(forwarded=True), EndReason.MAX_CALL_SECONDS)
    await until(lambda: bool(carrier.asked))
    async with asyncio.timeout(WAIT_SECONDS):
        await hangups.close(SOON)
    await until(lambda: asyncio.all_tasks() == before)
    assert (carrier.done, carrier.closed) == (0, True)


async def test_no_more_calls_wait_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hangups, "MAX_CALLS", 2)
    carrier = Carrier()
    few = Hangups(carrier, twiml_seconds=SOON)
    for number in range(3):
        few.hang_up(admitted(f"CA{number}"), EndReason.MAX_CALL_SECONDS)
    await until(lambda: len(carrier.asked) == 2)
    await asyncio.sleep(SOON)
    assert [call.call_sid for call in carrier.asked] == ["CA0", "CA1"]
    few.hang_up(admitted("CA3"), EndReason.MAX_CALL_SECONDS)
    await until(lambda: len(carrier.asked) == 3)
    await few.close(WAIT_SECONDS)


class FaultyCarrier(Carrier):
    """A carrier whose client has a fault of its own."""

    async def end_call(self, call: CarrierCall) -> Outcome:
        self.asked.append(call)
        raise ZeroDivisionError


async def test_a_fault_in_one_hang_up_is_logged_and_spoils_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    carrier = FaultyCarrier()
    hangups = Hangups(carrier)
    hangups.hang_up(admitted("CA1", forwarded=True), EndReason.MAX_CALL_SECONDS)
    hangups.hang_up(admitted("CA2", forwarded=True), EndReason.MAX_CALL_SECONDS)
    await until(lambda: len(carrier.asked) == 2)
    await hangups.close(WAIT_SECONDS)
    assert "Call CA1 could not be ended" in caplog.text
