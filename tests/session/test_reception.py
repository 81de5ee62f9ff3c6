"""Who is let in, also while the store is away."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from app.auth import TICKET_LIFE_SECONDS, TicketOffice
from app.carriers.authorization import Authorization, Proof, Purpose
from app.errors import (
    BridgeError,
    BusinessMismatch,
    CallEnded,
    CallRateExceeded,
    EventsBacklogged,
    PlanLimitReached,
    PurposeMismatch,
    StoreUnavailable,
    StreamAlreadyLive,
    TicketExpired,
    TicketInvalid,
    TicketSpent,
    UnknownBusiness,
)
from app.events import CallIdentity, HeldStream, LifecycleEvent, StreamStarted
from app.media import Encoding, MediaFormat
from app.metrics import Metrics
from app.plans import Business, Directory, Plan
from app.registry import Registry
from app.session.herald import Herald
from app.session.reception import (
    EXOTEL,
    Handshake,
    IncomingCall,
    Reception,
    Refusal,
    Welcome,
)
from app.store.base import CallEnd, SlotAnswer
from app.store.memory import MemoryStore

DIRECTORY = Directory(
    (
        Plan("small", max_concurrent_calls=1),
        Plan("large"),
        Plan("slow", max_calls_per_second=1),
    ),
    (
        Business("three", "Three", "slow", ("+15005550003",)),
        Business("one", "One", "large", ("+15005550001",)),
        Business("two", "Two", "small", ("+15005550002",)),
    ),
)


ANSWER = Authorization(Proof.TWILIO_SERVICE, Purpose.ANSWER_CALL)


class AwayStore(MemoryStore):
    """A store whose tickets cannot be redeemed while it is away."""

    away = slots_away = calls_away = False

    async def answered_by(self, call_sid: str) -> str | None:
        if self.calls_away:
            raise StoreUnavailable("away")
        return await super().answered_by(call_sid)

    async def take_slot(self, *args: Any, **more: Any) -> SlotAnswer:
        if self.slots_away:
            raise StoreUnavailable("away")
        return await super().take_slot(*args, **more)

    async def spend_ticket(self, nonce: str, ttl_seconds: float) -> bool:
        if self.away:
            raise StoreUnavailable("away")
        return await super().spend_ticket(nonce, ttl_seconds)


class Desk:
    """A reception with its parts, on a clock that stands still."""

    def __init__(self, *, waive_tickets: bool = False) -> None:
        self.now = 1_700_000_000.0
        self.told: list[LifecycleEvent] = []
        self.takes_events = True
        self.backlogged: set[str] = set()
        self.store = AwayStore(self.clock)
        self.registry = Registry(self.store, Metrics(), max_calls=100, clock=self.clock)
        ids = itertools.count()
        self.reception = Reception(
            self.store,
            self.registry,
            TicketOffice(["s" * 32], self.clock, lambda: f"nonce-{next(ids)}"),
            Herald(self.told.append, self.clock, lambda: f"event-{next(ids)}"),
            Metrics(),
            takes_events=self.takes_events_of,
            waive_tickets=waive_tickets,
            default_business="",
            wall_clock=self.clock,
        )

    def clock(self) -> float:
        return self.now

    def takes_events_of(self, business_id: str) -> bool:
        return self.takes_events and business_id not in self.backlogged

    async def welcome(self, call_sid: str = "CA1", to: str = "+15005550001") -> Welcome:
        decided = await self.reception.answer(IncomingCall(call_sid, "+1", to), ANSWER)
        assert isinstance(decided, Welcome)
        return decided

    async def stream_url(self, call_sid: str, to: str) -> dict[str, str]:
        """Return the query of the URL that a call at Exotel is given."""
        call = IncomingCall(call_sid, "+1", to, carrier=EXOTEL)
        asked = Authorization(Proof.EXOTEL_SHARED_PAIR, Purpose.GET_STREAM_URL)
        decided = await self.reception.answer(call, asked)
        assert isinstance(decided, Welcome)
        return {"ticket": decided.ticket}


@pytest.fixture
async def desk() -> Desk:
    made = Desk()
    await made.store.load_if_empty(DIRECTORY)
    return made


@pytest.fixture
async def open_desk() -> Desk:
    made = Desk(waive_tickets=True)
    await made.store.load_if_empty(DIRECTORY)
    return made


def start(
    params: Mapping[str, str], call_sid: str = "CA1", stream_sid: str = "MZ1", to: str = ""
) -> StreamStarted:
    form = MediaFormat(Encoding.MULAW, 8000)
    return StreamStarted(stream_sid, call_sid, form, params=params, to_number=to)


def opened(
    proof: Proof = Proof.TWILIO_SERVICE, business_id: str = "", carrier: str = "twilio"
) -> Handshake:
    return Handshake(carrier, Authorization(proof, Purpose.OPEN_STREAM, business_id))


TWILIO = opened()


async def test_a_call_is_welcomed_announced_once_and_its_ticket_admits(desk: Desk) -> None:
    first, second = await desk.welcome(), await desk.welcome()
    assert [event.name for event in desk.told] == ["call.incoming"]
    assert first.ticket != second.ticket
    admitted = await desk.reception.admit(start({"ticket": second.ticket, "from": "+2"}), TWILIO)
    assert (admitted.call.business_id, admitted.plan.name) == ("one", "large")
    assert admitted.from_number == "+2"


async def test_a_ticket_counts_a_call_once_against_the_pace(desk: Desk) -> None:
    query = await desk.stream_url("url-1", "+15005550003")
    decided = await desk.reception.answer(IncomingCall("CA9", "+1", "+15005550003"), ANSWER)
    assert isinstance(decided, Refusal)
    assert decided.error.reason == "call_rate_exceeded"
    assert [event.data.get("reason") for event in desk.told] == [None, "call_rate_exceeded"]
    by_ticket = replace(opened(Proof.TICKET, "three", EXOTEL), query=query)
    await desk.reception.admit(start({}), by_ticket)


async def test_a_stream_without_a_ticket_is_held_to_the_pace(desk: Desk) -> None:
    client = opened(Proof.JWT, "three", "client")
    await desk.reception.admit(start({}), client)
    with pytest.raises(CallRateExceeded):
        await desk.reception.admit(start({}, "CA2", "MZ2"), client)


async def test_a_url_may_name_the_business(desk: Desk) -> None:
    call = IncomingCall("CA1", "+1", "+19999999999", "two")
    decided = await desk.reception.answer(call, ANSWER)
    assert isinstance(decided, Welcome)
    assert decided.business.id == "two"


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (IncomingCall("CA9", "+1", "+19999999999"), "unknown_business"),
        (IncomingCall("CA9", "+1", "+15005550001", "nobody"), "unknown_business"),
        (IncomingCall("CA9", "+1", "+15005550002"), "plan_limit_reached"),
    ],
)
async def test_a_refusal_is_announced_with_its_reason(
    desk: Desk, call: IncomingCall, reason: str
) -> None:
    await desk.welcome("CA1", "+15005550002")
    decided = await desk.reception.answer(call, ANSWER)
    assert isinstance(decided, Refusal)
    assert decided.error.reason == reason
    assert (desk.told[-1].name, desk.told[-1].data["reason"]) == ("call.rejected", reason)


async def test_a_draining_process_and_a_full_event_queue_refuse_calls(desk: Desk) -> None:
    desk.takes_events = False
    decided = await desk.reception.answer(IncomingCall("CA1", "+1", "+15005550001"), ANSWER)
    assert isinstance(decided, Refusal)
    assert isinstance(decided.error, EventsBacklogged)
    assert desk.told == []
    desk.takes_events = True
    desk.registry.refuse_new_calls()
    decided = await desk.reception.answer(IncomingCall("CA1", "+1", "+15005550001"), ANSWER)
    assert isinstance(decided, Refusal)
    assert decided.error.reason == "draining"


async def test_a_business_whose_events_wait_is_refused_and_no_other(desk: Desk) -> None:
    desk.backlogged.add("one")
    decided = await desk.reception.answer(IncomingCall("CA1", "+1", "+15005550001"), ANSWER)
    assert isinstance(decided, Refusal)
    assert isinstance(decided.error, EventsBacklogged)
    assert desk.told == []
    await desk.welcome("CA2", "+15005550002")
    assert [event.name for event in desk.told] == ["call.incoming"]


async def refused(desk: Desk, started: StreamStarted, handshake: Handshake = TWILIO) -> BridgeError:
    claimed = desk.registry.live_count
    with pytest.raises(BridgeError) as error:
        await desk.reception.admit(started, handshake)
    # A refusal leaves no claim behind.
    assert desk.registry.live_count == claimed
    return error.value


async def test_a_ticket_is_good_once_and_for_a_minute(desk: Desk) -> None:
    ticket = (await desk.welcome()).ticket
    await desk.reception.admit(start({"ticket": ticket}), TWILIO)
    await desk.registry.disclaim("MZ1")
    spent = await refused(desk, start({"ticket": ticket}, stream_sid="MZ2"))
    assert isinstance(spent, TicketSpent)
    late = (await desk.welcome()).ticket
    desk.now += TICKET_LIFE_SECONDS
    expired = await refused(desk, start({"ticket": late}, stream_sid="MZ3"))
    assert isinstance(expired, TicketExpired)


async def test_with_the_store_away_a_ticket_is_still_good_once(desk: Desk) -> None:
    ticket = (await desk.welcome()).ticket
    desk.store.away = True
    await desk.reception.admit(start({"ticket": ticket}), TWILIO)
    again = await refused(desk, start({"ticket": ticket}, stream_sid="MZ2"))
    assert isinstance(again, TicketSpent)


@pytest.mark.parametrize("purpose", [Purpose.OPEN_STREAM, Purpose.REPORT_STATUS])
async def test_what_opens_a_stream_gets_no_ticket(desk: Desk, purpose: Purpose) -> None:
    for proof in Proof:
        call = IncomingCall("CA1", "+1", "+15005550001")
        decided = await desk.reception.answer(call, Authorization(proof, purpose, "one"))
        assert isinstance(decided, Refusal)
        assert isinstance(decided.error, PurposeMismatch)
    assert desk.told == []
    assert await desk.store.slots_taken("one") == 0


@pytest.mark.parametrize("purpose", [Purpose.ANSWER_CALL, Purpose.GET_STREAM_URL])
async def test_what_answers_a_call_opens_no_stream(desk: Desk, purpose: Purpose) -> None:
    handshake = Handshake(EXOTEL, Authorization(Proof.EXOTEL_OWN_PAIR, purpose, "one"))
    assert isinstance(await refused(desk, start({}), handshake), PurposeMismatch)
    assert await desk.store.slots_taken("one") == 0


@pytest.mark.parametrize(
    ("permits", "call"),
    [
        (Authorization(Proof.EXOTEL_OWN_PAIR, Purpose.GET_STREAM_URL, "one"), {"business": "two"}),
        (Authorization(Proof.JWT, Purpose.GET_STREAM_URL, "one", "int-1"), {"call_sid": "int-2"}),
    ],
)
async def test_a_call_that_is_not_the_credentials_is_refused_without_an_event(
    desk: Desk, permits: Authorization, call: Mapping[str, str]
) -> None:
    call_sid, business = call.get("call_sid", "int-1"), call.get("business", "one")
    for number in ("+15005550001", "+15005550002"):
        asked = IncomingCall(call_sid, "+1", number, business, EXOTEL)
        decided = await desk.reception.answer(asked, permits)
        assert isinstance(decided, Refusal)
        assert isinstance(decided.error, BusinessMismatch)
    assert desk.told == []
    assert [await desk.store.slots_taken(one) for one in ("one", "two")] == [0, 0]


async def test_a_mismatch_spends_no_ticket(desk: Desk) -> None:
    ticket = (await desk.welcome()).ticket
    assert isinstance(
        await refused(desk, start({"ticket": ticket, "businessId": "two"})), BusinessMismatch
    )
    await desk.reception.admit(start({"ticket": ticket, "businessId": "one"}), TWILIO)


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_ticket_without_a_call_joins_no_call_that_has_a_slot(
    desk: Desk, is_away: bool
) -> None:
    await desk.welcome("CA-live")
    query = await desk.stream_url("url-1", "+15005550001")
    handshake = replace(opened(Proof.TICKET, "one", EXOTEL), query=query)
    desk.store.slots_away = is_away
    error = await refused(desk, start({}, "CA-live", "ex-1"), handshake)
    assert isinstance(error, TicketInvalid)
    desk.store.slots_away = False
    assert await desk.store.slots_taken("one") == 2


async def test_an_ended_call_is_answered_only_where_it_returns(desk: Desk) -> None:
    call = IncomingCall("CA1", "+1", "+15005550001")
    await desk.registry.release("one", "CA1", CallEnd.STREAM)
    decided = await desk.reception.answer(call, ANSWER)
    assert isinstance(decided, Refusal)
    assert isinstance(decided.error, CallEnded)
    assert desk.told == []
    assert isinstance(await desk.reception.answer(replace(call, returns=True), ANSWER), Welcome)
    await desk.registry.release("one", "CA1", CallEnd.FINAL)
    decided = await desk.reception.answer(replace(call, returns=True), ANSWER)
    assert isinstance(decided, Refusal)
    # Without a signature nothing can be replayed: a test may use an id again.
    waived = Authorization(Proof.WAIVED, Purpose.ANSWER_CALL)
    assert isinstance(await desk.reception.answer(call, waived), Welcome)


async def test_credentials_of_one_business_never_open_another(desk: Desk) -> None:
    ticket = (await desk.welcome()).ticket
    said = {"ticket": ticket, "businessId": "two"}
    assert isinstance(await refused(desk, start(said)), BusinessMismatch)
    elsewhere = opened(business_id="two")
    ticket = (await desk.welcome()).ticket
    mismatch = await refused(desk, start({"ticket": ticket}), elsewhere)
    assert isinstance(mismatch, BusinessMismatch)


@pytest.mark.parametrize(
    ("params", "query", "path", "to", "owner"),
    [
        pytest.param({"businessId": "one"}, {"businessId": "two"}, "", "", "one", id="start"),
        pytest.param({}, {"businessId": "two"}, "", "+15005550001", "two", id="query"),
        pytest.param({}, {"to": "+15005550002"}, "", "", "two", id="number in the query"),
        pytest.param({"to": "+15005550002"}, {}, "", "", "two", id="number in the parameters"),
        pytest.param({}, {}, "", "+15005550002", "two", id="number in start"),
        pytest.param({}, {}, "two", "", "two", id="path"),
    ],
)
async def test_without_tickets_the_owner_is_found_in_this_order(
    open_desk: Desk,
    params: dict[str, str],
    query: dict[str, str],
    path: str,
    to: str,
    owner: str,
) -> None:
    handshake = replace(opened(Proof.WAIVED, path), query=query)
    admitted = await open_desk.reception.admit(start(params, to=to), handshake)
    assert admitted.call.business_id == owner


async def test_a_stream_over_the_plans_limit_is_turned_away_and_announced(
    open_desk: Desk,
) -> None:
    await open_desk.reception.admit(start({"businessId": "two"}), TWILIO)
    with pytest.raises(PlanLimitReached):
        await open_desk.reception.admit(
            start({"businessId": "two", "from": "+2"}, "CA2", "MZ2"), TWILIO
        )
    rejected = open_desk.told[-1]
    assert (rejected.name, rejected.call.call_sid) == ("call.rejected", "CA2")
    assert rejected.data["reason"] == "plan_limit_reached"
    assert rejected.data["from"] == "+2"


async def test_a_stream_of_nobody_and_a_live_one_are_refused(open_desk: Desk) -> None:
    assert isinstance(await refused(open_desk, start({})), UnknownBusiness)
    await open_desk.reception.admit(start({"businessId": "one"}), TWILIO)
    with pytest.raises(StreamAlreadyLive):
        await open_desk.reception.admit(start({"businessId": "one"}), TWILIO)


@pytest.mark.parametrize("carrier", ["exotel", "client"])
async def test_two_businesses_that_name_the_same_stream_get_two(
    open_desk: Desk, carrier: str
) -> None:
    ones, twos = (opened(Proof.WAIVED, name, carrier) for name in ("one", "two"))
    mine = await open_desk.reception.admit(start({}), ones)
    theirs = await open_desk.reception.admit(start({}), twos)
    assert mine.call.stream_sid != theirs.call.stream_sid
    with pytest.raises(StreamAlreadyLive):
        await open_desk.reception.admit(start({}, "CA2"), ones)


async def test_a_peer_that_names_the_id_of_another_business_does_not_get_it(
    open_desk: Desk,
) -> None:
    theirs = await open_desk.reception.admit(start({}), opened(Proof.WAIVED, "two", "client"))
    for carrier in ("client", "exotel", "twilio"):
        named = start({}, f"CA-{carrier}", theirs.call.stream_sid)
        mine = await open_desk.reception.admit(named, opened(Proof.WAIVED, "one", carrier))
        assert mine.call.stream_sid not in ("MZ1", theirs.call.stream_sid)


# ----------------------------------------------------------------- callbacks of streams

OWN_CALLBACK = Authorization(Proof.TWILIO_BUSINESS, Purpose.REPORT_STATUS, "shop")
SERVICE_CALLBACK = Authorization(Proof.TWILIO_SERVICE, Purpose.REPORT_STATUS)


@pytest.mark.parametrize(
    ("stream_sid", "call_sid", "authorization", "may"),
    [
        ("MZ1", "CA1", OWN_CALLBACK, True),
        ("MZ1", "CA2", OWN_CALLBACK, False),  # of another call of this business
        ("MZ2", "CA2", OWN_CALLBACK, False),  # of another business
        ("MZ2", "CA1", OWN_CALLBACK, False),
        ("MZ3", "CA1", OWN_CALLBACK, True),  # of nobody: it never began
        ("MZ2", "CA2", SERVICE_CALLBACK, True),
    ],
)
async def test_a_callback_names_a_stream_of_its_own_business_and_call(
    desk: Desk, stream_sid: str, call_sid: str, authorization: Authorization, may: bool
) -> None:
    for stream, call, business in (("MZ1", "CA1", "shop"), ("MZ2", "CA2", "bank")):
        held = HeldStream(CallIdentity(call, stream, business, "premium", "twilio"), 1, 600)
        await desk.store.claim_stream(held, 60.0)
    assert await desk.reception.may_name_stream(stream_sid, call_sid, authorization) == may


@pytest.mark.parametrize("moves", [False, True])
async def test_with_the_store_away_a_callback_is_who_answered_here_or_nobodys(
    desk: Desk, moves: bool
) -> None:
    await desk.welcome("CA1", "+15005550001")
    if moves:
        for business_id, numbers in (("one", ()), ("two", ("+15005550001", "+15005550002"))):
            stored = await desk.store.stored_business(business_id)
            assert stored is not None
            await desk.store.save_business(replace(stored.record, numbers=numbers), None)
    desk.store.calls_away = True
    owners = [
        await desk.reception.owner(IncomingCall(sid, "+1", "+15005550001"), SERVICE_CALLBACK)
        for sid in ("CA1", "CA2")
    ]
    assert [owner.id if owner else None for owner in owners] == ["one", None]
