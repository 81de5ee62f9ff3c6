"""What callers say: a recording, begun at different places, in different voices."""

from collections.abc import Iterator
from functools import cache

from app.audio import Converter, mulaw_to_pcm16, pcm16_to_mulaw
from app.media import Encoding, MediaFormat
from app.tools.caller import speech_frames

RATE = 8000
# Of a voice to the recorded one: the same, higher, deeper.
PITCHES = (1.0, 1.18, 0.86)


def voice(number: int, form: MediaFormat, frame_ms: int, begins_at: float) -> Iterator[bytes]:
    """Speak without an end, in frames; the recording begins again after its end.

    `begins_at` is in seconds, taken modulo the recording's length.
    """
    frames = _frames(number, form, frame_ms)
    place = round(begins_at * 1000 / frame_ms)
    while True:
        yield frames[place % len(frames)]
        place += 1


@cache
def _frames(number: int, form: MediaFormat, frame_ms: int) -> tuple[bytes, ...]:
    recorded = mulaw_to_pcm16(b"".join(speech_frames()))
    # What is played faster sounds higher.
    played = MediaFormat(Encoding.PCM16, round(RATE * PITCHES[number]))
    converter = Converter(played, MediaFormat(Encoding.PCM16, form.sample_rate))
    spoken = converter.convert(recorded) + converter.flush()
    if form.encoding is Encoding.MULAW:
        spoken = pcm16_to_mulaw(spoken)
    size = form.bytes_per_second * frame_ms // 1000
    whole = range(0, len(spoken) - size + 1, size)
    return tuple(spoken[at : at + size] for at in whole)
