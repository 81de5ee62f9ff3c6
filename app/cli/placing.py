"""`replay` and `wscat`: captured calls, placed again."""

import argparse
import asyncio
from pathlib import Path
from typing import get_args

import httpx

from app.cli import target
from app.cli.arguments import Commands, count, environment_beside, tell
from app.errors import CommandFailed
from app.tools.capture import replay as replaying
from app.tools.capture.fresh import fresh_call
from app.tools.capture.load import Capture, load_capture
from app.tools.capture.routes import Router, Whom, service_at
from app.tools.capture.wscat import wscat_command
from app.tools.progress import ProgressBar
from app.wire.capture import CarrierName

HTTP_SECONDS = 15.0
UNKNOWN = (
    "Whether every frame arrived is not known: set ADMIN_TOKEN, or the service's REDIS_URL, "
    "and the receipts are read."
)


def add_to(commands: Commands) -> None:
    """Add `replay` and `wscat`."""
    replay = commands.add_parser("replay", help="place a captured call on a service that runs")
    _add_call(replay)
    how_fast = replay.add_mutually_exclusive_group()
    how_fast.add_argument("--speed", type=_speed, default=1.0, metavar="N", help="default: 1")
    how_fast.add_argument("--burst", action="store_true", help="as fast as it goes")
    replay.add_argument(
        "--calls", type=count(10_000), default=1, metavar="N", help="so many at once; default: 1"
    )
    replay.set_defaults(run=_replay)
    wscat = commands.add_parser("wscat", help="print the wscat command that places a captured call")
    _add_call(wscat)
    wscat.add_argument("--burst", action="store_true", help="not in real time: all lines at once")
    wscat.add_argument(
        "--lead",
        type=count(60),
        default=3,
        metavar="S",
        help="seconds for npx to start and to connect; what wscat reads sooner is lost; default: 3",
    )
    wscat.set_defaults(run=_wscat)


def _add_call(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="FILE", help="a capture, NAME.jsonl")
    command.add_argument(
        "url", nargs="?", default="", metavar="URL", help="the service; default: PUBLIC_URL"
    )
    whom = command.add_mutually_exclusive_group()
    whom.add_argument("--business", default="", metavar="ID", help="whom to call, by its id")
    whom.add_argument("--to", default="", metavar="NUMBER", help="whom to call, by its number")
    command.add_argument(
        "--carrier", choices=get_args(CarrierName), help="whose capture it is, where it is not told"
    )
    command.add_argument(
        "--damaged", action="store_true", help="send lines that are no JSON as they stand"
    )


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.01 <= speed <= 1000:
        raise argparse.ArgumentTypeError(f"must be 0.01 to 1000, is {text!r}")
    return speed


def _replay(parsed: argparse.Namespace) -> int:
    return asyncio.run(_replayed(parsed, _loaded(parsed)))


async def _replayed(parsed: argparse.Namespace, capture: Capture) -> int:
    environment = environment_beside(parsed.env_file)
    base = service_at(target.url_of(parsed.url, environment), capture)
    shown = target.shown_to(base, environment)
    pace = replaying.BURST if parsed.burst else replaying.Pace(parsed.speed)
    bar = ProgressBar(parsed.calls * len(capture.messages), "replay")
    async with (
        httpx.AsyncClient(timeout=HTTP_SECONDS) as client,
        target.receipts_of(base, shown, client) as receipts,
    ):
        if receipts is None:
            tell(UNKNOWN)
        router = _router(parsed, base, shown, capture, client)
        try:
            outcomes = await replaying.replay(
                *(capture, router, receipts),
                calls=parsed.calls,
                pace=pace,
                on_sent=bar.advance,
            )
        finally:
            bar.finish()
    return replaying.report(capture, outcomes, print, tell)


def _wscat(parsed: argparse.Namespace) -> int:
    return asyncio.run(_printed(parsed, _loaded(parsed)))


async def _printed(parsed: argparse.Namespace, capture: Capture) -> int:
    if capture.carrier == "client":
        raise CommandFailed(
            f"{parsed.file} is of a client of your own, whose audio is binary: wscat cannot send "
            "it; media-bridge replay can"
        )
    environment = environment_beside(parsed.env_file)
    base = service_at(target.url_of(parsed.url, environment), capture)
    shown = target.shown_to(base, environment)
    async with httpx.AsyncClient(timeout=HTTP_SECONDS) as client:
        router = _router(parsed, base, shown, capture, client)
        route = await router.route(router.new_call(fresh_call(capture)))
    print(wscat_command(capture, route, lead_seconds=parsed.lead, in_real_time=not parsed.burst))
    if route.signature or "ticket=" in route.url:
        tell("Its ticket is good for one stream that begins within a minute.")
    return 0


def _loaded(parsed: argparse.Namespace) -> Capture:
    return load_capture(parsed.file, carrier=parsed.carrier, take_damaged=parsed.damaged)


def _router(
    parsed: argparse.Namespace,
    base: str,
    shown: target.Environment,
    capture: Capture,
    client: httpx.AsyncClient,
) -> Router:
    whom = Whom(parsed.business, parsed.to)
    return Router(client, base, capture, whom, target.credentials_of(shown))
