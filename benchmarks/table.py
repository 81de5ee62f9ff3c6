"""The tables of a run, in Markdown: the machine, the figures, and whether they hold."""

import math
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from statistics import median

from benchmarks.comparison import FRAMES_A_SECOND, KEPT_UP, Comparison, Measured
from benchmarks.frames import FramesLoad
from benchmarks.host import Cores, Usage
from benchmarks.processes import cpu_model
from benchmarks.webhook import WebhookLoad

WEBHOOK_P99_MS = 50
WEBHOOK_RATE = 200
# Above one of these, the load generator delays what it measures.
GENERATOR_LIMIT = 0.8
GENERATOR_LATE_MS = 5.0
# Rounds that differ by more than this are shown with their range.
SPREAD = 0.1
OURS, NODE, FLOOR, WORKERS = "ours", "node", "floor", "workers"
HEADINGS = (
    "",
    "calls",
    "CPU µs/frame",
    "of Node",
    "of floor",
    "calls/core",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "Redis µs/frame",
    "KiB idle, live",
    "lost, doubled, moved",
    "generator",
)
NOTHING = "–"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Draw a table whose columns are as wide as what stands in them."""
    drawn = [list(headings), *map(list, rows)]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*drawn, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in drawn
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return lines


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Show the median, and the range of the rounds where they differ."""
    if not values or any(math.isnan(value) for value in values):
        return NOTHING
    middle = f"{median(values):,.{digits}f}"
    lowest, highest = min(values), max(values)
    if highest - lowest <= SPREAD * highest:
        return middle
    return f"{middle} ({lowest:,.{digits}f}–{highest:,.{digits}f})"


def machine_lines(cores: Cores, command: str) -> Iterator[str]:
    """Say when and where it was, and how to do it again."""
    yield f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{command}`:"
    yield (
        f"{os.cpu_count()} cores, {cpu_model()}, {platform.system()}, "
        f"Python {platform.python_version()};"
    )
    load = ", ".join(map(str, sorted(cores.load)))
    if cores.service is not None:
        yield f"the service alone on core {cores.service}; load and Redis on {load}."
    elif load:
        yield f"not pinned: the service, the load and Redis share core {load}."
    else:
        yield "not pinned: this platform cannot; all compete for every core."


# -------------------------------------------------------------------- the contenders


def comparison_lines(comparison: Comparison, cores: Cores) -> Iterator[str]:
    """Draw the contenders' table, what there is to say about it, and what holds."""
    calls = sorted({row.calls for row in comparison.rows})
    rows = [row for number in calls for row in comparison.rows if row.calls == number]
    yield from markdown(HEADINGS, (_cells(comparison, row) for row in rows))
    notes = [*(note for row in rows for note in _notes(row, cores)), *comparison.missing]
    if notes:
        yield ""
        yield from (f"- {note}." for note in notes)
    verdicts = list(_verdicts(comparison, calls))
    if verdicts:
        yield ""
        yield from markdown(("to hold", "measured", ""), verdicts)


def _cells(comparison: Comparison, row: Measured) -> list[str]:
    cpu = row.cpu()
    publishes = row.contender.publishes
    memory = [NOTHING if held is None else str(round(held / 1024)) for held in _memory(row)]
    return [
        row.contender.title,
        str(row.calls),
        spread(cpu),
        _ratio(comparison.ratio(row, NODE)),
        _ratio(comparison.ratio(row, FLOOR)),
        spread([1e6 / FRAMES_A_SECOND / value for value in cpu], 0),
        *(
            spread([getattr(load.latencies, name) for load in row.loads])
            for name in ("p50", "p99", "p999")
        ),
        spread(row.redis_cpu()) if publishes else NOTHING,
        ", ".join(memory) if any(held is not None for held in _memory(row)) else NOTHING,
        _faults(row) if publishes else NOTHING,
        spread([100 * load.usage.generator / load.usage.wall for load in row.loads], 0) + " %",
    ]


def _memory(row: Measured) -> tuple[float | None, float | None]:
    return row.socket_bytes, row.call_bytes


def _ratio(ratio: float) -> str:
    return NOTHING if math.isnan(ratio) else f"{ratio:.2f}"


def _faults(row: Measured) -> str:
    lost = f"{sum(load.lost for load in row.loads):,}"
    if any(load.unfinished for load in row.loads):
        lost = NOTHING
    if not all(load.tally.numbered for load in row.loads):
        return f"{lost}, {NOTHING}, {NOTHING}"
    doubled = sum(load.tally.duplicated for load in row.loads)
    moved = sum(load.tally.reordered for load in row.loads)
    return f"{lost}, {doubled:,}, {moved:,}"


def _notes(row: Measured, cores: Cores) -> Iterator[str]:
    who = f"{row.contender.name}, {row.calls} calls"
    if row.contender.most_calls == row.calls:
        yield f"{who}: fewer than the others, because it carries fewer"
    if not all(load.tally.numbered for load in row.loads):
        yield f"{who}: its entries have no number; their count and audio are compared"
    if (kept_up := row.kept_up()) < KEPT_UP:
        yield f"{who}: did not keep up: {kept_up:.0%} of the frames were taken in their time"
    if missing := sum(load.lost for load in row.loads if load.unfinished):
        yield f"{who}: {missing:,} frames were still on their way when the wait for them was over"
    if foreign := sum(load.tally.foreign for load in row.loads):
        yield f"{who}: {foreign:,} entries are of no frame, or have other audio"
    if hung_up := sum(load.hung_up for load in row.loads):
        yield f"{who}: {hung_up:,} calls were cut"
    yield from (f"{who}: {note}" for note in bent(row.loads, cores))


def bent(loads: Sequence[FramesLoad], cores: Cores) -> Iterator[str]:
    """Say by what figures may be bent: a generator at its limit, others on the service's core."""
    busy = max(_generator_busy(load.usage, cores) for load in loads)
    late = max(load.late.p99 for load in loads)
    if busy > GENERATOR_LIMIT or late > GENERATOR_LATE_MS:
        yield (
            f"CAUTION, the load generator may have been the limit: "
            f"its core {busy:.0%} busy, frames late by {late:.1f} ms (p99)"
        )
    waited = max((load.usage.kept_waiting or 0.0) / load.usage.wall for load in loads)
    if waited > SPREAD:
        yield f"others on its core kept it waiting {waited:.0%} of the time"


def _generator_busy(usage: Usage, cores: Cores) -> float:
    redis = (usage.redis or 0.0) if cores.redis_shares else 0.0
    return (usage.generator + redis) / usage.wall


def _verdicts(comparison: Comparison, calls: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    for number in calls:
        ours = comparison.find(OURS, number)
        if ours is None:
            continue
        for other, limit, then in ((NODE, 0.40, 0.30), (FLOOR, 2.5, 2.0)):
            ratio = comparison.ratio(ours, other)
            if not math.isnan(ratio):
                what = f"CPU a frame at most {limit:g}, then {then:g} of {other}'s; {number} calls"
                yield _verdict(what, ratio, limit, "", 2, then)
        p99 = median(load.latencies.p99 for load in ours.loads)
        if not math.isnan(p99):
            yield _verdict(f"p99 at most 20, then 10 ms; {number} calls", p99, 20.0, " ms", 1, 10.0)
        tallies = [load.tally for load in ours.loads]
        faults = sum(t.lost + t.duplicated + t.reordered + t.foreign for t in tallies)
        sent = sum(t.sent for t in tallies)
        yield (
            f"none lost, doubled, moved or altered; {number} calls",
            f"{faults:,} of {sent:,}",
            word(not faults),
        )
        memory = (("an idle socket", ours.socket_bytes, 25), ("a live call", ours.call_bytes, 150))
        for name, held, limit in memory:
            if held is not None:
                what = f"memory of {name} at most {limit} KiB; {number} calls"
                yield _verdict(what, held / 1024, limit, " KiB", 0)
        for row in comparison.rows:
            if row.contender.name == WORKERS and row.calls == number * row.contender.times:
                ratio = median(row.cpu()) / median(ours.cpu())
                what = f"CPU a frame with {row.contender.times} workers, {row.calls} calls"
                yield _verdict(f"{what}, at most 1.1 of one's", ratio, 1.1, "", 2)


def _verdict(
    what: str, measured: float, limit: float, unit: str, digits: int, then: float | None = None
) -> tuple[str, str, str]:
    verdict = word(measured <= limit)
    if then is not None and measured <= then:
        verdict = "held, both"
    return what, f"{measured:.{digits}f}{unit}", verdict


def word(held: bool) -> str:
    """Say whether a figure is as it is to be."""
    return "held" if held else "**not held**"


# ----------------------------------------------------------------------- the webhook


def webhook_lines(load: WebhookLoad) -> Iterator[str]:
    """Draw what became of the webhook's requests."""
    shown, late = load.latencies, load.late
    failed = ", ".join(f"{status}: {count}" for status, count in sorted(load.failed.items()))
    held = shown.p99 <= WEBHOOK_P99_MS and load.welcomed == load.requests
    cpu = math.nan if load.usage.service is None else load.usage.service / load.requests * 1e6
    yield from markdown(
        (f"webhook, {load.rate} signed requests a second", "measured"),
        [
            ("answered with a stream", f"{load.welcomed:,} of {load.requests:,}"),
            ("other than 200", failed or "0"),
            ("p50, p99, max", f"{shown.p50:.1f}, {shown.p99:.1f}, {shown.longest:.1f} ms"),
            ("CPU of the service a request", f"{cpu:,.0f} µs"),
            (
                "generator late by p50, p99, max",
                f"{late.p50:.1f}, {late.p99:.1f}, {late.longest:.1f} ms",
            ),
            ("CPU of the generator", f"{load.usage.generator / load.usage.wall:.0%} of a core"),
            ("warnings of the service", f"{load.warnings:,}"),
            (f"p99 at most {WEBHOOK_P99_MS} ms", word(held)),
        ],
    )
