"""`media-bridge say`: words, or a recording, into a live call."""

import asyncio
import io
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.audio import Converter
from app.consumer.kept import Kept
from app.consumer.sharing import StreamName
from app.consumer.speaking import ANSWER_SECONDS, Speaking
from app.consumer.speech import Speech
from app.errors import AmbiguousCall, BridgeError, CommandFailed
from app.media import PCM16_BYTES_PER_SAMPLE, Encoding, MediaFormat
from app.playback.answers import Played
from app.playback.commands import SAMPLE_RATES

ENGINE: Final = "espeak-ng"
ENGINE_SECONDS: Final = 60.0
MAX_CHARACTERS: Final = 5_000
MAX_WAV_BYTES: Final = 100 * 1024 * 1024
# What a rate that no call can be given is made.
SAMPLE_RATE: Final = 16_000
CLEAR_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Recording:
    """PCM16 at a rate that a call can be given (Hz)."""

    pcm16: bytes
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Give its length."""
        return len(self.pcm16) / PCM16_BYTES_PER_SAMPLE / self.sample_rate


def read_recording(path: Path) -> Recording:
    """Read a WAV file: mono, 16 bit, at any rate.

    Raises:
        CommandFailed: it cannot be read, is no such file, or is too large.
    """
    try:
        if path.stat().st_size > MAX_WAV_BYTES:
            raise CommandFailed(f"{path} is larger than {MAX_WAV_BYTES // 2**20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise CommandFailed(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _recording(content)
    except (EOFError, wave.Error) as error:
        problem = str(error) or "it is cut short"
        raise CommandFailed(
            f"{path} cannot be read as a WAV file of PCM audio: {problem}"
        ) from error
    except ValueError as error:
        raise CommandFailed(f"{path} {error}") from error


def _recording(wav: bytes) -> Recording:
    """Read a WAV's audio; ValueError says what is wrong with it."""
    with wave.open(io.BytesIO(wav)) as file:
        rate, audio = file.getframerate(), file.readframes(file.getnframes())
        form = (file.getnchannels(), file.getsampwidth())
    if form != (1, PCM16_BYTES_PER_SAMPLE):
        raise ValueError("must be mono and 16 bit")
    audio = audio[: len(audio) - len(audio) % PCM16_BYTES_PER_SAMPLE]
    if not audio:
        raise ValueError("has no audio")
    if rate in SAMPLE_RATES:
        return Recording(audio, rate)
    source, target = (MediaFormat(Encoding.PCM16, one) for one in (rate, SAMPLE_RATE))
    converter = Converter(source, target)
    return Recording(converter.convert(audio) + converter.flush(), SAMPLE_RATE)


async def spoken(text: str, voice: str) -> Recording:
    """Have espeak-ng say a text by one of its voices, such as `en`.

    Raises:
        CommandFailed: it is not installed, or cannot say this.
    """
    if not text.strip() or len(text) > MAX_CHARACTERS:
        raise CommandFailed(f"the text must have 1 to {MAX_CHARACTERS} characters")
    pipe = asyncio.subprocess.PIPE
    try:
        engine = await asyncio.create_subprocess_exec(
            *(ENGINE, "--stdout", "-v", voice, "--", text), stdout=pipe, stderr=pipe
        )
    except FileNotFoundError as error:
        words = f"{ENGINE} is not installed: install it, or play a recording by --wav FILE"
        raise CommandFailed(words) from error
    try:
        async with asyncio.timeout(ENGINE_SECONDS):
            wav, said = await engine.communicate()
    except TimeoutError as error:
        raise CommandFailed(f"{ENGINE} said nothing within {ENGINE_SECONDS:.0f} s") from error
    finally:
        with suppress(ProcessLookupError):
            engine.kill()
    try:
        return _recording(wav)
    except (EOFError, ValueError, wave.Error) as error:
        told = said.decode("utf-8", "replace").strip().splitlines()
        raise CommandFailed(f"{ENGINE} failed: {told[0] if told else error}") from error


@asynccontextmanager
async def speech_into(redis_url: str, call_id: str, business_id: str = "") -> AsyncIterator[Speech]:
    """Find a live call by its CallSid or stream id, to speak into; of a business, where named.

    Raises:
        AmbiguousCall: live calls of several businesses have this CallSid.
        CommandFailed: there is none.
        StoreUnavailable: Redis cannot be reached.
    """
    kept = Kept.at(redis_url)
    speaking = Speaking(redis_url, kept)
    try:
        found = [
            held
            for held in await kept.live_streams()
            if call_id in (held.call.call_sid, held.call.stream_sid)
            and business_id in ("", held.call.business_id)
        ]
        if not found:
            how = "`media-bridge calls --live` lists those that are"
            raise CommandFailed(f"the call {call_id} is not live; {how}")
        owners = {held.call.business_id for held in found}
        if len(owners) > 1:
            raise AmbiguousCall(owners)
        latest = max(found, key=lambda held: held.started_at)
        yield Speech(StreamName.of(latest), speaking)
    finally:
        await speaking.close()
        await kept.close()


async def say(speech: Speech, recording: Recording) -> Played | None:
    """Play a recording; give what was heard of it, None where nobody knows.

    Who is cancelled meanwhile silences it.

    Raises:
        CommandRefused: the service did not play it.
        StoreUnavailable: Redis cannot be reached.
    """
    try:
        said = await speech.play(recording.pcm16, sample_rate=recording.sample_rate)
        return await said.answer(recording.seconds + ANSWER_SECONDS)
    except asyncio.CancelledError:
        with suppress(BridgeError, TimeoutError):
            async with asyncio.timeout(CLEAR_SECONDS):
                await speech.clear()
        raise
