"""What a worker says into calls: commands written, and what came of each.

Source: docs/redis-contract.md, "control:{STREAM}", version 1.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, Generic, TypeVar

import msgspec

from app.consumer.kept import Kept
from app.consumer.reader import Inbox, Reader
from app.consumer.sharing import StreamName
from app.errors import CommandRefused
from app.events import LifecycleEvent
from app.playback.answers import Cleared, Played, Reached
from app.playback.commands import Command, Reason, command_fields, name_of
from app.pubsub.base import CALLS_KEY, parse_lifecycle
from app.pubsub.control import writing
from app.redis_url import parse_redis_url
from app.store.reach import RedisReach, text
from app.topology import connect

TIMEOUT_SECONDS: Final = 3.0
MAX_CONNECTIONS: Final = 33
# Three minutes may wait before a command; a carrier has five seconds more to say so.
ANSWER_SECONDS: Final = 200.0
LOOK_SECONDS: Final = 1.0
# Commands of one stream that are not answered yet: twice what the service lets wait.
MAX_WAITING: Final = 10_000
# Keys that were pressed and that nobody has taken.
MAX_DIGITS: Final = 128
# Answers that came before the reply of the write they answer.
MAX_EARLY: Final = 256


@dataclass(frozen=True, slots=True)
class Stopped:
    """The stream has ended, with this end reason: what a `hang_up` leads to."""

    reason: str


Outcome = Played | Reached | Cleared | Stopped
OutcomeT = TypeVar("OutcomeT", bound=Outcome)


class Said(Generic[OutcomeT]):
    """One command that was written; `id` is what its answer is called by.

    With `is_joined` it is answered together with what follows.
    """

    def __init__(self, command: str, *, is_joined: bool = False) -> None:
        self.id = ""
        self.command = command
        self.is_joined = is_joined
        self._outcome: OutcomeT | CommandRefused | None = None
        self._is_answered = asyncio.Event()

    @property
    def is_answered(self) -> bool:
        """Tell whether it is known what came of it."""
        return self._is_answered.is_set()

    async def answer(self, seconds: float = ANSWER_SECONDS) -> OutcomeT | None:
        """Wait for what came of it; None where nothing was said of it in time.

        Raises:
            CommandRefused: it was not done.
        """
        if not await self.is_answered_within(seconds):
            return None
        if isinstance(self._outcome, CommandRefused):
            raise self._outcome
        return self._outcome

    async def is_answered_within(self, seconds: float) -> bool:
        """Wait for an answer; tell whether there is one."""
        try:
            async with asyncio.timeout(seconds):
                return await self._is_answered.wait()
        except TimeoutError:
            return False

    async def heard(self, seconds: float = ANSWER_SECONDS) -> bool | None:
        """Wait until it was heard to its end: True; False where a `clear` came first.

        None where nobody knows: neither the carrier nor the service has said so in time.

        Raises:
            CommandRefused: it was not done.
        """
        answer = await self.answer(seconds)
        return answer.heard if isinstance(answer, Played | Reached) else None

    def settle(self, outcome: Any) -> None:
        """Note what came of it; what was first said stands."""
        if not self.is_answered:
            self._outcome = outcome
            self._is_answered.set()


class Pressed:
    """The keys that somebody is to be given of one stream; `""` is the end.

    Events come at least once. Of keys that nobody takes, the latest are lost.
    """

    def __init__(self) -> None:
        self.digits: asyncio.Queue[str] = asyncio.Queue(MAX_DIGITS + 1)
        self._known: deque[str] = deque(maxlen=MAX_DIGITS)

    def hear(self, event: LifecycleEvent) -> None:
        """Take an event of the stream."""
        if event.name == "stream.stopped" and not self.digits.full():
            self.digits.put_nowait("")
        elif event.name == "stream.dtmf" and event.event_id not in self._known:
            self._known.append(event.event_id)
            if self.digits.qsize() < MAX_DIGITS:
                self.digits.put_nowait(str(event.data["digit"]))


class Speaking(RedisReach):
    """Write a worker's commands, and read what is answered to them.

    Answers are read from the first command on, by a connection of their own; `kept`
    looks up from where.
    """

    def __init__(self, url: str, kept: Kept) -> None:
        where = parse_redis_url(url)
        client = connect(where, connect_seconds=TIMEOUT_SECONDS, max_connections=MAX_CONNECTIONS)
        super().__init__(client, own_client=True, timeout_seconds=TIMEOUT_SECONDS)
        self._kept = kept
        self._reader = Reader(where)
        self._tasks: list[asyncio.Task[None]] = []
        self._beginning = asyncio.Lock()
        self._waiting: dict[str, dict[str, Said[Any]]] = {}
        self._listeners: dict[str, list[Pressed]] = {}
        self._early: deque[tuple[str, str, Outcome | CommandRefused]] = deque(maxlen=MAX_EARLY)

    async def close(self) -> None:
        """Read no more answers, and let go of every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().close()

    async def write(self, name: StreamName, command: Command, said: Said[Any]) -> None:
        """Write a command into a stream; its answer goes to `said`.

        Raises:
            CommandRefused: the stream is over.
            StoreUnavailable: Redis did not answer; the command may be done or not.
        """
        await self._listen()
        if command.id:
            self._expect(name.stream_sid, command.id, said)
        fields = command_fields(command)
        found = await self._ask(*writing(name.stream_sid, name.started_at, fields))
        if found is None:
            self._waiting.get(name.stream_sid, {}).pop(command.id, None)
            raise CommandRefused(name_of(command), Reason.STREAM_ENDED, "the stream is over")
        if not command.id:
            said.id = said.id or text(found)
            self._expect(name.stream_sid, text(found), said)
            self._settle_early(name.stream_sid, text(found))

    def _expect(self, stream_sid: str, command_id: str, said: Said[Any]) -> None:
        waiting = self._waiting.setdefault(stream_sid, {})
        waiting[command_id] = said
        if len(waiting) > MAX_WAITING:
            del waiting[next(iter(waiting))]

    # ------------------------------------------------------------------ answers

    async def digits(self, name: StreamName) -> AsyncGenerator[str, None]:
        """Give the keys that are pressed from now on, up to the stream's end.

        Raises:
            StoreUnavailable: Redis did not answer at the start.
        """
        await self._listen()
        pressed = Pressed()
        listeners = self._listeners.setdefault(name.stream_sid, [])
        listeners.append(pressed)
        try:
            found = await self._kept.record(name.stream_sid)
            if found is None or found.ended_at or found.stream.started_at != name.started_at:
                return
            while digit := await pressed.digits.get():
                yield digit
        finally:
            listeners.remove(pressed)
            if not listeners:
                self._listeners.pop(name.stream_sid, None)

    async def _listen(self) -> None:
        """Begin to read answers, once."""
        async with self._beginning:
            if not self._tasks:
                inbox = self._reader.follow(CALLS_KEY, await self._kept.newest_event())
                self._tasks = [
                    asyncio.create_task(self._reader.run()),
                    asyncio.create_task(self._hear(inbox)),
                ]

    async def _hear(self, inbox: Inbox) -> None:
        while True:
            for _, fields in await inbox.take(LOOK_SECONDS):
                self._read(fields)

    def _read(self, fields: Mapping[str, bytes]) -> None:
        """Sort one event to the command it answers; what is no answer is nobody's."""
        try:
            event = parse_lifecycle(fields)
            outcome = _outcome_of(event)
            stream_sid = event.call.stream_sid
            for pressed in self._listeners.get(stream_sid, ()):
                pressed.hear(event)
        except (KeyError, TypeError, ValueError, msgspec.MsgspecError):
            return  # of another version
        if isinstance(outcome, Stopped):
            for said in self._waiting.pop(stream_sid, {}).values():
                is_end = said.command in ("hangup", "transfer")
                ended = CommandRefused(said.command, Reason.STREAM_ENDED)
                said.settle(outcome if is_end else ended)
        elif outcome is not None:
            command_id = str(event.data["id"])
            if not self._settle(stream_sid, command_id, outcome):
                self._early.append((stream_sid, command_id, outcome))

    def _settle(self, stream_sid: str, command_id: str, outcome: Outcome | CommandRefused) -> bool:
        """Give an answer to what it is of; False where that is nothing we know."""
        waiting = self._waiting.get(stream_sid, {})
        said = waiting.get(command_id)
        if said is None:
            return False
        if isinstance(outcome, Played):
            # Plays are heard in order, and those that are joined are answered with the next.
            before = list(takewhile(lambda one: one != command_id, waiting))
            for one in before:
                if waiting[one].is_joined:
                    waiting.pop(one).settle(outcome)
                elif waiting[one] is said:
                    del waiting[one]
            if command_id != said.id and outcome.heard is not False:
                return True  # a piece of longer audio, of which more is to come
        del waiting[command_id]
        said.settle(outcome)
        return True

    def _settle_early(self, stream_sid: str, command_id: str) -> None:
        for early in list(self._early):
            if early[:2] == (stream_sid, command_id):
                self._early.remove(early)
                self._settle(*early)


def _outcome_of(event: LifecycleEvent) -> Outcome | CommandRefused | None:
    """Read what an event says of a command; None where it is about none."""
    data = event.data
    if event.name == "stream.stopped":
        return Stopped(str(data["receipt"]["end_reason"]))
    if "id" not in data:
        return None
    match event.name:
        case "stream.played":
            said = data["plays"], data["durationMs"], data["playedMs"], data["heard"]
            return Played(data["id"], *said)
        case "stream.mark":
            return Reached(data["id"], data["name"], data["heard"])
        case "stream.cleared":
            return Cleared(data["id"], data["plays"], data["droppedMs"], data["carrierMs"])
        case "stream.error":
            return CommandRefused(data["command"], data["reason"], data.get("detail", ""))
    return None
