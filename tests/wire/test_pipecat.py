"""Pipecat's serializers as an independent reader of what we send to carriers."""

import json
import subprocess
from typing import Any

import pytest

from app.events import StreamStarted
from app.media import Encoding, MediaFormat
from app.wire.back import ReturnPath, return_path
from benchmarks.contenders import PIPECAT

SECONDS = 120
python = PIPECAT / ".venv/bin/python"
pytestmark = pytest.mark.skipif(
    not (PIPECAT / ".venv/ready").exists(),
    reason="pipecat is not installed; `python -m benchmarks --only frames` does it (400 MB)",
)


def verdict(lines: list[dict[str, Any]]) -> dict[str, int]:
    done = subprocess.run(
        [str(python), str(PIPECAT / "reads.py")],
        input="\n".join(map(json.dumps, lines)),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def lines_of(carrier: str, stream: str, path: ReturnPath) -> list[dict[str, Any]]:
    sizes = (path.message_bytes, path.message_bytes * 2)
    messages = [path.media(bytes(range(256)) * (size // 256 + 1)) for size in sizes]
    messages += [path.mark("bridge-1"), path.clear()]
    rate = path.format.sample_rate
    return [
        {"carrier": carrier, "rate": rate, "stream": stream, "message": message}
        for message in messages
    ]


def test_every_message_of_ours_is_taken_by_pipecat() -> None:
    lines = []
    for rate in (8000, 16000, 24000):
        start = StreamStarted("s1", "c1", MediaFormat(Encoding.PCM16, rate))
        exotel = return_path("exotel", start)
        assert exotel is not None
        lines += lines_of("exotel", "s1", exotel)
    twilio = return_path("twilio", StreamStarted("MZ1", "CA1", MediaFormat(Encoding.MULAW, 8000)))
    assert twilio is not None
    lines += lines_of("twilio", "MZ1", twilio)
    assert verdict(lines) == {"media": 8, "mark": 4, "clear": 4, "complaints": 0}


def test_what_is_no_message_of_theirs_is_refused_by_pipecat() -> None:
    wrong = [
        '{"event":"media","streamSid":"MZ1","media":{"payload":"/38A","chunk":"1"}}',
        '{"event":"media","stream_sid":"MZ1","media":{"payload":"/38A"}}',
        '{"event":"media","streamSid":"MZ1","media":{"payload":""}}',
        '{"event":"clear","streamSid":"MZ2"}',
    ]
    lines = [
        {"carrier": "twilio", "rate": 8000, "stream": "MZ1", "message": message}
        for message in wrong
    ]
    found = verdict(lines)
    assert (found["media refused"], found["clear refused"]) == (3, 1)
