"""`serve`, and the workers it starts."""

import argparse
import asyncio
import logging
import os
import secrets
import shlex
import shutil
import socket
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from app import log as logs
from app.cli.arguments import EXIT_UNUSABLE, Commands, environment_of
from app.errors import BridgeError, SettingsError
from app.main import Service, compose
from app.main.examined import deployment_of, exposed_files, log_warnings
from app.metrics import Metrics, SharedFigures
from app.server import DrainingServer, GuardedConfig, SocketRules, server_config
from app.settings import Adapter, Settings
from app.tools.embedded import URL_FILE, EmbeddedRedis
from app.web.boundary import answer_headers
from app.workers.lifeline import Lifeline
from app.workers.port import listen
from app.workers.supervisor import Patience, Supervisor

log = logging.getLogger(__name__)

MOST_WORKERS = 64
# How much longer than its calls a worker may take to stop: the last audio, the
# last events, and what uvicorn waits for.
STOP_SECONDS = 45.0


def add_to(commands: Commands) -> None:
    """Add `serve` and `worker`."""
    serve = commands.add_parser("serve", help="run the service")
    serve.add_argument(
        "--embedded-redis",
        type=Path,
        metavar="DIRECTORY",
        help="without REDIS_URL, start a Redis server of our own that keeps its data there",
    )
    serve.add_argument(
        "--workers",
        type=int,
        choices=range(1, MOST_WORKERS + 1),
        default=1,
        metavar="N",
        help="processes that share the port, each on a core of its own; default: 1",
    )
    serve.set_defaults(run=_serve)
    # Started by `serve --workers`, and by nobody else; without help it is not listed.
    worker = commands.add_parser("worker")
    worker.add_argument("--slot", type=int, required=True)
    worker.add_argument("--lifeline", type=int, required=True)
    worker.add_argument("--listen", type=int, nargs="+", required=True)
    worker.add_argument("--figures", type=Path, required=True)
    worker.add_argument("--passing-key", action="store_true")
    worker.set_defaults(run=_worker)


def _serve(parsed: argparse.Namespace) -> int:
    environment = environment_of(parsed.env_file)
    redis_url = '"$REDIS_URL"'  # as a shell finds it
    with ExitStack() as stack:
        uses_redis = environment.get("PUBSUB_ADAPTER", "") != "memory"
        has_redis = environment.get("REDIS_URL") or environment.get("REDIS_URL_FILE")
        if parsed.embedded_redis and uses_redis and not has_redis:
            redis = stack.enter_context(EmbeddedRedis(parsed.embedded_redis))
            environment["REDIS_URL"] = redis.url
            redis_url = f'"$(cat {shlex.quote(str(parsed.embedded_redis / URL_FILE))})"'
        settings = Settings.load(environment)
        logs.configure(settings.log_format, settings.log_level)
        exposed = exposed_files(environment, parsed.env_file)
        deployment = deployment_of(settings, environment, exposed)
        log_warnings(deployment)
        if parsed.workers > 1:
            return _serve_by_workers(parsed.workers, settings, environment, redis_url)
        service = compose(settings, deployment)
        server = DrainingServer(
            _server_config(service, settings),
            refuse_new_calls=service.refuse_new_calls,
            drain=service.drain,
            on_listening=lambda port: _greet(settings, port, redis_url),
        )
        server.run()
    return 0 if server.started else 1


def _serve_by_workers(
    count: int, settings: Settings, environment: dict[str, str], redis_url: str
) -> int:
    """Start workers that share the port, and stay with them to the end."""
    if settings.pubsub_adapter is Adapter.MEMORY:
        problem = f"is memory, which {count} workers cannot share"
        raise SettingsError("PUBSUB_ADAPTER", problem, Adapter.REDIS_STREAMS)
    if not settings.secret_key:
        environment["SECRET_KEY"] = secrets.token_urlsafe(32)
    # Each worker imports what we have imported, wherever it was found.
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    with ExitStack() as stack:
        try:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="media-bridge-"))
        except OSError as error:
            problem = f"is no directory that can be written to: {error.strerror}"
            raise SettingsError("TMPDIR", problem, "/var/tmp") from error
        sockets = listen(settings.host, settings.port)
        port = sockets[0].getsockname()[1]
        listening = [str(one.fileno()) for one in sockets]

        def command(slot: int, lifeline: int) -> list[str]:
            passing = ["--passing-key"] if not settings.secret_key else []
            own = [
                *passing,
                "--slot",
                str(slot),
                "--lifeline",
                str(lifeline),
                "--figures",
                directory,
            ]
            return [sys.executable, "-P", "-m", "app", "worker", *own, "--listen", *listening]

        supervisor = Supervisor(
            count,
            command,
            environment,
            sockets,
            Patience(stop=settings.drain_seconds + STOP_SECONDS),
            on_listening=lambda: _greet(settings, port, redis_url),
            on_end=SharedFigures(Path(directory)).forget_gauges,
        )
        return asyncio.run(supervisor.run())


def _worker(parsed: argparse.Namespace) -> int:
    """Serve as one of several, by the settings and sockets that the supervisor gives."""
    lifeline = Lifeline(parsed.lifeline)
    lifeline.watch()
    try:
        settings = Settings.load(os.environ)
        logs.configure(settings.log_format, settings.log_level, worker=parsed.slot)
        metrics = Metrics.of_worker(parsed.figures, parsed.slot)
        deployment = deployment_of(settings, os.environ, exposed_files(os.environ))
        if parsed.passing_key:
            deployment = replace(deployment, has_secret_key=False)
        service = compose(settings, deployment, metrics=metrics, has_passing_key=parsed.passing_key)
    except BridgeError as error:
        lifeline.report_unusable(str(error))
        return EXIT_UNUSABLE
    server = DrainingServer(
        _server_config(service, settings),
        refuse_new_calls=service.refuse_new_calls,
        drain=service.drain,
        on_listening=lambda port: lifeline.report_listening(),
    )
    server.run([socket.socket(fileno=descriptor) for descriptor in parsed.listen])
    if lifeline.is_cut:
        # Nobody else is left to tidy up.
        shutil.rmtree(parsed.figures, ignore_errors=True)
    return 0 if server.started else 1


def _server_config(service: Service, settings: Settings) -> GuardedConfig:
    rules = SocketRules(
        max_unadmitted=settings.max_unadmitted_sockets,
        max_unadmitted_per_address=settings.max_unadmitted_per_address,
        trusted_proxies=settings.trusted_proxies,
        client_header=settings.client_address_header,
        own_headers=answer_headers(settings.public_url.http_base if settings.public_url else ""),
    )
    return server_config(
        service.app, settings.host, settings.port, rules=rules, metrics=service.metrics
    )


def _greet(settings: Settings, port: int, redis_url: str) -> None:
    """Say that the service listens, and where to go next.

    `redis_url` is what a shell replaces by REDIS_URL: no password is shown.
    """
    local = f"localhost:{port}"
    public = settings.public_url.http_base if settings.public_url else "PUBLIC_URL"
    log.info("[server] ✅ Ingestion server listening on port %d", port)
    if settings.log_format == "json":
        return
    lines = [
        f"  is it up?    curl http://{local}/health",
        "  a test call  make call BUSINESS=business-1",
        f"  Twilio       set the number's voice webhook to POST {public}/twilio-voice",
    ]
    if settings.admin_token:
        lines.append(
            f"  admin page   http://{local}/admin, with ADMIN_TOKEN (in .env by `make run`)"
        )
    if settings.waives_signatures:
        url = f"ws://{local}/twilio-media?businessId=business-1&callSid=test123"
        paste = "(sleep 5; cat tests/captures/speech.jsonl; sleep 2)"
        lines.append(f'  by hand      {paste} | npx --yes wscat -c "{url}"')
    kind = settings.redis_url.reveal() if settings.redis_url else ""
    if kind.startswith(("redis://", "rediss://")):
        lines.append(f"  the audio    redis-cli -u {redis_url} XRANGE calls - +")
    for line in lines:
        print(line, flush=True)
