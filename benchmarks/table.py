"""The table of a run: the machine, the numbers, and whether the promises held."""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.frames import FramesLoad
from benchmarks.host import Cores, Usage, cpu_model
from benchmarks.latency import Latencies
from benchmarks.webhook import WebhookLoad

WEBHOOK_P99_MS = 50
WEBHOOK_RATE = 200
FRAME_P99_MS = 20
FRAME_CALLS = 50
# Above this share of its core, the load generator delays what it measures.
GENERATOR_LIMIT = 0.8

Row = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    """All that was measured, and how; None stands for what was not asked for."""

    command: str
    seconds: int
    cores: Cores
    redis_version: str
    webhook: WebhookLoad | None
    frames: FramesLoad | None


def table(run: Run) -> str:
    """Draw the table."""
    sections = [list(_machine(run))]
    if run.webhook:
        sections.append(list(_webhook(run.webhook, run.cores)))
    if run.frames:
        sections.append(list(_frames(run.frames, run.cores)))
    sections.append(list(_promises(run)))
    width = max(len(name) for rows in sections for name, _ in rows)
    longest = max(len(value) for rows in sections for _, value in rows)
    rule = "-" * (width + 2 + longest)
    lines = [rule]
    for rows in sections:
        lines += [f"{name:<{width}}  {value}" for name, value in rows]
        lines.append(rule)
    return "\n".join(lines)


def _machine(run: Run) -> Iterator[Row]:
    yield "machine", f"{os.cpu_count()} cores, {cpu_model()}, {platform.system()}"
    yield "versions", f"Python {platform.python_version()}, Redis {run.redis_version}"
    yield "date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    load = ", ".join(map(str, sorted(run.cores.load)))
    if run.cores.service is not None:
        yield "cores", f"the service alone on core {run.cores.service}; load and Redis on {load}"
    elif load:
        yield "cores", f"not pinned: the service, the load and Redis share core {load}"
    else:
        yield "cores", "not pinned: this platform cannot; all compete for every core"
    yield "again with", run.command


def _webhook(load: WebhookLoad, cores: Cores) -> Iterator[Row]:
    seconds = load.requests // load.rate
    yield "WEBHOOK", f"{load.rate} signed POSTs a second for {seconds} s, open loop"
    yield "answered with a stream", f"{load.welcomed:,} of {load.requests:,}"
    failed = ", ".join(f"{status}: {count}" for status, count in sorted(load.failed.items()))
    yield "other than 200", f"{load.failed.total():,}" + (f" ({failed})" if failed else "")
    shown = load.latencies
    yield "latency p50, p99, max", f"{shown.p50:.1f}, {shown.p99:.1f}, {shown.longest:.1f} ms"
    yield _late(load.late)
    yield "warnings of the service", f"{load.warnings:,}"
    yield from _cpu(load.usage, cores, load.requests, "request")


def _frames(load: FramesLoad, cores: Cores) -> Iterator[Row]:
    yield "FRAMES", f"{load.calls} live calls, one frame each 20 ms, {load.due // load.calls} each"
    yield "sent, readable", f"{load.sent:,} (of {load.due:,} due), {load.readable:,}"
    yield (
        "lost, duplicated, reordered, foreign",
        ", ".join(map(str, (load.lost, load.duplicated, load.reordered, load.foreign))),
    )
    shown = load.latencies
    yield (
        "latency p50, p99, p99.9, max",
        f"{shown.p50:.1f}, {shown.p99:.1f}, {shown.p999:.1f}, {shown.longest:.1f} ms",
    )
    yield _late(load.late)
    totals = [f"{name} {count:,}" for name, count in load.receipts.items()]
    yield "receipts, summed", ", ".join(totals[:3]) or "none"
    if totals:
        yield "", ", ".join(totals[3:])
    yield "receipts' longest lag", f"{load.max_lag_ms} ms"
    if load.receipts_missing:
        yield "receipts missing", str(load.receipts_missing)
    yield "warnings of the service", f"{load.warnings:,}"
    yield from _cpu(load.usage, cores, load.sent, "frame")


def _late(late: Latencies) -> Row:
    shown = f"{late.p50:.1f}, {late.p99:.1f}, {late.longest:.1f} ms"
    return "sent late by p50, p99, max", shown


def _cpu(usage: Usage, cores: Cores, count: int, unit: str) -> Iterator[Row]:
    for name, used in (("service", usage.service), ("Redis", usage.redis)):
        yield f"CPU of {name}", _cost(used, usage.wall, count, unit)
    yield "CPU of the generator", _cost(usage.generator, usage.wall, count, unit)
    if usage.kept_waiting is not None:
        share = usage.kept_waiting / usage.wall
        yield "others on the service's core", f"kept it waiting {share:.1%} of the time"
    busy = usage.generator + (usage.redis or 0.0) * cores.redis_shares
    if busy > GENERATOR_LIMIT * usage.wall:
        yield (
            "CAUTION",
            (
                f"the generator's core was {busy / usage.wall:.0%} busy: "
                "the generator was the limit, not the service"
            ),
        )


def _cost(used: float | None, wall: float, count: int, unit: str) -> str:
    if used is None or not count:
        return "-"
    return f"{used / wall:.1%} of a core, {used / count * 1e6:,.1f} µs a {unit}"


def _promises(run: Run) -> Iterator[Row]:
    if run.webhook:
        webhook = run.webhook
        yield (
            f"webhook p99 <= {WEBHOOK_P99_MS} ms at {WEBHOOK_RATE} a second",
            _verdict(
                webhook.latencies.p99 <= WEBHOOK_P99_MS and webhook.welcomed == webhook.requests,
                f"{webhook.latencies.p99:.1f} ms, {webhook.welcomed / webhook.requests:.2%} served",
                load=webhook.rate,
                promised=WEBHOOK_RATE,
            ),
        )
    if run.frames:
        frames = run.frames
        whole = frames.readable == frames.due
        once = not (frames.duplicated or frames.reordered or frames.foreign)
        yield (
            f"frame readable p99 <= {FRAME_P99_MS} ms with {FRAME_CALLS} calls",
            _verdict(
                frames.latencies.p99 <= FRAME_P99_MS and whole and once,
                f"{frames.latencies.p99:.1f} ms, {frames.readable / frames.due:.2%} readable",
                load=frames.calls,
                promised=FRAME_CALLS,
            ),
        )


def _verdict(kept: bool, measured: str, *, load: int, promised: int) -> str:
    """Judge a promise; a lighter load can only break it, a heavier one only keep it."""
    if kept and load >= promised:
        return f"held: {measured}"
    if not kept and load <= promised:
        return f"not held: {measured}"
    return f"open: {measured}, but at {load} instead of {promised}"
