"""The command line: `media-bridge`, or `python -m app`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from app.cli import (
    auditing,
    calling,
    capturing,
    configuring,
    diagnosing,
    placing,
    resealing,
    saying,
    serving,
    watching,
)
from app.cli.arguments import EXIT_UNUSABLE
from app.errors import BridgeError
from app.tools.terminal import escaping_output

# In the order in which `--help` lists what they add.
GROUPS = (
    serving,
    calling,
    watching,
    saying,
    placing,
    capturing,
    configuring,
    resealing,
    auditing,
    diagnosing,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; give its exit status: 2 when it cannot even begin."""
    with escaping_output():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except BridgeError as error:
        print(error, file=sys.stderr)
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="media-bridge", description=__doc__)
    parser.add_argument(
        "--env-file", type=Path, help="read variables from this file; the environment wins"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add_to(commands)
    return parser
