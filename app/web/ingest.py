"""`/v1/ingest`: Exotel's connections and those of our own clients."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode

import msgspec
from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, Response
from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute

from app.credentials.handshake import (
    BasicPair,
    ExotelPeer,
    IngestPolicy,
    Shown,
    detect,
    read_credentials,
)
from app.credentials.jwks import JwksKeys
from app.credentials.tokens import BearerToken, OwnClient
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
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
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
from app.session.tickets import MADE_UP_CALL
from app.session.way_back import APPLET_PARAMETER, ONE_WAY_APPLET
from app.store.base import Store
from app.web import documented
from app.web.body import bounded_body
from app.web.documented import FORM_TYPE, JSON_TYPE, StreamUrl, form_route, refusals
from app.web.errors import error_response
from app.web.sockets import socket_route
from app.web.streams import OpenSocket, upgrade_required
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
    UnknownBusiness,
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
    """What the ingest routes need. `ws_base` is empty where PUBLIC_URL is not set."""

    policy: IngestPolicy
    metrics: Metrics
    jwks: JwksKeys | None
    store: Store
    reception: Reception
    new_session: Callable[[Wire, Handshake], CallSession]
    new_id: Callable[[], str]
    wall_clock: Callable[[], float]
    ack_interval: int
    default_sample_rate: int
    ws_base: str


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is there, and the business that this fixes, or an empty id."""

    who: OwnClient | ExotelPeer
    business_id: str


def ingest_sockets(desk: IngestDesk) -> list[WebSocketRoute]:
    """Make the WebSocket routes of `/v1/ingest`."""

    async def ingest(websocket: WebSocket) -> None:
        _log_request(websocket)
        query = dict(websocket.query_params)
        try:
            visitor = await _identify(desk, websocket, query)
        except BridgeError as error:
            desk.metrics.refused.labels(error.reason).inc()
            log.warning("[server] ❌ Authentication failed: %s", error)
            await websocket.send_denial_response(error_response(error))
            return
        wire, handshake = _protocol(desk, visitor, query)
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
            log.warning("[exotel] ❌ No stream URL: %s: %s", error.reason, error)
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


async def _identify(
    desk: IngestDesk, connection: HTTPConnection, query: Mapping[str, str]
) -> Visitor:
    """Tell who is there, and whose; raises the RemoteError that refuses them."""
    policy = desk.policy
    authorization = tuple(connection.headers.getlist("authorization"))
    credentials = read_credentials(authorization)
    own_business = ""
    if isinstance(credentials, BearerToken) and desk.jwks is not None and policy.jwt is not None:
        keys = await desk.jwks.keys_for(credentials.key_id)
        policy = replace(policy, jwt=replace(policy.jwt, keys=keys))
    elif isinstance(credentials, BasicPair):
        own_business = await _owner_of(desk.store, credentials)
    if not isinstance(credentials, BearerToken) and policy.support_exotel:
        log.info("[server] Exotel WebSocket upgrade request (IP whitelist/Basic Auth)")
    shown = Shown(
        authorization,
        connection.client.host if connection.client else "",
        tuple(connection.headers.getlist("x-forwarded-for")),
        desk.reception.ticket_holds(query),
        tuple(connection.headers.getlist("origin")),
    )
    who = detect(shown, policy, desk.wall_clock(), lambda digest: bool(own_business))
    return Visitor(who, who.business_id if isinstance(who, OwnClient) else own_business)


async def _owner_of(store: Store, pair: BasicPair) -> str:
    try:
        owner = await store.business_of_pair(pair.digest)
    except StoreUnavailable:
        return ""  # then only the shared pairs are good
    return owner.id if owner else ""


def _protocol(
    desk: IngestDesk, visitor: Visitor, query: Mapping[str, str]
) -> tuple[Wire, Handshake]:
    who = visitor.who
    if isinstance(who, OwnClient):
        wire: Wire = PcmWire(
            who.business_id, who.interaction_id, desk.ack_interval, desk.default_sample_rate
        )
        return wire, Handshake(OWN_CLIENT, visitor.business_id, query, has_credentials=True)
    wire = ExotelWire(new_id=desk.new_id, default_sample_rate=desk.default_sample_rate, query=query)
    has_credentials = who.how != "ticket"
    return wire, Handshake(EXOTEL, visitor.business_id, query, has_credentials=has_credentials)


# ---------------------------------------------------------------- stream URLs


async def _stream_url(desk: IngestDesk, request: Request) -> str:
    """Admit a call that Exotel asks a stream's URL for, and give that URL.

    How Exotel asks is not documented: a GET or a POST, each parameter optional.
    """
    said = {**dict(request.query_params), **await _form(request)}
    visitor = await _identify(desk, request, dict(request.query_params))
    if not desk.ws_base:
        raise PublicUrlMissing("PUBLIC_URL is not set, so there is no URL to give")
    call_sid = said.get("CallSid") or MADE_UP_CALL + desk.new_id()
    if not is_identifier(call_sid):
        raise InvalidIdentifier("CallSid is not an id")
    named = said.get("businessId", "")
    if visitor.business_id and named not in ("", visitor.business_id):
        raise BusinessMismatch("the credentials belong to another business")
    decided = await desk.reception.answer(
        IncomingCall(
            call_sid,
            said.get("CallFrom") or said.get("From", ""),
            said.get("CallTo") or said.get("To", ""),
            visitor.business_id or named,
            EXOTEL,
        )
    )
    if isinstance(decided, Refusal):
        raise decided.error
    query = {"sample-rate": str(decided.plan.sample_rate), "ticket": decided.ticket}
    if said.get(APPLET_PARAMETER, "").lower() == ONE_WAY_APPLET:
        query[APPLET_PARAMETER] = ONE_WAY_APPLET
    # For who is known by a pair or an address: then the ticket is not read.
    query["businessId"] = named
    log.info("[exotel] Stream URL given - CallSid: %s, %s", call_sid, decided.business.id)
    return f"{desk.ws_base}{INGEST}?{urlencode({k: v for k, v in query.items() if v})}"


async def _form(request: Request) -> dict[str, str]:
    try:
        body = await bounded_body(request, MAX_BODY_BYTES)
    except MalformedRequest:
        return {}  # no parameter is needed
    if request.headers.get("content-type", "").startswith(JSON_TYPE):
        return params_of(_decoded(body))
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=100))
    except ValueError:
        return {}  # no parameter is needed


def _decoded(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
