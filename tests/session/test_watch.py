"""When a session ends by itself: how a silent peer is judged, and what the deadline holds to."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable

import pytest
import uvloop

from app.errors import StartTimeout
from app.events import EndReason
from app.session.watch import Deadline, SilenceWatch
from tests.waiting import WAIT_SECONDS


class Parts:
    """Time that passes part by part; each may bring something, and the last ends the test."""

    def __init__(self, count: int, happens: Callable[[int], None] = lambda part: None) -> None:
        self.slept: list[float] = []
        self.over = asyncio.Event()
        self._count = count
        self._happens = happens

    async def sleep(self, seconds: float) -> None:
        if len(self.slept) == self._count:
            self.over.set()
            await asyncio.Future()
        self.slept.append(seconds)
        self._happens(len(self.slept))
        await asyncio.sleep(0)


class FakeLine:
    """A line to a peer that answers its first `answers` questions."""

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self.asked = 0

    def ask(self) -> None:
        self.asked += 1

    @property
    def answered(self) -> bool:
        return self.asked <= self._answers

    def abort(self) -> None:
        raise AssertionError("it is not the watch that ends a socket")


ALWAYS = 1000


@pytest.mark.parametrize(
    ("idle_seconds", "answers", "judged", "seconds"),
    [
        pytest.param(10, 0, EndReason.VANISHED, 10, id="gone"),
        pytest.param(10, ALWAYS, EndReason.IDLE, 10, id="there, and silent"),
        pytest.param(2, 0, EndReason.VANISHED, 2, id="gone, by a hasty rule"),
        pytest.param(2, ALWAYS, EndReason.IDLE, 2, id="there, by a hasty rule"),
        pytest.param(60, 0, EndReason.VANISHED, 10, id="gone, by a patient rule"),
        pytest.param(60, ALWAYS, EndReason.IDLE, 60, id="there, by a patient rule"),
        pytest.param(60, 3, EndReason.VANISHED, 40, id="gone in the midst of a silence"),
        pytest.param(15, ALWAYS, EndReason.IDLE, 15, id="there, for no whole number of rounds"),
        pytest.param(15, 1, EndReason.VANISHED, 15, id="gone in the last round"),
        pytest.param(None, 0, EndReason.VANISHED, 10, id="gone, where all may be silent"),
    ],
)
async def test_silence_is_judged_by_whether_a_ping_is_answered(
    idle_seconds: float | None, answers: int, judged: EndReason, seconds: float
) -> None:
    parts, line = Parts(ALWAYS), FakeLine(answers)
    watch = SilenceWatch(idle_seconds, parts.sleep)
    async with asyncio.timeout(WAIT_SECONDS):
        assert await watch.judge(line) is judged
    assert sum(parts.slept) == pytest.approx(seconds)


async def never_judged(watch: SilenceWatch, line: FakeLine, parts: Parts) -> None:
    """Watch until all parts are over."""
    judging = asyncio.create_task(watch.judge(line))
    over = asyncio.create_task(parts.over.wait())
    first, _ = await asyncio.wait(
        {judging, over}, timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED
    )
    assert first == {over}
    judging.cancel()
    await asyncio.gather(judging, return_exceptions=True)


async def test_where_all_may_be_silent_a_living_peer_is_for_ever() -> None:
    parts, line = Parts(400), FakeLine(ALWAYS)
    await never_judged(SilenceWatch(None, parts.sleep), line, parts)
    assert len(parts.slept) == 400
    assert line.asked == 100


def hear(watch: SilenceWatch) -> None:
    watch.heard = True


async def test_a_message_in_time_begins_the_silence_anew() -> None:
    parts = Parts(400, lambda part: hear(watch) if part % 4 == 0 else None)
    watch = SilenceWatch(10, parts.sleep)
    await never_judged(watch, FakeLine(0), parts)
    assert len(parts.slept) == 400


async def test_a_peer_that_speaks_is_never_asked() -> None:
    parts, line = Parts(40, lambda part: hear(watch)), FakeLine(0)
    watch = SilenceWatch(10, parts.sleep)
    await never_judged(watch, line, parts)
    assert line.asked == 0


async def test_no_silence_is_counted_while_we_do_not_read() -> None:
    parts, line = Parts(40), FakeLine(0)
    watch = SilenceWatch(10, parts.sleep)
    with watch.suspended():
        await never_judged(watch, line, parts)
    assert (len(parts.slept), line.asked) == (40, 0)


def test_a_loop_that_was_blocked_reads_before_it_judges() -> None:
    # After a reader's callback, uvloop runs the timers that are due before it reads more.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(is_blocked_while_its_peer_talks())


async def is_blocked_while_its_peer_talks() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    watch, silent = SilenceWatch(0.6), threading.Event()

    def talk() -> None:
        while not silent.wait(0.01):
            theirs.send(b"x")

    async def read() -> None:
        while await reader.read(1000):
            watch.heard = True

    def block() -> None:
        bell_out.recv(1)
        time.sleep(0.75)

    loop = asyncio.get_running_loop()
    bell_in, bell_out = socket.socketpair()
    loop.add_reader(bell_out, block)
    talking, reading = loop.run_in_executor(None, talk), asyncio.create_task(read())
    judging = asyncio.create_task(watch.judge(FakeLine(0)))
    try:
        for _ in range(2):
            await asyncio.sleep(0.1)
            bell_in.send(b"x")
        await asyncio.sleep(0.3)
        assert not judging.done()
    finally:
        silent.set()
        await talking
        loop.remove_reader(bell_out)
        for end in (theirs, bell_in, bell_out):
            end.close()
        await reading
        writer.close()
    assert await judging is EndReason.VANISHED


# -------------------------------------------------------------------- the deadline

TOO_LATE = StartTimeout("too late")


async def due_at_last(deadline: Deadline) -> object:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(WAIT_SECONDS), deadline:
            await asyncio.sleep(2 * WAIT_SECONDS)
    return deadline.due


async def test_a_deadline_says_why() -> None:
    assert await due_at_last(Deadline(0.01, TOO_LATE)) is TOO_LATE


async def test_a_deadline_can_be_moved_and_brought_to_now() -> None:
    async with Deadline(0.01, TOO_LATE) as deadline:
        deadline.move(60, EndReason.MAX_CALL_SECONDS)
        await asyncio.sleep(0.05)
    deadline = Deadline(60, TOO_LATE)
    asyncio.get_running_loop().call_later(0.01, deadline.end, EndReason.DRAIN)
    assert await due_at_last(deadline) is EndReason.DRAIN


async def test_what_has_ended_a_session_first_holds() -> None:
    deadline = Deadline(60, TOO_LATE)
    loop = asyncio.get_running_loop()
    loop.call_soon(deadline.end, EndReason.IDLE)
    loop.call_soon(deadline.end, EndReason.DRAIN)
    loop.call_soon(deadline.move, 60, EndReason.MAX_CALL_SECONDS)
    assert await due_at_last(deadline) is EndReason.IDLE


async def test_a_deadline_that_is_over_is_left_alone() -> None:
    deadline = Deadline(0.01, TOO_LATE)

    async def is_ended_while_it_runs_out() -> None:
        async with deadline:
            try:
                await asyncio.sleep(WAIT_SECONDS)
            finally:
                deadline.end(EndReason.DRAIN)
                deadline.move(1, EndReason.MAX_CALL_SECONDS)

    deadline.end(EndReason.DRAIN)  # nothing runs yet
    with pytest.raises(TimeoutError):
        await is_ended_while_it_runs_out()
    deadline.end(EndReason.DRAIN)
    assert deadline.due is TOO_LATE
