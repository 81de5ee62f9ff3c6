"""Play the fault scenarios against real servers, and print what held and what did not."""

import argparse
import secrets
import sys
import tempfile
import time
import traceback
from collections.abc import Coroutine, Sequence
from pathlib import Path

import uvloop

from tests.chaos.registry import Context, Row, Scenario, known

EXIT_FAILED = 1
MAX_SEED = 10**6


def main() -> int:
    """Play what is asked for: 0 when every figure held, else 1."""
    scenarios = known()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(scenarios), metavar="NAME", help="these")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--seed", type=int, help="the first seed; drawn when not given")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, one after another")
    parser.add_argument("--calls", type=int, default=50, help="live calls at a time")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(scenarios))
        return 0
    first = secrets.randbelow(MAX_SEED) if asked.seed is None else asked.seed
    seeds = range(first, first + asked.seeds)
    _say(f"seed {first}; again with: python -m tests.chaos --seed {first} --seeds {asked.seeds}")
    rows: list[Row] = []
    started = time.monotonic()
    for name in asked.only or scenarios:
        rows += play(name, scenarios[name], seeds, asked.calls)
    failed = sum(not row.ok for row in rows)
    print(_table(rows))
    print(f"\nseed {first}, {time.monotonic() - started:.0f} s, {failed} of {len(rows)} failed")
    return EXIT_FAILED if failed else 0


def play(name: str, run: Scenario, seeds: Sequence[int], calls: int) -> Sequence[Row]:
    """Play one scenario; one that breaks is a row that failed."""
    _say(f"{name} ...")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="media-bridge-chaos-") as directory:
        context = Context(seeds, calls, Path(directory), lambda line: _say(f"  {line}"))
        try:
            played = run(context)
            # The async ones have their own loop; the others are done by now.
            rows = uvloop.run(played) if isinstance(played, Coroutine) else played
        except Exception as error:  # the others are to be played all the same
            traceback.print_exc()
            rows = [Row(name, "is played to its end", f"{type(error).__name__}: {error}", False)]
    for row in rows:
        _say(f"  {_verdict(row):6} {row.what}: {row.measured} ({row.held})")
    _say(f"{name}: {time.monotonic() - begun:.0f} s")
    return rows


def _table(rows: Sequence[Row]) -> str:
    lines = [("what", "to hold", "measured", "")]
    lines += [(row.what, row.held, row.measured, _verdict(row)) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    lines.insert(1, tuple("-" * width for width in widths))  # type: ignore[arg-type]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _verdict(row: Row) -> str:
    return "ok" if row.ok else "FAILED"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
