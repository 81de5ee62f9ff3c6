"""The parts of the service, each made from what the settings say of it."""

import logging
import random
import secrets
import time
import uuid
from pathlib import Path

from app import log as logs
from app import twilio_api
from app.auth import TicketOffice
from app.businesses.exotel_pairs import PART_MIN_CHARS, short_pairs
from app.businesses.warnings import warnings_of
from app.credentials.handshake import pair_digest
from app.credentials.sealing import Sealing
from app.credentials.tokens import JwtRules, rules_from
from app.errors import ConfigurationError, SettingsError
from app.metrics import Metrics
from app.plans import Directory, parse_directory
from app.pubsub.base import PubSub
from app.pubsub.call_log import DAY_SECONDS
from app.pubsub.control import ControlFeed
from app.pubsub.memory import MemoryPubSub
from app.pubsub.memory_control import MemoryControl
from app.pubsub.outbox import Outbox
from app.pubsub.redis_control import RedisControl
from app.pubsub.redis_pubsub import RedisPubSub
from app.pubsub.redis_streams import RedisStreams
from app.registry import Registry
from app.session.accounts import OwnAccounts
from app.session.bridge import Bridge
from app.session.control import ControlDesk
from app.session.hangups import Hangups
from app.session.herald import Herald
from app.session.reception import Reception
from app.session.taps import Taps
from app.session.unconfirmed import UnconfirmedCalls
from app.settings import Settings
from app.store.base import Store
from app.store.captures import Captures
from app.store.memory import MemoryStore
from app.store.memory_captures import MemoryCaptures
from app.store.redis import RedisStore
from app.store.redis_captures import RedisCaptures

log = logging.getLogger(__name__)

VERSION = "0.1.0"
# Whoever records waits longer than a call may.
CAPTURE_TIMEOUT_SECONDS = 2.0


def make_hangups(settings: Settings, accounts: OwnAccounts, metrics: Metrics) -> Hangups:
    """Make what ends calls, by the current token of the account that each is of."""
    token = settings.twilio_auth_token[0].reveal() if settings.twilio_auth_token else ""
    api = twilio_api.TwilioApi(
        twilio_api.client(),
        settings.twilio_api_url,
        accounts.credentials(
            twilio_api.credentials_of_one_account(settings.twilio_account_sid, token)
        ),
        metrics,
        jitter=random.random,
    )
    return Hangups(api)


def jwt_rules_of(settings: Settings) -> JwtRules | None:
    """Read the keys of own clients' tokens; those of JWT_JWKS_URL are fetched when needed.

    Raises:
        SettingsError: they cannot be used.
    """
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


def make_pubsub(settings: Settings) -> PubSub:
    """Make the adapter that PUBSUB_ADAPTER names, for REDIS_URL."""
    history = settings.call_history_days * DAY_SECONDS
    if settings.redis_url is None or settings.pubsub_adapter == "memory":
        return MemoryPubSub(time.monotonic, history)
    url = settings.redis_url.reveal()
    adapter = RedisStreams if settings.pubsub_adapter == "redis_streams" else RedisPubSub
    return adapter(url, history)


def make_control(settings: Settings, pubsub: PubSub) -> ControlFeed:
    """Make what reads workers' commands, from where the audio is published."""
    if isinstance(pubsub, MemoryPubSub):
        return MemoryControl(pubsub)
    if settings.redis_url is None:
        raise TypeError("a broker that is no MemoryPubSub needs REDIS_URL")
    return RedisControl(settings.redis_url.reveal())


def make_store(settings: Settings) -> Store:
    """Make the store: in Redis where there is one."""
    if settings.redis_url is None:
        return MemoryStore(time.monotonic)
    return RedisStore.from_url(settings.redis_url.reveal())


def directory_of(settings: Settings) -> Directory | None:
    """Read BUSINESSES_FILE, where it is set."""
    if settings.businesses_file is None:
        return None
    path = Path(settings.businesses_file)
    try:
        text = path.read_text(encoding="utf-8")
        directory = parse_directory(text, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"BUSINESSES_FILE {path} cannot be read: {error}") from error
    for warning in warnings_of(directory, shared_digests(settings)):
        log.warning("[server] ⚠️ %s: %s", path, warning)
    for business_id in short_pairs(text):
        log.warning(
            "[server] ⚠️ %s: business %s has an Exotel pair with a part of fewer than %d "
            "characters, which the next version refuses; generate one instead",
            *(path, business_id, PART_MIN_CHARS),
        )
    return directory


def shared_digests(settings: Settings) -> frozenset[str]:
    """Return the digests of the service's own Exotel pairs."""
    return frozenset(map(pair_digest, settings.exotel_pairs))


def make_sealing(settings: Settings) -> Sealing | None:
    """Make what seals secrets; None without a SECRET_KEY that outlives this process."""
    if not settings.secret_key:
        return None
    return Sealing(tuple(key.reveal() for key in settings.secret_key))


def secret_keys_of(settings: Settings) -> tuple[str, ...]:
    """Return the keys of SECRET_KEY, or one that is good for this process only."""
    if settings.secret_key:
        return tuple(key.reveal() for key in settings.secret_key)
    return (secrets.token_urlsafe(32),)


def make_captures(settings: Settings) -> Captures:
    """Make what brings those who record calls and us together, by connections of its own."""
    if settings.redis_url is None:
        return MemoryCaptures(time.monotonic)
    return RedisCaptures.from_url(settings.redis_url.reveal(), CAPTURE_TIMEOUT_SECONDS)


def make_taps(settings: Settings, captures: Captures, metrics: Metrics) -> Taps:
    """Make what takes calls' messages for those who record them."""
    mask = logs.phone_mask(settings.log_phone_numbers)
    return Taps(captures, metrics, clock=time.monotonic, mask_phone=mask)


def make_bridge(
    settings: Settings,
    store: Store,
    registry: Registry,
    outbox: Outbox,
    metrics: Metrics,
    control: ControlDesk,
    taps: Taps,
    unconfirmed: UnconfirmedCalls,
) -> Bridge:
    """Make what all sessions share."""
    herald = Herald(outbox.announce, time.time, lambda: uuid.uuid4().hex)
    reception = Reception(
        store,
        registry,
        TicketOffice(secret_keys_of(settings), time.time, lambda: secrets.token_urlsafe(16)),
        herald,
        metrics,
        takes_events=outbox.takes_events_of,
        waive_tickets=settings.waives_signatures,
        default_business=settings.exotel_default_business,
        wall_clock=time.time,
        unconfirmed=unconfirmed,
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
        control=control,
        playback_lead_seconds=settings.playback_lead_ms / 1000,
        taps=taps,
    )
