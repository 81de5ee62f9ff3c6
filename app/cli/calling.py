"""`demo` and `simulate`: calls without a telephone."""

import argparse
import asyncio
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import httpx

from app.cli import target
from app.cli.arguments import Commands, count, environment_beside, tell
from app.tools.demo import run_demo
from app.tools.simulate import simulate as place_calls
from app.tools.simulate.asked import Asked, CarrierName, Fault
from app.tools.simulate.lines import service_at

RING_SECONDS = 15.0
MAX_CALL_SECONDS = 14_400
MAX_CALLS = 1000


def add_to(commands: Commands) -> None:
    """Add `demo` and `simulate`."""
    demo = commands.add_parser("demo", help="place one simulated call, and read it back")
    demo.add_argument("--wav", type=Path, default=Path("demo.wav"), help="where its audio goes")
    demo.set_defaults(run=_demo)
    simulate = commands.add_parser(
        "simulate", help="place calls on a service that runs: speech, in real time"
    )
    simulate.add_argument(
        *("url",),
        nargs="?",
        metavar="URL",
        help="of a service, its webhook (with a path) or its socket (ws, wss); default: PUBLIC_URL",
    )
    whom = simulate.add_mutually_exclusive_group()
    whom.add_argument("--business", default="", metavar="ID", help="whom to call, by its id")
    whom.add_argument("--to", default="", metavar="NUMBER", help="whom to call, by its number")
    simulate.add_argument("--carrier", choices=get_args(CarrierName), default="twilio")
    simulate.add_argument("--calls", type=count(MAX_CALLS), default=1, metavar="N")
    simulate.add_argument(
        *("--seconds",),
        type=_span,
        default=(30.0, 30.0),
        metavar="S[-T]",
        help="how long each speaks, or from S to T; default: 30",
    )
    simulate.add_argument(
        *("--rate",),
        type=_number(0.01, 1000),
        default=10.0,
        metavar="R",
        help="new calls a second; default: 10",
    )
    simulate.add_argument(
        "--dtmf", type=_digits, default="", metavar="DIGITS", help="keys that each caller presses"
    )
    simulate.add_argument(
        *("--jitter",),
        type=_number(0, 10_000),
        default=0.0,
        metavar="MS",
        help="frames late by up to so much, in bursts, in order",
    )
    simulate.add_argument(
        *("--drop",),
        type=_number(0, 1),
        default=0.0,
        metavar="SHARE",
        help="share of calls (0 to 1) whose connection is cut mid-call",
    )
    simulate.add_argument(
        *("--bad",),
        type=_faults,
        action="append",
        default=[],
        metavar="KIND[:N]",
        help=f"beside them N callers (default 1) of a bad carrier: {', '.join(Fault)}",
    )
    simulate.add_argument(
        "--seed", type=count(2**32), metavar="N", help="for the same callers again"
    )
    simulate.set_defaults(run=_simulate)


def _number(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be {least:g} to {most:g}, is {text!r}")
        return number

    return read


def _span(text: str) -> tuple[float, float]:
    shortest, _, longest = text.partition("-")
    read = _number(0.02, MAX_CALL_SECONDS)
    span = read(shortest), read(longest or shortest)
    if span[0] > span[1]:
        raise argparse.ArgumentTypeError(f"must be from the shorter to the longer, is {text!r}")
    return span


def _digits(text: str) -> str:
    if not re.fullmatch(r"[0-9*#A-D]{0,100}", text):
        raise argparse.ArgumentTypeError("must be up to 100 of the keys 0-9 * # A-D")
    return text


def _faults(text: str) -> tuple[Fault, ...]:
    kind, _, many = text.partition(":")
    if kind not in list(Fault):
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(Fault)}, is {kind!r}")
    return (Fault(kind),) * count(MAX_CALLS)(many or "1")


def _demo(parsed: argparse.Namespace) -> int:
    return asyncio.run(run_demo(parsed.wav, lambda line: print(line, flush=True)))


def _simulate(parsed: argparse.Namespace) -> int:
    return asyncio.run(_simulated(parsed))


async def _simulated(parsed: argparse.Namespace) -> int:
    environment = environment_beside(parsed.env_file)
    service = service_at(target.url_of(parsed.url, environment), parsed.carrier)
    shown = target.shown_to(service.base, environment)
    asked = Asked(
        seed=parsed.seed or random.SystemRandom().randint(1, 2**32),
        calls=parsed.calls,
        seconds=parsed.seconds,
        business_id=parsed.business,
        to_number=parsed.to,
        carrier=parsed.carrier,
        rate=parsed.rate,
        digits=parsed.dtmf,
        jitter=parsed.jitter / 1000,
        drop=parsed.drop,
        faults=tuple(fault for faults in parsed.bad for fault in faults),
    )
    limits = httpx.Limits(max_connections=MAX_CALLS)
    async with (
        httpx.AsyncClient(timeout=RING_SECONDS, limits=limits) as client,
        target.receipts_of(service.base, shown, client) as receipts,
    ):
        return await place_calls(
            *(asked, service, target.credentials_of(shown), client, receipts),
            tell=tell,
            result=lambda line: print(line, flush=True),
        )
