"""A session and its socket, where timing decides."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from app.auth import TicketOffice
from app.carriers.authorization import Authorization, Proof, Purpose
from app.events import CallIdentity, EndReason, HeldStream, LifecycleEvent, WireEvent
from app.metrics import Metrics
from app.plans import Business, Directory, Plan
from app.pubsub.base import Field, OpenStream, Outcome, Write
from app.pubsub.limits import OutboxLimits
from app.pubsub.memory import MemoryPubSub
from app.pubsub.outbox import DEFAULT_LIMITS, Outbox
from app.registry import DrawUp, Registry
from app.session.call import Bridge, CallSession
from app.session.herald import Herald
from app.session.reception import Handshake, Reception
from app.session.socket import Closed, Take
from app.store.memory import MemoryStore
from app.wire import twilio
from app.wire.base import Wire
from app.wire.pcm import PcmWire
from app.wire.twilio import TwilioWire
from tests.samples import CALL, a_record
from tests.waiting import WAIT_SECONDS

DIRECTORY = Directory((Plan("plan"),), (Business("b", "B", "plan"),))


class FakeSocket:
    """A socket that gives what it was given, and then waits."""

    answered = True

    def __init__(self, *messages: str | bytes | Closed) -> None:
        self._messages = list(messages)
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self.is_admitted = False

    def admitted(self, take: Take) -> None:
        self.is_admitted = True

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    async def receive(self) -> str | bytes | Closed:
        await asyncio.sleep(0)
        if self._messages:
            return self._messages.pop(0)
        return await asyncio.Future()

    async def send(self, text: str) -> None:
        raise AssertionError(f"nothing is answered here: {text}")

    async def close(self, code: int, reason: str) -> None:
        self.closed = code, reason

    def ask(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


class FrozenSocket(FakeSocket):
    """A socket whose peer gives no sign of life."""

    answered = False


class Parts:
    """A bridge in memory, with its writer running."""

    def __init__(
        self,
        registry_kind: type[Registry] = Registry,
        limits: OutboxLimits = DEFAULT_LIMITS,
        pubsub_kind: type[MemoryPubSub] = MemoryPubSub,
    ) -> None:
        self.told: list[LifecycleEvent] = []
        self.store = MemoryStore(time.monotonic)
        metrics = Metrics()
        self.registry = registry_kind(self.store, metrics, max_calls=10, clock=time.monotonic)
        self.pubsub = pubsub_kind(time.monotonic)
        self.outbox = Outbox(
            self.pubsub, metrics, clock=time.monotonic, jitter=lambda: 0.5, limits=limits
        )
        ids = itertools.count()
        herald = Herald(self.told.append, time.time, lambda: str(next(ids)))
        tickets = TicketOffice(["s" * 32], time.time, lambda: str(next(ids)))
        reception = Reception(
            self.store,
            self.registry,
            tickets,
            herald,
            metrics,
            takes_events=lambda business_id: True,
            waive_tickets=True,
            default_business="",
            wall_clock=time.time,
        )
        self.bridge = Bridge(
            reception,
            self.registry,
            self.outbox,
            herald,
            metrics,
            clock=time.monotonic,
            wall_clock=time.time,
            start_timeout_seconds=1.0,
        )

    async def run(
        self,
        socket: FakeSocket,
        *,
        idle_seconds: float | None = None,
        wire: Wire | None = None,
        directory: Directory = DIRECTORY,
    ) -> None:
        await self.store.load_if_empty(directory)
        writer = asyncio.create_task(self.outbox.run())
        handshake = Handshake("twilio", Authorization(Proof.WAIVED, Purpose.OPEN_STREAM, "b"))
        session = CallSession(
            self.bridge, wire or TwilioWire(), handshake, idle_seconds=idle_seconds
        )
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await session.run(socket)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.told]


def media(seq: int) -> str:
    return twilio.media_message("MZ1", b"\xff" * 160, seq=seq, chunk=seq, timestamp=0)


START = twilio.start_message("MZ1", "CA1")
STOP = twilio.stop_message("MZ1", "CA1", seq=4)


class DrainsMeanwhile(Registry):
    """A registry that ends each stream in the moment it begins."""

    async def begin(
        self,
        held: HeldStream,
        end: Callable[[EndReason], None],
        draw_up: DrawUp | None = None,
    ) -> None:
        await super().begin(held, end, draw_up)
        end(EndReason.DRAIN)


async def test_a_drain_that_comes_while_a_stream_is_admitted_ends_it() -> None:
    parts = Parts(DrainsMeanwhile)
    socket = FakeSocket(START)
    await parts.run(socket)
    assert socket.closed == (1001, "drain")
    assert parts.registry.live_count == 0


async def test_what_comes_before_the_admission_is_published_in_order() -> None:
    parts = Parts()
    socket = FakeSocket(START, media(2), media(3), STOP)
    await parts.run(socket)
    assert socket.closed == (1000, "stop")
    assert parts.names == ["stream.started", "stream.stopped"]
    receipt = parts.told[-1].data["receipt"]
    assert (receipt["received"], receipt["published"], receipt["carrier_gaps"]) == (2, 2, 0)


async def test_a_peer_that_goes_before_start_leaves_nothing() -> None:
    parts = Parts()
    await parts.run(FakeSocket(twilio.connected_message(), Closed(1006)))
    assert parts.told == []
    assert parts.registry.live_count == 0


@pytest.mark.parametrize("messages", [[], [twilio.connected_message()] * 3])
async def test_without_start_the_time_out_closes_the_socket(messages: list[str]) -> None:
    parts = Parts()
    socket = FakeSocket(*messages)
    await parts.run(socket)
    assert socket.closed == (1008, "start_timeout: no start within 1 s")


async def test_silence_ends_a_session_only_where_a_rule_says_so() -> None:
    parts = Parts()
    socket = FakeSocket(START, media(2))
    await parts.run(socket, idle_seconds=0.2)
    assert socket.closed == (1000, "idle")
    assert parts.told[-1].data["receipt"]["end_reason"] == "idle"


async def test_a_peer_that_is_gone_is_not_waited_for() -> None:
    parts = Parts()
    before = asyncio.all_tasks()
    socket = FrozenSocket(START, media(2))
    await parts.run(socket, idle_seconds=0.2)
    assert socket.aborted
    assert socket.closed is None
    assert parts.told[-1].data["receipt"]["end_reason"] == "vanished"
    assert parts.registry.live_count == 0
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1000, "closed"),
        (1001, "closed"),
        (1005, "closed"),
        (1002, "disconnected"),
        (1006, "disconnected"),
        (1011, "disconnected"),
        (1009, "message_too_big"),
    ],
)
async def test_how_a_peer_left_stands_in_the_receipt(code: int, reason: str) -> None:
    parts = Parts()
    await parts.run(FakeSocket(START, media(2), Closed(code)))
    assert parts.told[-1].data["receipt"]["end_reason"] == reason


class UnreadSocket(FakeSocket):
    """A socket whose peer reads nothing."""

    async def send(self, text: str) -> None:
        await asyncio.Future()


@pytest.mark.parametrize(("frames", "reason"), [(900, "closed"), (1100, "peer_not_reading")])
async def test_a_peer_that_reads_no_answers_is_given_up_on(frames: int, reason: str) -> None:
    parts = Parts()
    before = asyncio.all_tasks()
    start = json.dumps({"event": "start", "sample_rate": 8000, "encoding": "pcm16"})
    goodbye = [Closed(1000)] if reason == "closed" else []
    socket = UnreadSocket(start, *[b"\x00\x01" * 160] * frames, *goodbye)
    await parts.run(socket, wire=PcmWire("b", "i", 1, 8000))
    receipt = parts.told[-1].data["receipt"]
    # How many more came before the answers to the first were too many, timing decides.
    assert min(frames, 1000) <= receipt["published"] == receipt["received"] <= frames
    assert receipt["end_reason"] == reason
    assert asyncio.all_tasks() == before


class BrokenSocket(FakeSocket):
    """A socket that fails when it is closed, and one message before."""

    async def close(self, code: int, reason: str) -> None:
        raise OSError("broken")


async def test_a_receipt_is_drawn_up_though_the_close_fails() -> None:
    parts = Parts()
    with pytest.raises(OSError, match="broken"):
        await parts.run(BrokenSocket(START, media(2), STOP))
    assert parts.names == ["stream.started", "stream.stopped"]
    assert parts.registry.live_count == 0


async def test_a_peer_given_up_on_while_it_is_admitted_has_a_receipt_all_the_same() -> None:
    parts = Parts()
    socket = FakeSocket(START, media(2), *["{broken"] * 101)
    await parts.run(socket)
    assert socket.closed == (1008, "too_many_bad_messages")
    receipt = parts.told[-1].data["receipt"]
    assert (receipt["received"], receipt["published"]) == (102, 1)


async def test_nothing_but_rubbish_before_start_closes_the_socket() -> None:
    parts = Parts()
    socket = FakeSocket(*["{broken"] * 101)
    await parts.run(socket)
    assert socket.closed is not None
    assert socket.closed[0] == 1008
    assert parts.told == []


class PushingSocket(FakeSocket):
    """A socket whose server calls for each message once the stream is admitted.

    It says what it was told to do, and what of it came while it was paused.
    """

    def __init__(self, *messages: str | bytes | Closed) -> None:
        super().__init__(*messages)
        self.take: Take | None = None
        self.paused = False
        self.pauses = 0

    def admitted(self, take: Take) -> None:
        super().admitted(take)
        self.take = take
        asyncio.get_running_loop().call_soon(self.push)

    async def receive(self) -> str | bytes | Closed:
        if self.take is not None:
            return await asyncio.Future()
        return await super().receive()

    def push(self) -> None:
        while self._messages and not self.paused:
            message = self._messages.pop(0)
            assert self.take is not None
            assert not isinstance(message, Closed)
            self.take(message)

    def pause(self) -> None:
        self.paused = True
        self.pauses += 1

    def resume(self) -> None:
        self.paused = False
        self.push()


async def test_messages_that_the_server_hands_over_are_taken_up_to_stop() -> None:
    parts = Parts()
    await parts.run(PushingSocket(START, media(2), media(3), STOP, media(5)))
    receipt = parts.told[-1].data["receipt"]
    assert (receipt["received"], receipt["published"]) == (2, 2)
    assert receipt["end_reason"] == "stop"
    assert parts.names == ["stream.started", "stream.stopped"]


async def test_a_peer_that_floods_past_the_queue_is_given_up_on() -> None:
    parts = Parts()
    socket = PushingSocket(START, media(2), *["{broken"] * 101, media(3))
    await parts.run(socket)
    assert socket.closed == (1008, "too_many_bad_messages")
    receipt = parts.told[-1].data["receipt"]
    assert (receipt["received"], receipt["published"]) == (102, 1)


class BrokenWire(TwilioWire):
    """A wire that fails as it never should, at an empty message."""

    def receive(self, message: str | bytes) -> WireEvent:
        if not message:
            raise ZeroDivisionError
        return super().receive(message)


async def test_a_fault_of_ours_while_messages_are_handed_over_ends_the_stream() -> None:
    parts = Parts()
    socket = PushingSocket(START, media(2), "", media(3))
    await parts.run(socket, wire=BrokenWire())
    assert socket.closed == (1011, "error")
    receipt = parts.told[-1].data["receipt"]
    assert (receipt["published"], receipt["end_reason"]) == (1, "error")


async def test_a_peer_ahead_of_time_is_paused_while_the_queue_is_full() -> None:
    parts = Parts(limits=OutboxLimits(buffer_seconds=6.0))
    before = asyncio.all_tasks()
    frames = [media(2 + number) for number in range(1000)]
    socket = PushingSocket(START, *frames, twilio.stop_message("MZ1", "CA1", seq=1002))
    await parts.run(socket)
    receipt = parts.told[-1].data["receipt"]
    assert (receipt["received"], receipt["published"], receipt["dropped"]) == (1000, 1000, {})
    assert socket.pauses > 0
    assert asyncio.all_tasks() == before


async def test_a_session_that_ends_while_its_peer_is_paused_leaves_nothing_behind() -> None:
    parts = Parts(limits=OutboxLimits(buffer_seconds=6.0))
    before = asyncio.all_tasks()

    class Gone(PushingSocket):
        async def receive(self) -> str | bytes | Closed:
            while self.take is not None and not self.paused:
                await asyncio.sleep(0)
            return await FakeSocket.receive(self) if self.take is None else Closed(1006)

        def resume(self) -> None:
            pass

    socket = Gone(START, *[media(2 + number) for number in range(1000)])
    await parts.run(socket)
    receipt = parts.told[-1].data["receipt"]
    assert receipt["received"] == receipt["published"] < 1000
    assert receipt["end_reason"] == "disconnected"
    assert asyncio.all_tasks() == before


class SpillingSocket(PushingSocket):
    """A server that, when it is paused, has parsed some messages more: `receive` gives them."""

    def pause(self) -> None:
        if not self.paused:
            self.spilt += self._messages[:5]
            del self._messages[:5]
            self.some.set()
        super().pause()

    async def receive(self) -> str | bytes | Closed:
        if self.take is None:
            self.spilt: list[str | bytes | Closed] = []
            self.some = asyncio.Event()
            return await super().receive()
        while not self.spilt:
            self.some.clear()
            await self.some.wait()
        return self.spilt.pop(0)


class SlowPubSub(MemoryPubSub):
    """A broker that takes its time."""

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        await asyncio.sleep(0.02)
        return await super().write(batch)


async def test_what_was_parsed_already_waits_for_room_too_and_keeps_its_place() -> None:
    parts = Parts(limits=OutboxLimits(buffer_seconds=6.0), pubsub_kind=SlowPubSub)
    frames = [media(2 + number) for number in range(1000)]
    socket = SpillingSocket(START, *frames, twilio.stop_message("MZ1", "CA1", seq=1002))
    await parts.run(socket)
    receipt = parts.told[-1].data["receipt"]
    assert (receipt["received"], receipt["published"], receipt["dropped"]) == (1000, 1000, {})
    assert (receipt["carrier_gaps"], receipt["seq_resets"]) == (0, 0)
    assert socket.pauses > 0


# ------------------------------------------------------ ids that are another business's


class Occupied(Registry):
    """A registry that could not ask the store when it claimed an id."""

    async def claim(self, held: HeldStream) -> bool:
        await super().claim(held)
        return False


async def put_in_place(parts: Parts, business_id: str) -> dict[str, Field]:
    """Open a stream of another process under the id that the peer names; return its record."""
    call = replace(CALL, business_id=business_id)
    await parts.pubsub.write([OpenStream("MZ1", replace(a_record(1), call=call), 600)])
    return await parts.pubsub.record("MZ1")


@pytest.mark.parametrize(
    ("owner", "reason"), [("another", "business_mismatch"), ("b", "stream_already_live")]
)
async def test_a_stream_whose_id_is_taken_ends_with_a_reason_and_a_receipt(
    owner: str, reason: str
) -> None:
    parts = Parts(Occupied)
    before = await put_in_place(parts, owner)
    socket = FakeSocket(START, media(2), media(3))
    await parts.run(socket)
    assert socket.closed == (1008, reason)
    assert await parts.pubsub.record("MZ1") == before
    stopped = parts.told[-1]
    assert (stopped.name, stopped.call.stream_sid, stopped.call.call_sid) == (
        "stream.stopped",
        "",
        "CA1",
    )
    receipt = stopped.data["receipt"]
    assert (receipt["received"], receipt["dropped"]) == (2, {reason: 2})
    assert receipt["end_reason"] == reason
    assert parts.registry.live_count == 0


async def test_a_stream_that_ended_before_it_could_be_opened_writes_nothing_for_another() -> None:
    parts = Parts(Occupied)
    before = await put_in_place(parts, "another")
    await parts.run(FakeSocket(START, media(2), STOP))
    assert await parts.pubsub.record("MZ1") == before
    assert parts.told[-1].data["receipt"]["dropped"] == {"business_mismatch": 1}


async def test_a_socket_that_names_the_live_stream_of_another_business_is_refused() -> None:
    parts = Parts()
    theirs = HeldStream(CallIdentity("CA9", "MZ1", "another", "p", "twilio"), 1, 600)
    await parts.registry.claim(theirs)
    socket = FakeSocket(START, media(2))
    await parts.run(socket)
    assert socket.closed is not None
    assert socket.closed[1].startswith("business_mismatch")
    assert [name for name in parts.names if name.startswith("stream.")] == []
    assert parts.registry.holds(theirs)
