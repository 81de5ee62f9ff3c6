"""The example workers that speak, each as a process of its own on simulated calls."""

import re
import subprocess
import sys
from pathlib import Path

from app.audio import level_dbfs, pcm16_to_mulaw
from app.media import Encoding
from tests.consumer.espeak import needs_espeak
from tests.consumer.test_examples import ROOT, example
from tests.playback.conftest import service, settings, talk
from tests.playback.talking import Talk, exotel_call, speech, twilio_call
from tests.service import Service
from tests.waiting import until

__all__ = ["service", "settings", "talk"]

SILENCE = bytes(8000)  # half a second


async def are_told(output: Path, talk: Talk, words: str) -> None:
    """Wait, with a caller who is silent, until a worker says this of a call."""

    def lines() -> list[str]:
        return [line for line in output.read_text().splitlines() if talk.call_sid in line]

    async def is_told() -> bool:
        await talk.listener.speak(bytes(1600))
        return any(words in line for line in lines())

    await until(is_told, output.read_text)


def loud_seconds(pcm16: bytes) -> float:
    """Tell for how long something is to be heard."""
    frames = [pcm16[at : at + 320] for at in range(0, len(pcm16), 320)]
    return sum(level_dbfs(frame, Encoding.PCM16) > -40 for frame in frames) / 50


async def test_the_readmes_worker_plays_a_greeting_and_hangs_up(
    service: Service, tmp_path: Path
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, code = re.findall(r"```python\n(import asyncio.*?)```", readme, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 12
    greeting = tmp_path / "greeting.raw"
    greeting.write_bytes(speech(0.5))
    code = code.replace("greeting.raw", str(greeting))
    with example(service, tmp_path / "said", "-c", code):
        async with twilio_call(service) as talk:
            assert await talk.listener.closed() == (1000, "hangup")
    assert talk.listener.sent.startswith(pcm16_to_mulaw(speech(0.5)))


async def test_the_echo_says_back_what_it_hears(talk: Talk, tmp_path: Path) -> None:
    said = speech(1.0)
    output = tmp_path / "said"
    with example(talk.service, output, "examples/echo.py"):
        await talk.listener.speak(said + SILENCE)
        await are_told(output, talk, "heard it all: True")
        # Mu-law loses a little; Exotel's PCM16 comes back bit for bit.
        expected = pcm16_to_mulaw(said) if talk.listener.is_twilio else said
        assert talk.listener.sent.startswith(expected)


async def test_the_echo_falls_silent_when_the_caller_speaks(
    service: Service, tmp_path: Path
) -> None:
    with example(service, tmp_path / "said", "examples/echo.py"):
        async with twilio_call(service) as talk:
            await talk.listener.speak(speech(5.0) + SILENCE)
            await talk.listener.heard(bytes(1600))
            await talk.listener.speak(speech(0.5))
            await until(lambda: talk.listener.of("clear"))
            [played] = await talk.told("stream.played")
            assert played["heard"] is False
            assert played["playedMs"] < 5000


async def test_the_echo_says_why_it_cannot_speak(service: Service, tmp_path: Path) -> None:
    output = tmp_path / "said"
    with example(service, output, "examples/echo.py"):
        async with twilio_call(service, "?businessId=listening") as talk:
            await talk.listener.speak(speech(0.5) + SILENCE)
            await are_told(output, talk, "cannot be spoken to: play: not_allowed")


@needs_espeak
async def test_the_talker_greets_answers_keys_and_says_goodbye(
    service: Service, tmp_path: Path
) -> None:
    with example(service, tmp_path / "said", "examples/talker.py"):
        async with exotel_call(service) as talk:
            await talk.listener.heard(bytes(8000))
            await talk.listener.press("1")
            await until(lambda: talk.listener.of("clear"))
            before = len(talk.listener.sent)
            await talk.told("stream.played", 2)
            assert loud_seconds(talk.listener.sent[before:]) > 0.5
            await talk.listener.press("0")
            assert await talk.listener.closed() == (1000, "hangup")


@needs_espeak
async def test_the_talker_falls_silent_when_the_caller_speaks(
    service: Service, tmp_path: Path
) -> None:
    with example(service, tmp_path / "said", "examples/talker.py"):
        async with twilio_call(service) as talk:
            await talk.listener.heard(bytes(8000))
            await talk.listener.speak(speech(0.5))
            await until(lambda: talk.listener.of("clear"))
            [played] = await talk.told("stream.played")
            assert played["heard"] is False


def test_the_talker_says_that_it_has_no_voice(tmp_path: Path) -> None:
    talker = subprocess.run(
        [sys.executable, "examples/talker.py"],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    assert talker.returncode == 1
    assert re.fullmatch(r"espeak-ng is not installed.*\n", talker.stderr)
