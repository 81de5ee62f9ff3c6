"""What the benchmarks compute: slopes, verdicts, and what is played to Redis."""

import asyncio
import math
import random
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.pubsub.base import audio_key
from app.tools.embedded import EmbeddedRedis
from benchmarks.capacity import ENTRIES_A_CALL, FIRST_MS, batches, connect, open_streams, record
from benchmarks.contest import OURS, PLAIN, Turn, contest_lines
from benchmarks.latency import Latencies
from benchmarks.soak import Held, Soak, report
from benchmarks.trend import Trend

MINUTES = [float(second) for second in range(600)]


def test_a_slope_is_found_through_noise_and_lies_within_its_margin() -> None:
    noise = random.Random(7)
    trend = Trend.of([(at, 3.0 * at + noise.gauss(0, 50)) for at in MINUTES])
    assert abs(trend.slope - 3.0) <= 2 * trend.margin
    assert 0 < trend.margin < 0.2


def test_a_straight_line_has_no_margin() -> None:
    trend = Trend.of([(at, 5.0 - 2.0 * at) for at in MINUTES])
    assert (trend.slope, trend.margin) == pytest.approx((-2.0, 0.0))


@pytest.mark.parametrize(
    ("trend", "verdict"),
    [
        (Trend(0.2, 0.5), "held"),
        (Trend(-3.0, 0.5), "held"),
        (Trend(2.0, 0.5), "not held"),
        (Trend(0.9, 0.5), "open: measure for longer"),
        (Trend(1.2, 0.5), "open: measure for longer"),
        (Trend.of([(0.0, 1.0), (1.0, 1.0)]), "open: measure for longer"),
    ],
)
def test_a_slope_is_judged_only_where_its_margin_allows(trend: Trend, verdict: str) -> None:
    assert trend.verdict(1.0) == verdict


@pytest.mark.parametrize(
    ("after", "refused", "per_second", "has_held"),
    [
        (Held(40, 50, 10**8, 10**8), 0, 0.0, True),
        (Held(41, 50, 10**8, 10**8), 0, 0.0, False),
        (Held(40, 51, 10**8, 10**8), 0, 0.0, False),
        (Held(40, 49, 10**8, 10**8), 0, 0.0, False),
        (Held(40, 50, 10**8, 10**8), 1, 0.0, False),
        (Held(40, 50, 10**8, 10**8), 0, 1000.0, False),
    ],
)
def test_a_soak_holds_only_when_all_of_it_does(
    after: Held, refused: int, per_second: float, has_held: bool
) -> None:
    samples = [(at, int(1e8 + per_second * at), 10**8) for at in MINUTES]
    before = Held(40, 50, 10**8, 10**8)
    lines, held = report(Soak(20, 1000, before, after, samples, refused, 0))
    assert held is has_held
    assert ("not held" in "\n".join(lines)) is not has_held


def test_a_batch_is_what_calls_say_in_one_flush_in_turn() -> None:
    found = list(batches(calls=100, entries=2))
    assert [len(batch) for batch in found] == [25] * 8
    assert found[0][:3] == [(0, 1), (1, 1), (2, 1)]
    assert sum(found, [])[-1] == (99, 2)


async def test_what_was_recorded_can_be_played_again_as_another_writers(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, persistent=False) as server:
        recorded = await record(server.url, calls=8)
        await open_streams(server.url, (f"3-{call:04}" for call in range(8)))
        reader, sink = await connect(server.url)
        for one in recorded:
            played = one.again(3, 7)
            sink.write(played.sent)
            async with asyncio.timeout(10):
                assert await reader.readexactly(len(one.answer)) == played.answer
        sink.close()
        await sink.wait_closed()
        async with Redis.from_url(server.url) as redis:
            [[first_id, first], *others] = await redis.xrange(audio_key("3-0000"))
            [[_, recorded_first], *_] = await redis.xrange(audio_key("0-0000"))
    assert first_id == f"{FIRST_MS + 7}-1".encode()
    assert first == recorded_first
    assert 1 + len(others) == ENTRIES_A_CALL


def test_the_contest_gives_medians_and_says_what_spoils_them() -> None:
    def turn(cpu: float, *, generator: float = 0.3, unwelcome: int = 0) -> Turn:
        return Turn(1 / cpu, 0.99, cpu, cpu, Latencies.of([0.001]), unwelcome, generator)

    turns = {OURS: [turn(0.002), turn(0.004), turn(0.002)], PLAIN: [turn(0.001)]}
    text = "\n".join(contest_lines(turns, 200))
    assert "| ours | 500 |" in text
    assert "| 2.00 |" in text
    assert "CAUTION" not in text
    spoilt = {**turns, PLAIN: [turn(0.001, generator=0.95, unwelcome=3)]}
    text = "\n".join(contest_lines(spoilt, 200))
    assert "the load generator was the limit" in text
    assert "3 answers without a stream" in text
    assert math.isfinite(Trend.of([(at, at) for at in MINUTES]).margin)
