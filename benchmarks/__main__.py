"""Measure the service beside its peers, and print the tables: `make bench`."""

import argparse
import sys
from collections.abc import Callable

import uvloop

from app.errors import BridgeError
from benchmarks.administration import api_lines, load_api
from benchmarks.comparison import Work, compare
from benchmarks.contenders import contenders
from benchmarks.contest import contest
from benchmarks.host import Cores, part_cores, private_service
from benchmarks.pages import load_pages, page_lines
from benchmarks.playback import load_playback, playback_lines
from benchmarks.table import comparison_lines, machine_lines, webhook_lines
from benchmarks.webhook import load_webhook

ADMIN_CALLS = 50
PLAYBACK_CALLS = 50
WEBHOOK_WARM_UP_SECONDS = 2
# All entries of a load are compared at its end, and only a minute's are kept.
MOST_SECONDS = 40
EXIT_NOT_MEASURED = 1


def main() -> int:
    """Measure and print: 0 whatever the figures are, 1 when there are none."""
    asked = _asked()
    cores = part_cores()
    sections = []
    try:
        for name, measure in PARTS.items():
            if asked.only in (None, name):
                sections.append(measure(asked, cores))
    except BridgeError as error:
        _say(f"could not measure: {error}")
        return EXIT_NOT_MEASURED
    command = " ".join(["python", "-m", "benchmarks", *sys.argv[1:]])
    print("\n".join(machine_lines(cores, command)))
    for lines in sections:
        print("", *lines, sep="\n")
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=list(PARTS), help="measure this alone")
    parser.add_argument("--quick", action="store_true", help="a short look: 100 calls, one round")
    parser.add_argument("--calls", type=_positive, nargs="+", help="live calls (100 300)")
    parser.add_argument(
        "--seconds", type=_positive, help="length of each load (6; admin, playback 15)"
    )
    parser.add_argument("--rounds", type=_positive, help="turns that each contender has (2)")
    parser.add_argument(
        "--contenders", nargs="+", choices=list(contenders(2)), help="measure these (all)"
    )
    parser.add_argument(
        "--workers", type=_positive, default=1, help="beside ours, ours with so many workers"
    )
    parser.add_argument("--rate", type=_positive, default=200, help="webhook requests a second")
    asked = parser.parse_args()
    asked.calls = asked.calls or ([100] if asked.quick else [100, 300])
    asked.admin_seconds = asked.seconds or (5 if asked.quick else 15)
    asked.playback_seconds = asked.seconds or (4 if asked.quick else 15)
    asked.seconds = asked.seconds or (4 if asked.quick else 6)
    asked.rounds = asked.rounds or (1 if asked.quick else 2)
    if asked.only != "webhook" and asked.seconds > MOST_SECONDS:
        parser.error(f"--seconds: at most {MOST_SECONDS} with live calls")
    return asked


def _frames(asked: argparse.Namespace, cores: Cores) -> list[str]:
    everyone = contenders(asked.workers)
    chosen = [
        contender
        for name, contender in everyone.items()
        if not asked.contenders or name in asked.contenders
    ]
    work = Work(asked.calls, asked.seconds, asked.rounds)
    return list(comparison_lines(compare(cores, chosen, work, _say), cores))


def _webhook(asked: argparse.Namespace, cores: Cores) -> list[str]:
    _say(f"webhook: {asked.rate} requests a second, {asked.seconds} s ...")
    with private_service(cores) as service:
        load = load_webhook(
            service, rate=asked.rate, seconds=asked.seconds, warm_up=WEBHOOK_WARM_UP_SECONDS
        )
        lines = list(webhook_lines(uvloop.run(load)))
    _say("webhook: ours and a plain one ...")
    both = contest(cores, rate=asked.rate, seconds=asked.seconds, rounds=asked.rounds)
    return [*lines, "", *both]


def _admin(asked: argparse.Namespace, cores: Cores) -> list[str]:
    seconds = asked.admin_seconds
    with private_service(cores) as service:
        _say(f"admin: the API under {ADMIN_CALLS} live calls, {seconds} s ...")
        api = uvloop.run(load_api(service, calls=ADMIN_CALLS, seconds=seconds))
        _say(f"admin: {ADMIN_CALLS} live calls, no page and some in turns ...")
        turns = load_pages(service, calls=ADMIN_CALLS, seconds=seconds, rounds=asked.rounds)
    return [*api_lines(api, cores), "", *page_lines(turns, cores)]


def _playback(asked: argparse.Namespace, cores: Cores) -> list[str]:
    seconds = asked.playback_seconds
    with private_service(cores) as service:
        _say(f"playback: audio back into {PLAYBACK_CALLS} live calls, {seconds} s each way ...")
        load = uvloop.run(load_playback(service, calls=PLAYBACK_CALLS, seconds=seconds))
    return list(playback_lines(load))


PARTS: dict[str, Callable[[argparse.Namespace, Cores], list[str]]] = {
    "frames": _frames,
    "webhook": _webhook,
    "admin": _admin,
    "playback": _playback,
}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
