"""A track's frames: converted, joined up to the plan's length, counted once."""

import math
import struct
from typing import NamedTuple

import pytest

from app.media import Encoding, MediaFormat, Track
from app.session.track import TrackAudio

MULAW_8K = MediaFormat(Encoding.MULAW, 8000)
PCM16_8K = MediaFormat(Encoding.PCM16, 8000)
FRAME = b"\xff" * 160


class Put(NamedTuple):
    seq: int
    ts: int
    track: Track
    audio: bytes
    frames: int
    received_at: float


class Collected(list[Put]):
    def put(
        self, seq: int, ts: int, track: Track, audio: bytes, frames: int, received_at: float
    ) -> None:
        self.append(Put(seq, ts, track, audio, frames, received_at))


def a_track(
    target: MediaFormat = PCM16_8K, frame_ms: int = 20, source: MediaFormat = MULAW_8K
) -> tuple[TrackAudio, Collected]:
    collected = Collected()
    return TrackAudio(Track.INBOUND, source, target, frame_ms, collected.put), collected


def test_a_frame_goes_out_at_once_with_its_own_time_and_number() -> None:
    track, put = a_track()
    track.push(FRAME, 2, 171, 1.5)
    assert put == [Put(2, 171, Track.INBOUND, b"\x00" * 320, 1, 1.5)]


def test_frames_are_joined_up_to_the_plans_length() -> None:
    track, put = a_track(frame_ms=60)
    for number in range(7):
        track.push(FRAME, number + 2, number * 20, float(number))
    assert [(entry.seq, entry.ts, entry.frames, len(entry.audio)) for entry in put] == [
        (4, 0, 3, 960),
        (7, 60, 3, 960),
    ]
    assert put[1].received_at == 3.0
    track.flush()
    assert (put[-1].seq, put[-1].ts, put[-1].frames) == (8, 120, 1)


def test_joining_never_splits_a_carrier_frame() -> None:
    track, put = a_track(frame_ms=50)
    for number in range(4):
        track.push(FRAME, number, number * 20, 0.0)
    track.flush()
    assert [entry.frames for entry in put] == [2, 2]


def test_a_frame_longer_than_the_plans_length_stays_whole() -> None:
    track, put = a_track(frame_ms=20)
    track.push(FRAME * 5, 1, 0, 0.0)
    assert [(entry.frames, len(entry.audio)) for entry in put] == [(1, 1600)]


def test_a_missing_time_is_counted_from_the_audio() -> None:
    track, put = a_track()
    track.push(FRAME, 1, 100, 0.0)
    track.push(FRAME, 2, None, 0.0)
    track.push(FRAME * 2, 3, None, 0.0)
    track.push(FRAME, 4, None, 0.0)
    assert [entry.ts for entry in put] == [100, 120, 140, 180]


def test_mulaw_published_as_mulaw_is_not_touched() -> None:
    track, put = a_track(target=MULAW_8K)
    payload = bytes(range(160))
    track.push(payload, 1, 0, 0.0)
    assert put[0].audio == payload


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("frame_ms", [20, 100])
def test_resampled_audio_keeps_its_length_and_every_frame_is_counted_once(
    rate: int, frame_ms: int
) -> None:
    track, put = a_track(MediaFormat(Encoding.PCM16, rate), frame_ms)
    frames = 250
    for number in range(frames):
        track.push(FRAME, number + 1, number * 20, float(number))
    track.flush()
    samples = sum(len(entry.audio) for entry in put) // 2
    assert abs(samples - frames * 160 * rate // 8000) <= 1
    assert sum(entry.frames for entry in put) == frames
    assert all(entry.frames >= 1 and entry.audio for entry in put)
    assert put[-1].seq == frames


@pytest.mark.parametrize("rate", [16000, 24000])
def test_an_entrys_time_is_that_of_its_first_sample(rate: int) -> None:
    track, put = a_track(MediaFormat(Encoding.PCM16, rate))
    for number in range(100):
        track.push(FRAME, number + 1, 5000 + number * 20, 0.0)
    track.flush()
    position = 0
    for entry in put:
        assert entry.ts == pytest.approx(5000 + position * 1000 / rate, abs=1)
        position += len(entry.audio) // 2


def test_after_a_flush_time_starts_again_with_the_next_frame() -> None:
    track, put = a_track(MediaFormat(Encoding.PCM16, 16000))
    track.push(FRAME, 1, 0, 0.0)
    track.flush()
    track.push(FRAME, 9, 160, 0.0)
    track.flush()
    assert [(entry.seq, entry.ts, len(entry.audio)) for entry in put] == [
        (1, 0, 640),
        (9, 160, 640),
    ]


def test_a_tone_keeps_its_level_through_resampling() -> None:
    track, put = a_track(MediaFormat(Encoding.PCM16, 16000), source=PCM16_8K)
    tone = [round(8000 * math.sin(2 * math.pi * 1000 * at / 8000)) for at in range(8000)]
    for number in range(50):
        track.push(
            struct.pack("<160h", *tone[number * 160 : number * 160 + 160]), number, None, 0.0
        )
    track.flush()
    audio = b"".join(entry.audio for entry in put)
    middle = struct.unpack(f"<{len(audio) // 2}h", audio)[4000:12000]
    assert max(middle) == pytest.approx(8000, rel=0.02)
