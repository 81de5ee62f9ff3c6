"""`media-bridge say`, on simulated calls."""

import asyncio
import os
import re
import sys
import wave
from pathlib import Path

import pytest

from app.audio import pcm16_to_mulaw
from app.cli import main
from app.errors import CommandFailed
from app.tools.say import read_recording
from tests.consumer.espeak import needs_espeak
from tests.playback.conftest import service, settings, talk
from tests.playback.talking import Talk, speech, twilio_call
from tests.service import Service
from tests.waiting import WAIT_SECONDS, until

__all__ = ["service", "settings", "talk"]


def wav(path: Path, audio: bytes, rate: int = 8000, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(audio)
    return path


async def begin(redis_url: str, *arguments: str, path: str = "") -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "say", *arguments),
        env={"PATH": path or os.environ["PATH"], "REDIS_URL": redis_url},
        stdout=pipe,
        stderr=pipe,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(WAIT_SECONDS):
        said, words = await process.communicate()
    return process.returncode, said.decode(), words.decode()


async def run(redis_url: str, *arguments: str, path: str = "") -> tuple[int | None, str, str]:
    return await ended(await begin(redis_url, *arguments, path=path))


async def test_a_recording_is_played_and_the_call_ended(talk: Talk, tmp_path: Path) -> None:
    file = wav(tmp_path / "speech.wav", speech(0.5))
    status = await run(talk.service.redis_url, talk.call_sid, "--wav", str(file), "--hang-up")
    assert status == (0, "heard 0.5 s\nthe call ended: hangup\n", "")
    expected = pcm16_to_mulaw(speech(0.5)) if talk.listener.is_twilio else speech(0.5)
    assert talk.listener.sent.startswith(expected)


@needs_espeak
async def test_words_are_said_into_a_stream(service: Service) -> None:
    async with twilio_call(service) as talk:
        status, said, words = await run(service.redis_url, talk.stream_sid, "Hello there.")
        assert (status, words) == (0, "")
        assert re.fullmatch(r"heard [01]\.\d s\n", said)
        assert len(talk.listener.sent) > 4000


async def test_what_is_interrupted_says_how_much_was_heard(
    service: Service, tmp_path: Path
) -> None:
    file = wav(tmp_path / "speech.wav", speech(5.0))
    async with twilio_call(service) as talk:
        process = await begin(service.redis_url, talk.call_sid, "--wav", str(file))
        await talk.listener.heard(bytes(1600))
        await talk.command("clear")
        status, said, _ = await ended(process)
        assert status == 1
        assert re.fullmatch(r"cleared after [0-4]\.\d s of 5\.0 s\n", said)


async def test_ctrl_c_silences_the_call(service: Service, tmp_path: Path) -> None:
    file = wav(tmp_path / "speech.wav", speech(20.0))
    async with twilio_call(service) as talk:
        process = await begin(service.redis_url, talk.call_sid, "--wav", str(file))
        await talk.listener.heard(bytes(1600))
        process.send_signal(2)
        assert (await ended(process))[0] == 130
        await until(lambda: talk.listener.of("clear"))


async def test_a_plan_that_only_listens_is_a_sentence(service: Service, tmp_path: Path) -> None:
    file = wav(tmp_path / "speech.wav", speech(0.2))
    async with twilio_call(service, "?businessId=listening") as talk:
        status = await run(service.redis_url, talk.call_sid, "--wav", str(file))
    assert status == (1, "", "the call was not spoken to: play: not_allowed\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["CA1", "Hello"], "the call CA1 is not live"),
        (["CA1"], "say what: either a TEXT, or --wav FILE"),
        (["CA1", "Hello", "--wav", "speech.wav"], "say what: either a TEXT, or --wav FILE"),
    ],
)
def test_bad_use_is_a_sentence(
    service: Service,
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("REDIS_URL", service.redis_url)
    assert main(["say", *arguments]) == 2
    said, told = capsys.readouterr()
    assert said == ""
    assert told.startswith(words)
    assert told.count("\n") == 1


def test_without_redis_it_says_where_that_should_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:secret@127.0.0.1:1/0")
    assert main(["say", "CA1", "Hello"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("Redis at ")
    assert "127.0.0.1:1" in told
    assert "secret" not in told


async def test_without_an_engine_it_says_what_to_do(service: Service, tmp_path: Path) -> None:
    async with twilio_call(service) as talk:
        status, _, told = await run(service.redis_url, talk.call_sid, "Hello", path=str(tmp_path))
    assert status == 2
    assert told.startswith("espeak-ng is not installed")


def test_a_recording_at_another_rate_is_converted(tmp_path: Path) -> None:
    found = read_recording(wav(tmp_path / "a.wav", speech(1.0, 44100), 44100))
    assert found.sample_rate == 16000
    assert found.seconds == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
def test_a_recording_is_read_as_it_is(tmp_path: Path, rate: int) -> None:
    assert read_recording(wav(tmp_path / "a.wav", speech(0.1, rate), rate)).pcm16 == speech(
        0.1, rate
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as a WAV file of PCM audio: [a-z]"),
        (b"RIFF", "cannot be read as a WAV file of PCM audio: [a-z]"),
        (b"no WAV at all" * 10, "cannot be read as a WAV file of PCM audio: [a-z]"),
        ("empty", "has no audio"),
        ("stereo", "must be mono and 16 bit"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_recording_is_a_sentence(
    tmp_path: Path, content: bytes | str | None, words: str
) -> None:
    path = tmp_path / "a.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        wav(path, b"" if content == "empty" else bytes(400), channels=1 + (content == "stereo"))
    with pytest.raises(CommandFailed, match=words):
        read_recording(path)
