"""Our voice webhook beside a plain one, in turns: `python -m benchmarks.contest`.

The plain one (`peers/webhook_plain.py`) is FastAPI and Twilio's library under plain
uvicorn. It checks the signature and writes TwiML, and does nothing else; ours also
looks up whose call it is, holds a slot of its plan, issues a one-shot ticket, and
announces the call, all in Redis. Each has the same core while it is measured.
"""

import argparse
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import median

import httpx
import uvloop

from app.errors import BridgeError, LocalError
from app.tools.embedded import free_port
from benchmarks.host import NUMBER, Cores, part_cores, private_service
from benchmarks.latency import Latencies
from benchmarks.processes import cpu_seconds
from benchmarks.webhook import (
    Answer,
    Callers,
    Webhook,
    send_in_turn,
    send_on_schedule,
    signed_requests,
)

OURS, PLAIN = "ours", "plain FastAPI"
CONNECTIONS = 32
# More than any Python process answers; what is not needed is not sent.
MOST_A_SECOND = 4000
WARM_UP_SECONDS = 2.0
START_SECONDS = 20.0
STOP_SECONDS = 5.0
# Above this share of its core the load generator was the limit.
GENERATOR_LIMIT = 0.8


@dataclass(frozen=True, slots=True)
class PlainWebhook:
    """The plain service, running."""

    url: str
    auth_token: str
    number: str
    pid: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What one contender did in one round.

    `served` are requests a second with every connection always asking, `busy` the
    share of the core it had for that; `latencies` are at the fixed rate.
    `cpu_seconds` are of one request, in either; `generator` is the greatest share of
    its core that the load generator had. `unwelcome` counts answers without a stream.
    """

    served: float
    busy: float
    cpu_when_full: float
    cpu_at_rate: float
    latencies: Latencies
    unwelcome: int
    generator: float


def contest(cores: Cores, *, rate: int, seconds: int, rounds: int) -> list[str]:
    """Measure both in turns; give the table's lines, in Markdown.

    Raises:
        LocalError: one of them did not start or answer.
    """
    turns: dict[str, list[Turn]] = {OURS: [], PLAIN: []}
    with private_service(cores) as ours, plain_service(cores) as plain:
        for _ in range(rounds):
            turns[OURS].append(uvloop.run(_turn(ours, ours.pid, rate, seconds)))
            turns[PLAIN].append(uvloop.run(_turn(plain, plain.pid, rate, seconds)))
    return list(contest_lines(turns, rate))


def contest_lines(turns: Mapping[str, Sequence[Turn]], rate: int) -> Iterator[str]:
    """Draw the table: medians over the rounds, the last column their ratio to the plain one."""
    yield (
        f"| webhook | requests/s a core | p50, p99 at {rate}/s, ms | CPU at {rate}/s | "
        "CPU when full | of plain |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    base = median(turn.cpu_when_full for turn in turns[PLAIN])
    for name, rounds in turns.items():
        full = median(turn.cpu_when_full for turn in rounds)
        yield (
            f"| {name} | {median(turn.served for turn in rounds):,.0f}"
            f" | {median(turn.latencies.p50 for turn in rounds):.1f},"
            f" {median(turn.latencies.p99 for turn in rounds):.1f}"
            f" | {median(turn.cpu_at_rate for turn in rounds) * 1e3:.2f} ms"
            f" | {full * 1e3:.2f} ms | {full / base:.2f} |"
        )
    for name, rounds in turns.items():
        if unwelcome := sum(turn.unwelcome for turn in rounds):
            yield f"\n{name}: {unwelcome:,} answers without a stream"
        if (generator := max(turn.generator for turn in rounds)) > GENERATOR_LIMIT:
            yield f"\n{name}: CAUTION, the load generator was the limit ({generator:.0%} busy)"
        if (busy := min(turn.busy for turn in rounds)) < GENERATOR_LIMIT:
            yield f"\n{name}: CAUTION, its core was not full ({busy:.0%} busy)"


async def _turn(webhook: Webhook, pid: int, rate: int, seconds: int) -> Turn:
    requests = signed_requests(webhook, MOST_A_SECOND * seconds)
    callers = Callers(webhook.url)
    try:
        warming = signed_requests(webhook, int(MOST_A_SECOND * WARM_UP_SECONDS))
        await send_in_turn(callers, warming, connections=CONNECTIONS, seconds=WARM_UP_SECONDS)
        full = _Clocks(pid)
        answers = await send_in_turn(callers, requests, connections=CONNECTIONS, seconds=seconds)
        full.stop()
        requests = signed_requests(webhook, rate * seconds)
        at_rate = _Clocks(pid)
        paced = await send_on_schedule(callers, requests, rate)
        at_rate.stop()
    finally:
        callers.close()
    if not any(answer.status for answer in answers):
        raise LocalError(f"{webhook.url} answered none of its requests")
    return Turn(
        served=len(answers) / full.wall,
        busy=full.service / full.wall,
        cpu_when_full=full.service / len(answers),
        cpu_at_rate=at_rate.service / len(paced),
        latencies=Latencies.of([answer.latency for answer in paced]),
        unwelcome=_unwelcome(answers) + _unwelcome(paced),
        generator=max(full.generator / full.wall, at_rate.generator / at_rate.wall),
    )


def _unwelcome(answers: Sequence[Answer]) -> int:
    return sum(not answer.welcomes for answer in answers)


class _Clocks:
    """A stretch of time, and the CPU that the service and the generator had in it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = self._read()

    def _read(self) -> tuple[float, float, float]:
        used = cpu_seconds(self._pid)
        if used is None:
            raise LocalError("this platform does not tell a process's CPU time")
        return time.perf_counter(), used, time.process_time()

    def stop(self) -> None:
        """End the stretch."""
        ended = self._read()
        self.wall, self.service, self.generator = (
            last - first for first, last in zip(self._began, ended, strict=True)
        )


@contextmanager
def plain_service(cores: Cores) -> Iterator[PlainWebhook]:
    """Run the plain webhook on the service's core.

    Raises:
        LocalError: it did not start.
    """
    port = free_port()
    url, token = f"http://127.0.0.1:{port}", secrets.token_hex(16)
    options = ["--port", str(port), "--log-level", "warning", "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", "benchmarks.peers.webhook_plain:app", *options]
    known = {"PATH": os.environ.get("PATH", ""), "PUBLIC_URL": url, "TWILIO_AUTH_TOKEN": token}
    process = subprocess.Popen(command, env=known)
    try:
        if cores.service is not None:
            os.sched_setaffinity(process.pid, {cores.service})
        _wait_until_ready(url, process)
        yield PlainWebhook(url, token, NUMBER, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health/ready").status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise LocalError("the plain webhook did not start")


def main() -> int:
    """Measure and print: 0 whatever the figures are, 1 when there are none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contest", description=__doc__)
    parser.add_argument("--rate", type=int, default=200, help="requests a second, where fixed")
    parser.add_argument("--seconds", type=int, default=5, help="length of each load")
    parser.add_argument("--rounds", type=int, default=2, help="turns that each one has")
    asked = parser.parse_args()
    try:
        lines = contest(part_cores(), rate=asked.rate, seconds=asked.seconds, rounds=asked.rounds)
    except BridgeError as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
