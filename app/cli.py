"""The command line: `media-bridge`, or `python -m app`."""

import argparse
import asyncio
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from dotenv import dotenv_values

from app import log as logs
from app.errors import BridgeError, ConfigurationError, SettingsError
from app.main import Service, compose
from app.metrics import Metrics, SharedFigures
from app.server import DrainingServer, GuardedConfig, SocketRules, server_config
from app.settings import Adapter, Settings
from app.store.redis import RedisStore
from app.tools import configuration
from app.tools.demo import run_demo
from app.tools.embedded import EmbeddedRedis
from app.tools.simulate import Callers, simulate
from app.workers.lifeline import Lifeline
from app.workers.port import listen
from app.workers.supervisor import Patience, Supervisor

log = logging.getLogger(__name__)

EXIT_UNUSABLE = 2
ADMIN_TIMEOUT_SECONDS = 5.0
MOST_WORKERS = 64
# How much longer than its calls a worker may take to stop: the last audio, the
# last events, and what uvicorn waits for.
STOP_SECONDS = 45.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; give its exit status: 2 when it cannot even begin."""
    parsed = _parser().parse_args(arguments)
    try:
        return _COMMANDS[parsed.command](parsed)
    except BridgeError as error:
        print(error, file=sys.stderr)
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="media-bridge", description=__doc__)
    parser.add_argument(
        "--env-file", type=Path, help="read variables from this file; the environment wins"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
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
    demo = commands.add_parser("demo", help="place one simulated call, and read it back")
    demo.add_argument("--wav", type=Path, default=Path("demo.wav"), help="where its audio goes")
    simulate = commands.add_parser(
        "simulate", help="place calls on a service that runs: speech, in real time"
    )
    simulate.add_argument("url", nargs="?", metavar="URL", help="default: PUBLIC_URL")
    whom = simulate.add_mutually_exclusive_group(required=True)
    whom.add_argument("--business", default="", metavar="ID", help="whom to call, by its id")
    whom.add_argument("--to", default="", metavar="NUMBER", help="whom to call, by its number")
    simulate.add_argument("--calls", type=_count(1000), default=1, metavar="N")
    simulate.add_argument("--seconds", type=_count(14_400), default=30, metavar="S")
    config = commands.add_parser("config", help="plans and businesses as a TOML file")
    config.add_argument(
        "action",
        choices=("export", "import", "diff"),
        help="write what is stored to the file; store what the file holds; show what differs, "
        "with status 1 when anything does",
    )
    config.add_argument("file", type=Path, metavar="FILE")
    config.add_argument("--dry-run", action="store_true", help="import: only say what it would do")
    config.add_argument(
        "--delete-missing",
        action="store_true",
        help="import: delete what is stored and not in the file",
    )
    # Started by `serve --workers`, and by nobody else; without help it is not listed.
    worker = commands.add_parser("worker")
    worker.add_argument("--slot", type=int, required=True)
    worker.add_argument("--lifeline", type=int, required=True)
    worker.add_argument("--listen", type=int, nargs="+", required=True)
    worker.add_argument("--figures", type=Path, required=True)
    worker.add_argument("--passing-key", action="store_true")
    return parser


def _serve(parsed: argparse.Namespace) -> int:
    environment = _environment(parsed.env_file)
    with ExitStack() as stack:
        uses_redis = environment.get("PUBSUB_ADAPTER", "") != "memory"
        if parsed.embedded_redis and uses_redis and not environment.get("REDIS_URL"):
            redis = stack.enter_context(EmbeddedRedis(parsed.embedded_redis))
            environment["REDIS_URL"] = redis.url
        settings = Settings.load(environment)
        logs.configure(settings.log_format, settings.log_level)
        if parsed.workers > 1:
            return _serve_by_workers(parsed.workers, settings, environment)
        service = compose(settings)
        server = DrainingServer(
            _server_config(service, settings),
            refuse_new_calls=service.refuse_new_calls,
            drain=service.drain,
            on_listening=lambda port: _greet(settings, port, environment.get("REDIS_URL", "")),
        )
        server.run()
    return 0 if server.started else 1


def _serve_by_workers(count: int, settings: Settings, environment: dict[str, str]) -> int:
    """Start workers that share the port, and stay with them to the end."""
    if settings.pubsub_adapter is Adapter.MEMORY:
        problem = f"is memory, which {count} workers cannot share"
        raise SettingsError("PUBSUB_ADAPTER", problem, Adapter.REDIS_STREAMS)
    if settings.secret_key is None:
        log.warning(
            "[server] SECRET_KEY is not set: tickets are good for these %d workers only, "
            "and not for another replica; no secret of a business can be stored",
            count,
        )
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
            passing = ["--passing-key"] if settings.secret_key is None else []
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
            on_listening=lambda: _greet(settings, port, environment["REDIS_URL"]),
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
        service = compose(settings, metrics=metrics, has_passing_key=parsed.passing_key)
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
    )
    return server_config(
        service.app, settings.host, settings.port, rules=rules, metrics=service.metrics
    )


def _demo(parsed: argparse.Namespace) -> int:
    return asyncio.run(run_demo(parsed.wav, lambda line: print(line, flush=True)))


def _config(parsed: argparse.Namespace) -> int:
    environment = _environment(parsed.env_file)
    # No call is taken here: of all settings, REDIS_URL alone is needed.
    needed = {"REDIS_URL": environment.get("REDIS_URL", ""), "ALLOW_UNSIGNED": "public"}
    settings = Settings.load(needed)
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL", "is not set", "redis://localhost:6379/0")
    store = RedisStore.from_url(settings.redis_url.reveal(), ADMIN_TIMEOUT_SECONDS)
    return asyncio.run(_with_configuration(parsed, store))


async def _with_configuration(parsed: argparse.Namespace, store: RedisStore) -> int:
    try:
        if parsed.action == "export":
            _write(parsed.file, await configuration.exported(store))
            return 0
        is_diff = parsed.action == "diff"
        found = await configuration.differences(
            store,
            _read(parsed.file),
            str(parsed.file),
            delete_missing=parsed.delete_missing or is_diff,
        )
        if is_diff or parsed.dry_run:
            for one in found:
                print(one)
            return int(is_diff and bool(found))
        await configuration.apply(store, found, print)
        return 0
    finally:
        await store.close()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error}") from error


def _simulate(parsed: argparse.Namespace) -> int:
    environment = _environment(parsed.env_file)
    url = parsed.url or environment.get("PUBLIC_URL", "")
    token = environment.get("TWILIO_AUTH_TOKEN", "").partition(",")[0]
    if not url:
        url = f"http://localhost:{environment.get('PORT', '8000')}"
    callers = Callers(parsed.calls, parsed.seconds, parsed.business, parsed.to)
    return asyncio.run(simulate(url, token, callers, lambda line: print(line, flush=True)))


def _count(most: int) -> Callable[[str], int]:
    """Read a whole number from 1 to `most`."""

    def read(text: str) -> int:
        if not (text.isdecimal() and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be 1 to {most}, is {text!r}")
        return int(text)

    return read


_COMMANDS = {
    "serve": _serve,
    "demo": _demo,
    "simulate": _simulate,
    "config": _config,
    "worker": _worker,
}


def _environment(env_file: Path | None) -> dict[str, str]:
    from_file: Mapping[str, str | None] = dotenv_values(env_file) if env_file else {}
    return {name: value for name, value in from_file.items() if value} | dict(os.environ)


def _greet(settings: Settings, port: int, redis_url: str) -> None:
    """Say that the service listens, and where to go next."""
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
        paste = "(sleep 1; cat tests/captures/speech.jsonl; sleep 2)"
        lines.append(f'  by hand      {paste} | npx wscat -c "{url}"')
    if redis_url.startswith(("redis://", "rediss://")):
        lines.append(
            f"  the audio    redis-cli -u {logs.without_password(redis_url)} XRANGE calls - +"
        )
    for line in lines:
        print(line, flush=True)
