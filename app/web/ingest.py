"""`/v1/ingest`: Exotel's connections and those of our own clients."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, Response
from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute

from app.admin.attempts import AttemptLimiter, WayIn
from app.auth import MADE_UP_CALL, TICKET_PARAMETER
from app.businesses.pair_owners import PairOwners
from app.carriers.authorization import Authorization, Proof, Purpose
from app.credentials.addresses import ClientSource, client_source
from app.credentials.handshake import (
    BasicPair,
    IngestPolicy,
    Shown,
    detect,
    read_credentials,
)
from app.credentials.jwks import JwksKeys
from app.credentials.tokens import BearerToken
from app.errors import (
    BridgeError,
    BusinessMismatch,
    CredentialsInvalid,
    CredentialsMissing,
    Draining,
    EventsBacklogged,
    ExotelNotSupported,
    InvalidIdentifier,
    MalformedRequest,
    MonthlyLimitReached,
    PlanLimitReached,
    ProcessFull,
    PublicUrlMissing,
    PurposeMismatch,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
    TooManyAttempts,
    UnknownBusiness,
)
from app.log import masked_url
from app.metrics import Metrics
from app.session.call import CallSession
from app.session.reception import (
    EXOTEL,
    Handshake,
    IncomingCall,
    Reception,
    Refusal,
)
from app.session.way_back import APPLET_PARAMETER, ONE_WAY_APPLET
from app.web import documented
from app.web.body import bounded_body, first_values
from app.web.documented import FORM_TYPE, JSON_TYPE, StreamUrl, form_route, refusals
from app.web.errors import error_response
from app.web.sockets import socket_route
from app.web.streams import OpenSocket, assign_socket, upgrade_required
from app.wire.base import Wire, is_identifier
from app.wire.exotel import ExotelWire
from app.wire.params import params_of
from app.wire.pcm import PcmWire

log = logging.getLogger(__name__)

INGEST = "/v1/ingest"
OWN_CLIENT = "client"
MAX_BODY_BYTES = 16 * 1024
STREAM_URL_FORM = {
    "CallSid": "The call's id.",
    "CallFrom": "The caller; `From` too.",
    "CallTo": "The dialled number; `To` too.",
    "applet": "`stream` for a Stream applet, which cannot hear; a Voicebot's otherwise.",
}
REFUSALS = refusals(
    InvalidIdentifier,
    CredentialsMissing,
    CredentialsInvalid,
    TokenInvalid,
    TokenExpired,
    ExotelNotSupported,
    BusinessMismatch,
    PurposeMismatch,
    UnknownBusiness,
    TooManyAttempts,
    PublicUrlMissing,
    Draining,
    ProcessFull,
    EventsBacklogged,
    PlanLimitReached,
    MonthlyLimitReached,
    StoreUnavailable,
)


@dataclass(frozen=True, slots=True)
class IngestDesk:
    """What the ingest routes need. `ws_base` is empty where PUBLIC_URL is not set.

    `complained` holds the businesses that were warned of: their pair is a shared one too.
    """

    policy: IngestPolicy
    attempts: AttemptLimiter
    metrics: Metrics
    jwks: JwksKeys | None
    pair_owners: PairOwners
    reception: Reception
    new_session: Callable[[Wire, Handshake], CallSession]
    new_id: Callable[[], str]
    wall_clock: Callable[[], float]
    ack_interval: int
    default_sample_rate: int
    ws_base: str
    complained: set[str] = field(default_factory=set)


def ingest_sockets(desk: IngestDesk) -> list[WebSocketRoute]:
    """Make the WebSocket routes of `/v1/ingest`."""

    async def ingest(websocket: WebSocket) -> None:
        _log_request(websocket)
        query = first_values(websocket.scope["query_string"])
        try:
            authorization = await _authorize(desk, websocket, query, Purpose.OPEN_STREAM)
            authorization.business_in(query)
            authorization.check_call_in(query)
            assign_socket(websocket, authorization)
        except BridgeError as error:
            desk.metrics.refused.labels(error.reason).inc()
            peer = {"peer": _source(desk, websocket).address}
            log.warning("[server] ❌ Authentication failed: %s", error, extra=peer)
            await websocket.send_denial_response(error_response(error))
            return
        wire, handshake = _protocol(desk, authorization, query)
        try:
            await websocket.accept()
        except WebSocketDisconnect:
            return
        if handshake.carrier == EXOTEL:
            log.info("[server] ✅ Exotel WebSocket upgrade request accepted")
            log.info("[exotel] New Exotel WebSocket connection")
        else:
            log.info("[server] ✅ Client WebSocket upgrade request accepted")
        await desk.new_session(wire, handshake).run(OpenSocket(websocket))

    return [socket_route(path, ingest) for path in (INGEST, INGEST + "/")]


def ingest_router(desk: IngestDesk) -> APIRouter:
    """Make the routes of plain requests to `/v1/ingest`, and of `/exotel-stream-url`."""
    router = APIRouter(tags=["ingest"])

    @router.get(INGEST, include_in_schema=False)
    @router.get(INGEST + "/", include_in_schema=False)
    async def not_an_upgrade(request: Request) -> Response:
        _log_request(request)
        return upgrade_required()

    @form_route(
        router,
        "/exotel-stream-url",
        "stream url",
        STREAM_URL_FORM,
        security=documented.INGEST,
        types=(FORM_TYPE, JSON_TYPE),
        responses={200: {"model": StreamUrl, "description": "Good for one stream."}, **REFUSALS},
    )
    async def stream_url(request: Request) -> Response:
        """Admit a call, and give the URL to which its audio goes."""
        try:
            return JSONResponse({"url": await _stream_url(desk, request)})
        except BridgeError as error:
            peer = {"peer": _source(desk, request).address}
            log.warning("[exotel] ❌ No stream URL: %s: %s", error.reason, error, extra=peer)
            return error_response(error)

    return router


def _log_request(connection: HTTPConnection) -> None:
    scope = connection.scope
    shown = {
        "url": masked_url(scope["path"], scope["query_string"].decode("latin-1")),
        "upgrade": connection.headers.get("upgrade", ""),
        "authorization": _scheme(connection.headers.get("authorization", "")),
    }
    told = ", ".join(f"{name}: '{value}'" for name, value in shown.items())
    log.info("[server] WebSocket upgrade request received { %s }", told)


def _scheme(authorization: str) -> str:
    """Name a scheme that is known; another word may be a secret itself."""
    scheme = authorization.partition(" ")[0].title()
    return scheme if scheme in ("Basic", "Bearer") else "***" if scheme else "none"


async def _authorize(
    desk: IngestDesk, connection: HTTPConnection, query: Mapping[str, str], purpose: Purpose
) -> Authorization:
    """Return what a request's credential permits, or raise the BridgeError that refuses it."""
    policy = desk.policy
    authorization = tuple(connection.headers.getlist("authorization"))
    credentials = read_credentials(authorization)
    way = WayIn.INGEST if purpose is Purpose.OPEN_STREAM else WayIn.STREAM_URL
    source = _source(desk, connection)
    presented = "\n".join((*authorization, query.get(TICKET_PARAMETER, ""))).strip()
    owner = ""
    away: StoreUnavailable | None = None
    if isinstance(credentials, BearerToken) and desk.jwks is not None and policy.jwt is not None:
        keys = await desk.jwks.keys_for(credentials.key_id)
        policy = replace(policy, jwt=replace(policy.jwt, keys=keys))
    elif isinstance(credentials, BasicPair):
        try:
            owner = await desk.pair_owners.owner_of(credentials.digest)
        except StoreUnavailable as error:
            away = error  # the shared pairs are good without the store
    if not isinstance(credentials, BearerToken) and policy.support_exotel:
        log.info("[server] Exotel WebSocket upgrade request (IP whitelist/Basic Auth)")
    opens_by_ticket = credentials is None and purpose is Purpose.OPEN_STREAM
    shown = Shown(
        authorization,
        connection.client.host if connection.client else "",
        tuple(connection.headers.getlist(policy.client_header)),
        bool(query.get(TICKET_PARAMETER)),
        await desk.reception.ticket_in(query) if opens_by_ticket else None,
        tuple(connection.headers.getlist("origin")),
    )

    def owner_of(digest: str) -> str:
        if away is not None:
            raise away
        return owner

    try:
        found = detect(shown, policy, purpose, desk.wall_clock(), owner_of)
    except (CredentialsInvalid, TokenInvalid):
        # An old ticket, or a spent one, is no guess: a carrier that tries again brings it.
        if authorization or desk.reception.ticket_is_forged(query):
            await desk.attempts.note_failure(way, source, presented)
        raise
    if owner and found.proof is Proof.EXOTEL_SHARED_PAIR and owner not in desk.complained:
        desk.complained.add(owner)
        log.warning(
            "[exotel] ⚠️ An Exotel pair of business %s is the service's shared pair too: it speaks "
            "for the whole service. Remove it from the business and give it a pair of its own",
            owner,
        )
    return found


def _source(desk: IngestDesk, connection: HTTPConnection) -> ClientSource:
    peer = connection.client.host if connection.client else ""
    policy = desk.policy
    forwarded_for = connection.headers.getlist(policy.client_header)
    return client_source(peer, forwarded_for, policy.trusted_proxies)


def _protocol(
    desk: IngestDesk, authorization: Authorization, query: Mapping[str, str]
) -> tuple[Wire, Handshake]:
    if authorization.proof is Proof.JWT:
        wire: Wire = PcmWire(
            authorization.business_id,
            authorization.call_sid or None,
            desk.ack_interval,
            desk.default_sample_rate,
        )
        return wire, Handshake(OWN_CLIENT, authorization, query)
    wire = ExotelWire(new_id=desk.new_id, default_sample_rate=desk.default_sample_rate, query=query)
    return wire, Handshake(EXOTEL, authorization, query)


# ---------------------------------------------------------------- stream URLs


async def _stream_url(desk: IngestDesk, request: Request) -> str:
    """Admit a call that Exotel asks a stream's URL for, and give that URL.

    How Exotel asks is not documented: a GET or a POST, each parameter optional.
    """
    query, form = first_values(request.scope["query_string"]), await _form(request)
    authorization = await _authorize(desk, request, query, Purpose.GET_STREAM_URL)
    authorization.check_call_in(form, query)
    named = authorization.business_in(form, query)
    said = {**query, **form}
    if not desk.ws_base:
        raise PublicUrlMissing("PUBLIC_URL is not set, so there is no URL to give")
    call_sid = said.get("CallSid") or authorization.call_sid
    if call_sid.startswith(MADE_UP_CALL):
        raise InvalidIdentifier(f"CallSid begins with {MADE_UP_CALL!r}, which no carrier's does")
    call_sid = call_sid or MADE_UP_CALL + desk.new_id()
    if not is_identifier(call_sid):
        raise InvalidIdentifier("CallSid is not of the form [A-Za-z0-9_.-]{1,128}")
    decided = await desk.reception.answer(
        IncomingCall(
            call_sid,
            said.get("CallFrom") or said.get("From", ""),
            said.get("CallTo") or said.get("To", ""),
            named,
            EXOTEL,
        ),
        authorization,
    )
    if isinstance(decided, Refusal):
        raise decided.error
    url_query = {
        "sample-rate": str(decided.plan.sample_rate),
        TICKET_PARAMETER: decided.ticket,
    }
    if said.get(APPLET_PARAMETER, "").lower() == ONE_WAY_APPLET:
        url_query[APPLET_PARAMETER] = ONE_WAY_APPLET
    # For a peer that shows a pair or an address: then the ticket is not read.
    url_query["businessId"] = said.get("businessId", "")
    log.info("[exotel] Stream URL given - CallSid: %s, %s", call_sid, decided.business.id)
    return f"{desk.ws_base}{INGEST}?{urlencode({k: v for k, v in url_query.items() if v})}"


async def _form(request: Request) -> dict[str, str]:
    try:
        body = await bounded_body(request, MAX_BODY_BYTES)
    except MalformedRequest:
        return {}  # no parameter is needed
    if request.headers.get("content-type", "").startswith(JSON_TYPE):
        return params_of(_decoded(body))
    return first_values(body)


def _decoded(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
