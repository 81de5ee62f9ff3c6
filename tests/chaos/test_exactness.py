"""The judge of the fault suite sees what it is there to see."""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
from websockets.asyncio.client import ClientConnection

from app.media import Track
from app.tools.caller import new_call
from tests.chaos.exactness import Tally, decoded, judge
from tests.chaos.load import FIRST_SEQ, Caller, payload_of

SENT = 10
Entry = tuple[bytes, dict[bytes, bytes]]


def a_caller(tracks: tuple[Track, ...] = (Track.INBOUND,)) -> Caller:
    # Nothing is sent: the socket is not used.
    return Caller(7, 0, new_call("+15005550006"), tracks, cast(ClientConnection, None), sent=SENT)


def published(caller: Caller) -> list[Entry]:
    """Give the entries of a call of which nothing was lost."""
    entries: list[Entry] = []
    for frame in range(SENT):
        fields = {
            b"seq": b"%d" % (FIRST_SEQ + frame),
            b"ts": b"%d" % caller.ts_of(frame),
            b"track": caller.track_of(frame).encode(),
            b"audio": decoded(caller.payload(frame)),
        }
        entries.append((b"1-%d" % (frame + 1), fields))
    entries.append((b"1-%d" % (SENT + 1), {b"event": b"end", b"reason": b"stop"}))
    return entries


def gap(first: int, last: int, frames: int, track: bytes = b"inbound") -> dict[bytes, bytes]:
    return {
        b"event": b"gap",
        b"track": track,
        b"frames": b"%d" % frames,
        b"first_seq": b"%d" % (first + FIRST_SEQ),
        b"last_seq": b"%d" % (last + FIRST_SEQ),
        b"reason": b"overflow",
    }


def a_receipt(**changed: Any) -> dict[str, Any]:
    receipt = {
        "received": SENT,
        "published": SENT,
        "dropped": {},
        "rejected": {},
        "duplicates": 0,
        "end_reason": "stop",
    }
    return {**receipt, **changed}


def judged(caller: Caller, entries: list[Entry], receipt: Mapping[str, Any]) -> Tally:
    record = {b"receipt": json.dumps(receipt).encode()}
    return judge(caller, entries, record, {"event": receipt})


def without(entries: list[Entry], *places: int) -> list[Entry]:
    return [entry for place, entry in enumerate(entries) if place not in places]


@pytest.mark.parametrize("tracks", [(Track.INBOUND,), (Track.INBOUND, Track.OUTBOUND)])
def test_a_whole_call_is_exact(tracks: tuple[Track, ...]) -> None:
    caller = a_caller(tracks)
    tally = judged(caller, published(caller), a_receipt())
    assert (tally.is_exact, tally.problems) == (True, [])


def test_a_frame_that_is_missing_is_lost() -> None:
    caller = a_caller()
    tally = judged(caller, without(published(caller), 4), a_receipt(published=SENT - 1))
    assert (tally.lost, tally.unaccounted, tally.adds_up) == (1, 1, False)


def test_lost_frames_with_a_gap_and_a_receipt_are_accounted_for() -> None:
    caller = a_caller()
    entries = without(published(caller), 3)
    entries[2] = (b"1-3", gap(2, 3, 2))
    receipt = a_receipt(published=SENT - 2, dropped={"overflow": 2})
    tally = judged(caller, entries, receipt)
    assert (tally.lost, tally.unaccounted, tally.adds_up, tally.is_exact) == (2, 0, True, False)


def test_a_gap_of_one_track_spans_the_other() -> None:
    caller = a_caller((Track.INBOUND, Track.OUTBOUND))
    entries = without(published(caller), 4)
    entries[2] = (b"1-3", gap(2, 4, 2))
    receipt = a_receipt(published=SENT - 2, dropped={"overflow": 2})
    tally = judged(caller, entries, receipt)
    assert (tally.unaccounted, tally.adds_up) == (0, True)


def _doubled(entries: list[Entry]) -> None:
    entries.insert(5, (b"1-5", entries[4][1]))
    entries[:] = [(b"1-%d" % place, fields) for place, (_, fields) in enumerate(entries, 1)]


def _swapped(entries: list[Entry]) -> None:
    entries[3], entries[4] = (entries[3][0], entries[4][1]), (entries[4][0], entries[3][1])


def _altered(entries: list[Entry]) -> None:
    entries[3][1][b"audio"] = decoded(payload_of(7, 0, 4))


@pytest.mark.parametrize(
    ("harm", "count"),
    [(_doubled, "duplicated"), (_swapped, "reordered"), (_altered, "corrupted")],
)
def test_what_was_done_to_a_frame_is_counted(
    harm: Callable[[list[Entry]], None], count: str
) -> None:
    caller = a_caller()
    entries = published(caller)
    harm(entries)
    tally = judged(caller, entries, a_receipt())
    assert (getattr(tally, count), tally.adds_up) == (1, False)


@pytest.mark.parametrize(
    ("receipt", "said"),
    [
        (a_receipt(received=SENT + 1), "does not add up"),
        (a_receipt(published=SENT - 1, dropped={"overflow": 1}), "published"),
        (a_receipt(received=SENT + 1, rejected={"bad_base64": 1}), "rejected"),
        (a_receipt(end_reason="disconnected"), "ends by disconnected"),
    ],
)
def test_a_receipt_that_does_not_agree_is_a_problem(receipt: Mapping[str, Any], said: str) -> None:
    caller = a_caller()
    tally = judged(caller, published(caller), receipt)
    assert any(said in problem for problem in tally.problems)
    assert not tally.adds_up


def test_a_call_has_one_end_and_one_receipt() -> None:
    caller = a_caller()
    entries = published(caller)
    record = {b"receipt": json.dumps(a_receipt()).encode()}
    for events in ({}, {"a": a_receipt(), "b": a_receipt()}, {"a": a_receipt(received=3)}):
        assert not judge(caller, entries, record, events).adds_up
    assert not judge(caller, entries, {}, {"a": a_receipt()}).adds_up
    assert not judged(caller, entries[:-1], a_receipt()).adds_up
    assert not judged(caller, [*entries, (b"1-99", entries[-1][1])], a_receipt()).adds_up


def test_frames_that_were_sent_and_not_received_are_told() -> None:
    caller = a_caller()
    receipt = a_receipt(received=SENT - 1, published=SENT - 1)
    tally = judged(caller, without(published(caller), SENT - 1), receipt)
    assert (tally.not_received, tally.lost, tally.adds_up) == (1, 1, False)
