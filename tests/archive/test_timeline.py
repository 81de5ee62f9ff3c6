"""Where entries belong in time: aligned by media time, and never cut nor stretched."""

import numpy as np
import pytest

from app.archive.timeline import SKEW_SECONDS, Mixer, Peaks, Timeline, resampled

RATE = 8000
FRAME = 160  # 20 ms


@pytest.mark.parametrize(
    ("times", "starts"),
    [
        pytest.param([0, 20, 40], [0, 160, 320], id="one after the other"),
        pytest.param([0, 20, 60], [0, 160, 480], id="one frame is missing"),
        pytest.param([0, 21, 39, 60], [0, 160, 320, 480], id="an unsteady clock leaves no seam"),
        pytest.param([0, 25, 45], [0, 160, 320], id="as much as a clock may be wrong"),
        pytest.param([0, 26, 46], [0, 208, 368], id="more than that is missing audio"),
        pytest.param([0, 20, 20, 40], [0, 160, 320, 480], id="two of one time"),
        pytest.param([0, 20, 40, 60, 20, 40], [0, 160, 320, 480, 640, 800], id="an overlap"),
        pytest.param(
            [5000, 5020, 0, 20, 60], [40000, 40160, 40320, 40480, 40800], id="the clock begins anew"
        ),
        pytest.param(
            [0, 20, 1_700_000_000_000, 1_700_000_000_020],
            [0, 160, 320, 480],
            id="the clock jumps by years",
        ),
        pytest.param([0, 3_600_000], [0, 28_800_000], id="an hour without audio"),
        pytest.param([-20, 0], [0, 160], id="before the beginning"),
    ],
)
def test_an_entry_is_placed_by_its_media_time(times: list[int], starts: list[int]) -> None:
    timeline = Timeline(RATE, 1, 0)
    assert [timeline.place(0, ts, FRAME) for ts in times] == starts


def test_resampled_audio_has_no_seams_though_its_times_are_whole_ms() -> None:
    timeline = Timeline(44_100, 1, 0)
    sizes = [2624, 2646, 2669, 2601] * 500
    at = 0
    for size in sizes:
        assert timeline.place(0, round(at * 1000 / 44_100), size) == at
        at += size


@pytest.mark.parametrize("first", [0, 1])
def test_two_tracks_stay_side_by_side_when_the_clock_begins_anew(first: int) -> None:
    timeline = Timeline(RATE, 2, 0)
    for ts in (2000, 2020):
        assert timeline.place(0, ts, FRAME) == ts * 8
        assert timeline.place(1, ts, FRAME) == ts * 8
    timeline.place(0, 2040, FRAME)  # one track is a frame ahead
    for ts in (0, 20, 60):  # one frame of the new time is missing
        assert timeline.place(first, ts, FRAME) == (2060 + ts) * 8
        assert timeline.place(1 - first, ts, FRAME) == (2060 + ts) * 8


def test_a_track_that_begins_late_begins_at_its_time() -> None:
    timeline = Timeline(RATE, 2, 0)
    for ts in range(0, 10_000, 20):
        timeline.place(0, ts, FRAME)
    assert timeline.place(1, 9_980, FRAME) == 9_980 * 8


def test_nothing_is_placed_before_what_is_ready() -> None:
    timeline = Timeline(RATE, 2, 0)
    for ts in range(0, 20_000, 20):
        timeline.place(0, ts, FRAME)
    ready = timeline.ready
    assert ready == timeline.frontier - SKEW_SECONDS * RATE
    assert timeline.place(1, 0, FRAME) >= ready
    assert timeline.place(1, 20, FRAME) >= ready


@pytest.mark.parametrize("cut", range(0, 12))
def test_a_timeline_goes_on_from_a_mark(cut: int) -> None:
    times = [0, 20, 60, 5000, 5020, 0, 20, 3, 1_000_000_000_000, 5, 400, 7]
    whole = Timeline(RATE, 1, 0)
    expected = [whole.place(0, ts, FRAME) for ts in times]
    first = Timeline(RATE, 1, 0)
    for ts in times[:cut]:
        first.place(0, ts, FRAME)
    mark = first.mark("1-1")
    rest = Timeline(RATE, 1, 0, mark=mark)
    assert [rest.place(0, ts, FRAME) for ts in times[cut:]] == expected[cut:]
    assert max(mark.ends) <= min(expected[cut:], default=max(mark.ends))


def pcm(*samples: int) -> bytes:
    return np.array(samples, "<i2").tobytes()


def test_tracks_are_interleaved_with_silence_where_there_is_none() -> None:
    mixer = Mixer(2)
    mixer.add(0, 0, pcm(1, 2, 3))
    mixer.add(0, 4, pcm(5, 6))
    mixer.add(1, 1, pcm(-2, -3, -4))
    mixed = b"".join([*mixer.blocks(3), *mixer.blocks(3), *mixer.blocks(7)])
    assert mixed == pcm(1, 0, 2, -2, 3, -3, 0, -4, 5, 0, 6, 0, 0, 0)


def test_a_mixer_can_begin_in_the_middle_of_an_entry() -> None:
    mixer = Mixer(1, 5)
    mixer.add(0, 0, pcm(0, 1, 2))
    mixer.add(0, 3, pcm(3, 4, 5, 6))
    assert b"".join(mixer.blocks(8)) == pcm(5, 6, 0)


def test_a_long_silence_is_given_in_pieces() -> None:
    blocks = Mixer(2).blocks(100_000)
    assert max(len(block) for block in blocks) <= 8192 * 4


@pytest.mark.parametrize("length", [1, 7, 160, 40_000, 300_000])
def test_peaks_are_the_loudest_of_each_share(length: int) -> None:
    samples = np.random.default_rng(length).integers(-32768, 32767, length, dtype=np.int16)
    peaks = Peaks()
    for first in range(0, length, 1111):
        peaks.add(first, samples[first : first + 1111].astype("<i2").tobytes())
    found = peaks.of(length)
    width = peaks._width
    loud = np.minimum(np.abs(samples.astype(int)), 32767)
    shares = range(0, length, width)
    assert found == [int(loud[first : first + width].max()) for first in shares]
    assert len(found) <= Peaks.CAPACITY


@pytest.mark.parametrize(
    ("peaks", "buckets", "expected"),
    [
        ([1, 5, 2, 9], 2, [5, 9]),
        ([1, 5, 2, 9], 4, [1, 5, 2, 9]),
        ([1, 5], 4, [1, 1, 5, 5]),
        ([1, 9, 2], 2, [1, 9]),
        ([], 3, [0, 0, 0]),
        ([7], 1, [7]),
    ],
)
def test_peaks_are_given_at_any_resolution(
    peaks: list[int], buckets: int, expected: list[int]
) -> None:
    assert resampled(peaks, buckets) == expected
