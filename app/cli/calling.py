"""`demo` and `simulate`: calls without a telephone."""

import argparse
import asyncio
from pathlib import Path

from app.cli.arguments import Commands, count, environment_of
from app.tools.demo import run_demo
from app.tools.simulate import Callers
from app.tools.simulate import simulate as place_calls


def add_to(commands: Commands) -> None:
    """Add `demo` and `simulate`."""
    demo = commands.add_parser("demo", help="place one simulated call, and read it back")
    demo.add_argument("--wav", type=Path, default=Path("demo.wav"), help="where its audio goes")
    demo.set_defaults(run=_demo)
    simulate = commands.add_parser(
        "simulate", help="place calls on a service that runs: speech, in real time"
    )
    simulate.add_argument("url", nargs="?", metavar="URL", help="default: PUBLIC_URL")
    whom = simulate.add_mutually_exclusive_group(required=True)
    whom.add_argument("--business", default="", metavar="ID", help="whom to call, by its id")
    whom.add_argument("--to", default="", metavar="NUMBER", help="whom to call, by its number")
    simulate.add_argument("--calls", type=count(1000), default=1, metavar="N")
    simulate.add_argument("--seconds", type=count(14_400), default=30, metavar="S")
    simulate.set_defaults(run=_simulate)


def _demo(parsed: argparse.Namespace) -> int:
    return asyncio.run(run_demo(parsed.wav, lambda line: print(line, flush=True)))


def _simulate(parsed: argparse.Namespace) -> int:
    environment = environment_of(parsed.env_file)
    url = parsed.url or environment.get("PUBLIC_URL", "")
    token = environment.get("TWILIO_AUTH_TOKEN", "").partition(",")[0]
    if not url:
        url = f"http://localhost:{environment.get('PORT', '8000')}"
    callers = Callers(parsed.calls, parsed.seconds, parsed.business, parsed.to)
    return asyncio.run(place_calls(url, token, callers, lambda line: print(line, flush=True)))
