"""Whatever peers send, a session ends once, and its books account for every message."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.audio import mulaw_to_pcm16
from app.events import (
    AudioEntry,
    DtmfReceived,
    EndEntry,
    Entry,
    GapEntry,
    Ignored,
    MarkReceived,
    MediaReceived,
    MediaRejected,
    StreamStopped,
    Unreadable,
    WireEvent,
)
from app.media import Encoding, Track
from app.plans import Business, Directory, Plan, TrackPlan
from app.pubsub.limits import OutboxLimits
from app.session.socket import Closed
from app.wire.base import Wire
from app.wire.exotel import ExotelWire
from app.wire.exotel import start_message as exotel_start
from app.wire.pcm import PcmWire
from app.wire.twilio import TwilioWire, connected_message
from app.wire.twilio import start_message as twilio_start
from tests.examples import examples
from tests.messages import (
    CALL,
    STREAM,
    Message,
    client_messages,
    conversations,
    exotel_messages,
    twilio_messages,
)
from tests.session.test_call import FakeSocket, Parts
from tests.session.test_stream import BOTH, FRAME, PLAIN, Bench

PLANS = (
    Plan("inbound"),
    Plan("joined", frame_ms=100),
    Plan("both", tracks=TrackPlan.BOTH),
    Plan("wide", sample_rate=16000, tracks=TrackPlan.BOTH),
    Plan("raw", encoding=Encoding.MULAW),
)
DIRECTORIES = [Directory((plan,), (Business("b", "B", plan.name),)) for plan in PLANS]
CONVERSATIONS: dict[str, tuple[Callable[[], Wire], list[Message], Any]] = {
    "twilio": (
        TwilioWire,
        [connected_message(), twilio_start(STREAM, CALL, tracks=tuple(Track))],
        twilio_messages(),
    ),
    "exotel": (
        lambda: ExotelWire(new_id=lambda: "made-up", query={"sample-rate": "8000"}),
        [exotel_start(STREAM, CALL)],
        exotel_messages(),
    ),
    "client": (
        lambda: PcmWire("b", "int-1", ack_interval=3),
        ['{"event":"start","sample_rate":8000}'],
        client_messages(),
    ),
}


class Listener(FakeSocket):
    """A socket whose peer reads what it is answered."""

    async def send(self, text: str) -> None:
        assert text.startswith("{")


class Errors(logging.Handler):
    """What this program logs as an error, while the block runs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))

    def __enter__(self) -> "Errors":
        logging.getLogger("app").addHandler(self)
        return self

    def __exit__(self, *exception: object) -> None:
        logging.getLogger("app").removeHandler(self)


async def play(wire: Wire, directory: Directory, messages: list[Message]) -> Parts:
    parts = Parts(limits=OutboxLimits())
    socket = Listener(*messages, Closed(1006))
    await parts.run(socket, wire=wire, directory=directory)
    assert socket.closed is not None
    assert 1000 <= socket.closed[0] <= 1013
    return parts


async def published(parts: Parts, stream: str) -> list[tuple[int, Entry]]:
    return [
        (int(entry_id.partition("-")[2]), entry)
        async for entry_id, entry in parts.pubsub.entries(stream)
    ]


async def check(wire: Wire, directory: Directory, messages: list[Message]) -> None:
    parts = await play(wire, directory, messages)
    assert parts.registry.live_count == 0
    names = [name for name in parts.names if name in ("stream.started", "stream.stopped")]
    # Nothing, or one whole life.
    assert names in ([], ["stream.started", "stream.stopped"])
    if not names:
        return
    last = parts.told[-1]
    receipt = last.data["receipt"]
    accounted = sum(receipt["dropped"].values()) + sum(receipt["rejected"].values())
    assert receipt["received"] == receipt["published"] + accounted + receipt["duplicates"]
    assert min(receipt[name] for name in ("received", "carrier_gaps", "seq_resets")) >= 0
    numbered = await published(parts, last.call.stream_sid)
    entries = [entry for _, entry in numbered]
    assert [number for number, _ in numbered] == list(range(1, len(entries) + 1))
    assert [isinstance(entry, EndEntry) for entry in entries] == [False] * (len(entries) - 1) + [
        True
    ]
    audio = [entry for entry in entries if isinstance(entry, AudioEntry)]
    assert sum(entry.frames for entry in audio) == receipt["published"]
    for track in Track:
        seqs = [entry.seq for entry in audio if entry.track == track]
        assert seqs == sorted(set(seqs))
    carried = [e for e in entries if isinstance(e, GapEntry) and e.reason == "carrier"]
    # Those before `stop` stand in the receipt and, without audio after them, here too.
    assert sum(gap.frames for gap in carried) == receipt["carrier_gaps"]
    for gap in (entry for entry in entries if isinstance(entry, GapEntry)):
        assert gap.frames == gap.last_seq - gap.first_seq + 1 > 0


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_whatever_a_peer_sends_its_session_ends_once_and_adds_up(name: str) -> None:
    new_wire, begins, messages = CONVERSATIONS[name]

    @given(conversations(begins, messages), st.sampled_from(DIRECTORIES))
    @settings(
        max_examples=examples(200),
        suppress_health_check=list(HealthCheck),
    )
    def tried(sent: list[Message], directory: Directory) -> None:
        with Errors() as errors:
            asyncio.run(check(new_wire(), directory, sent))
        assert errors.told == []

    tried()


# ------------------------------------------------- a carrier whose truth is known

KINDS = ["media", "media", "media", "twice", "lost", "damaged", "broken", "empty", "key", "mark"]


def carried(kind: str, seq: int, track: Track) -> list[WireEvent]:
    """Give what arrives of message number `seq`."""
    media = MediaReceived(FRAME[:-1] + bytes([seq % 256]), track, seq, None)
    arrives: dict[str, list[WireEvent]] = {
        "media": [media],
        "twice": [media, media],
        "lost": [],
        "damaged": [MediaRejected("bad_base64", track, seq)],
        "broken": [Unreadable("broken_json")],
        "empty": [MediaRejected("empty_payload", track, seq)],
        "key": [DtmfReceived("5", seq)],
        "mark": [MarkReceived("m", seq)],
        "unknown": [Ignored("unknown_event", seq)],
    }
    return arrives[kind]


@given(
    kinds=st.lists(st.sampled_from([*KINDS, "unknown"]), max_size=40),
    tracks=st.lists(st.sampled_from(Track), min_size=40, max_size=40),
    plan=st.sampled_from([PLAIN, BOTH]),
)
@settings(max_examples=examples(500))
def test_audio_and_gaps_cover_exactly_the_numbers_that_were_audio(
    kinds: list[str], tracks: list[Track], plan: Plan
) -> None:
    if plan is PLAIN:
        tracks = [Track.INBOUND] * len(tracks)
    bench = Bench(plan)
    numbered = list(enumerate(kinds, start=2))  # `start` was number 1
    for (seq, kind), track in zip(numbered, tracks, strict=False):
        bench.take(*carried(kind, seq, track))
    entries, receipt = bench.take(StreamStopped(len(kinds) + 2)).finish()

    by_kind = {kind: {seq for seq, one in numbered if one == kind} for kind in [*KINDS, "unknown"]}
    heard = by_kind["media"] | by_kind["twice"]
    assert [e.seq for e in entries if isinstance(e, AudioEntry)] == sorted(heard)
    covered = [
        (seq, entry.reason)
        for entry in entries
        if isinstance(entry, GapEntry)
        for seq in range(entry.first_seq, entry.last_seq + 1)
    ]
    gone = by_kind["lost"] | by_kind["broken"]
    assert [seq for seq, _ in covered] == sorted(gone | by_kind["damaged"])
    assert {seq for seq, reason in covered if reason == "bad_base64"} == by_kind["damaged"]
    assert sum(reason == "carrier" for _, reason in covered) == len(by_kind["lost"])
    assert receipt.carrier_gaps == len(by_kind["lost"])
    assert receipt.duplicates == len(by_kind["twice"])
    assert receipt.published == len(heard)
    assert receipt.seq_resets == 0


@given(
    numbers=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 40)),
    plan=st.sampled_from([PLAIN, BOTH, Plan("joined", frame_ms=100), Plan("w", sample_rate=16000)]),
    payload=st.binary(min_size=1, max_size=400),
)
@settings(max_examples=examples(300))
def test_whatever_the_numbers_every_frame_is_published_once_in_order(
    numbers: list[int | None], plan: Plan, payload: bytes
) -> None:
    bench = Bench(plan)
    payloads = [payload + bytes([place % 256]) for place in range(len(numbers))]
    for seq, body in zip(numbers, payloads, strict=True):
        bench.take(MediaReceived(body, Track.INBOUND, seq, seq))
    entries, receipt = bench.finish()
    audio = [entry for entry in entries if isinstance(entry, AudioEntry)]
    assert sum(entry.frames for entry in audio) == receipt.published == len(numbers)
    assert [e.seq for e in audio] == sorted({e.seq for e in audio})
    assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
    if plan is PLAIN:
        whole = b"".join(mulaw_to_pcm16(body) for body in payloads)
        assert b"".join(entry.audio for entry in audio) == whole
