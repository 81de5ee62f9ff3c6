"""How often refusals and reads are recorded."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.admin.audit_entries import AuditEntry
from app.admin.audit_limits import (
    HOUR_SECONDS,
    MANY_READ,
    MOST_KINDS,
    READ_AGAIN_SECONDS,
    READS_AN_HOUR,
    WINDOW_SECONDS,
    Reads,
    Refusals,
)

REFUSAL = AuditEntry(1, "key:k1", "access.refused", "GET /plans", data={"reason": "forbidden"})
READ = AuditEntry(1, "key:k1", "call.viewed", "CA1", "shop")


class Recorded:
    """What was recorded, and a clock that stands until it is moved."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.now = 1000.0

    async def append(self, entry: AuditEntry) -> None:
        self.entries.append(entry)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


async def test_repeated_refusals_are_recorded_once_and_then_counted(recorded: Recorded) -> None:
    refusals = Refusals(recorded.append, recorded.clock)
    for _ in range(500):
        await refusals.note(REFUSAL)
    await refusals.flush()
    assert recorded.entries == [REFUSAL]
    recorded.now += WINDOW_SECONDS
    await refusals.flush()
    assert recorded.entries[1:] == [replace(REFUSAL, data={"reason": "forbidden", "more": 499})]
    await refusals.note(REFUSAL)
    assert recorded.entries[2:] == [REFUSAL]


@pytest.mark.parametrize(
    "other",
    [
        replace(REFUSAL, actor="key:k2"),
        replace(REFUSAL, address="192.0.2.1"),
        replace(REFUSAL, target="GET /businesses"),
        replace(REFUSAL, data={"reason": "other_business"}),
    ],
)
async def test_refusals_of_another_kind_are_recorded_apart(
    recorded: Recorded, other: AuditEntry
) -> None:
    refusals = Refusals(recorded.append, recorded.clock)
    await refusals.note(REFUSAL)
    await refusals.note(other)
    assert recorded.entries == [REFUSAL, other]


async def test_a_flood_of_many_kinds_is_counted_together(recorded: Recorded) -> None:
    refusals = Refusals(recorded.append, recorded.clock)
    for number in range(10_000):
        await refusals.note(replace(REFUSAL, address=f"192.0.2.{number}"))
    assert len(recorded.entries) == MOST_KINDS + 1
    await refusals.flush(all_kinds=True)
    assert recorded.entries[-1].data["more"] == 10_000 - MOST_KINDS - 1
    assert len(recorded.entries) == MOST_KINDS + 2


async def test_what_is_polled_is_recorded_once_for_as_long_as_it_is(recorded: Recorded) -> None:
    reads = Reads(recorded.append, recorded.clock)
    for _ in range(100):
        await reads.note(READ)
        recorded.now += READ_AGAIN_SECONDS - 1
    assert recorded.entries == [READ]
    recorded.now += 1
    await reads.note(READ)
    assert recorded.entries == [READ, READ]


@pytest.mark.parametrize(
    "change",
    [
        lambda read: replace(read, actor="key:k2"),
        lambda read: replace(read, target="CA2"),
        lambda read: replace(read, action="call.audio_read"),
        lambda read: replace(read, data={"stream": "MZ1"}),
        lambda read: replace(read, address="192.0.2.1"),
    ],
)
async def test_another_read_is_recorded_apart(
    recorded: Recorded, change: Callable[[AuditEntry], AuditEntry]
) -> None:
    reads = Reads(recorded.append, recorded.clock)
    await reads.note(READ)
    await reads.note(change(READ))
    assert recorded.entries == [READ, change(READ)]


async def test_who_reads_everything_fills_no_log_and_hides_nobody_else(recorded: Recorded) -> None:
    reads = Reads(recorded.append, recorded.clock)
    for number in range(5 * READS_AN_HOUR):
        await reads.note(replace(READ, target=f"CA{number}"))
    other = replace(READ, actor="key:k2")
    await reads.note(other)
    assert len(recorded.entries) == READS_AN_HOUR + 1
    assert recorded.entries[-1] == other
    recorded.now += HOUR_SECONDS
    await reads.flush()
    (counted,) = recorded.entries[READS_AN_HOUR + 1 :]
    assert (counted.action, counted.target) == (MANY_READ, "key:k1")
    assert (counted.data, counted.business_id) == ({"more": 4 * READS_AN_HOUR}, "shop")
