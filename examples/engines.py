"""Engines that turn speech into text: an honest stub, a local one, a hosted one."""

import importlib.util
import io
import os
import wave
from typing import Protocol

import httpx


class Engine(Protocol):
    """Turn speech into text."""

    def transcribe(self, pcm16: bytes, sample_rate: int) -> str:
        """Give what is said in a piece of audio; may take as long as it needs."""


class Stub:
    """No engine at all: says so, and how long the audio was."""

    def transcribe(self, pcm16: bytes, sample_rate: int) -> str:
        """Tell the length of the audio."""
        return f"[stub, no speech engine: {len(pcm16) / 2 / sample_rate:.1f} s of audio]"


class FasterWhisper:
    """The package `faster-whisper`, on this machine; WHISPER_MODEL names the model."""

    def __init__(self) -> None:
        from faster_whisper import WhisperModel

        self._model = WhisperModel(os.environ.get("WHISPER_MODEL", "base"), compute_type="int8")

    def transcribe(self, pcm16: bytes, sample_rate: int) -> str:
        """Give what Whisper hears."""
        segments, _ = self._model.transcribe(io.BytesIO(_wav(pcm16, sample_rate)))
        return " ".join(segment.text.strip() for segment in segments)


class Hosted:
    """A hosted API of the form of OpenAI's `POST /v1/audio/transcriptions`."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=30)

    def transcribe(self, pcm16: bytes, sample_rate: int) -> str:
        """Give what the API answers."""
        files = {"file": ("speech.wav", _wav(pcm16, sample_rate), "audio/wav")}
        model = {"model": os.environ.get("TRANSCRIBE_MODEL", "whisper-1")}
        answer = self._client.post("v1/audio/transcriptions", files=files, data=model)
        answer.raise_for_status()
        return str(answer.json()["text"]).strip()


def engine_here() -> Engine:
    """Choose: TRANSCRIBE_URL and TRANSCRIBE_API_KEY, else faster-whisper, else the stub."""
    if url := os.environ.get("TRANSCRIBE_URL"):
        return Hosted(url, os.environ["TRANSCRIBE_API_KEY"])
    return FasterWhisper() if importlib.util.find_spec("faster_whisper") else Stub()


def _wav(pcm16: bytes, sample_rate: int) -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        file.writeframes(pcm16)
    return written.getvalue()
