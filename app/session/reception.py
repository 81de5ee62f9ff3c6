"""Who is let in: calls at the webhook, streams at their `start`."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from app.auth import TICKET_PARAMETER, Ticket, TicketOffice, TicketUse
from app.businesses.destinations import NOWHERE, DialRules, check_forwarding, dial_rules
from app.carriers.authorization import Authorization, Proof, Purpose
from app.carriers.stream_ids import stream_id
from app.carriers.texts import MAX_NUMBER_CHARACTERS, cut
from app.errors import (
    BridgeError,
    CallEnded,
    CallRateExceeded,
    EventsBacklogged,
    MonthlyLimitReached,
    PlanLimitReached,
    RemoteError,
    StoreUnavailable,
    UnknownBusiness,
)
from app.events import CallIdentity, HeldStream, StreamStarted
from app.metrics import Metrics
from app.plans import Business, Plan
from app.session.answered import AnsweredCalls
from app.session.herald import Herald
from app.session.slots import Slots
from app.session.tickets import TicketCheck
from app.session.unconfirmed import UnconfirmedCall, UnconfirmedCalls
from app.store.base import CallEnd, Store
from app.store.usage import Counting, limits_of
from app.twilio_api import CarrierCall

log = logging.getLogger(__name__)

EXOTEL = "exotel"
# Twilio retries a webhook within 15 s; a `<Redirect>` may return much later.
CALL_MEMORY_SECONDS = 14_400


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """What a request says of a call.

    `business_id` is the business that the request names, or empty: its `Authorization`
    decides whether it may. A call that `returns` was answered before: its TwiML leads back
    here, so that the end of its stream was not its own. Its numbers are cut to their bound.
    """

    call_sid: str
    from_number: str
    to_number: str
    business_id: str = ""
    carrier: str = "twilio"
    returns: bool = False

    def __post_init__(self) -> None:
        """Cut the numbers, whoever named them: they go into events and records."""
        for name in ("from_number", "to_number"):
            number: str = getattr(self, name)
            if len(number) > MAX_NUMBER_CHARACTERS:
                object.__setattr__(self, name, cut(number, MAX_NUMBER_CHARACTERS))


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a media socket showed before its first message, and what that permits.

    `query` holds the first value of each query parameter.
    """

    carrier: str
    authorization: Authorization
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Welcome:
    """A call that may stream: whose it is, and the ticket for its stream.

    `ticket` is empty while a stream of the call is live.
    """

    business: Business
    plan: Plan
    ticket: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that may not: why, and whose it would have been, where known."""

    error: BridgeError
    business: Business | None


@dataclass(frozen=True, slots=True)
class Admitted:
    """A stream that may be published, under this identity and plan.

    `authorization` is what admitted it, with the business and the call that it was found
    to be for. `account_sid` is the carrier account that the call belongs to, empty where
    not known; `forwarded` tells that the caller talks to somebody else beside it.
    `may_be_captured`: its business allows that what its peer sends is recorded.
    `dial_rules` says where it may be transferred to.
    `started_ms` (Unix time) is when its `start` came. Without `is_claimed` the store was
    away, and this process alone decided that the id is free.
    """

    call: CallIdentity
    plan: Plan
    from_number: str
    to_number: str
    authorization: Authorization
    account_sid: str = ""
    forwarded: bool = False
    may_be_captured: bool = False
    business_name: str = ""
    country: str = ""
    dial_rules: DialRules = NOWHERE
    started_ms: int = 0
    is_claimed: bool = True

    @property
    def held(self) -> HeldStream:
        """Return what another replica must know of the stream."""
        return HeldStream(self.call, self.started_ms, self.plan.retention_seconds)


class Reception:
    """Decide who is let in, and announce who comes and who is turned away.

    With `waive_tickets` a stream is admitted without one: whose it is, is then
    what its `start` says, then its URL, then the dialled number. A call of
    Exotel's that nothing tells the owner of is `default_business`'s.
    """

    def __init__(
        self,
        store: Store,
        slots: Slots,
        tickets: TicketOffice,
        herald: Herald,
        metrics: Metrics,
        *,
        takes_events: Callable[[str], bool],
        waive_tickets: bool,
        default_business: str,
        wall_clock: Callable[[], float],
        unconfirmed: UnconfirmedCalls | None = None,
    ) -> None:
        self._store = store
        self._slots = slots
        self._answered = AnsweredCalls(store)
        self._tickets = TicketCheck(tickets, store, metrics, wall_clock)
        self._herald = herald
        self._metrics = metrics
        self._takes_events = takes_events
        self._waive_tickets = waive_tickets
        self._default_business = default_business
        self._wall_clock = wall_clock
        self._unconfirmed = unconfirmed if unconfirmed is not None else UnconfirmedCalls()

    # --------------------------------------------------------------- the webhook

    async def answer(self, call: IncomingCall, authorization: Authorization) -> Welcome | Refusal:
        """Decide on an incoming call; the same call may ask again.

        A call that asks again keeps its slot, and gets a fresh ticket unless a
        stream of it is live. Never raises a BridgeError: a refusal is an answer. What the
        authorization does not permit, and a signed webhook that is replayed after its call's
        end, is refused without an event.
        """
        try:
            authorization.require(Purpose.ANSWER_CALL, Purpose.GET_STREAM_URL)
            authorization.check_call(call.call_sid)
            business_id = authorization.business_of(call.business_id)
        except RemoteError as error:
            self._metrics.calls.labels(error.reason).inc()
            return Refusal(error, None)
        if business_id != call.business_id:
            call = replace(call, business_id=business_id)
        business: Business | None = None
        plan: Plan | None = None
        try:
            if call.returns:  # to the business that has it, whoever has its number now
                call = await self._as_answered(call, authorization)
            business, plan = await self._owner(call)
            is_confirmed = not self._store.answers_from_memory
            self._check_open(business.id)
            if call.carrier != EXOTEL:  # whose flow dials by itself
                check_forwarding(plan, business)
            refused_after = None
            if authorization.is_signature:
                refused_after = CallEnd.FINAL if call.returns else CallEnd.STREAM
            pace = plan.max_calls_per_second
            await self._reserve(business, plan, call.call_sid, pace, refused_after)
        except CallEnded as error:
            self._metrics.calls.labels(error.reason).inc()
            return Refusal(error, business)
        except BridgeError as error:
            if isinstance(error, UnknownBusiness):
                business = plan = None  # it was deleted a moment ago: nothing more is kept of it
            self._turn_away(call, error, business, plan)
            return Refusal(error, business)
        is_first = await self._is_first(business.id, call, authorization)
        if is_first:
            self._metrics.calls.labels("incoming").inc()
            numbers = {"from": call.from_number, "to": call.to_number}
            self._herald.tell("call.incoming", _identity(call, business, plan), numbers)
        ticket = ""
        # No stream of a call that nobody has heard of can be live.
        if is_first or not await self._stream_is_live(business.id, call.call_sid):
            use = _use_of(call.carrier)
            ticket = self._tickets.issue(call.call_sid, business.id, plan.name, use)
        if not is_confirmed:
            unconfirmed = self._unconfirmed_call(call, business, authorization)
            nonce = self._tickets.nonce_of(ticket, _use_of(call.carrier)) if ticket else ""
            self._unconfirmed.note(replace(unconfirmed, ticket=nonce))
        return Welcome(business, plan, ticket)

    async def owner(self, call: IncomingCall, authorization: Authorization) -> Business | None:
        """Return the business that a callback's call is of; None where none can be found.

        Of the service's own account it is the business that answered the call, also where
        its number is another's by now.
        """
        try:
            business_id = authorization.business_of(call.business_id)
            call = await self._as_answered(replace(call, business_id=business_id), authorization)
            business, _ = await self._owner(call)
        except BridgeError:
            return None
        return business

    async def _as_answered(self, call: IncomingCall, authorization: Authorization) -> IncomingCall:
        """Return a call with the business that answered it, where nothing names one.

        Raises:
            StoreUnavailable: nobody knows which; its number's owner may be another.
        """
        if call.business_id or not _has_unique_id(call, authorization):
            return call
        return replace(call, business_id=await self._answered.business_of(call.call_sid))

    async def dial_rules(self, admitted: Admitted) -> DialRules:
        """Return where a live call may be transferred to, by what is stored now.

        Raises:
            BridgeError: its business or plan cannot be read, or is gone.
        """
        found = await self._store.lookup(admitted.call.business_id)
        if found is None:
            raise UnknownBusiness("the call's business, or its plan, is gone")
        return dial_rules(found[1], found[0])

    async def may_name_stream(
        self, stream_sid: str, call_sid: str, authorization: Authorization
    ) -> bool:
        """Return whether a call's callback may speak of a stream: not of another business's.

        A business's own account can sign a callback that names any stream and call. Where the
        store cannot tell whose a stream is, it may not.
        """
        if not authorization.is_own_account:
            return True
        try:
            stream = await self._store.call_of_stream(stream_sid)
        except StoreUnavailable:
            self._metrics.store_errors.inc()
            return False
        if stream is None:
            return True
        return (
            stream.business_id == authorization.business_id
            and (stream.call_sid or call_sid) == call_sid
        )

    async def _owner(self, call: IncomingCall) -> tuple[Business, Plan]:
        business_id = call.business_id
        if not business_id:
            owner = await self._store.business_of_number(call.to_number)
            default = self._default_business if call.carrier == EXOTEL else ""
            business_id = owner.id if owner else default
        found = await self._store.lookup(business_id) if business_id else None
        if found is None:
            raise UnknownBusiness("no business has this number or id")
        return found

    def _check_open(self, business_id: str = "") -> None:
        self._slots.check_room(business_id)
        self._check_events(business_id)

    def _check_events(self, business_id: str) -> None:
        if not self._takes_events(business_id):
            raise EventsBacklogged("lifecycle events wait for the broker")

    async def _stream_is_live(self, business_id: str, call_sid: str) -> bool:
        try:
            return await self._store.live_stream(business_id, call_sid) is not None
        except StoreUnavailable:
            # A ticket more does no harm: it is bound to this call and lives a minute.
            self._metrics.store_errors.inc()
            return False

    async def _is_first(
        self, business_id: str, call: IncomingCall, authorization: Authorization
    ) -> bool:
        try:
            if _has_unique_id(call, authorization):
                return await self._answered.note(call.call_sid, business_id)
            # Such an account may name any call, but none of another business's.
            name = f"{business_id}:{call.call_sid}"
            return await self._store.first_seen(name, CALL_MEMORY_SECONDS)
        except StoreUnavailable:
            self._metrics.store_errors.inc()
            return True

    def _unconfirmed_call(
        self, call: IncomingCall, business: Business, authorization: Authorization
    ) -> UnconfirmedCall:
        is_default = call.carrier == EXOTEL and business.id == self._default_business
        return UnconfirmedCall(
            business.id,
            call.call_sid,
            number="" if call.business_id else call.to_number,
            number_is_owned=not is_default,
            pair=authorization.pair,
        )

    def _turn_away(
        self,
        call: IncomingCall,
        error: BridgeError,
        business: Business | None,
        plan: Plan | None,
    ) -> None:
        self._metrics.calls.labels(error.reason).inc()
        if self._takes_events(business.id if business else ""):
            numbers = {"from": call.from_number, "to": call.to_number}
            data = {"reason": error.reason, **numbers}
            self._herald.tell("call.rejected", _identity(call, business, plan), data)

    # ---------------------------------------------------------------- the stream

    async def admit(self, start: StreamStarted, handshake: Handshake) -> Admitted:
        """Let a stream in, and make it this process's own.

        What its peer says is compared with its authorization before anything is changed.

        Raises:
            RemoteError: its authorization, business or plan does not admit it.
            LocalError: this process or the store cannot take it now.
        """
        started_ms = int(self._wall_clock() * 1000)
        said = {**handshake.query, **start.params}
        call = IncomingCall(
            start.call_sid,
            start.from_number or said.get("from", ""),
            start.to_number or said.get("to", ""),
            carrier=handshake.carrier,
        )
        ticket = self._ticket_of(start, handshake)
        authorization, call = _authorized(call, start, handshake, ticket)
        if ticket is None:
            self._check_open()
        business, plan = await self._owner_of_stream(call, ticket)
        is_confirmed = not self._store.answers_from_memory
        if ticket is None:
            self._check_events(business.id)
        stream_sid = stream_id(handshake.carrier, business.id, start.stream_sid)
        identity = replace(_identity(call, business, plan), stream_sid=stream_sid)
        held = HeldStream(identity, started_ms, plan.retention_seconds)
        is_claimed = await self._slots.claim(held)
        try:
            if ticket is not None:
                await self._tickets.spend(ticket)
            takes_over = ""
            if ticket is not None and ticket.call_sid != start.call_sid:
                takes_over = ticket.call_sid
            refused_after = CallEnd.FINAL if authorization.is_signature else None
            # A ticket's call was counted when the ticket was given.
            pace = math.inf if ticket else plan.max_calls_per_second
            try:
                await self._reserve(
                    business, plan, start.call_sid, pace, refused_after, takes_over, stream_sid
                )
            except (PlanLimitReached, CallRateExceeded, MonthlyLimitReached) as error:
                self._turn_away(call, error, business, plan)
                raise
        except BaseException:
            await self._slots.disclaim(stream_sid)
            raise
        if not (is_confirmed and is_claimed):
            unconfirmed = self._unconfirmed_call(call, business, authorization)
            is_own = authorization.is_own_account
            of_carrier = CarrierCall(call.call_sid, start.account_sid, business.id, is_own)
            forwarded = of_carrier if business.forward_to else None
            self._unconfirmed.note(replace(unconfirmed, forwarded=forwarded))
        return Admitted(
            identity,
            plan,
            call.from_number,
            call.to_number,
            replace(authorization, business_id=business.id, call_sid=call.call_sid),
            account_sid=start.account_sid,
            forwarded=bool(business.forward_to),
            may_be_captured=business.capture_calls,
            business_name=business.name,
            country=business.country,
            dial_rules=dial_rules(plan, business),
            started_ms=started_ms,
            is_claimed=is_claimed,
        )

    async def _reserve(
        self,
        business: Business,
        plan: Plan,
        call_sid: str,
        pace: float,
        refused_after: CallEnd | None,
        takes_over: str = "",
        stream_sid: str = "",
    ) -> None:
        counting = Counting(int(self._wall_clock() * 1000), limits_of(plan), takes_over)
        await self._slots.reserve(
            *(business.id, call_sid, plan.max_concurrent_calls, pace, counting, refused_after),
            stream_sid,
        )

    async def ticket_in(self, query: Mapping[str, str]) -> Authorization | None:
        """Return what the ticket in an ingest URL permits; None where it permits nothing."""
        text = query.get(TICKET_PARAMETER, "")
        if not text or self._waive_tickets:
            return None
        try:
            return (await self._tickets.read_unspent(text, TicketUse.INGEST)).authorization
        except RemoteError:
            return None

    def ticket_is_forged(self, query: Mapping[str, str]) -> bool:
        """Return whether the ticket in an ingest URL was not issued here; one that is old was."""
        text = query.get(TICKET_PARAMETER, "")
        return bool(text) and self._tickets.is_forged(text, TicketUse.INGEST)

    def _ticket_of(self, start: StreamStarted, handshake: Handshake) -> Ticket | None:
        # DESIGN: ALLOW_UNSIGNED ignores tickets, since a pasted capture carries an old one.
        if self._waive_tickets:
            return None
        in_url = handshake.query.get(TICKET_PARAMETER, "")
        if handshake.authorization.proof is Proof.TICKET:
            text = in_url  # the one that opened the socket
        elif handshake.authorization.is_signature:
            text = start.params.get(TICKET_PARAMETER) or in_url
        else:
            return None
        return self._tickets.read(text, start.call_sid, _use_of(handshake.carrier))

    async def _owner_of_stream(
        self, call: IncomingCall, ticket: Ticket | None
    ) -> tuple[Business, Plan]:
        found = await self._owner(call)
        if ticket is None or ticket.plan == found[1].name:
            return found
        # The plan that the call began with holds, if it still exists.
        return found[0], await self._store.plan(ticket.plan) or found[1]


def _authorized(
    call: IncomingCall, start: StreamStarted, handshake: Handshake, ticket: Ticket | None
) -> tuple[Authorization, IncomingCall]:
    """Return what handshake and ticket permit together, and the call with its business.

    Raises:
        BusinessMismatch: the peer names another business or call.
        PurposeMismatch: the handshake's credential opens no stream.
    """
    authorization = handshake.authorization
    authorization.require(Purpose.OPEN_STREAM)
    if ticket is not None:
        authorization = authorization.narrowed_to(ticket.authorization)
    authorization.check_call(call.call_sid)
    authorization.check_call_in(start.params, handshake.query)
    business_id = authorization.business_in(start.params, handshake.query)
    return authorization, replace(call, business_id=business_id)


def _has_unique_id(call: IncomingCall, authorization: Authorization) -> bool:
    """Return whether a CallSid is one that Twilio gave to a call of the service's account."""
    return call.carrier == "twilio" and not authorization.is_own_account


def _use_of(carrier: str) -> TicketUse:
    return TicketUse.INGEST if carrier == EXOTEL else TicketUse.TWILIO_MEDIA


def _identity(call: IncomingCall, business: Business | None, plan: Plan | None) -> CallIdentity:
    return CallIdentity(
        call_sid=call.call_sid,
        business_id=business.id if business else "",
        plan=plan.name if plan else "",
        carrier=call.carrier,
    )
