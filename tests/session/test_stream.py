"""A stream's events, in and out: what is published, what is counted, what is said."""

import itertools
from collections.abc import Callable, Sequence

import msgspec
import pytest

from app.events import (
    AudioEntry,
    AudioReceipt,
    DtmfReceived,
    EndEntry,
    EndReason,
    Entry,
    GapEntry,
    Ignored,
    LifecycleEvent,
    MarkReceived,
    MediaReceived,
    MediaRejected,
    StreamStopped,
    Unreadable,
    WireEvent,
)
from app.media import Encoding, MediaFormat, Track
from app.metrics import Metrics
from app.plans import Plan, TrackPlan
from app.pubsub.queue import ByteBudget, StreamQueue
from app.session.herald import Herald
from app.session.ledger import Ledger
from app.session.reception import Admitted
from app.session.stream import MediaStream
from tests.samples import CALL, OPENED

FRAME = b"\xff" * 160
PLAIN = Plan("plain")
BOTH = Plan("both", tracks=TrackPlan.BOTH)


class Bench:
    """A stream with a clock that stands still unless it is moved."""

    def __init__(self, plan: Plan = PLAIN) -> None:
        self.now = 100.0
        self.told: list[LifecycleEvent] = []
        self.queue = StreamQueue(
            "MZ1",
            1000,
            max_bytes=320 * 1500,
            max_waiting=3000,
            retained_entries=1000,
            budget=ByteBudget(10**9),
            on_dirty=lambda queue: None,
        )
        ids = itertools.count()
        herald = Herald(self.told.append, lambda: 5.0, lambda: f"e{next(ids)}")
        self.stream = MediaStream(
            Admitted(CALL, plan, "", "", OPENED),
            MediaFormat(Encoding.MULAW, 8000),
            self.queue,
            Ledger(Metrics()),
            herald,
            lambda: self.now,
            self.now,
        )
        self.stream.begin(1)

    def take(self, *events: WireEvent) -> "Bench":
        for event in events:
            self.stream.take(event, self.now)
        return self

    def finish(self) -> tuple[list[Entry], AudioReceipt]:
        self.stream.end(EndReason.STOP)
        appends = self.queue.take(10_000)
        for append in appends:
            self.queue.settle(append, self.now)
        receipt = self.stream.receipt(EndReason.STOP)
        assert receipt.adds_up
        return [append.entry for append in appends], receipt


def media(seq: int | None, track: Track = Track.INBOUND, payload: bytes = FRAME) -> MediaReceived:
    return MediaReceived(payload, track, seq, None if seq is None else seq * 20)


def gaps(entries: Sequence[Entry]) -> list[tuple[str, int, int, int]]:
    return [
        (entry.reason, entry.frames, entry.first_seq, entry.last_seq)
        for entry in entries
        if isinstance(entry, GapEntry)
    ]


def test_frames_become_entries_and_the_end_is_the_last() -> None:
    entries, receipt = Bench().take(media(2), media(3), StreamStopped(4)).finish()
    assert [type(entry) for entry in entries] == [AudioEntry, AudioEntry, EndEntry]
    assert (receipt.received, receipt.published, receipt.carrier_gaps) == (2, 2, 0)
    assert (receipt.first_seq, receipt.last_seq) == (2, 3)
    assert (receipt.bytes, receipt.audio_ms) == (320, 40)


@pytest.mark.parametrize(
    ("events", "rejected", "missing", "expected_gaps"),
    [
        pytest.param([media(2), media(5)], {}, 2, [("carrier", 2, 3, 4)], id="carrier loss"),
        pytest.param(
            [media(2), StreamStopped(5)], {}, 2, [("carrier", 2, 3, 4)], id="loss before stop"
        ),
        pytest.param([media(4)], {}, 2, [("carrier", 2, 2, 3)], id="loss before the first frame"),
        pytest.param(
            [media(2), MediaRejected("bad_base64", Track.INBOUND, 3), media(4)],
            {"bad_base64": 1},
            0,
            [("bad_base64", 1, 3, 3)],
            id="a damaged frame",
        ),
        pytest.param(
            [media(2), Unreadable("broken_json"), media(4)],
            {"broken_json": 1},
            0,
            [("unreadable", 1, 3, 3)],
            id="a message that cannot be read",
        ),
        pytest.param(
            [media(2), Unreadable("broken_json"), media(3)],
            {"broken_json": 1},
            0,
            [],
            id="rubbish between frames",
        ),
        pytest.param(
            [media(2), MediaRejected("empty_payload", Track.INBOUND, 3), media(4)],
            {"empty_payload": 1},
            0,
            [],
            id="a frame of nothing loses nothing",
        ),
        pytest.param(
            [MediaRejected("before_start", Track.INBOUND, 1), media(2)],
            {"before_start": 1},
            0,
            [],
            id="media before start",
        ),
        pytest.param(
            [media(2), media(3, Track.OUTBOUND), media(4)],
            {"track_not_in_plan": 1},
            0,
            [],
            id="a track the plan does not take",
        ),
    ],
)
def test_every_message_is_published_or_accounted_for(
    events: list[WireEvent],
    rejected: dict[str, int],
    missing: int,
    expected_gaps: list[tuple[str, int, int, int]],
) -> None:
    entries, receipt = Bench().take(*events).finish()
    assert receipt.rejected == rejected
    assert receipt.carrier_gaps == missing
    assert gaps(entries) == expected_gaps


def test_a_frame_sent_twice_is_published_once() -> None:
    entries, receipt = Bench().take(media(2), media(2), media(3)).finish()
    assert sum(isinstance(entry, AudioEntry) for entry in entries) == 2
    assert (receipt.received, receipt.duplicates, receipt.published) == (3, 1, 2)


def test_both_tracks_are_published_and_a_gap_between_them_names_none() -> None:
    bench = Bench(BOTH).take(media(2), media(3, Track.OUTBOUND), media(6))
    entries, receipt = bench.finish()
    assert [getattr(entry, "track", "") for entry in entries] == [
        Track.INBOUND,
        Track.OUTBOUND,
        None,
        Track.INBOUND,
        "",
    ]
    assert (receipt.published, receipt.audio_ms) == (3, 60)


def test_what_is_joined_goes_out_before_a_gap() -> None:
    bench = Bench(Plan("joined", frame_ms=100)).take(media(2), media(3), media(6))
    entries, receipt = bench.finish()
    assert [type(entry) for entry in entries] == [AudioEntry, GapEntry, AudioEntry, EndEntry]
    assert receipt.published == 3


def test_keys_and_marks_are_told_with_their_place() -> None:
    bench = Bench().take(media(2), DtmfReceived("5", 3), MarkReceived("hello", 4), media(5))
    _, receipt = bench.finish()
    assert [(event.name, dict(event.data)) for event in bench.told] == [
        ("stream.dtmf", {"digit": "5", "seq": 3}),
        ("stream.mark", {"name": "hello", "seq": 4}),
    ]
    assert receipt.carrier_gaps == 0


@pytest.mark.parametrize("beside", [(), (media(0),)], ids=["alone", "beside audio"])
@pytest.mark.parametrize("kind", [DtmfReceived, MarkReceived])
def test_keys_and_marks_are_announced_at_a_bounded_rate(
    kind: Callable[[str], WireEvent], beside: tuple[MediaReceived, ...]
) -> None:
    bench = Bench()
    seq = 0

    def send(count: int) -> int:
        nonlocal seq
        before = len(bench.told)
        for _ in range(count):
            bench.take(kind("1"))
            for frame in beside:
                seq += 1
                bench.take(msgspec.structs.replace(frame, seq=None))
        return len(bench.told) - before

    assert send(1000) == 100
    bench.now += 2
    assert send(1000) == 20
    for _ in range(300):  # a person who plays with the keys, for a minute and more
        bench.now += 0.25
        assert send(1) == 1
    _, receipt = bench.finish()
    assert (receipt.unannounced, receipt.rejected) == (1880, {})
    assert receipt.as_data()["unannounced"] == 1880
    assert receipt.received == 2300 * len(beside)


@pytest.mark.parametrize("reason", ["unknown_event", "bad_dtmf", "bad_mark", "clear", "silence"])
def test_a_message_without_effect_takes_its_number(reason: str) -> None:
    _, receipt = Bench().take(media(2), Ignored(reason, 3), media(4)).finish()
    assert (receipt.carrier_gaps, receipt.seq_resets, receipt.received) == (0, 0, 2)


def test_a_second_start_does_not_disturb_the_numbering() -> None:
    _, receipt = Bench().take(media(2), Ignored("second_start", 1), media(3)).finish()
    assert (receipt.carrier_gaps, receipt.seq_resets) == (0, 0)


def test_a_carrier_is_never_asked_to_wait_and_a_replay_is() -> None:
    bench = Bench()
    for seq in range(2, 1502):
        bench.take(media(seq))
    assert bench.stream.must_wait
    bench.now += 30
    assert not bench.stream.must_wait


def test_a_receipt_tells_how_long_the_stream_lasted() -> None:
    bench = Bench()
    bench.now += 1.5
    _, receipt = bench.finish()
    assert receipt.wall_ms == 1500
