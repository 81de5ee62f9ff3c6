"""A stream's queue: bounded, ordered, and every frame accounted for."""

import asyncio
from collections.abc import Callable

import pytest

from app.events import AudioEntry, EndEntry, Entry, GapEntry
from app.media import Track
from app.pubsub.queue import ByteBudget, StreamQueue

IN, OUT = Track.INBOUND, Track.OUTBOUND
NOBODY: Callable[[StreamQueue], None] = lambda queue: None  # noqa: E731


def a_queue(*, max_bytes: int = 1000, max_waiting: int = 100, budget: int = 10**9) -> StreamQueue:
    return StreamQueue(
        "MZ1",
        1000,
        max_bytes=max_bytes,
        max_waiting=max_waiting,
        retained_entries=500,
        budget=ByteBudget(budget),
        on_dirty=NOBODY,
    )


def put(queue: StreamQueue, *seqs: int, track: Track = IN, size: int = 10) -> None:
    for seq in seqs:
        queue.put_audio(seq, seq * 20, track, b"x" * size, 1, 0.0)


def waiting(queue: StreamQueue) -> list[Entry]:
    return [append.entry for append in queue.take(10_000)]


def test_entries_are_numbered_from_one_in_the_order_of_queueing() -> None:
    queue = a_queue()
    put(queue, 5, 6)
    queue.put_gap(IN, 2, 7, 8, 0, "carrier")
    queue.put_end("stop")
    taken = queue.take(10)
    assert [(append.id_ms, append.n) for append in taken] == [(1000, n) for n in (1, 2, 3, 4)]
    assert isinstance(taken[-1].entry, EndEntry)


def test_when_full_the_oldest_audio_goes_and_a_gap_stands_in_its_place() -> None:
    queue = a_queue(max_bytes=30)
    put(queue, 1, 2, 3, 4, 5)
    gap, *rest = waiting(queue)
    assert gap == GapEntry(1, IN, 2, 1, 2, 20, "overflow")
    assert [entry.seq for entry in rest if isinstance(entry, AudioEntry)] == [3, 4, 5]
    assert queue.dropped == {"overflow": 2}


def test_each_track_has_its_own_gap() -> None:
    queue = a_queue(max_bytes=20)
    for seq in range(1, 7):
        put(queue, seq, track=IN if seq % 2 else OUT)
    gaps = [entry for entry in waiting(queue) if isinstance(entry, GapEntry)]
    assert [(gap.track, gap.frames) for gap in gaps] == [(IN, 2), (OUT, 2)]


def test_a_gap_is_not_joined_over_audio_or_over_another_loss() -> None:
    queue = a_queue(max_bytes=20)
    put(queue, 1)
    queue.put_gap(IN, 3, 2, 4, 40, "carrier")
    put(queue, 5, 6, 7)
    gaps = [entry for entry in waiting(queue) if isinstance(entry, GapEntry)]
    assert [(gap.reason, gap.first_seq, gap.last_seq) for gap in gaps] == [
        ("overflow", 1, 1),
        ("carrier", 2, 4),
        ("overflow", 5, 5),
    ]


def test_what_is_in_flight_is_never_dropped() -> None:
    queue = a_queue(max_bytes=20)
    put(queue, 1, 2)
    taken = queue.take(2)
    put(queue, 3)
    for append in taken:
        queue.settle(append, 0.5)
    assert queue.published == 2
    assert queue.dropped == {"overflow": 1}


def test_a_spent_process_budget_drops_too_and_is_given_back() -> None:
    budget = ByteBudget(25)
    first, second = (
        StreamQueue(
            name,
            1,
            max_bytes=1000,
            max_waiting=100,
            retained_entries=1,
            budget=budget,
            on_dirty=NOBODY,
        )
        for name in ("MZ1", "MZ2")
    )
    put(first, 1, 2)
    put(second, 1)
    assert second.dropped == {"overflow": 1}
    for append in first.take(2):
        first.settle(append, 0.0)
    assert budget.used == 0
    put(second, 2)
    assert second.dropped == {"overflow": 1}


def test_gaps_alone_stay_bounded() -> None:
    queue = a_queue(max_waiting=10)
    for seq in range(0, 2000, 2):
        put(queue, seq)
        queue.put_gap(IN, 1, seq + 1, seq + 1, 0, "carrier")
    entries = waiting(queue)
    assert len(entries) <= 22
    gaps = [entry for entry in entries if isinstance(entry, GapEntry)]
    audio = sum(isinstance(entry, AudioEntry) for entry in entries)
    assert sum(gap.frames for gap in gaps) + audio == 2000
    assert sum(queue.dropped.values()) + audio == 1000


def test_lag_runs_from_arrival_to_the_settling() -> None:
    queue = a_queue()
    queue.put_audio(1, 0, IN, b"x", 1, 10.0)
    queue.settle(queue.take(1)[0], 10.25)
    assert queue.max_lag == pytest.approx(0.25)


def test_after_a_foreign_entry_the_rest_continues_above_it() -> None:
    queue = a_queue()
    put(queue, 1, 2, 3)
    first, *_ = queue.take(3)
    queue.settle(first, 0.0)
    queue.renumber_above(1000, 7)
    put(queue, 4)
    later = queue.in_flight() + queue.take(1)
    assert [(append.id_ms, append.n, append.entry.n) for append in later] == [
        (1000, 8, 2),
        (1000, 9, 3),
        (1000, 10, 4),
    ]


def test_a_failed_entry_is_dropped_under_its_reason() -> None:
    queue = a_queue()
    put(queue, 1)
    queue.settle(queue.take(1)[0], 0.0, failed="broker_rejected")
    assert (queue.published, queue.dropped) == (0, {"broker_rejected": 1})


def test_giving_up_accounts_for_what_waits_and_what_is_in_flight() -> None:
    queue = a_queue()
    put(queue, 1, 2, 3)
    queue.take(1)
    queue.drop_waiting("drain")
    assert queue.dropped == {"drain": 3}


async def test_a_slowed_peer_waits_for_room_and_loses_nothing() -> None:
    queue = a_queue(max_bytes=20)
    put(queue, 1, 2)
    assert queue.is_full
    waiter = asyncio.create_task(queue.wait_for_room())
    await asyncio.sleep(0)
    assert not waiter.done()
    for append in queue.take(2):
        queue.settle(append, 0.0)
    async with asyncio.timeout(1):
        await waiter
    assert not queue.dropped


async def test_flushed_means_settled_not_taken() -> None:
    queue = a_queue()
    put(queue, 1)
    [append] = queue.take(1)
    flushed = asyncio.create_task(queue.wait_until_flushed())
    await asyncio.sleep(0)
    assert not flushed.done()
    queue.settle(append, 0.0)
    async with asyncio.timeout(1):
        await flushed


async def test_who_waits_for_the_broker_waits_no_more_when_the_audio_is_given_up() -> None:
    queue = a_queue()
    put(queue, 1, 2, 3)
    queue.take(1)
    queue.put_end("drain")
    before = asyncio.create_task(queue.wait_until_flushed())
    await asyncio.sleep(0)
    assert not before.done()
    queue.drop_waiting("drain")
    async with asyncio.timeout(1):
        await before
        await queue.wait_until_flushed()
    assert queue.has_waiting, "the gap stands in the queue, for a broker that comes back"
