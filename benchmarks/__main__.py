"""Measure the webhook and the way of a frame, and print one table."""

import argparse
import sys

import uvloop

from app.errors import BridgeError
from benchmarks.frames import load_frames
from benchmarks.host import part_cores, private_service
from benchmarks.table import Run, table
from benchmarks.webhook import load_webhook

WARM_UP_SECONDS = 2
EXIT_NOT_MEASURED = 1


def main() -> int:
    """Measure and print: 0 whatever the numbers are, 1 when there are none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=_positive, default=10, help="length of each load")
    parser.add_argument("--rate", type=_positive, default=200, help="webhook requests a second")
    parser.add_argument("--calls", type=_positive, default=50, help="live calls at a time")
    parser.add_argument("--only", choices=("webhook", "frames"), help="measure this alone")
    asked = parser.parse_args()
    cores = part_cores()
    webhook = frames = None
    version = ""
    try:
        # A service and a Redis of its own for each, so that neither bears the other's traces.
        if asked.only != "frames":
            _say(f"webhook: {asked.rate} requests a second, {asked.seconds} s ...")
            with private_service(cores) as service:
                version = service.redis_version
                load = load_webhook(
                    service, rate=asked.rate, seconds=asked.seconds, warm_up=WARM_UP_SECONDS
                )
                webhook = uvloop.run(load)
        if asked.only != "webhook":
            _say(f"frames: {asked.calls} calls, {asked.seconds} s ...")
            with private_service(cores) as service:
                version = service.redis_version
                frames = uvloop.run(load_frames(service, calls=asked.calls, seconds=asked.seconds))
    except BridgeError as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return EXIT_NOT_MEASURED
    command = " ".join([".venv/bin/python", "-m", "benchmarks", *sys.argv[1:]])
    print(table(Run(command, asked.seconds, cores, version, webhook, frames)))
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
