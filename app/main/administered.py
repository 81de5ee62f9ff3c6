"""The routes of whoever administers, and their pages, with what these stand on."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import FastAPI

from app.admin.attempts import AttemptLimiter
from app.admin.audit_log import AuditLog
from app.admin.operators import Operators
from app.administration import Administration
from app.administration.commanding import (
    ChannelCommands,
    Commands,
    MemoryCommands,
    RedisCommands,
)
from app.administration.gate import Gate
from app.administration.live import LiveCalls
from app.administration.secret_fields import NoSealer
from app.administration.speech import LiveSpeech
from app.administration.usage import UsageBook
from app.archive.base import Archive
from app.archive.library import Library
from app.archive.memory import MemoryArchive
from app.archive.redis import RedisArchive
from app.credentials.sealing import Sealing
from app.diagnosis.checkup import Checkup
from app.diagnosis.deployment import Deployment
from app.lifecycle import Connected
from app.main.audited import chain_keys_of, make_audit_store
from app.main.parts import shared_digests
from app.metrics import Metrics
from app.pubsub.base import PubSub
from app.pubsub.memory import MemoryPubSub
from app.records import Records
from app.records.business_erasure import BusinessErasure
from app.records.business_export import BusinessExport
from app.records.kept_data import KeptData, MemoryKeptData, RedisKeptData
from app.records.persons import Persons
from app.settings import Settings
from app.store.access import Access
from app.store.base import Store
from app.store.memory import MemoryStore
from app.store.memory_access import MemoryAccess
from app.store.redis import RedisStore
from app.store.redis_access import RedisAccess
from app.watchers import Board, News, Watchers
from app.web.admin.routes import PageParts, admin_router
from app.web.api.access import access_router
from app.web.api.businesses import businesses_router
from app.web.api.call_audio import call_audio_router
from app.web.api.calls import CallDesk, calls_router
from app.web.api.exotel_pairs import exotel_pairs_router
from app.web.api.exports import exports_router
from app.web.api.keys import keys_router
from app.web.api.live import live_router
from app.web.api.persons import persons_router
from app.web.api.plans import plans_router
from app.web.api.reference import reference_router
from app.web.api.route import use_visitors
from app.web.api.sessions import sessions_router
from app.web.api.speech import speech_router
from app.web.api.usage import usage_router
from app.web.health import Condition
from app.web.visitors import Visitors

# Whoever administers waits longer than a call may.
TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Administered:
    """What the API and the pages call; `connected` is to be opened and closed."""

    administration: Administration
    library: Library
    store: Store
    usage: UsageBook
    live: LiveCalls
    speech: LiveSpeech
    watchers: Watchers
    board: Board
    news: News
    visitors: Visitors
    http_base: str
    ws_base: str
    by_hand: bool
    checkup: Checkup
    attempts: AttemptLimiter
    connected: tuple[Connected, ...]
    records: Records


def make_administered(
    settings: Settings,
    deployment: Deployment,
    store: Store,
    pubsub: PubSub,
    sealing: Sealing | None,
    metrics: Metrics,
) -> Administered:
    """Make what whoever administers needs, by connections of its own: no call waits for it."""
    access = _access(settings)
    configuration = _configuration(settings, store)
    archive = _archive(settings, pubsub)
    commands = _commands(settings, pubsub)
    audit_store = make_audit_store(settings, is_chained=sealing is not None)
    audit = AuditLog(audit_store, time.time, time.monotonic)
    operators = Operators(settings.operators)
    administration = Administration.of(
        *(configuration, access, sealing or NoSealer(), operators, audit, time.time),
        shared_digests(settings),
    )
    attempts = AttemptLimiter(access, time.monotonic, metrics)
    gate = Gate(
        access,
        operators,
        administration.sessions,
        audit,
        attempts,
        wall_clock=time.time,
        has_business=configuration.has_business,
    )
    http_base = settings.public_url.http_base if settings.public_url else ""
    visitors = Visitors(gate, settings.trusted_proxies, http_base, settings.client_address_header)
    board = Board(configuration, metrics)
    news = News(pubsub, metrics)
    checkup = Checkup(deployment, time.monotonic)
    library = Library(archive)
    kept = _kept_data(settings, pubsub)
    usage = UsageBook(configuration, administration.businesses, time.time)
    keys = chain_keys_of(settings)
    records = Records(
        BusinessErasure(
            *(configuration, access, library, kept, configuration),
            audit=audit,
            wall_clock=time.time,
        ),
        BusinessExport(administration.businesses, access, library, usage, audit),
        Persons(
            *(configuration, access, library, kept, configuration, audit),
            digest=keys.digest_of_person if keys else lambda identity: "",
        ),
    )
    return Administered(
        administration,
        library,
        configuration,
        usage,
        LiveCalls(configuration, administration.audit),
        LiveSpeech(
            *(configuration, administration.audit, commands, time.monotonic),
            is_on=settings.admin_may_speak,
        ),
        Watchers(board, news),
        board,
        news,
        visitors,
        http_base,
        settings.public_url.ws_base if settings.public_url else "",
        settings.waives_signatures,
        checkup,
        attempts,
        (access, audit_store, configuration, archive, commands, checkup, kept),
        records,
    )


def add_api(app: FastAPI, administered: Administered, conditions: Sequence[Condition]) -> None:
    """Add every route of `/api/v1`, and every page of `/admin`.

    `conditions` are those of readiness.
    """
    visitors, desk = administered.visitors, administered.administration
    records = administered.records
    use_visitors(app, visitors)
    app.include_router(access_router(desk.audit))
    app.include_router(plans_router(desk))
    app.include_router(businesses_router(desk, records.erasure, administered.http_base))
    app.include_router(keys_router(desk, time.time))
    app.include_router(sessions_router(desk.sessions))
    app.include_router(exotel_pairs_router(desk.exotel_pairs, administered.ws_base))
    app.include_router(usage_router(administered.usage))
    app.include_router(live_router(administered.live, administered.watchers))
    app.include_router(speech_router(administered.speech))
    calls = CallDesk(administered.library, desk.audit)
    app.include_router(calls_router(calls))
    app.include_router(call_audio_router(calls))
    app.include_router(reference_router())
    app.include_router(exports_router(records.export, desk.audit))
    app.include_router(persons_router(records.persons))
    pages = PageParts(
        visitors,
        desk,
        calls,
        administered.live,
        administered.speech,
        administered.usage,
        administered.store,
        conditions,
        administered.http_base,
        administered.ws_base,
        administered.by_hand,
        time.time,
        administered.checkup,
        records,
    )
    app.include_router(admin_router(pages))


def _access(settings: Settings) -> Access:
    if settings.redis_url is None:
        return MemoryAccess(time.monotonic)
    return RedisAccess.from_url(settings.redis_url.reveal(), TIMEOUT_SECONDS)


def _archive(settings: Settings, pubsub: PubSub) -> Archive:
    if isinstance(pubsub, MemoryPubSub):
        return MemoryArchive(pubsub)
    if settings.redis_url is None:
        raise TypeError("a broker that is no MemoryPubSub needs REDIS_URL")
    return RedisArchive(settings.redis_url.reveal())


def _kept_data(settings: Settings, pubsub: PubSub) -> KeptData:
    if isinstance(pubsub, MemoryPubSub):
        return MemoryKeptData(pubsub)
    if settings.redis_url is None:
        raise TypeError("a broker that is no MemoryPubSub needs REDIS_URL")
    return RedisKeptData.from_url(settings.redis_url.reveal(), TIMEOUT_SECONDS)


def _commands(settings: Settings, pubsub: PubSub) -> Commands:
    if isinstance(pubsub, MemoryPubSub):
        return MemoryCommands(pubsub)
    if settings.redis_url is None:
        raise TypeError("a broker that is no MemoryPubSub needs REDIS_URL")
    kind = RedisCommands if pubsub.replayable else ChannelCommands
    return kind.from_url(settings.redis_url.reveal(), TIMEOUT_SECONDS)


def _configuration(settings: Settings, store: Store) -> MemoryStore | RedisStore:
    if isinstance(store, MemoryStore):
        return store
    if settings.redis_url is None:
        raise TypeError("a store that is no MemoryStore needs REDIS_URL")
    return RedisStore.from_url(settings.redis_url.reveal(), TIMEOUT_SECONDS)
