"""The port in process: for tests, and for trying things without a broker."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from app.events import EndEntry, EndReason, Entry, HeldStream, LifecycleEvent
from app.pubsub.base import (
    CALLS_KEY,
    CALLS_MAX_ENTRIES,
    Announce,
    Append,
    CloseStream,
    Field,
    ListCall,
    NoteCall,
    OpenStream,
    Outcome,
    Replaces,
    Standing,
    Write,
    audio_key,
    closing_fields,
    control_key,
    entry_fields,
    lifecycle_fields,
    parse_entry,
    parse_lifecycle,
    record_fields,
    record_key,
)
from app.pubsub.call_log import CALL_HISTORY_SECONDS, MemoryCallLog
from app.pubsub.lost import LOST_RECEIPT_JSON, lost_event

Id = tuple[int, int]
Fields = dict[str, Field]


class _Stream:
    def __init__(self, max_entries: int) -> None:
        self.entries: deque[tuple[Id, Fields]] = deque(maxlen=max_entries)
        self.last: Id = (0, 0)


class MemoryPubSub:
    """Keep streams and records in this process, as long as a broker would.

    `clock` gives seconds; it decides when an ended stream expires. `log` has the
    calls of `call_history_seconds`.
    """

    replayable = True
    lanes = 1
    promise_seconds = 0.0

    def __init__(
        self, clock: Callable[[], float], call_history_seconds: int = CALL_HISTORY_SECONDS
    ) -> None:
        self._clock = clock
        self.log = MemoryCallLog(call_history_seconds)
        self._streams: dict[str, _Stream] = {}
        self._records: dict[str, Fields] = {}
        self._expiry: dict[str, float] = {}
        self._written = asyncio.Condition()
        self._commands: dict[str, list[tuple[Id, Fields]]] = {}
        self._commanded = asyncio.Event()
        self._last_command = 0
        self._calls_count = 0

    def lane_of(self, key: str) -> int:
        """Give the only lane."""
        return 0

    async def open(self) -> None:
        """Do nothing; there is nothing to connect to."""

    async def close(self) -> None:
        """Do nothing; there is nothing to let go of."""

    async def check(self) -> None:
        """Return; this broker is always there."""

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        """Write a batch; see `PubSub.write`."""
        self._expire()
        outcomes = [self._write(write) for write in batch]
        async with self._written:
            self._written.notify_all()
        return outcomes

    async def standing(self, stream: str, appends: Sequence[Append]) -> Standing:
        """Tell which entries stand; see `PubSub.standing`."""
        stored = self._streams.get(audio_key(stream), _Stream(1))
        contents = dict(stored.entries)
        present = {
            append.n
            for append in appends
            if contents.get((append.id_ms, append.n)) == entry_fields(append.entry)
        }
        return Standing(frozenset(present), *stored.last)

    async def still_there(self, lane: int) -> None:
        """Return; this broker is never replaced."""

    async def end_lost(self, held: HeldStream) -> bool:
        """End a stream whose holder died, and announce it; see `PubSub.end_lost`."""
        name = held.call.stream_sid
        record = self._records.get(record_key(name), {})
        whose = record.get("startedAt"), record.get("businessId")
        if whose != (held.started_at, held.call.business_id):
            return False
        if record.get("receipt", LOST_RECEIPT_JSON) != LOST_RECEIPT_JSON:
            return False
        stream = self._streams.setdefault(audio_key(name), _Stream(CALLS_MAX_ENTRIES))
        after_all = max(stream.last[0], held.started_at) + 1
        if not stream.entries or stream.entries[-1][1].get("event") != "end":
            stream.last = after_all, 1
            stream.entries.append((stream.last, entry_fields(EndEntry(1, EndReason.LOST))))
        record.setdefault("endedAt", after_all)  # no clock here tells the time of day
        record["receipt"] = LOST_RECEIPT_JSON
        self._expiry[name] = self._clock() + held.retention_seconds
        event = lost_event(held, int(record["endedAt"]))
        await self.write([NoteCall(event), Announce(event)])
        return True

    async def record(self, stream: str) -> Fields:
        """Give what is known of a stream, as published."""
        return self.known(stream)

    def known(self, stream: str) -> Fields:
        """Return what is known of a stream, as published."""
        return dict(self._records.get(record_key(stream), {}))

    async def entries(self, stream: str) -> AsyncIterator[tuple[str, Entry]]:
        """Read a stream's ids and entries up to its end."""
        async for (ms, n), fields in self._follow(audio_key(stream)):
            entry = parse_entry(n, fields)
            yield f"{ms}-{n}", entry
            if isinstance(entry, EndEntry):
                return

    async def lifecycle(self, *, from_now: bool = False) -> AsyncGenerator[LifecycleEvent, None]:
        """Read lifecycle events from the first, or from now on."""
        after = (0, self._calls_count) if from_now else (0, 0)
        async for _, fields in self._follow(CALLS_KEY, after):
            yield parse_lifecycle(fields)

    def stored(self, stream: str) -> list[tuple[Id, Fields]]:
        """Give what stands in a stream: ids and fields, in order."""
        self._expire()
        found = self._streams.get(audio_key(stream))
        return list(found.entries) if found else []

    async def wait_for_write(self, seconds: float) -> bool:
        """Wait for the next write to anything; False when none came in time."""
        try:
            async with asyncio.timeout(seconds), self._written:
                return await self._written.wait()
        except TimeoutError:
            return False

    # ---------------------------------------------------------------- commands

    def command(self, stream: str, fields: Fields) -> str | None:
        """Take a worker's command to a stream; give its entry's id, None without the stream."""
        self._expire()
        entries = self._commands.get(control_key(stream))
        if entries is None:
            return None
        self._last_command += 1
        entries.append(((self._last_command, 0), fields))
        self._commanded.set()
        return f"{self._last_command}-0"

    def commands(self, stream: str, after: str, count: int) -> list[tuple[str, Fields]]:
        """Give a stream's commands behind an id, at most so many."""
        ms, _, n = after.partition("-")
        entries = self._commands.get(control_key(stream), ())
        behind = [one for one in entries if one[0] > (int(ms), int(n))]
        return [(f"{id_ms}-{id_n}", fields) for (id_ms, id_n), fields in behind[:count]]

    def forget_commands(self, stream: str, upto: str) -> None:
        """Forget a stream's commands up to this one."""
        ms, _, n = upto.partition("-")
        entries = self._commands.get(control_key(stream), [])
        entries[:] = [one for one in entries if one[0] > (int(ms), int(n))]

    def note_command(self) -> None:
        """End a waiting for commands."""
        self._commanded.set()

    async def wait_for_command(self, seconds: float) -> None:
        """Wait until there may be a command that was not there before, or so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._commanded.wait()
        except TimeoutError:
            return
        self._commanded.clear()

    def erase_stream(self, stream: str) -> int:
        """Forget a stream and its record; give how many entries stood in it."""
        self._records.pop(record_key(stream), None)
        self._expiry.pop(stream, None)
        self._commands.pop(control_key(stream), None)
        found = self._streams.pop(audio_key(stream), None)
        return len(found.entries) if found else 0

    def erase_events(self, business_id: str, call_sid: str) -> tuple[int, int]:
        """Forget what was announced of a call; give how many events, and their bytes."""
        calls = self._streams.get(CALLS_KEY)
        if calls is None:
            return 0, 0
        owner = business_id, call_sid
        gone = [one for one in calls.entries if (one[1]["businessId"], one[1]["callSid"]) == owner]
        for one in gone:
            calls.entries.remove(one)
        return len(gone), sum(len(str(value)) for _, said in gone for value in said.values())

    def all_records(self) -> list[tuple[str, Fields]]:
        """Return each stream's id and record."""
        prefix, suffix = record_key("*").split("*")
        return [
            (key[len(prefix) : -len(suffix)], dict(fields))
            for key, fields in self._records.items()
            if "callSid" in fields
        ]

    def all_announced(self) -> list[tuple[Id, Fields]]:
        """Return every event that was announced, the oldest first."""
        calls = self._streams.get(CALLS_KEY)
        return list(calls.entries) if calls else []

    def remove_announced(self, ids: set[Id]) -> int:
        """Forget events by their ids; return how many there were."""
        calls = self._streams.get(CALLS_KEY)
        if calls is None:
            return 0
        gone = [one for one in calls.entries if one[0] in ids]
        for one in gone:
            calls.entries.remove(one)
        return len(gone)

    def _write(self, write: Write) -> Outcome:
        match write:
            case OpenStream():
                fields = record_fields(write.record)
                known = self._records.get(record_key(write.stream), {})
                refusal = _refusal(write, known)
                if refusal is not None:
                    return refusal
                if known.get("startedAt") != fields["startedAt"]:
                    self._streams.pop(audio_key(write.stream), None)
                    self._commands[control_key(write.stream)] = []
                self._records[record_key(write.stream)] = fields
                self._expiry[write.stream] = self._clock() + write.expire_seconds
            case CloseStream():
                known = self._records.get(record_key(write.stream), {})
                whose = known.get("startedAt"), known.get("businessId")
                if whose == (write.started_at, write.business_id):
                    known.update(closing_fields(write))
                    self._expiry[write.stream] = self._clock() + write.expire_seconds
            case Announce():
                self._calls_count += 1
                calls = self._streams.setdefault(CALLS_KEY, _Stream(CALLS_MAX_ENTRIES))
                calls.entries.append(((0, self._calls_count), lifecycle_fields(write.event)))
            case NoteCall():
                self.log.note(write.event)
            case ListCall():
                pass  # the log has them all
            case Append():
                stream = self._streams.setdefault(
                    audio_key(write.stream), _Stream(write.max_entries)
                )
                if (write.id_ms, write.n) <= stream.last:
                    return Outcome.CONFLICT
                stream.last = (write.id_ms, write.n)
                stream.entries.append((stream.last, entry_fields(write.entry)))
        return Outcome.WRITTEN

    async def _follow(self, key: str, last: Id = (0, 0)) -> AsyncIterator[tuple[Id, Fields]]:
        while True:
            stored = self._streams.get(key)
            fresh = [item for item in stored.entries if item[0] > last] if stored else []
            for item in fresh:
                last = item[0]
                yield item
            if not fresh:
                async with self._written:
                    await self._written.wait()

    def _expire(self) -> None:
        now = self._clock()
        for stream in [name for name, until in self._expiry.items() if until <= now]:
            del self._expiry[stream]
            self._streams.pop(audio_key(stream), None)
            self._commands.pop(control_key(stream), None)
            self._records.pop(record_key(stream), None)


def _refusal(opening: OpenStream, known: Fields) -> Outcome | None:
    """Return why a stream may not replace what is known under its id; None where it may."""
    record = opening.record
    if not known:
        return None
    if known["businessId"] != record.call.business_id:
        return Outcome.OTHER_BUSINESS
    began = int(known["startedAt"])
    is_kept = began != record.started_at and (
        (opening.replaces is Replaces.ENDED and "endedAt" not in known)
        or (opening.replaces is Replaces.OLDER and began > record.started_at)
    )
    return Outcome.LIVE_ELSEWHERE if is_kept else None
