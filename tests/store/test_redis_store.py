"""What the Redis store promises beyond the port: keys, replicas, and faults of the server."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from app.errors import ConfigurationError, StoreUnavailable
from app.events import CallIdentity, HeldStream
from app.plans import Business, Directory, Plan
from app.store.base import SlotAnswer, StreamClaim
from app.store.redis import RedisStore
from app.tools.embedded import EmbeddedRedis
from tests.store.conftest import PATIENT, emptied
from tests.waiting import until

LONG = 60.0
# Far above what an answer takes on a busy machine, and a wait for each silence.
SHORT = 1.0
PREMIUM = Plan("premium", max_concurrent_calls=7)
SHOP = Business("shop", "The Shop", "premium", ("+12763659195",))
DIRECTORY = Directory((PREMIUM,), (SHOP,))
HELD = HeldStream(CallIdentity("CA1", "MZ1", "shop", "premium", "twilio"), 1_700_000_000_000, 600)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def url(redis_url: str) -> str:
    return await emptied(redis_url)


@pytest.fixture
async def redis(url: str) -> AsyncIterator["Redis"]:
    async with Redis.from_url(url, decode_responses=True) as client:
        yield client


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[str]:
    """Give the URL of a server that the test may freeze or break."""
    with EmbeddedRedis(tmp_path / "redis", persistent=False) as server:
        yield server.url


@asynccontextmanager
async def opened(
    url: str, clock: Clock | None = None, timeout_seconds: float = PATIENT
) -> AsyncIterator[RedisStore]:
    store = RedisStore.from_url(url, timeout_seconds, clock or Clock())
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def frozen(url: str) -> AsyncIterator[None]:
    """Stop the server in its tracks, as a host that swaps or a VM that moves does."""
    async with Redis.from_url(url) as client:
        pid = int((await client.info("server"))["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# -------------------------------------------------------------------------- keys


async def test_the_keys_have_literal_braces(url: str, redis: "Redis") -> None:
    async with opened(url) as store:
        await store.load_if_empty(DIRECTORY)
        await store.take_slot("shop", "CA1", 1, LONG, per_second=1 / LONG)
        await store.mark_live("shop", "CA1", "MZ1", LONG)
        await store.spend_ticket("n", LONG)
        await store.first_seen("CA1", LONG)
        await store.hold_streams([HELD], LONG)
    assert set(await redis.keys()) == {
        "plans",
        "businesses",
        "plan:{premium}",
        "business:{shop}",
        "configured",
        "number:{+12763659195}",
        "live:{shop}",
        "live:{shop}:recent",
        "live:{shop}:stream:CA1",
        "live:{shop}:streams:CA1",
        "ticket:{n}",
        "seen:{CA1}",
        "held:{streams}",
        "held:{streams}:facts",
        "held:{streams}:reached",
        "held:{streams}:claims",
    }


async def test_what_leases_hold_does_not_outlive_them(url: str, redis: "Redis") -> None:
    async with opened(url) as store:
        await store.take_slot("shop", "CA1", 9, LONG, per_second=1 / LONG)
        await store.take_slot("shop", "CA2", 9, 1.0)
        await store.renew_slots("bank", ["CA3"], LONG)
        await store.mark_live("shop", "CA1", "MZ1", LONG)
        await store.spend_ticket("n", LONG)
    for key in await redis.keys():
        assert LONG * 900 < await redis.pttl(key) <= LONG * 1000, key


async def test_a_plan_written_by_hand_needs_only_what_differs(url: str, redis: "Redis") -> None:
    await redis.hset("plan:{gold}", mapping={"max_concurrent_calls": "3", "colour": "yellow"})
    async with opened(url) as store:
        assert await store.plan("gold") == Plan("gold", max_concurrent_calls=3)


@pytest.mark.parametrize("value", [b"many", b"0", b"\xff\xfe", b""])
async def test_a_plan_that_cannot_be_read_is_an_error_that_says_so(
    url: str, redis: "Redis", value: bytes
) -> None:
    await redis.hset("plan:{gold}", mapping={"max_concurrent_calls": value})
    async with opened(url) as store:
        with pytest.raises(ConfigurationError, match=r"\[plans.gold\] max_concurrent_calls: "):
            await store.plan("gold")


async def test_a_key_of_another_type_is_an_unavailable_store(url: str, redis: "Redis") -> None:
    await redis.set("plan:{gold}", "text")
    async with opened(url) as store:
        with pytest.raises(StoreUnavailable):
            await store.plan("gold")


async def test_a_client_that_decodes_serves_as_well(url: str, redis: "Redis") -> None:
    store = RedisStore(redis, timeout_seconds=PATIENT)
    assert await store.load_if_empty(DIRECTORY)
    assert await store.lookup("shop") == (SHOP, PREMIUM)
    assert await store.renew_slots("shop", ["CA1"], LONG) == {"CA1"}
    await store.mark_live("shop", "CA1", "MZ1", LONG)
    assert await store.live_stream("shop", "CA1") == "MZ1"
    await store.close()
    assert await redis.ping()


# ---------------------------------------------------------------------- replicas


async def test_two_replicas_never_give_more_slots_than_the_limit(url: str) -> None:
    async with opened(url) as one, opened(url) as two:
        taken = await asyncio.gather(
            *((one, two)[n % 2].take_slot("shop", f"CA{n}", 7, LONG) for n in range(200))
        )
        assert taken.count(SlotAnswer.TAKEN) == 7
        assert await one.slots_taken("shop") == await two.slots_taken("shop") == 7


async def test_two_replicas_never_take_calls_faster_than_the_pace(url: str) -> None:
    async with opened(url) as one, opened(url) as two:
        answers = await asyncio.gather(
            *((one, two)[n % 2].take_slot("shop", f"CA{n}", 999, LONG, 0.1) for n in range(50))
        )
        assert answers.count(SlotAnswer.TAKEN) == 1
        assert answers.count(SlotAnswer.TOO_FAST) == 49


async def test_a_replica_sees_what_another_has_done(url: str) -> None:
    async with opened(url) as one, opened(url) as two:
        assert await one.spend_ticket("n", LONG)
        assert not await two.spend_ticket("n", LONG)
        await one.mark_live("shop", "CA1", "MZ1", LONG)
        assert await two.live_stream("shop", "CA1") == "MZ1"
        await two.unmark_live("shop", "CA1", "MZ1")
        assert await one.live_stream("shop", "CA1") is None


async def test_replicas_that_load_at_once_leave_a_whole_directory(url: str) -> None:
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(url)) for _ in range(5)]
        loaded = await asyncio.gather(*(store.load_if_empty(DIRECTORY) for store in stores))
        assert any(loaded)
        assert await stores[0].lookup("shop") == (SHOP, PREMIUM)


async def test_after_an_outage_a_holder_has_a_whole_lease_to_come_back(own_server: str) -> None:
    lease = 0.6
    async with opened(own_server) as holder, opened(own_server) as other:

        async def claims(seconds: float) -> list[HeldStream]:
            found: list[HeldStream] = []
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                found += await other.claim_lost_streams(9, lease, LONG)
                await asyncio.sleep(0.02)
            return found

        await holder.hold_streams([HELD], 2 * lease)
        assert await claims(1.5 * lease) == []
        async with frozen(own_server):
            # What waits for the server when it comes back is the other's claim.
            waiting = asyncio.create_task(claims(2 * lease))
            await asyncio.sleep(1.5 * lease)
        assert await waiting == []
        await holder.hold_streams([HELD], LONG)
        assert await claims(2 * lease) == []


async def test_a_lease_that_says_nothing_is_let_go(url: str, redis: "Redis") -> None:
    await redis.zadd("held:{streams}", {"MZ0@1": 1, "MZ9@1": 1})
    await redis.hset("held:{streams}:facts", "MZ9@1", '{"call":')
    async with opened(url) as store:
        await store.hold_streams([HELD], 0.05)
        found = await until(lambda: store.claim_lost_streams(9, 0.05, LONG))
    assert found == [HELD]
    assert await redis.zrange("held:{streams}", 0, -1) == [f"MZ1@{HELD.started_at}"]


# ------------------------------------------------------------- what is remembered


async def test_a_changed_plan_is_seen_after_half_a_second(url: str, redis: "Redis") -> None:
    clock = Clock()
    async with opened(url, clock) as store:
        await store.load_if_empty(DIRECTORY)
        assert await store.plan("premium") == PREMIUM
        await redis.hset("plan:{premium}", "max_concurrent_calls", "3")
        clock.now += 0.4
        assert await store.plan("premium") == PREMIUM
        clock.now += 0.2
        assert await store.plan("premium") == Plan("premium", max_concurrent_calls=3)


async def test_what_was_deleted_is_forgotten_for_good(own_server: str) -> None:
    clock = Clock()
    async with opened(own_server, clock, timeout_seconds=SHORT) as store:
        await store.load_if_empty(DIRECTORY)
        assert await store.business_of_number("+12763659195") == SHOP
        async with Redis.from_url(own_server) as admin:
            await admin.delete("number:{+12763659195}", "business:{shop}")
        clock.now += 1.1
        assert await store.business_of_number("+12763659195") is None
        assert await store.business("shop") is None
        async with frozen(own_server):
            for attempt in (store.business("shop"), store.business_of_number("+12763659195")):
                with pytest.raises(StoreUnavailable):
                    await attempt


async def test_what_is_new_is_seen_at_once(url: str) -> None:
    async with opened(url) as store:
        assert await store.plan("premium") is None
        await store.load_if_empty(DIRECTORY)
        assert await store.plan("premium") == PREMIUM


# ------------------------------------------------------------------------ faults


async def fails_everywhere(store: RedisStore) -> None:
    """Check that each method of the store says so when the store is away."""
    attempts = [
        store.check(),
        store.load_if_empty(DIRECTORY),
        store.plan("nobody"),
        store.business("nobody"),
        store.business_of_number("+15550000"),
        store.lookup("nobody"),
        store.spend_ticket("n", LONG),
        store.first_seen("CA1", LONG),
        store.take_slot("shop", "CA1", 1, LONG),
        store.renew_slots("shop", ["CA1"], LONG),
        store.free_slot("shop", "CA1"),
        store.slots_taken("shop"),
        store.mark_live("shop", "CA1", "MZ1", LONG),
        store.unmark_live("shop", "CA1", "MZ1"),
        store.live_stream("shop", "CA1"),
        store.hold_streams([HELD], LONG),
        store.let_go([HELD]),
        store.claim_lost_streams(1, LONG, LONG),
    ]
    for attempt in attempts:
        with pytest.raises(StoreUnavailable):
            await attempt


async def test_a_server_that_is_not_there_is_an_unavailable_store(unused_tcp_port: int) -> None:
    async with opened(f"redis://127.0.0.1:{unused_tcp_port}/0") as store:
        await fails_everywhere(store)


async def test_a_hung_server_is_an_unavailable_store(own_server: str) -> None:
    async with opened(own_server, timeout_seconds=0.1) as store, frozen(own_server):
        await fails_everywhere(store)


async def test_known_businesses_are_served_while_the_server_hangs(own_server: str) -> None:
    clock = Clock()
    async with opened(own_server, clock, timeout_seconds=SHORT) as store:
        await store.load_if_empty(DIRECTORY)
        assert await store.business_of_number("+12763659195") == SHOP
        assert await store.lookup("shop") == (SHOP, PREMIUM)
        clock.now += 3600
        await store.confirm_configuration()
        async with frozen(own_server):
            clock.now += 600
            assert await store.lookup("shop") == (SHOP, PREMIUM)
            assert await store.business_of_number("+12763659195") == SHOP
            with pytest.raises(StoreUnavailable):
                await store.take_slot("shop", "CA1", 1, LONG)


async def test_after_a_silence_the_server_is_left_alone_for_a_second(own_server: str) -> None:
    clock = Clock()
    async with opened(own_server, clock, timeout_seconds=SHORT) as store:
        async with frozen(own_server):
            with pytest.raises(StoreUnavailable):
                await store.slots_taken("shop")
        clock.now += 0.9
        with pytest.raises(StoreUnavailable, match="a moment ago"):
            await store.slots_taken("shop")
        clock.now += 0.2
        assert await store.slots_taken("shop") == 0


async def test_many_who_wait_for_a_hung_server_are_answered_together(own_server: str) -> None:
    async with (
        opened(own_server, timeout_seconds=0.2) as store,
        frozen(own_server),
        # One after another, they would take 20 s.
        asyncio.timeout(10),
    ):
        answers = await asyncio.gather(
            *(store.take_slot("shop", f"CA{n}", 7, LONG) for n in range(100)),
            return_exceptions=True,
        )
    assert {type(answer) for answer in answers} == {StoreUnavailable}


@asynccontextmanager
async def impostor(
    answer: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]],
    pause_seconds: float = 0.0,
) -> AsyncIterator[str]:
    """Give the URL of a server that takes the handshake, and then answers as told."""

    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := await reader.read(65536):
            await asyncio.sleep(pause_seconds)
            if handshake := command.count(b"SETINFO") + command.count(b"SELECT"):
                writer.write(b"+OK\r\n" * handshake)
            else:
                await answer(command, writer)

    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.ensure_future(serve_and_close(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.close()
        async with asyncio.timeout(PATIENT):
            await asyncio.gather(*served)


async def test_a_task_that_is_cancelled_while_it_asks_ends(url: str) -> None:
    over = asyncio.Event()
    async with opened(url) as store:

        async def ask_on_and_on() -> None:
            while not over.is_set():
                await store.slots_taken("shop")

        for turns in range(100):
            asking = asyncio.create_task(ask_on_and_on())
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            ended, _ = await asyncio.wait([asking], timeout=PATIENT)
            over.set()
            await asyncio.wait([asking])
            assert ended, f"cancelled after {turns} turns of the loop, it went on"
            over.clear()


async def test_a_command_whose_answer_is_lost_is_not_sent_again() -> None:
    commands: list[bytes] = []

    async def swallow(command: bytes, writer: asyncio.StreamWriter) -> None:
        commands.append(command)
        writer.close()

    async with impostor(swallow) as url, opened(url) as store:
        with pytest.raises(StoreUnavailable):
            await store.spend_ticket("n", LONG)
    assert len(commands) == 1
    assert b"ticket:{n}" in commands[0]


async def test_steps_that_are_each_in_time_may_together_be_too_late() -> None:
    async def consent(command: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK\r\n")

    async with impostor(consent, pause_seconds=0.2) as url:
        async with opened(url, timeout_seconds=0.3) as store:
            with pytest.raises(StoreUnavailable, match="did not answer"):
                await store.mark_live("shop", "CA1", "MZ1", LONG)
        async with opened(url) as store:
            await store.mark_live("shop", "CA1", "MZ1", LONG)


async def test_a_refusal_does_not_make_the_store_rest(own_server: str) -> None:
    async with opened(own_server) as store, Redis.from_url(own_server) as admin:
        await admin.replicaof("127.0.0.1", 1)
        with pytest.raises(StoreUnavailable):
            await store.take_slot("shop", "CA1", 1, LONG)
        await admin.replicaof("NO", "ONE")
        assert await store.take_slot("shop", "CA1", 1, LONG)


async def test_a_read_only_replica_fails_the_check_and_every_slot(own_server: str) -> None:
    async with opened(own_server) as store, Redis.from_url(own_server) as admin:
        await admin.replicaof("127.0.0.1", 1)
        for attempt in (
            store.check(),
            store.take_slot("shop", "CA1", 1, LONG),
            store.spend_ticket("n", LONG),
        ):
            with pytest.raises(StoreUnavailable):
                await attempt


async def test_a_full_server_fails_the_check(own_server: str) -> None:
    async with opened(own_server) as store, Redis.from_url(own_server) as admin:
        await admin.config_set("maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="OutOfMemoryError"):
            await store.check()


async def test_a_wrong_password_is_an_unavailable_store_and_is_not_repeated(
    own_server: str,
) -> None:
    async with Redis.from_url(own_server) as admin:
        await admin.config_set("requirepass", "the-right-one")
    wrong = re.sub("//.*@", "//:not-this-one@", own_server)
    async with opened(wrong) as store:
        with pytest.raises(StoreUnavailable) as caught:
            await store.take_slot("shop", "CA1", 1, LONG)
    assert "not-this-one" not in str(caught.value)
    right = re.sub("//.*@", "//:the-right-one@", own_server)
    async with opened(right) as store:
        await store.check()


async def test_connections_that_the_server_cuts_are_made_anew(own_server: str) -> None:
    async with opened(own_server) as store, Redis.from_url(own_server) as admin:
        assert await store.take_slot("shop", "CA1", 1, LONG)
        await admin.client_kill_filter(_type="normal", skipme=True)
        answers = [await told(store) for _ in range(3)]
        assert answers[-1] == 1


async def told(store: RedisStore) -> int | None:
    try:
        return await store.slots_taken("shop")
    except StoreUnavailable:
        return None


async def test_an_id_whose_record_is_another_businesss_is_not_claimed(
    url: str, redis: "Redis"
) -> None:
    """A finished recording is kept under its id; so is the live stream of a replica of 0.1."""
    async with opened(url) as store:
        for record in ({"businessId": "bank", "endedAt": "1"}, {"businessId": "bank"}):
            await redis.hset(f"stream:{{{HELD.call.stream_sid}}}", mapping=record)
            assert await store.claim_stream(HELD, LONG) is StreamClaim.OTHER_BUSINESS
        assert await store.held_streams() == []
        own = {"businessId": HELD.call.business_id}
        await redis.hset(f"stream:{{{HELD.call.stream_sid}}}", mapping=own)
        assert await store.claim_stream(HELD, LONG) is StreamClaim.GRANTED


async def test_a_replica_of_0_1_and_this_one_let_go_of_each_others_leases(
    url: str, redis: "Redis"
) -> None:
    """0.1 holds a stream without a claim, and lets go without knowing of one."""
    name = f"{HELD.call.stream_sid}@{HELD.started_at}"
    async with opened(url) as store:
        # As 0.1 holds it.
        await redis.zadd("held:{streams}", {name: 9_999_999_999_999})
        await redis.hset("held:{streams}:facts", name, msgspec.json.encode(HELD).decode())
        assert await store.held_streams() == [HELD]
        await store.let_go([HELD])
        assert await store.held_streams() == []
        # As 0.1 lets go of one that this version held.
        await store.hold_streams([HELD], LONG)
        await redis.zrem("held:{streams}", name)
        await redis.hdel("held:{streams}:facts", name)
        later = msgspec.structs.replace(HELD, started_at=HELD.started_at + 1)
        assert await store.claim_stream(later, LONG) is StreamClaim.GRANTED


@pytest.mark.parametrize(
    ("record", "claim"),
    [
        ({}, None),
        ({"businessId": "shop", "startedAt": HELD.started_at}, None),
        ({"businessId": "shop", "startedAt": HELD.started_at - 1}, None),
        ({"businessId": "shop", "startedAt": HELD.started_at + 1}, StreamClaim.LIVE_ELSEWHERE),
        ({"businessId": "other", "startedAt": HELD.started_at}, StreamClaim.OTHER_BUSINESS),
        ({"businessId": "other", "startedAt": HELD.started_at - 1}, StreamClaim.OTHER_BUSINESS),
    ],
)
async def test_finds_held_streams_whose_record_is_anothers(
    url: str, redis: "Redis", record: dict[str, str | int], claim: StreamClaim | None
) -> None:
    """As a replica of 0.1 leaves it, which takes no claim."""
    store = RedisStore.from_url(url, timeout_seconds=PATIENT)
    call = msgspec.structs.replace(HELD, call=CallIdentity("CA2", "MZ2", "shop"))
    if record:
        await redis.hset("stream:{MZ1}", mapping=record)
    try:
        found = await store.replaced_streams([HELD, call])
    finally:
        await store.close()
    assert found == ([(HELD, claim)] if claim else [])
