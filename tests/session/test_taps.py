"""What peers send reaches those who record it: whole, in order, hidden, or counted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.errors import StoreUnavailable
from app.log import mask_phone
from app.metrics import Metrics
from app.session import taps as module
from app.session.taps import Beginning, Budget, Tap, Tapped, Taps
from app.store.captures import Asked, Batch, Captured, Opening
from app.store.memory_captures import MemoryCaptures
from app.wire import twilio
from tests.waiting import until

CAPTURED = Captured("MZ1", "shop")
SHOP = Tapped(
    "MZ1", "CA1", "shop", "twilio", {"businessId": "shop", "ticket": "s3cr3t"}, 1_700_000_000_000
)
CONNECTED = twilio.connected_message()
START = twilio.start_message("MZ1", "CA1", params={"ticket": "s3cr3t", "from": "+12763659195"})


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Store(MemoryCaptures):
    """Captures that can be away, and count how often they are asked."""

    away = False
    refuses = False
    looks = 0

    async def asked(self) -> list[Asked]:
        self.looks += 1
        if self.away:
            raise StoreUnavailable("away")
        return list(await super().asked())

    async def put(self, captured: Captured, batch: Batch) -> bool:
        if self.refuses:
            raise StoreUnavailable("full")
        return await super().put(captured, batch)


class House:
    """Taps that run, and what has reached the store."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = Store(lambda: 0.0)
        self.metrics = Metrics()
        self.taps = Taps(self.store, self.metrics, clock=self.clock, mask_phone=mask_phone)

    def open(self, *early: str, tapped: Tapped = SHOP) -> Tap:
        beginning = Beginning()
        for message in (CONNECTED, START, *early):
            beginning.note(message, self.clock.now, opens=message in (CONNECTED, START))
        return self.taps.open(tapped, beginning, 1_700_000_000_000)

    async def batches(self) -> list[Batch]:
        return [one for _, one in await self.store.batches(CAPTURED, "", 1000)]

    async def messages(self) -> list[str | bytes]:
        return [one.message for batch in await self.batches() for one in batch.messages]

    async def have(self, count: int) -> list[str | bytes]:
        async def there() -> bool:
            return len(await self.messages()) >= count

        await until(there)
        return await self.messages()

    async def looked(self, times: int = 3) -> None:
        before = self.store.looks
        await until(lambda: self.store.looks >= before + times)

    async def opening(self) -> Opening:
        found = await self.store.opening("MZ1")
        assert found is not None
        return found

    def counted(self, done: str) -> float:
        found = self.metrics.registry.get_sample_value(
            "bridge_capture_messages_total", {"done": done}
        )
        return found or 0.0


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    for name in ("PUT_SECONDS", "LOOK_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(module, name, 0.0)
    made = House()
    running = asyncio.create_task(made.taps.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def off(house: House) -> AsyncIterator[Tap]:
    """Give a tap that nobody has asked for."""
    tap = house.open()
    await until(lambda: not tap.on)
    yield tap


# --------------------------------------------------------------------- asked or not


async def test_a_call_that_is_asked_for_is_there_from_its_first_message(house: House) -> None:
    await house.store.ask(Asked("shop"))
    tap = house.open("early")
    house.clock.now += 0.02
    tap.take("late", house.clock.now)
    tap.close()
    found = await house.have(4)
    assert (found[0], found[2:]) == (CONNECTED, ["early", "late"])
    await until(lambda: not tap.on)
    assert (await house.opening()).from_first
    batches = await house.batches()
    assert batches[0].first == 0
    assert [one.at_ms for batch in batches for one in batch.messages] == [0, 0, 0, 20]
    assert (batches[-1].ended, batches[-1].after) == (True, 4)


async def test_a_call_that_nobody_asks_for_is_let_pass(house: House) -> None:
    async with off(house) as tap:
        tap.take("unheard", house.clock.now)
        assert not tap.waiting
        assert await house.batches() == []
        assert await house.store.opening("MZ1") is None


async def test_another_business_is_not_recorded(house: House) -> None:
    await house.store.ask(Asked("bank"))
    async with off(house):
        assert await house.store.opening("MZ1") is None


async def test_a_call_that_is_asked_for_midway_begins_with_its_start(house: House) -> None:
    async with off(house) as tap:
        await house.store.ask(Asked("shop", "CA1"))
        await until(lambda: tap.on)
        tap.take("midway", house.clock.now)
        assert await house.have(1) == ["midway"]
        opening = await house.opening()
        assert not opening.from_first
        assert opening.messages[0].message == CONNECTED
        assert '"event":"start"' in str(opening.messages[1].message)


async def test_a_tap_is_off_when_nobody_asks_any_more(house: House) -> None:
    await house.store.ask(Asked())
    tap = house.open()
    await house.have(2)
    house.store._asked.clear()
    await until(lambda: not tap.on)
    tap.take("unheard", house.clock.now)
    await house.looked()
    assert len(await house.messages()) == 2


async def test_nothing_is_asked_while_there_is_no_tap(house: House) -> None:
    await asyncio.sleep(0.02)
    assert house.store.looks == 0
    tap = house.open()
    tap.close()
    await until(lambda: not house.taps._puttings)
    before = house.store.looks
    await asyncio.sleep(0.02)
    assert house.store.looks == before


# ---------------------------------------------------------------------------- secrets


async def test_secrets_digits_and_numbers_are_hidden_before_they_are_put(house: House) -> None:
    await house.store.ask(Asked())
    tap = house.open()
    tap.take(twilio.dtmf_message("MZ1", "7", seq=3), house.clock.now)
    tap.take(b'{"ticket":"a binary frame is audio"}', house.clock.now)
    found = await house.have(4)
    opening = await house.opening()
    shown = f"{found[1]!s}{found[2]!s}{opening}"
    assert "s3cr3t" not in shown
    assert "2763659195" not in shown
    assert '"digit":"0"' in shown
    assert opening.query == {"businessId": "shop"}
    assert found[3] == b'{"ticket":"a binary frame is audio"}'


# ---------------------------------------------------------------------- what is left out


async def gaps(house: House) -> list[tuple[int, int]]:
    """Give each batch's first number, and the one after it."""
    return [(one.first, one.after) for one in await house.batches()]


async def test_what_finds_no_room_is_left_out_and_has_a_number(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with off(house) as tap:
        await house.store.ask(Asked())
        await until(lambda: tap.on)
        monkeypatch.setattr(module, "MAX_TAP_BYTES", 10)
        for size in (6, 6, 4, 1):
            tap.take("a" * size, house.clock.now)
        tap.close()
        await until(lambda: not tap.on)
        assert await gaps(house) == [(0, 1), (2, 3), (4, 4)]
        assert (await house.batches())[-1].ended


async def test_all_taps_share_one_budget(house: House) -> None:
    budget = Budget(10)
    first, second = (Tap(SHOP, budget, Beginning()) for _ in range(2))
    for tap in (first, second):
        tap.take("a" * 6, 0.0)
    assert [len(tap.waiting) for tap in (first, second)] == [1, 0]
    assert first.pop() is not None
    second.take("a" * 6, 0.0)
    assert len(second.waiting) == 1
    assert second.pop() == (1, "a" * 6, 0.0)
    second.turn(on=False)
    assert budget.take(10)


async def test_a_message_that_cannot_be_shown_is_counted(house: House) -> None:
    await house.store.ask(Asked())
    tap = house.open()
    tap.miss()
    tap.close()
    await until(lambda: not tap.on)
    assert (await gaps(house))[-1] == (3, 3)


async def test_what_came_too_early_for_its_size_is_counted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_EARLY_BYTES", len(CONNECTED) + len(START) + 5)
    await house.store.ask(Asked())
    tap = house.open("12345", "6", "7")
    tap.take("late", house.clock.now)
    tap.close()
    await until(lambda: not tap.on)
    assert await gaps(house) == [(0, 3), (5, 6)]


async def test_batches_are_small(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 10)
    async with off(house) as tap:
        await house.store.ask(Asked())
        await until(lambda: tap.on)
        for _ in range(6):
            tap.take("a" * 5, house.clock.now)
        await house.have(6)
        assert await gaps(house) == [(0, 2), (2, 4), (4, 6)]


# ----------------------------------------------------------------- the store fails


async def test_messages_wait_while_the_store_is_away(house: House) -> None:
    await house.store.ask(Asked())
    tap = house.open()
    await house.have(2)
    house.store.away = True
    tap.take("waits", house.clock.now)
    await house.looked()
    house.store.away = False
    assert (await house.have(3))[-1] == "waits"
    assert house.counted("left_out") == 0


async def test_what_the_store_does_not_take_is_left_out_and_has_a_number(house: House) -> None:
    await house.store.ask(Asked())
    tap = house.open()
    await house.have(2)
    house.store.refuses = True
    tap.take("lost", house.clock.now)
    await until(lambda: house.counted("left_out") == 1)
    house.store.refuses = False
    tap.take("found", house.clock.now)
    assert (await house.have(3))[-1] == "found"
    assert (await gaps(house))[-1] == (3, 4)
    assert house.counted("put") == 3


async def test_a_new_call_is_let_pass_when_the_store_stays_away(house: House) -> None:
    house.store.away = True
    tap = house.open()
    await house.looked()
    assert tap.on
    house.clock.now += module.UNDECIDED_SECONDS + 1
    await until(lambda: not tap.on)


async def test_calls_that_are_over_do_not_pile_up_while_the_store_is_away(house: House) -> None:
    await house.store.ask(Asked())
    tap = house.open()
    await house.have(2)
    house.store.away = True
    tap.close()
    await until(lambda: not house.taps._puttings)


async def test_a_capture_that_is_gone_begins_anew_while_its_call_goes_on(house: House) -> None:
    await house.store.ask(Asked())
    tap = house.open()
    await house.have(2)
    house.store._kept.clear()
    tap.take("lost", house.clock.now)
    await until(lambda: house.counted("left_out") == 1)
    tap.take("found", house.clock.now)
    assert await house.have(1) == ["found"]
    assert await gaps(house) == [(3, 4)]
    assert not (await house.opening()).from_first


async def test_the_end_of_a_call_does_not_bring_an_erased_capture_back(house: House) -> None:
    await house.store.ask(Asked())
    tap = house.open()
    await house.have(2)
    house.store._kept.clear()
    tap.close()
    await until(lambda: not house.taps._puttings)
    assert await house.store.opening("MZ1") is None


async def test_a_silent_call_says_that_it_is_there(house: House) -> None:
    await house.store.ask(Asked())
    house.open()
    await house.have(2)
    before = len(await house.batches())
    await house.looked()
    assert len(await house.batches()) == before
    house.clock.now += module.SIGN_OF_LIFE_SECONDS
    await until(lambda: _more(house, before))
    assert (await house.batches())[-1].messages == []


async def _more(house: House, before: int) -> bool:
    return len(await house.batches()) > before


def test_a_beginning_that_was_forgotten_has_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EARLY_BYTES", 3)
    beginning = Beginning()
    for message in ("ab", "cd"):
        beginning.note(message, 0.0, opens=False)
    assert (len(beginning.messages), beginning.left_out) == (1, 1)
    beginning.clear()
    assert beginning.messages == []
