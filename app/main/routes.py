"""The routes of the service, each with what it needs."""

import logging
import time
import uuid

from fastapi import FastAPI, Request
from starlette.routing import WebSocketRoute

from app import log as logs
from app.admin.attempts import AttemptLimiter
from app.auth import TwilioSignatures
from app.businesses.pair_owners import PairOwners
from app.credentials.addresses import ClientSource, client_source
from app.credentials.handshake import IngestPolicy
from app.credentials.jwks import JwksKeys, fetch_jwks
from app.lifecycle import Lifecycle
from app.main.parts import VERSION, jwt_rules_of
from app.registry import Registry
from app.session.accounts import OwnAccounts
from app.session.bridge import Bridge
from app.session.call import CallSession
from app.session.hangups import Hangups
from app.session.reception import Handshake
from app.settings import PublicUrl, Settings
from app.store.base import Store
from app.web.health import health_router
from app.web.ingest import IngestDesk, ingest_router, ingest_sockets
from app.web.off import off_router, off_sockets
from app.web.sockets import SocketRoutes
from app.web.streams import stream_router, stream_sockets
from app.web.twilio_form import TwilioRequests
from app.web.voice import VoiceDesk, voice_router
from app.wire.twilio import TwilioWire

log = logging.getLogger(__name__)

TWILIO_PATHS = (
    "/twilio-voice",
    "/twilio-dial",
    "/twilio-status",
    "/twilio-stream-status",
    "/twilio-media",
)


def add_routes(
    app: FastAPI,
    settings: Settings,
    bridge: Bridge,
    registry: Registry,
    lifecycle: Lifecycle,
    store: Store,
    hangups: Hangups,
    accounts: OwnAccounts,
    attempts: AttemptLimiter,
) -> None:
    """Add every route that the settings allow; the others answer 503.

    A request is compared with one route after the other: the busiest come first.
    """
    if settings.serves_twilio and settings.public_url is not None:
        sockets = _add_twilio(
            app, settings, settings.public_url, bridge, registry, hangups, accounts
        )
    else:
        missing = "PUBLIC_URL" if settings.public_url is None else "TWILIO_AUTH_TOKEN"
        log.warning("[server] The Twilio routes are off: %s is not set", missing)
        app.include_router(off_router(TWILIO_PATHS, f"{missing} is not set"))
        sockets = off_sockets(TWILIO_PATHS, f"{missing} is not set")

    def source_of(request: Request) -> ClientSource:
        peer = request.client.host if request.client else ""
        forwarded_for = request.headers.getlist(settings.client_address_header)
        return client_source(peer, forwarded_for, settings.trusted_proxies)

    sockets += _add_ingest(app, settings, bridge, store, attempts)
    app.add_middleware(SocketRoutes, routes=sockets)
    app.include_router(
        health_router(
            lifecycle.conditions(),
            bridge.metrics,
            metrics_tokens=tuple(token.reveal() for token in settings.metrics_token),
            attempts=attempts,
            source_of=source_of,
            version=VERSION,
            live_streams=bridge.metrics.live_total,
            warnings=lifecycle.warnings,
        )
    )


def _add_twilio(
    app: FastAPI,
    settings: Settings,
    public: PublicUrl,
    bridge: Bridge,
    registry: Registry,
    hangups: Hangups,
    accounts: OwnAccounts,
) -> list[WebSocketRoute]:
    if missing := settings.twilio_api_lacks:
        log.warning(
            "[server] ⚠️ %s is not set: Twilio's REST API cannot be asked to end a call that is "
            "over its plan's max_call_seconds; its TwiML alone will",
            missing,
        )
    tokens = [token.reveal() for token in settings.twilio_auth_token]
    requests = TwilioRequests(
        TwilioSignatures(tokens, public.http_base, public.ws_base),
        accounts,
        bridge.metrics,
        waive_unsigned=settings.waives_signatures,
    )
    desk = VoiceDesk(
        requests,
        bridge.reception,
        registry,
        bridge.herald,
        hangups,
        http_base=public.http_base,
        ws_base=public.ws_base,
        mask_phone=logs.phone_mask(settings.log_phone_numbers),
    )
    app.include_router(voice_router(desk))

    def new_session(handshake: Handshake) -> CallSession:
        if not handshake.authorization.is_proven:
            # Typed or pasted by hand: it may pause, and names calls that are not its own.
            return CallSession(bridge, TwilioWire(), handshake)
        return CallSession(
            bridge,
            TwilioWire(),
            handshake,
            idle_seconds=settings.media_idle_seconds,
            calls=hangups,
        )

    app.include_router(stream_router())
    return stream_sockets(
        requests, bridge.metrics, new_session, waive_origin=settings.waives_signatures
    )


def _add_ingest(
    app: FastAPI, settings: Settings, bridge: Bridge, store: Store, attempts: AttemptLimiter
) -> list[WebSocketRoute]:
    log.info("[server] supportExotel: %s", str(settings.support_exotel).lower())
    policy = IngestPolicy(
        support_exotel=settings.support_exotel,
        exotel_pairs=settings.exotel_pairs,
        exotel_networks=settings.exotel_allowed_ips,
        trusted_proxies=settings.trusted_proxies,
        client_header=settings.client_address_header,
        waive=settings.waives_signatures,
        jwt=jwt_rules_of(settings),
    )
    url = settings.jwt_jwks_url
    desk = IngestDesk(
        policy,
        attempts,
        bridge.metrics,
        JwksKeys(url, fetch=fetch_jwks, clock=time.monotonic) if url else None,
        PairOwners(store.business_of_pair, time.monotonic),
        bridge.reception,
        lambda wire, handshake: CallSession(
            bridge, wire, handshake, idle_seconds=settings.ingest_idle_seconds
        ),
        new_id=lambda: uuid.uuid4().hex,
        wall_clock=time.time,
        ack_interval=settings.ack_interval,
        default_sample_rate=settings.ingest_default_sample_rate,
        ws_base=settings.public_url.ws_base if settings.public_url else "",
    )
    app.include_router(ingest_router(desk))
    return ingest_sockets(desk)
