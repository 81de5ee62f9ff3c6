"""Twilio's webhooks: what a call hears, and what becomes of it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app import twiml
from app.carriers.authorization import Authorization, Purpose
from app.errors import (
    BridgeError,
    CallRateExceeded,
    DestinationNotAllowed,
    MalformedRequest,
    MonthlyLimitReached,
    PlanLimitReached,
    ProcessFull,
    SignatureInvalid,
    SignatureMissing,
    UnknownBusiness,
)
from app.events import CallIdentity
from app.plans import NOT_ANSWERED, Business, TrackPlan
from app.registry import Registry
from app.session.hangups import Hangups
from app.session.herald import Herald
from app.session.reception import IncomingCall, Reception, Refusal, Welcome
from app.store.base import CallEnd
from app.web.documented import TWILIO, form_route, refusals
from app.web.errors import error_response
from app.web.twilio_form import TwilioRequest, TwilioRequests
from app.wire.base import is_identifier

log = logging.getLogger(__name__)

STREAM_NAME = "media-bridge"
# The statuses after which a call has no more (Twilio, "CallStatus values").
ANSWERED = "in-progress"
FINAL_STATUSES = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})

# The fields that are read, of those that Twilio sends (PROTOCOLS 5).
_CALL = {"CallSid": "The call's id."}
_NUMBERS = {**_CALL, "From": "The caller.", "To": "The dialled number."}
VOICE_FORM = {**_NUMBERS, "CallStatus": "`in-progress` where the call was answered before."}
DIAL_FORM = {**_NUMBERS, "DialCallStatus": "How the forwarded leg ended."}
STATUS_FORM = {
    **_NUMBERS,
    "CallStatus": "The call's status.",
    "CallDuration": "Its length in seconds, at the end.",
    "SequenceNumber": "The callback's number.",
}
STREAM_FORM = {
    **_CALL,
    "StreamSid": "The stream's id.",
    "StreamEvent": "`stream-started`, `stream-stopped` or `stream-error`.",
    "StreamError": "Why it failed.",
}
TWIML = {"description": "TwiML.", "content": {"text/xml": {"schema": {"type": "string"}}}}
NOTED: dict[str, Any] = {"status_code": 204, "response_description": "Noted."}
REFUSALS = refusals(MalformedRequest, SignatureMissing, SignatureInvalid)
_route = partial(form_route, security=TWILIO, needed=("CallSid",))


@dataclass(frozen=True, slots=True)
class VoiceDesk:
    """What the webhooks need. `http_base` and `ws_base` are PUBLIC_URL's two forms."""

    requests: TwilioRequests
    reception: Reception
    registry: Registry
    herald: Herald
    hangups: Hangups
    http_base: str
    ws_base: str
    mask_phone: Callable[[str], str]


def voice_router(desk: VoiceDesk) -> APIRouter:
    """Make the routes that Twilio's webhooks and callbacks call."""
    router = APIRouter(tags=["twilio"], responses=REFUSALS)

    @_route(router, "/twilio-voice", "voice webhook", VOICE_FORM, responses={200: TWIML})
    async def voice(request: Request) -> Response:
        """Answer an incoming call with TwiML: where its audio goes, or why it is turned away."""
        said = await _read(desk, request, Purpose.ANSWER_CALL, "Voice Webhook")
        if isinstance(said, Response):
            return said
        call = _incoming(said)
        log.info("[Voice Webhook] Incoming call - CallSid: %s", call.call_sid)
        decided = await desk.reception.answer(call, said.authorization)
        return _xml(_answer(desk, call, decided, said.authorization))

    @_route(router, "/twilio-dial", "dial action", DIAL_FORM, responses={200: TWIML})
    async def dial(request: Request) -> Response:
        """Tell a forwarded call what comes after it: nothing, or that nobody answered."""
        said = await _read(desk, request, Purpose.REPORT_STATUS, "Dial Action")
        if isinstance(said, Response):
            return said
        status = said.field("DialCallStatus")
        _, owner = await _announce(desk, said, "call.status", {"dialStatus": status})
        return _xml(twiml.dial_outcome(status, owner.not_answered if owner else NOT_ANSWERED))

    @_route(router, "/twilio-status", "call status callback", STATUS_FORM, **NOTED)
    async def status(request: Request) -> Response:
        """Take a call's new status; a final one frees its slot."""
        said = await _read(desk, request, Purpose.REPORT_STATUS, "Call Status")
        if isinstance(said, Response):
            return said
        data = {
            "status": said.field("CallStatus"),
            "duration": said.field("CallDuration"),
            "sequence": said.field("SequenceNumber"),
        }
        call, _ = await _announce(desk, said, "call.status", data)
        if data["status"] in FINAL_STATUSES and call.business_id:
            desk.hangups.ended(call.business_id, call.call_sid)
            ended = CallEnd.FINAL if said.authorization.is_signature else None
            await desk.registry.release(call.business_id, call.call_sid, ended)
        return Response(status_code=204)

    @_route(router, "/twilio-stream-status", "stream status callback", STREAM_FORM, **NOTED)
    async def stream_status(request: Request) -> Response:
        """Take a media stream's new status, and why it failed."""
        said = await _read(desk, request, Purpose.REPORT_STATUS, "Stream Status")
        if isinstance(said, Response):
            return said
        event = said.field("StreamEvent")
        if event == "stream-error":
            error = _on_one_line(said.field("StreamError"))
            log.warning("[Stream Status] %s - CallSid: %s", error, said.field("CallSid"))
            await _announce(desk, said, "stream.error", {"error": error})
        else:
            await _announce(desk, said, "call.status", {"streamEvent": event})
        return Response(status_code=204)

    return router


async def _read(
    desk: VoiceDesk, request: Request, purpose: Purpose, label: str
) -> TwilioRequest | Response:
    try:
        said = await desk.requests.read(request, purpose)
        if not is_identifier(said.field("CallSid")):
            raise MalformedRequest("CallSid is missing, or not an id")
    except BridgeError as error:
        peer = {"peer": request.client.host if request.client else ""}
        log.warning("[%s] ❌ Refused: %s: %s", label, error.reason, error, extra=peer)
        return error_response(error)
    return said


def _incoming(said: TwilioRequest) -> IncomingCall:
    return IncomingCall(
        said.field("CallSid"),
        said.field("From"),
        said.field("To"),
        returns=said.field("CallStatus") == ANSWERED,
    )


def _answer(
    desk: VoiceDesk,
    call: IncomingCall,
    decided: Welcome | Refusal,
    authorization: Authorization,
) -> str:
    if isinstance(decided, Refusal):
        log.warning(
            "[Voice Webhook] ❌ Call %s from %s refused: %s",
            *(call.call_sid, desk.mask_phone(call.from_number), decided.error.reason),
        )
        if isinstance(decided.error, DestinationNotAllowed) and decided.business:
            log.warning(
                "[Voice Webhook] ⚠️ Calls of %s cannot be forwarded: %s",
                *(decided.business.id, decided.error),
            )
        return _refusal(decided)
    business, plan = decided.business, decided.plan
    # Twilio strips a query: by the path we know whose token signs the handshake.
    path = f"/{quote(business.id)}" if authorization.is_own_account else ""
    url = f"{desk.ws_base}/twilio-media{path}"
    log.info(
        "[Voice Webhook] Call %s from %s, business: %s, plan: %s",
        *(call.call_sid, desk.mask_phone(call.from_number), business.id, plan.name),
    )
    log.info("[Voice Webhook] Stream URL: %s", url)
    of_business = f"?businessId={quote(business.id)}"
    parameters = [
        ("businessId", business.id),
        ("callSid", call.call_sid),
        ("plan", plan.name),
        ("from", call.from_number),
        ("to", call.to_number),
    ]
    if decided.ticket:
        parameters.append(("ticket", decided.ticket))
    stream = twiml.StreamInstruction(
        url=url,
        name=STREAM_NAME,
        both_tracks=plan.tracks is TrackPlan.BOTH,
        status_callback=f"{desk.http_base}/twilio-stream-status{of_business}",
        parameters=tuple(parameters),
    )
    before_stream = (business.greeting, business.consent_notice)
    if business.forward_to:
        return twiml.forward_with_stream(
            stream,
            before_stream,
            forward_to=business.forward_to,
            action_url=f"{desk.http_base}/twilio-dial{of_business}",
            time_limit=plan.max_call_seconds,
        )
    return twiml.connect_stream(stream, before_stream, business.after_stream)


def _refusal(refusal: Refusal) -> str:
    message = refusal.business.busy_message if refusal.business else ""
    match refusal.error:
        case UnknownBusiness():
            return twiml.unknown_number()
        case DestinationNotAllowed():
            # The caller hears what they hear when nobody answers there.
            return twiml.reject_busy(refusal.business.not_answered if refusal.business else "")
        case PlanLimitReached() | CallRateExceeded() | MonthlyLimitReached() | ProcessFull():
            return twiml.reject_busy(message)
    return twiml.unavailable()


async def _announce(
    desk: VoiceDesk, said: TwilioRequest, event: str, data: dict[str, str]
) -> tuple[CallIdentity, Business | None]:
    owner = await desk.reception.owner(_incoming(said), said.authorization)
    stream_sid = said.field("StreamSid")
    if not is_identifier(stream_sid) or not await desk.reception.may_name_stream(
        stream_sid, said.field("CallSid"), said.authorization
    ):
        stream_sid = ""
    call = CallIdentity(
        said.field("CallSid"),
        stream_sid,
        owner.id if owner else "",
        carrier="twilio",
    )
    told = {name: _on_one_line(value) for name, value in data.items() if value}
    desk.herald.tell(event, call, told)
    return call, owner


def _on_one_line(text: str) -> str:
    """Return a text of a callback as an event holds it: without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)


def _xml(document: str) -> Response:
    # PROTOCOLS 4: a missing or odd Content-Type is error 12300.
    return Response(document, media_type="text/xml")
