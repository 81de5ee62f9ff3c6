"""What became of each frame of each call, judged from outside and to the frame."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.media import Track
from app.pubsub.base import CALLS_KEY, audio_key, record_key
from tests.chaos.load import FIRST_SEQ, Caller
from tests.chaos.reading import Connect, Follower, checksum

RECEIPT_SECONDS = 30.0
EVENT_SECONDS = 30.0
MAX_PROBLEMS = 20

Fields = dict[bytes, bytes]
Entries = Sequence[tuple[bytes, Fields]]


def _decoding() -> "np.ndarray[Any, np.dtype[np.int16]]":
    """Make the table of G.711's mu-law, 2.2: not the one under test."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    size = ((mantissa * 2 + 33) << exponent.astype(np.int32)) - 33
    return (np.where(code & 0x80, -size, size) * 4).astype("<i2")


_LINEAR = _decoding()


def decoded(mulaw: bytes) -> bytes:
    """Decode mu-law to PCM16."""
    return _LINEAR[np.frombuffer(mulaw, np.uint8)].tobytes()


@dataclass(slots=True)
class Tally:
    """Counts of frames over any number of calls, and what is wrong besides.

    `lost` were sent and are not readable; `unaccounted` are those of them for
    which no gap entry stands. `not_received` were put on a socket and are in no
    receipt. `dropped` is by reason, from the receipts.
    """

    calls: int = 0
    sent: int = 0
    received: int = 0
    published: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    unaccounted: int = 0
    not_received: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Add another's counts."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.dropped += other.dropped
        self.problems = (self.problems + other.problems)[:MAX_PROBLEMS]

    @property
    def is_exact(self) -> bool:
        """Tell whether every frame sent is readable, once, in order, bit for bit."""
        return self.adds_up and not self.lost

    @property
    def adds_up(self) -> bool:
        """Tell whether every frame sent is readable, or accounted for by a gap and the receipt."""
        wrong = self.duplicated + self.reordered + self.corrupted + self.unaccounted
        return not (wrong or self.not_received or self.problems)

    def __str__(self) -> str:
        shown = f"{self.lost} lost, {self.duplicated} duplicated, {self.reordered} reordered"
        more = {
            "corrupted": self.corrupted,
            "unaccounted for": self.unaccounted,
            "not received": self.not_received,
            "problems": len(self.problems),
        }
        extra = "".join(f", {count} {name}" for name, count in more.items() if count)
        return f"{shown}{extra} of {self.sent:,}"


_COUNTS = (
    "calls sent received published lost duplicated reordered corrupted unaccounted not_received"
).split()


def judge(
    caller: Caller,
    entries: Entries,
    record: Mapping[bytes, bytes],
    stopped: Mapping[str, Mapping[str, Any]],
    *,
    end_reason: str = "stop",
) -> Tally:
    """Judge one call by what stands in the broker.

    `record` is the hash `stream:{STREAM}`; `stopped` the receipts in its
    `stream.stopped` events, by `eventId`.
    """
    book = _Book(caller)
    for place, (entry_id, fields) in enumerate(entries, 1):
        book.take(entry_id, fields, is_last=place == len(entries))
    tally = book.tally
    receipt = json.loads(record.get(b"receipt", b"{}"))
    if not receipt:
        book.note("no receipt")
        return tally
    if list(stopped.values()) != [receipt]:
        book.note(f"{len(stopped)} stream.stopped events, or not with the record's receipt")
    dropped, rejected = Counter(receipt["dropped"]), sum(receipt["rejected"].values())
    counted = receipt["published"] + dropped.total() + rejected + receipt["duplicates"]
    tally.received, tally.published, tally.dropped = (
        receipt["received"],
        receipt["published"],
        dropped,
    )
    tally.not_received = caller.sent - receipt["received"]
    for what, is_so in {
        f"the receipt does not add up: {receipt}": receipt["received"] == counted,
        f"rejected: {receipt['rejected']}": not rejected,
        f"{receipt['published']} published, {len(book.seen)} readable": (
            receipt["published"] == len(book.seen)
        ),
        f"dropped {dict(dropped)}, gaps of {dict(book.gaps)}": dropped == book.gaps,
        f"ends by {receipt['end_reason']}, entry {book.ends}": (
            (receipt["end_reason"], book.ends) == (end_reason, [end_reason])
        ),
    }.items():
        if not is_so:
            book.note(what)
    return tally


class _Book:
    """Takes a stream's entries in their order, and counts."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.tally = Tally(calls=1, sent=caller.sent, lost=caller.sent, unaccounted=caller.sent)
        self.seen: set[int] = set()
        self.gaps: Counter[str] = Counter()
        self.ends: list[str] = []
        self._missing: set[int] = set()
        self._newest = -1
        self._last_id = (0, 0)

    def note(self, problem: str) -> None:
        """Note something that is wrong with the call."""
        self.tally.problems.append(f"call {self.caller.number}: {problem}")

    def take(self, entry_id: bytes, fields: Fields, *, is_last: bool) -> None:
        """Take the next entry."""
        ms, _, n = entry_id.partition(b"-")
        if (int(ms), int(n)) <= self._last_id:
            self.note(f"id {entry_id!r} does not rise")
        self._last_id = int(ms), int(n)
        event = fields.get(b"event")
        if event == b"end":
            self.ends.append(fields[b"reason"].decode())
            if not is_last:
                self.note("entries after the end")
        elif event == b"gap":
            self._take_gap(fields)
        else:
            self._take_audio(fields)

    def _take_audio(self, fields: Fields) -> None:
        tally, caller = self.tally, self.caller
        frame = int(fields[b"seq"]) - FIRST_SEQ
        if not 0 <= frame < caller.sent:
            self.note(f"a frame {frame} that was never sent")
            return
        if frame in self.seen:
            tally.duplicated += 1
            return
        self.seen.add(frame)
        tally.lost -= 1
        tally.unaccounted -= 1
        tally.reordered += frame < self._newest
        self._newest = max(self._newest, frame)
        expected = {
            b"seq": b"%d" % (frame + FIRST_SEQ),
            b"ts": b"%d" % caller.ts_of(frame),
            b"track": caller.track_of(frame).encode(),
            b"audio": decoded(caller.payload(frame)),
        }
        tally.corrupted += fields != expected

    def _take_gap(self, fields: Fields) -> None:
        first, last = (int(fields[name]) - FIRST_SEQ for name in (b"first_seq", b"last_seq"))
        track = fields[b"track"].decode()
        covered = {
            frame
            for frame in range(max(0, first), min(last, self.caller.sent - 1) + 1)
            if not track or self.caller.track_of(frame) is Track(track)
        }
        if len(covered) != int(fields[b"frames"]):
            self.note(f"a gap of {int(fields[b'frames'])} frames that spans {len(covered)}")
        if covered & (self._missing | self.seen):
            self.note(f"a gap over frames {first} to {last} that are elsewhere too")
        self.tally.unaccounted -= len(covered - self._missing - self.seen)
        self._missing |= covered
        self.gaps[fields[b"reason"].decode()] += int(fields[b"frames"])


async def judge_all(
    connect: Connect,
    callers: Sequence[Caller],
    *,
    end_reason: str = "stop",
    follower: Follower | None = None,
) -> Tally:
    """Wait for every receipt, then judge every call; also what a follower has read."""
    total = Tally()
    client = connect()
    try:
        await _wait_for_receipts(client, callers)
        stopped = await _stopped(client, callers)
        for caller in callers:
            entries: Any = await client.xrange(audio_key(caller.stream))
            record: Any = await client.hgetall(record_key(caller.stream))
            receipts = stopped.get(caller.stream, {})
            total.add(judge(caller, entries, record, receipts, end_reason=end_reason))
            if follower is not None:
                total.problems += _compared(caller, entries, follower)
    finally:
        await client.aclose()
    total.problems += [
        f"call {caller.number}: closed early with {caller.closed_early}"
        for caller in callers
        if caller.closed_early is not None and end_reason == "stop"
    ]
    return total


async def _wait_for_receipts(client: Redis, callers: Sequence[Caller]) -> None:
    waiting = {caller.stream for caller in callers}
    deadline = time.monotonic() + RECEIPT_SECONDS
    while waiting and time.monotonic() < deadline:
        for stream in sorted(waiting):
            try:
                if await client.hexists(record_key(stream), "receipt"):
                    waiting.discard(stream)
            except (RedisError, OSError):
                break
        await asyncio.sleep(0.05)


async def _stopped(
    client: Redis, callers: Sequence[Caller]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Read the receipts of `stream.stopped`: by stream, then by event id."""
    deadline = time.monotonic() + EVENT_SECONDS
    while True:
        found: dict[str, dict[str, dict[str, Any]]] = {}
        answer: Any = await client.xrange(CALLS_KEY)
        for _, fields in answer:
            if fields[b"event"] == b"stream.stopped":
                receipts = found.setdefault(fields[b"streamSid"].decode(), {})
                receipts[fields[b"eventId"].decode()] = json.loads(fields[b"data"])["receipt"]
        if time.monotonic() > deadline or all(caller.stream in found for caller in callers):
            return found
        await asyncio.sleep(0.05)


def _compared(caller: Caller, entries: Entries, follower: Follower) -> list[str]:
    heard = follower.heard[caller.stream]
    stands = [(entry_id, checksum(fields)) for entry_id, fields in entries]
    if heard == stands:
        return []
    return [f"call {caller.number}: a live reader read {len(heard)} entries, {len(stands)} stand"]
