"""The composition root: every part is made here, once, from the settings."""

import os
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import FastAPI

from app import log as logs
from app.calls.confirmation import Confirmation
from app.diagnosis.deployment import Deployment
from app.lifecycle import Lifecycle
from app.main.administered import add_api, make_administered
from app.main.examined import deployment_of, exposed_files, log_warnings
from app.main.notified import make_notices, told_by
from app.main.parts import (
    VERSION,
    directory_of,
    make_bridge,
    make_captures,
    make_control,
    make_hangups,
    make_pubsub,
    make_sealing,
    make_store,
    make_taps,
)
from app.main.routes import add_routes
from app.metrics import Metrics
from app.pubsub.base import PubSub
from app.pubsub.limits import OutboxLimits
from app.pubsub.outbox import Outbox
from app.reaper import Reaper
from app.registry import Registry
from app.registry.showing import Showing
from app.session.accounts import OwnAccounts
from app.session.control import ControlDesk
from app.session.unconfirmed import UnconfirmedCalls
from app.settings import Settings, Unsigned
from app.store.base import Store
from app.web import documented
from app.web.boundary import BoundaryRules, BridgeApp
from app.web.errors import install_error_handlers
from app.web.streams import RequestLog


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
    deployment = deployment_of(settings, os.environ, exposed_files(os.environ))
    log_warnings(deployment)
    return compose(settings, deployment, pubsub=pubsub, store=store).app


def compose(
    settings: Settings,
    deployment: Deployment,
    *,
    pubsub: PubSub | None = None,
    store: Store | None = None,
    metrics: Metrics | None = None,
    has_passing_key: bool = False,
) -> Service:
    """Make every part from `settings` and join them; nothing is connected yet.

    `deployment` is what the doctor's page looks at.
    A SECRET_KEY that is `has_passing_key` was made for this run only: nothing is
    sealed with it that the next could not open.
    """
    metrics = metrics or Metrics()
    pubsub = pubsub or make_pubsub(settings)
    store = store or make_store(settings)
    sealing = None if has_passing_key else make_sealing(settings)
    notices = make_notices(settings, store, sealing, metrics)
    registry = Registry(
        store,
        metrics,
        max_calls=settings.max_calls,
        clock=time.monotonic,
        on_crossed=told_by(notices),
    )
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
    administered = make_administered(settings, deployment, store, pubsub, sealing, metrics)
    feed = make_control(settings, pubsub)
    control = ControlDesk(feed, metrics, time.monotonic)
    captures = make_captures(settings)
    taps = make_taps(settings, captures, metrics)
    unconfirmed = UnconfirmedCalls()
    bridge = make_bridge(settings, store, registry, outbox, metrics, control, taps, unconfirmed)
    accounts = OwnAccounts(store, sealing)
    hangups = make_hangups(settings, accounts, metrics)
    lifecycle = Lifecycle(
        store,
        pubsub,
        outbox,
        registry,
        Reaper(store, pubsub, metrics, is_ours=registry.holds),
        directory_of(settings),
        metrics,
        drain_seconds=settings.drain_seconds,
        hangups=hangups,
        connected=(*administered.connected, feed, notices, captures),
        # A slow answer must not make the calls' own store rest.
        warnings=administered.store.durability_warnings,
        beside={
            "configuration": Confirmation(store, unconfirmed, registry, hangups, metrics).run,
            "figures": Showing(registry, store, metrics, uuid.uuid4().hex).run,
            "watchers": administered.board.run,
            "notices": notices.run,
            "news": administered.news.run,
            "commands": control.run,
            "taps": taps.run,
            "audit": administered.administration.audit.run,
            "deleted businesses": administered.records.erasure.run,
        },
        on_drain=(administered.library.close, administered.watchers.end_all),
    )
    app = BridgeApp(
        BoundaryRules(
            http_base=settings.public_url.http_base if settings.public_url else "",
            checks_host=settings.allow_unsigned is Unsigned.YES,
            trusted_proxies=settings.trusted_proxies,
            client_header=settings.client_address_header,
        ),
        title="twilio-media-bridge",
        version=VERSION,
        description=documented.DESCRIPTION,
        openapi_tags=documented.TAGS,
        lifespan=lifecycle.lifespan,
    )
    documented.complete(app)
    install_error_handlers(app)
    add_routes(
        app,
        settings,
        bridge,
        registry,
        lifecycle,
        store,
        hangups,
        accounts,
        administered.attempts,
    )
    add_api(app, administered, lifecycle.conditions())
    app.add_middleware(RequestLog)  # after the sockets' routes: the last one sees a request first
    return Service(app, metrics, registry.refuse_new_calls, lifecycle.drain)
