"""The command line: `media-bridge`, or `python -m app`."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from dotenv import dotenv_values

from app import log as logs
from app.errors import BridgeError
from app.main import compose
from app.server import DrainingServer, SocketRules, server_config
from app.settings import Settings
from app.tools.demo import run_demo
from app.tools.embedded import EmbeddedRedis

log = logging.getLogger(__name__)

EXIT_UNUSABLE = 2


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
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the service")
    serve.add_argument(
        "--embedded-redis",
        type=Path,
        metavar="DIRECTORY",
        help="without REDIS_URL, start a Redis server of our own that keeps its data there",
    )
    demo = commands.add_parser("demo", help="place one simulated call, and read it back")
    demo.add_argument("--wav", type=Path, default=Path("demo.wav"), help="where its audio goes")
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
        service = compose(settings)
        server = DrainingServer(
            server_config(
                service.app,
                settings.host,
                settings.port,
                rules=_socket_rules(settings),
                metrics=service.metrics,
            ),
            refuse_new_calls=service.refuse_new_calls,
            drain=service.drain,
            on_listening=lambda port: _greet(settings, port, environment.get("REDIS_URL", "")),
        )
        server.run()
    return 0 if server.started else 1


def _socket_rules(settings: Settings) -> SocketRules:
    return SocketRules(
        max_unadmitted=settings.max_unadmitted_sockets,
        max_unadmitted_per_address=settings.max_unadmitted_per_address,
        trusted_proxies=settings.trusted_proxies,
    )


def _demo(parsed: argparse.Namespace) -> int:
    return asyncio.run(run_demo(parsed.wav, lambda line: print(line, flush=True)))


_COMMANDS = {"serve": _serve, "demo": _demo}


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
        "  a test call  make demo",
        f"  Twilio       set the number's voice webhook to POST {public}/twilio-voice",
    ]
    if settings.waives_signatures:
        url = f"ws://{local}/twilio-media?businessId=business-1&callSid=test123"
        paste = "(sleep 1; cat tests/captures/speech.jsonl; sleep 2)"
        lines.append(f'  by hand      {paste} | npx wscat -c "{url}"')
    if redis_url:
        lines.append(
            f"  the audio    redis-cli -u {logs.without_password(redis_url)} XRANGE calls - +"
        )
    for line in lines:
        print(line, flush=True)
