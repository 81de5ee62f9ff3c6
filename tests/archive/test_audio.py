"""A call's audio as a file and as a waveform, against what was published."""

import asyncio
import io
import wave
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from app.archive.base import Archive, Entries
from app.archive.library import MAX_WAITING, Library
from app.archive.recording import HEADER_BYTES, Recording
from app.audio import Converter, mulaw_to_pcm16
from app.errors import ArchiveBusy, NotThere
from app.events import AudioEntry, Entry
from app.media import Encoding, MediaFormat, Track
from app.pubsub.records import KeptStream
from app.tools.caller import speech_frames
from tests.archive.kept import NOW_MS, Kept, audio, gap
from tests.samples import CALL, PCM16_8K

STREAM = KeptStream("MZ1", "business-1", NOW_MS)
MULAW_8K = MediaFormat(Encoding.MULAW, 8000)
BOTH = (Track.INBOUND, Track.OUTBOUND)
SPEECH = [mulaw_to_pcm16(frame) for frame in speech_frames()]


def frame(value: int, samples: int = 160) -> bytes:
    return np.full(samples, value, "<i2").tobytes()


async def whole(recording: Recording) -> bytes:
    return b"".join([block async for block in recording.read()])


async def wav_of(kept: Kept, stream: str = "") -> tuple[wave._wave_params, np.ndarray]:
    recording = await Library(kept.archive).recording("business-1", "CA1", stream_sid=stream)
    content = await whole(recording)
    assert len(content) == recording.size
    with wave.open(io.BytesIO(content)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return file.getparams(), samples.reshape(-1, file.getnchannels())


# ---------------------------------------------------------------------------- WAV


@pytest.mark.parametrize("encoding", [Encoding.PCM16, Encoding.MULAW])
async def test_speech_comes_back_bit_exact(kept: Kept, encoding: Encoding) -> None:
    published = speech_frames() if encoding is Encoding.MULAW else SPEECH
    entries = [audio(n, 20 * (n - 1), payload) for n, payload in enumerate(published, 1)]
    await kept.whole(CALL, entries, MediaFormat(encoding, 8000))
    params, samples = await wav_of(kept)
    assert (params.nchannels, params.sampwidth, params.framerate) == (1, 2, 8000)
    assert samples.tobytes() == b"".join(SPEECH)


@pytest.mark.parametrize("rate", [16000, 24000, 44100])
async def test_resampled_speech_comes_back_bit_exact(kept: Kept, rate: int) -> None:
    target = MediaFormat(Encoding.PCM16, rate)
    converter = Converter(MULAW_8K, target)
    pieces = [converter.convert(frame) for frame in speech_frames()] + [converter.flush()]
    entries: list[Entry] = []
    at = 0
    for piece in filter(None, pieces):
        ts = round(at * 1000 / target.bytes_per_second)
        entries.append(audio(len(entries) + 1, ts, piece))
        at += len(piece)
    await kept.whole(CALL, entries, target)
    params, samples = await wav_of(kept)
    assert params.framerate == rate
    assert samples.tobytes() == b"".join(pieces)


async def test_two_tracks_are_left_and_right_and_aligned(kept: Kept) -> None:
    entries = [
        audio(1, 0, frame(1)),
        audio(2, 20, frame(2)),
        audio(3, 20, frame(-2), Track.OUTBOUND),
        audio(4, 40, frame(-3), Track.OUTBOUND),
        audio(5, 40, frame(3)),
        audio(6, 80, frame(5)),
    ]
    await kept.whole(CALL, entries, tracks=BOTH)
    params, samples = await wav_of(kept)
    assert params.nchannels == 2
    assert samples[::160].tolist() == [[1, 0], [2, -2], [3, -3], [0, 0], [5, 0]]
    assert len(samples) == 5 * 160


async def test_a_gap_is_silence(kept: Kept) -> None:
    entries = [audio(1, 0, frame(1)), gap(2, 2), audio(3, 60, frame(4))]
    await kept.whole(CALL, entries)
    _, samples = await wav_of(kept)
    assert samples[::160, 0].tolist() == [1, 0, 0, 4]


async def test_a_clock_that_begins_anew_neither_cuts_nor_repeats(kept: Kept) -> None:
    times = [5000, 5020, 5040, 0, 20]
    entries = [audio(n, ts, frame(n)) for n, ts in enumerate(times, 1)]
    await kept.whole(CALL, entries)
    _, samples = await wav_of(kept)
    assert samples[::160, 0].tolist() == [1, 2, 3, 4, 5]


async def test_a_call_whose_beginning_is_gone_begins_later_and_says_so(kept: Kept) -> None:
    await kept.whole(CALL, [audio(n, 20 * (n - 1), frame(n)) for n in range(1, 3001)], kept=1000)
    library = Library(kept.archive)
    recording = await library.recording("business-1", "CA1")
    extent = await kept.archive.extent(STREAM)
    assert extent is not None
    first = int(extent.first_id.partition("-")[2])
    assert first > 1
    assert recording.is_trimmed
    assert recording.begins_at_ms == 20 * (first - 1)
    _, samples = await wav_of(kept)
    assert samples[::160, 0].tolist() == list(range(first, 3001))
    waveform = await library.waveform("business-1", "CA1")
    assert (waveform.trimmed, waveform.begins_at_ms) == (True, 20 * (first - 1))


async def test_a_call_that_is_whole_says_so(kept: Kept) -> None:
    await kept.whole(CALL, [audio(1, 0, frame(1))])
    recording = await Library(kept.archive).recording("business-1", "CA1")
    assert (recording.is_trimmed, recording.begins_at_ms) == (False, 0)


@pytest.mark.parametrize("tracks", [(Track.INBOUND,), BOTH])
async def test_any_range_is_that_part_of_the_whole(kept: Kept, tracks: tuple[Track, ...]) -> None:
    entries: list[Entry] = []
    for number in range(2000):
        ts = 20 * number + (300 if number > 700 else 0) - (30_000 if number > 1600 else 0)
        entries.append(audio(len(entries) + 1, ts, frame(number)))
        if len(tracks) == 2 and number % 3:
            entries.append(audio(len(entries) + 1, ts, frame(-number), Track.OUTBOUND))
    await kept.whole(CALL, entries, tracks=tracks)
    recording = await Library(kept.archive).recording("business-1", "CA1")
    assert recording.survey is not None
    assert len(recording.survey.marks) > 2
    content = await whole(recording)
    size = len(content)
    places = [0, 1, 43, 44, 45, 47, 333, 40_001, 320_044, size // 2 + 1, size - 5, size - 1]
    for first in places:
        for last in {first, first + 2, first + 70_001, size - 1}:
            if first <= last < size:
                read = b"".join([block async for block in recording.read(first, last)])
                assert read == content[first : last + 1], (first, last)


async def test_a_part_is_read_from_near_it_and_not_from_the_beginning(kept: Kept) -> None:
    await kept.whole(CALL, [audio(n, 20 * (n - 1), frame(n)) for n in range(1, 6001)])
    asked: list[str] = []

    class Asked:
        async def entries(self, stream: KeptStream, after: str, count: int) -> Entries:
            asked.append(after)
            return await kept.archive.entries(stream, after, count)

    recording = await Library(kept.archive).recording("business-1", "CA1")
    archive: Archive = Asked()  # type: ignore[assignment]
    near_the_end = replace(recording, archive=archive)
    assert recording.size is not None
    read = [block async for block in near_the_end.read(recording.size - 100)]
    assert sum(map(len, read)) == 100
    assert len(asked) <= 5


async def test_a_live_call_is_given_up_to_now(kept: Kept) -> None:
    await kept.begin(CALL)
    await kept.put(CALL, [audio(1, 0, frame(1)), audio(2, 20, frame(2))])
    recording = await Library(kept.archive).recording("business-1", "CA1")
    assert recording.size is None
    content = await whole(recording)
    assert content[HEADER_BYTES:] == frame(1) + frame(2)
    assert content[4:8] == content[40:44] == b"\xff" * 4


async def test_a_call_without_audio_is_an_empty_file(kept: Kept) -> None:
    await kept.whole(CALL, [])
    params, samples = await wav_of(kept)
    assert (params.nframes, len(samples)) == (0, 0)


async def test_audio_that_goes_while_it_is_read_breaks_the_reading_off(kept: Kept) -> None:
    await kept.whole(CALL, [audio(n, 20 * n, frame(n)) for n in range(1, 1000)])

    async def silently(erased: object) -> None:
        pass

    recording = await Library(kept.archive).recording("business-1", "CA1")
    reading = recording.read()
    await anext(reading)
    await kept.archive.erase("business-1", "CA1", silently)
    with pytest.raises(NotThere):
        async for _ in reading:
            pass


@pytest.mark.parametrize("entry", [audio(1, 0, b"\x01"), audio(1, 0, b""), audio(1, -5, b"ab" * 9)])
async def test_odd_entries_are_played_as_far_as_they_go(kept: Kept, entry: AudioEntry) -> None:
    await kept.whole(CALL, [entry, audio(2, 20, frame(7))])
    _, samples = await wav_of(kept)
    assert samples[-1, 0] == 7


async def test_a_track_that_the_record_does_not_name_is_left_out(kept: Kept) -> None:
    await kept.whole(CALL, [audio(1, 0, frame(1)), audio(2, 0, frame(9), Track.OUTBOUND)])
    _, samples = await wav_of(kept)
    assert samples.tobytes() == frame(1)


# ---------------------------------------------------------------- which stream, whose


async def test_the_latest_stream_is_played_unless_another_is_named(kept: Kept) -> None:
    second = replace(CALL, stream_sid="MZ2")
    await kept.whole(CALL, [audio(1, 0, frame(1))])
    await kept.whole(second, [audio(1, 0, frame(2))], at=NOW_MS + 9000)
    assert (await wav_of(kept))[1][0, 0] == 2
    assert (await wav_of(kept, "MZ1"))[1][0, 0] == 1
    with pytest.raises(NotThere):
        await wav_of(kept, "MZ-none")


async def test_a_stream_id_used_again_by_another_call_gives_nothing_away(kept: Kept) -> None:
    other = replace(CALL, call_sid="CA2", business_id="business-2")
    await kept.whole(CALL, [audio(1, 0, frame(1))])
    await kept.forget("MZ1")
    await kept.whole(other, [audio(1, 0, frame(2))], at=NOW_MS + 9000)
    for stream in ("", "MZ1"):
        with pytest.raises(NotThere):
            await wav_of(kept, stream)


@pytest.mark.parametrize("business", ["business-2", "", "*"])
async def test_another_businesss_audio_is_not_there(kept: Kept, business: str) -> None:
    await kept.whole(CALL, [audio(1, 0, frame(1))])
    await kept.begin(replace(CALL, stream_sid="MZ2"))
    library = Library(kept.archive)
    asking: list[Callable[..., object]] = [
        library.recording,
        library.waveform,
        library.live_audio,
    ]
    for ask in asking:
        with pytest.raises(NotThere):
            await ask(business, "CA1")  # type: ignore[misc]


# ------------------------------------------------------------------------- waveform


async def test_a_waveform_has_peaks_of_each_track_and_its_gaps(kept: Kept) -> None:
    entries = [
        audio(1, 0, frame(100)),
        audio(2, 0, frame(-300), Track.OUTBOUND),
        gap(3, 2, None),
        gap(4, 1, Track.OUTBOUND, "overflow"),
        audio(5, 60, frame(200)),
        audio(6, 80, frame(-32768), Track.OUTBOUND),
        gap(7, 5, Track.INBOUND, "drain"),
    ]
    await kept.whole(CALL, entries, tracks=BOTH)
    waveform = await Library(kept.archive).waveform("business-1", "CA1", buckets=5)
    assert (waveform.duration_ms, waveform.sample_rate, waveform.live) == (100, 8000, False)
    assert [(one.track, one.peaks) for one in waveform.tracks] == [
        ("inbound", [100, 0, 0, 200, 0]),
        ("outbound", [300, 0, 0, 0, 32767]),
    ]
    found = [(g.track, g.from_ms, g.to_ms, g.frames, g.reason) for g in waveform.gaps]
    assert found == [
        ("", 20, 60, 2, "carrier"),
        ("outbound", 20, 80, 1, "overflow"),
        ("inbound", 100, 100, 5, "drain"),
    ]


@pytest.mark.parametrize(("asked", "given"), [(800, 800), (1, 1), (0, 1), (10**9, 2000)])
async def test_a_waveform_has_as_many_buckets_as_are_asked_for_within_bounds(
    kept: Kept, asked: int, given: int
) -> None:
    await kept.whole(CALL, [audio(1, 0, frame(5))])
    waveform = await Library(kept.archive).waveform("business-1", "CA1", buckets=asked)
    assert len(waveform.tracks[0].peaks) == given
    assert set(waveform.tracks[0].peaks) == {5}


async def test_gaps_without_end_are_counted_and_not_all_kept(kept: Kept) -> None:
    await kept.whole(CALL, [gap(n, 1) for n in range(1, 1501)])
    waveform = await Library(kept.archive).waveform("business-1", "CA1")
    assert (len(waveform.gaps), waveform.more_gaps) == (1000, 500)


class Counted:
    """An archive that counts how often a stream is read from its beginning."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.passes = 0
        self.running = self.most = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._archive, name)

    async def entries(self, stream: KeptStream, after: str, count: int) -> Entries:
        self.passes += after == "0-0"
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        try:
            return await self._archive.entries(stream, after, count)
        finally:
            self.running -= 1


async def test_an_ended_calls_waveform_is_computed_once_for_all_processes(kept: Kept) -> None:
    await kept.whole(CALL, [audio(n, 20 * n, frame(n)) for n in range(1, 900)])
    counted = Counted(kept.archive)
    one, other = (Library(counted) for _ in range(2))  # type: ignore[arg-type]
    asked = [one.waveform("business-1", "CA1") for _ in range(5)]
    waveforms = await asyncio.gather(*asked)
    waveforms.append(await other.waveform("business-1", "CA1"))
    assert counted.passes == 1
    assert all(waveform == waveforms[0] for waveform in waveforms)


async def test_a_live_calls_waveform_is_of_now(kept: Kept) -> None:
    await kept.begin(CALL)
    library = Library(kept.archive)
    for n in range(1, 4):
        await kept.put(CALL, [audio(n, 20 * (n - 1), frame(n))])
        waveform = await library.waveform("business-1", "CA1")
        assert (waveform.duration_ms, waveform.live) == (20 * n, True)


async def test_a_holder_that_lives_on_after_its_end_makes_the_waveform_anew(kept: Kept) -> None:
    await kept.whole(CALL, [audio(1, 0, frame(1))])
    library = Library(kept.archive)
    assert (await library.waveform("business-1", "CA1")).duration_ms == 20
    await kept.put(CALL, [audio(3, 20, frame(1))])
    assert (await library.waveform("business-1", "CA1")).duration_ms == 40


async def test_one_waveform_is_computed_at_a_time_and_few_wait(kept: Kept) -> None:
    await kept.begin(CALL)
    await kept.put(CALL, [audio(n, 20 * n, frame(n)) for n in range(1, 900)])
    counted = Counted(kept.archive)
    library = Library(counted)  # type: ignore[arg-type]
    asked = [library.waveform("business-1", "CA1") for _ in range(MAX_WAITING.total + 4)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert counted.most == 1
    assert sum(isinstance(answer, ArchiveBusy) for answer in answers) == 4


async def test_a_business_takes_its_share_of_waveforms_and_no_more(kept: Kept) -> None:
    await kept.begin(CALL)
    await kept.put(CALL, [audio(n, 20 * n, frame(n)) for n in range(1, 900)])
    library = Library(Counted(kept.archive))  # type: ignore[arg-type]
    asked = [library.waveform("business-1", "CA1", asker="business-1") for _ in range(9)]
    others = [library.waveform("business-1", "CA1", asker=asker) for asker in ("b", "c", None)]
    answers = await asyncio.gather(*asked, *others, return_exceptions=True)
    refused = [answer for answer in answers[:9] if isinstance(answer, ArchiveBusy)]
    assert len(refused) == 9 - MAX_WAITING.of_business
    assert "4 of one business" in str(refused[0])
    assert not [answer for answer in answers[9:] if isinstance(answer, Exception)]


async def test_a_waveform_of_another_version_is_made_anew(kept: Kept) -> None:
    await kept.whole(CALL, [audio(1, 0, frame(3))], PCM16_8K)
    await kept.archive.keep_survey(STREAM, b"\x93\x01\x02\x03")
    waveform = await Library(kept.archive).waveform("business-1", "CA1", buckets=1)
    assert waveform.tracks[0].peaks == [3]
