"""How often refusals and reads are recorded."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.admin.audit_entries import AuditEntry
from app.admin.audit_limits import (
    EDITS_A_MINUTE,
    HOUR_SECONDS,
    KINDS_OF_KEY,
    MANY_READ,
    MOST_KINDS,
    NOBODY,
    READ_AGAIN_SECONDS,
    READS_AN_HOUR,
    REFUSED,
    SIGN_INS_A_MINUTE,
    WINDOW_SECONDS,
    Pace,
    Reads,
    Refusals,
)
from app.admin.audit_log import REFUSALS_STOPPED, AuditLog
from app.admin.audit_store import REFUSALS_A_DAY, MemoryAuditStore
from app.admin.principal import Principal
from app.admin.roles import Role
from app.errors import TooOften

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


@pytest.mark.parametrize(
    ("actor", "most"), [("key:k1", KINDS_OF_KEY), ("operator", MOST_KINDS), (NOBODY, MOST_KINDS)]
)
async def test_a_flood_of_many_kinds_is_counted_together_and_hides_nobody_else(
    recorded: Recorded, actor: str, most: int
) -> None:
    refusals = Refusals(recorded.append, recorded.clock)
    for number in range(1_000):
        await refusals.note(replace(REFUSAL, actor=actor, address=f"192.0.2.{number}"))
    assert len(recorded.entries) == most + 1
    assert (recorded.entries[-1].actor, recorded.entries[-1].address) == (actor, "")
    for other in ("key:k2", "operator:alice"):
        await refusals.note(replace(REFUSAL, actor=other))
        assert recorded.entries[-1].actor == other
    await refusals.flush(all_kinds=True)
    assert recorded.entries[-1].data["more"] == 1_000 - most - 1
    assert len(recorded.entries) == most + 4


@pytest.mark.parametrize("most", [SIGN_INS_A_MINUTE, EDITS_A_MINUTE])
def test_a_pace_slows_down_one_and_no_other(recorded: Recorded, most: int) -> None:
    pace = Pace(most, recorded.clock)
    assert [pace.take("shop") for _ in range(most)] == [0.0] * most
    assert pace.take("shop") == pytest.approx(60 / most)
    assert pace.take("bank") == 0.0
    recorded.now += 60 / most
    assert (pace.take("shop"), pace.take("shop") > 0) == (0.0, True)
    recorded.now += 3600
    assert [pace.take("shop") for _ in range(most)] == [0.0] * most
    assert pace.take("shop") > 0


async def test_refusals_that_are_not_recorded_any_more_are_said_to_be(recorded: Recorded) -> None:
    store = MemoryAuditStore()
    audit = AuditLog(store, recorded.clock, recorded.clock)
    shop = Principal("key:k1", Role.AGENT, "shop")
    for _ in range(REFUSALS_A_DAY + 10):
        await audit.note_refusal(shop, "GET /plans", "forbidden")
        recorded.now += 2 * WINDOW_SECONDS
        await audit._refusals.flush()
    await audit.note_refusal(Principal("key:k2", Role.AGENT, "bank"), "GET /plans", "forbidden")
    found = await store.page(None, limit=1_000)
    of_shop = [one for one in found if one.business_id == "shop"]
    assert [one.action for one in of_shop].count(REFUSED) == REFUSALS_A_DAY
    (told,) = [one for one in of_shop if one.action == REFUSALS_STOPPED]
    assert (told.actor, told.target) == ("service", "shop")
    assert found[0].business_id == "bank"


async def test_a_business_does_not_see_from_where_an_operator_works(recorded: Recorded) -> None:
    audit = AuditLog(MemoryAuditStore(), recorded.clock, recorded.clock)
    admin = Principal("key:k1", Role.ADMIN, "shop", "192.0.2.1")
    operator = Principal("operator:alice", Role.OPERATOR, address="198.51.100.7")
    for who in (admin, operator):
        await audit.note(who, "business.saved", "shop", "shop")
    seen = [(one.actor, one.address) for one in await audit.page(admin)]
    assert seen == [("operator:alice", ""), ("key:k1", "192.0.2.1")]
    assert (await audit.page(operator, "shop"))[0].address == "198.51.100.7"


def test_the_pace_of_edits_is_a_businesss_and_an_operator_has_none(recorded: Recorded) -> None:
    audit = AuditLog(MemoryAuditStore(), recorded.clock, recorded.clock)
    for number in range(EDITS_A_MINUTE):
        audit.check_pace_of_edits(Principal(f"key:k{number}", Role.ADMIN, "shop"))
    with pytest.raises(TooOften) as refused:
        audit.check_pace_of_edits(Principal("key:k1", Role.ADMIN, "shop"))
    assert refused.value.retry_seconds == 1
    audit.check_pace_of_edits(Principal("key:k2", Role.ADMIN, "bank"))
    for _ in range(5 * EDITS_A_MINUTE):
        audit.check_pace_of_edits(Principal("operator", Role.OPERATOR))


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
