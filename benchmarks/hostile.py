"""What a hostile peer costs other calls: `python -m benchmarks.hostile`."""

import argparse
import asyncio
import math
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import uvloop
from twilio.request_validator import RequestValidator

from app.errors import BridgeError
from benchmarks.attacks import ATTACKS, Attack, Target, strike, upgrade_request
from benchmarks.frames import FramesLoad, load_frames
from benchmarks.host import Cores, Service, Usage, part_cores, private_service

CALLS = 20
SECONDS = 5
# What the rows must hold (docs/decisions/0004); the bytes are for each attacker.
MORE_P99_MS = 5.0
MORE_BYTES = 2 * 2**20
CLOSED_SECONDS = 1.0
MEDIA = "/twilio-media"
EXIT_NOT_HELD = 1


@dataclass(frozen=True, slots=True)
class HostileLoad:
    """Calls beside attackers: `closed_after` has a figure for each connection attacked.

    `rss_bytes` is by how much the service's memory stood above its beginning at
    the highest; None where the platform does not tell.
    """

    name: str
    attackers: int
    calls: FramesLoad
    rss_bytes: int | None
    closed_after: tuple[float, ...]

    def holds(self, quiet: "HostileLoad") -> bool:
        """Tell whether the attack cost the calls as little as is promised, against none."""
        return (
            self.calls.latencies.p99 <= quiet.calls.latencies.p99 + MORE_P99_MS
            and (self.rss_bytes or 0) <= (quiet.rss_bytes or 0) + MORE_BYTES * self.attackers
            and max(self.closed_after, default=0.0) <= CLOSED_SECONDS
            and self.calls.lost == 0
        )


async def load_beside(
    service: Service,
    attack: Attack | None,
    *,
    attackers: int = 1,
    calls: int = CALLS,
    seconds: int = SECONDS,
) -> HostileLoad:
    """Hold paced calls for `seconds` while each attacker strikes over and over.

    Attackers are processes of their own; each is a peer whose handshake is good.
    Without `attack` nobody strikes, for comparison.
    """
    target = _target(service)
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(attackers, mp_context=context) as pool:
        # They are started before anything is measured.
        await asyncio.gather(*(loop.run_in_executor(pool, abs, 0) for _ in range(attackers)))
        before = _reset_peak(service.pid)
        strikes = [
            loop.run_in_executor(pool, strike, target, attack, seconds)
            for _ in range(attackers)
            if attack is not None
        ]
        load = await load_frames(service, calls=calls, seconds=seconds, quiet=0.0)
        closed = [seconds for found in await asyncio.gather(*strikes) for seconds in found]
    peak = _memory(service.pid, "VmHWM")
    rss = peak - before if peak is not None and before is not None else None
    return HostileLoad(
        attack.name if attack else "nobody", attackers if attack else 0, load, rss, tuple(closed)
    )


def hostile_figures(
    cores: Cores,
    attacks: Sequence[Attack] = ATTACKS,
    attackers: Sequence[int] = (1, 4),
    *,
    calls: int = CALLS,
    seconds: int = SECONDS,
) -> Iterator[HostileLoad]:
    """Measure each attack by each number of attackers, and before each one by none.

    Raises:
        LocalError: the service did not start, or a call could not be placed.
    """
    with private_service(cores) as service:

        async def measure(attack: Attack | None, number: int) -> HostileLoad:
            return await load_beside(
                service, attack, attackers=number, calls=calls, seconds=seconds
            )

        uvloop.run(measure(None, 1))  # warms up
        for attack in attacks:
            yield uvloop.run(measure(None, 1))
            for number in attackers:
                yield uvloop.run(measure(attack, number))


def _target(service: Service) -> Target:
    host, _, port = service.url.removeprefix("http://").partition(":")
    url = f"ws://{host}:{port}{MEDIA}"
    signed = RequestValidator(service.auth_token).compute_signature(url, {})
    return Target(host, int(port), upgrade_request(MEDIA, {"X-Twilio-Signature": signed}))


def _reset_peak(pid: int) -> int | None:
    """Let the kernel forget the peak (proc(5), /proc/PID/clear_refs); give what is used now."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return _memory(pid, "VmRSS")


def _memory(pid: int, field: str) -> int | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


# ------------------------------------------------------------------------- the table

_HEADINGS = ("attack", "by", "times", "p50", "p99", "lost", "memory", "closed after", "kept", "")


def main() -> int:
    """Measure, print a row for each attack, and tell by the exit status whether all hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="length of each attack")
    parser.add_argument("--calls", type=int, default=CALLS, help="live calls at a time")
    parser.add_argument("--attackers", type=int, nargs="+", default=[1, 4])
    asked = parser.parse_args()
    print(_line(_HEADINGS), flush=True)
    quiet: HostileLoad | None = None
    broken = 0
    try:
        for load in hostile_figures(
            part_cores(), attackers=asked.attackers, calls=asked.calls, seconds=asked.seconds
        ):
            quiet = load if not load.attackers or quiet is None else quiet
            held = load.holds(quiet)
            broken += not held
            print(_line(_row(load, held)), flush=True)
    except BridgeError as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return EXIT_NOT_HELD
    return EXIT_NOT_HELD if broken else 0


def _row(load: HostileLoad, held: bool) -> tuple[str, ...]:
    shown = load.calls.latencies
    longest = max(load.closed_after, default=math.nan)
    return (
        load.name,
        str(load.attackers),
        str(len(load.closed_after)),
        f"{shown.p50:.1f} ms",
        f"{shown.p99:.1f} ms",
        str(load.calls.lost),
        "-" if load.rss_bytes is None else f"+{load.rss_bytes / 2**20:.1f} MB",
        "-" if math.isnan(longest) else f"{longest:.2f} s",
        _share(load.calls.usage),
        "held" if held else "NOT HELD",
    )


def _share(usage: Usage) -> str:
    """Say for how much of the time others on its core kept the service waiting."""
    return "-" if usage.kept_waiting is None else f"{usage.kept_waiting / usage.wall:.0%}"


def _line(cells: Sequence[str]) -> str:
    widths = (48, 3, 6, 9, 9, 5, 9, 13, 5, 8)
    return " ".join(
        f"{cell:<{width}}" if place == 0 else f"{cell:>{width}}"
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


if __name__ == "__main__":
    sys.exit(main())
