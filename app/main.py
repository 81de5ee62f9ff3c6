"""The composition root: every part is made here, once, from the settings."""

import logging
import os
import random
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from app import log as logs
from app import twilio_api
from app.auth import TicketOffice, TwilioSignatures
from app.credentials.handshake import IngestPolicy
from app.credentials.jwks import JwksKeys, fetch_jwks
from app.credentials.tokens import JwtRules, rules_from
from app.errors import ConfigurationError, SettingsError
from app.lifecycle import Lifecycle
from app.metrics import Metrics
from app.plans import Directory, parse_directory
from app.pubsub.base import PubSub
from app.pubsub.limits import OutboxLimits
from app.pubsub.memory import MemoryPubSub
from app.pubsub.outbox import Outbox
from app.pubsub.redis_pubsub import RedisPubSub
from app.pubsub.redis_streams import RedisStreams
from app.reaper import Reaper
from app.registry import Registry
from app.session.bridge import Bridge
from app.session.call import CallSession
from app.session.hangups import Hangups
from app.session.herald import Herald
from app.session.reception import Handshake, Reception
from app.settings import PublicUrl, Settings
from app.store.base import Store
from app.store.memory import MemoryStore
from app.store.redis import RedisStore
from app.web import documented
from app.web.errors import install_error_handlers
from app.web.health import health_router
from app.web.ingest import IngestDesk, ingest_router
from app.web.off import off_router
from app.web.streams import RequestLog, stream_router
from app.web.twilio_form import TwilioRequests
from app.web.voice import VoiceDesk, voice_router
from app.wire.twilio import TwilioWire

log = logging.getLogger(__name__)

VERSION = "0.1.0"
TWILIO_PATHS = (
    "/twilio-voice",
    "/twilio-dial",
    "/twilio-status",
    "/twilio-stream-status",
    "/twilio-media",
)


@dataclass(frozen=True, slots=True)
class Service:
    """The application, and what its server must call when it is told to stop."""

    app: FastAPI
    metrics: Metrics
    refuse_new_calls: Callable[[], None]
    drain: Callable[[], Awaitable[None]]


def create_app(
    settings: Settings | None = None,
    *,
    pubsub: PubSub | None = None,
    store: Store | None = None,
) -> FastAPI:
    """Make the application; without settings, from the environment.

    Also serves `uvicorn app.main:create_app --factory`, which cannot drain:
    uvicorn itself ends every socket at the first signal.

    Raises:
        SettingsError: a variable is missing or unusable.
        ConfigurationError: the businesses file is unusable.
    """
    if settings is None:
        settings = Settings.load(os.environ)
        logs.configure(settings.log_format, settings.log_level)
    return compose(settings, pubsub=pubsub, store=store).app


def compose(
    settings: Settings,
    *,
    pubsub: PubSub | None = None,
    store: Store | None = None,
    metrics: Metrics | None = None,
) -> Service:
    """Make every part from `settings` and join them; nothing is connected yet."""
    if settings.waives_signatures:
        log.warning(
            "[server] ⚠️ ALLOW_UNSIGNED: requests without a signature are served, and stream "
            "tickets are ignored"
        )
    metrics = metrics or Metrics()
    pubsub = pubsub or _pubsub(settings)
    store = store or _store(settings)
    registry = Registry(store, metrics, max_calls=settings.max_calls, clock=time.monotonic)
    outbox = Outbox(
        pubsub,
        metrics,
        clock=time.monotonic,
        jitter=random.random,
        limits=OutboxLimits(
            buffer_seconds=settings.broker_buffer_seconds,
            buffer_bytes=settings.broker_buffer_bytes,
        ),
    )
    bridge = _bridge(settings, store, registry, outbox, metrics)
    hangups = _hangups(settings, metrics)
    lifecycle = Lifecycle(
        store,
        pubsub,
        outbox,
        registry,
        Reaper(store, pubsub, metrics, is_ours=registry.holds),
        _directory(settings),
        drain_seconds=settings.drain_seconds,
        hangups=hangups,
    )
    app = FastAPI(
        title="twilio-media-bridge",
        version=VERSION,
        description=documented.DESCRIPTION,
        openapi_tags=documented.TAGS,
        lifespan=lifecycle.lifespan,
    )
    documented.complete(app)
    install_error_handlers(app)
    app.add_middleware(RequestLog)
    _add_routes(app, settings, bridge, registry, lifecycle, store, hangups)
    return Service(app, metrics, registry.refuse_new_calls, lifecycle.drain)


def _bridge(
    settings: Settings, store: Store, registry: Registry, outbox: Outbox, metrics: Metrics
) -> Bridge:
    herald = Herald(outbox.announce, time.time, lambda: uuid.uuid4().hex)
    reception = Reception(
        store,
        registry,
        TicketOffice(_secret_key(settings), time.time, lambda: secrets.token_urlsafe(16)),
        herald,
        metrics,
        takes_events=lambda: outbox.takes_events,
        waive_tickets=settings.waives_signatures,
        default_business=settings.exotel_default_business,
        wall_clock=time.time,
    )
    return Bridge(
        reception,
        registry,
        outbox,
        herald,
        metrics,
        clock=time.monotonic,
        wall_clock=time.time,
        start_timeout_seconds=settings.stream_start_timeout_seconds,
    )


def _add_routes(
    app: FastAPI,
    settings: Settings,
    bridge: Bridge,
    registry: Registry,
    lifecycle: Lifecycle,
    store: Store,
    hangups: Hangups,
) -> None:
    _add_ingest(app, settings, bridge, store)
    if settings.serves_twilio and settings.public_url is not None:
        _add_twilio(app, settings, settings.public_url, bridge, registry, hangups)
    else:
        missing = "PUBLIC_URL" if settings.public_url is None else "TWILIO_AUTH_TOKEN"
        log.warning("[server] The Twilio routes are off: %s is not set", missing)
        app.include_router(off_router(TWILIO_PATHS, f"{missing} is not set"))
    app.include_router(
        health_router(
            lifecycle.conditions(),
            bridge.metrics,
            metrics_token=settings.metrics_token.reveal() if settings.metrics_token else "",
            version=VERSION,
            live_streams=bridge.metrics.live_total,
        )
    )


def _add_twilio(
    app: FastAPI,
    settings: Settings,
    public: PublicUrl,
    bridge: Bridge,
    registry: Registry,
    hangups: Hangups,
) -> None:
    if missing := settings.twilio_api_lacks:
        log.warning(
            "[server] ⚠️ %s is not set: Twilio's REST API cannot be asked to end a call that is "
            "over its plan's max_call_seconds; its TwiML alone will",
            missing,
        )
    tokens = [token.reveal() for token in settings.twilio_auth_token]
    requests = TwilioRequests(
        TwilioSignatures(tokens, public.http_base, public.ws_base),
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
        if handshake.unsigned:
            # Typed or pasted by hand: it may pause, and names calls that are not its own.
            return CallSession(bridge, TwilioWire(), handshake)
        return CallSession(
            bridge,
            TwilioWire(),
            handshake,
            idle_seconds=settings.media_idle_seconds,
            at_limit=hangups.outlived,
        )

    app.include_router(
        stream_router(
            requests, bridge.metrics, new_session, waive_origin=settings.waives_signatures
        )
    )


def _add_ingest(app: FastAPI, settings: Settings, bridge: Bridge, store: Store) -> None:
    log.info("[server] supportExotel: %s", str(settings.support_exotel).lower())
    policy = IngestPolicy(
        support_exotel=settings.support_exotel,
        exotel_pairs=settings.exotel_pairs,
        exotel_networks=settings.exotel_allowed_ips,
        trusted_proxies=settings.trusted_proxies,
        waive=settings.waives_signatures,
        jwt=_jwt_rules(settings),
    )
    url = settings.jwt_jwks_url
    desk = IngestDesk(
        policy,
        bridge.metrics,
        JwksKeys(url, fetch=fetch_jwks, clock=time.monotonic) if url else None,
        store,
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


def _hangups(settings: Settings, metrics: Metrics) -> Hangups:
    """Make what ends calls, by the account's current token."""
    token = settings.twilio_auth_token[0].reveal() if settings.twilio_auth_token else ""
    api = twilio_api.TwilioApi(
        twilio_api.client(),
        settings.twilio_api_url,
        twilio_api.credentials_of_one_account(settings.twilio_account_sid, token),
        metrics,
        jitter=random.random,
    )
    return Hangups(api)


def _jwt_rules(settings: Settings) -> JwtRules | None:
    """Read the keys of own clients' tokens; those of JWT_JWKS_URL are fetched when needed."""
    audience, issuer = settings.jwt_audience, settings.jwt_issuer
    leeway = settings.jwt_leeway_seconds
    if settings.jwt_jwks_url:
        return JwtRules("RS256", {}, audience or None, issuer or None, leeway)
    secret = settings.jwt_secret.reveal() if settings.jwt_secret else ""
    try:
        return rules_from(settings.jwt_public_key, secret, audience, issuer, leeway)
    except ValueError as error:
        name, _, problem = str(error).partition(" ")
        raise SettingsError(name, problem, "see .env.example") from None


def _pubsub(settings: Settings) -> PubSub:
    if settings.redis_url is None or settings.pubsub_adapter == "memory":
        return MemoryPubSub(time.monotonic)
    url = settings.redis_url.reveal()
    return RedisStreams(url) if settings.pubsub_adapter == "redis_streams" else RedisPubSub(url)


def _store(settings: Settings) -> Store:
    if settings.redis_url is None:
        return MemoryStore(time.monotonic)
    return RedisStore.from_url(settings.redis_url.reveal())


def _directory(settings: Settings) -> Directory | None:
    if settings.businesses_file is None:
        return None
    path = Path(settings.businesses_file)
    try:
        return parse_directory(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"BUSINESSES_FILE {path} cannot be read: {error}") from error


def _secret_key(settings: Settings) -> str:
    if settings.secret_key is not None:
        return settings.secret_key.reveal()
    log.warning(
        "[server] SECRET_KEY is not set: tickets are good for this process only, "
        "and not for another replica"
    )
    return secrets.token_urlsafe(32)
