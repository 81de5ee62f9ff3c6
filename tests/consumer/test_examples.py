"""Each example worker, and the README's, as a process of its own on a simulated call."""

import io
import json
import os
import re
import stat
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from redis import Redis

from app.audio import mulaw_to_pcm16
from app.tools.caller import Call, Carrier, new_call, speech_frames
from tests.service import NUMBER, Service, http_client
from tests.waiting import until, wait_until

ROOT = Path(__file__).parent.parent.parent
FRAMES = speech_frames()[:250]
KEY = "sk-very-secret"


def readers_of(service: Service) -> set[str]:
    """Name the connections to Redis on which somebody reads streams."""
    with Redis.from_url(service.redis_url) as redis:
        return {client["id"] for client in redis.client_list() if client["cmd"] == "xread"}


@contextmanager
def example(
    service: Service, output: Path, *arguments: str, **variables: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker; what it says goes to `output`. It waits for calls when the block begins."""
    before = readers_of(service)  # no call is live, so that the service begins to read none
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "REDIS_URL": service.redis_url,
        **variables,
    }
    with output.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, *arguments], env=environment, stdout=said, stderr=said
        )
        try:
            wait_until(lambda: readers_of(service) - before, output.read_text)
            yield process
        finally:
            process.terminate()
            assert process.wait() == 0, output.read_text()


async def place(service: Service, frames: Sequence[bytes] = FRAMES) -> Call:
    """Call the service, and speak faster than anybody can."""
    carrier = Carrier(service.url, "")
    call = new_call(NUMBER)
    async with http_client() as client:
        target = await carrier.ring(client, call)
    await carrier.stream(call, target, frames, pace=0)
    return call


async def heard(output: Path, call: Call, last: str) -> list[str]:
    """Wait for a worker's last line about a call; give all its lines about it."""

    def lines() -> list[str]:
        return [line for line in output.read_text().splitlines() if call.call_sid in line]

    await until(lambda: any(last in line for line in lines()), output.read_text)
    return lines()


async def test_the_readmes_worker_hears_every_frame(open_service: Service, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code, *_ = re.findall(r"```python\n(import asyncio.*?)```", readme, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    output = tmp_path / "said"
    with example(open_service, output, "-c", code):
        call = await place(open_service)
        *frames, end = await heard(output, call, "ended:")
    assert len(frames) == len(FRAMES)
    assert all("inbound" in frame and "320 bytes" in frame for frame in frames)
    assert "ended: stop" in end
    assert "'published': 250" in end


async def test_the_level_meter_shows_a_line_a_second(open_service: Service, tmp_path: Path) -> None:
    output = tmp_path / "said"
    with example(open_service, output, "examples/level_meter.py"):
        call = await place(open_service)
        *seconds, end = await heard(output, call, "ended:")
    assert [re.findall(r"(\d+\.\d) s", line) for line in seconds] == [
        [f"{n}.0"] for n in (1, 2, 3, 4)
    ]
    assert any("#####" in line for line in seconds)
    assert end.endswith("ended: stop")


async def test_the_recorder_writes_what_was_said(open_service: Service, tmp_path: Path) -> None:
    output, directory = tmp_path / "said", tmp_path / "recordings"
    with example(open_service, output, "examples/wav_recorder.py", str(directory)):
        call = await place(open_service)
        await heard(output, call, "is recorded")
    recording = directory / f"{call.call_sid}-inbound-0ms.wav"
    assert stat.S_IMODE(recording.stat().st_mode) == 0o600
    with wave.open(str(recording)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        assert file.readframes(10**6) == b"".join(map(mulaw_to_pcm16, FRAMES))


async def test_the_transcriber_says_that_it_has_no_engine(
    open_service: Service, tmp_path: Path
) -> None:
    output = tmp_path / "said"
    with example(open_service, output, "examples/transcribe.py"):
        call = await place(open_service, [*FRAMES, *[b"\xff" * 160] * 60])
        *sentences, end = await heard(output, call, "ended:")
    assert "engine: Stub" in output.read_text()
    found = [
        re.search(r"\[stub, no speech engine: (\d+\.\d) s of audio\]", line) for line in sentences
    ]
    assert found
    assert all(found)
    assert end.endswith("ended: stop")


class Hearing(BaseHTTPRequestHandler):
    """A hosted engine that hears how long the audio is."""

    keys: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with wave.open(io.BytesIO(body[body.index(b"RIFF") :])) as file:
            said = f"{file.getframerate()} Hz, {file.getnframes()} samples"
        self.keys.append(self.headers["Authorization"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"text": said}).encode())

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def hosted() -> Iterator[HTTPServer]:
    Hearing.keys = []
    server = HTTPServer(("127.0.0.1", 0), Hearing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


async def test_the_transcriber_asks_a_hosted_engine(
    open_service: Service, hosted: HTTPServer, tmp_path: Path
) -> None:
    output = tmp_path / "said"
    url = f"http://127.0.0.1:{hosted.server_port}"
    variables = {"TRANSCRIBE_URL": url, "TRANSCRIBE_API_KEY": KEY}
    with example(open_service, output, "examples/transcribe.py", **variables):
        call = await place(open_service)
        *sentences, _ = await heard(output, call, "ended:")
    assert all(re.search(r"inbound \d+\.\d s: 8000 Hz, \d+ samples$", line) for line in sentences)
    assert Hearing.keys == [f"Bearer {KEY}"] * len(sentences) != []
    assert KEY not in output.read_text()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name
)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 70
