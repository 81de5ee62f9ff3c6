"""One simulated call through a private instance, listened to at the other end."""

import asyncio
import io
import json
import os
import secrets
import sys
import tempfile
import time
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.audio import mulaw_to_pcm16
from app.errors import LocalError
from app.events import AudioEntry, EndEntry, GapEntry
from app.media import Track
from app.pubsub.redis_streams import RedisStreams
from app.tools.caller import Call, Carrier, new_call, speech_frames
from app.tools.embedded import EmbeddedRedis, free_port
from app.tools.new_file import NewFile
from app.tools.progress import ProgressBar

NUMBER = "+15005550006"
START_SECONDS = 20.0
READ_SECONDS = 10.0
STOP_SECONDS = 15.0
BUSINESSES = f"""
[plans.demo]
tracks = "inbound"

[businesses.demo]
name = "Demo"
plan = "demo"
numbers = ["{NUMBER}"]
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """What stands in Redis for a call: its audio, its gaps, and the end."""

    audio: list[bytes]
    seqs: list[int]
    gaps: int


async def run_demo(wav: Path, say: Callable[[str], None]) -> int:
    """Place a call, read it back, write `wav`; give the exit status.

    0 only when every frame came back from Redis, in order and bit-exact.
    """
    frames = speech_frames()
    expected = [mulaw_to_pcm16(frame) for frame in frames]
    with tempfile.TemporaryDirectory(prefix="media-bridge-demo-") as directory:
        with EmbeddedRedis(Path(directory), persistent=False) as redis:
            async with _instance(Path(directory), redis.url, say) as (url, token):
                call = new_call(NUMBER)
                await _place(url, token, call, frames, say)
                pubsub = RedisStreams(redis.url)
                try:
                    async with asyncio.timeout(READ_SECONDS):
                        heard = await _read_back(pubsub, call)
                        receipt = await _receipt(pubsub, call)
                finally:
                    await pubsub.close()
    _write_wav(wav, heard.audio)
    say(f"wrote    {wav} ({sum(map(len, heard.audio)) / 16000:.1f} s)")
    say("receipt  " + json.dumps(receipt, indent=2))
    exact = heard.audio == expected and heard.seqs == list(range(2, 2 + len(frames)))
    whole = exact and not heard.gaps and receipt["published"] == len(frames)
    matches = sum(a == b for a, b in zip(heard.audio, expected, strict=False))
    say(f"result   {matches} of {len(frames)} frames came back bit-exact and in order")
    return 0 if whole else 1


@asynccontextmanager
async def _instance(
    directory: Path, redis_url: str, say: Callable[[str], None]
) -> AsyncIterator[tuple[str, str]]:
    """Run a service of our own on a free port; give its URL and its auth token."""
    businesses = directory / "businesses.toml"
    businesses.write_text(BUSINESSES, encoding="utf-8")
    port = free_port()
    url, token = f"http://127.0.0.1:{port}", secrets.token_hex(16)
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PUBLIC_URL": url,
        "REDIS_URL": redis_url,
        "TWILIO_AUTH_TOKEN": token,
        "SECRET_KEY": secrets.token_hex(32),
        "BUSINESSES_FILE": str(businesses),
        "LOG_LEVEL": "WARNING",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "serve", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await _wait_until_ready(url, process)
        say(f"service  a private instance on {url}")
        yield url, token
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()


async def _wait_until_ready(url: str, process: asyncio.subprocess.Process) -> None:
    deadline = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient() as client:
        while time.monotonic() < deadline and process.returncode is None:
            with suppress(httpx.HTTPError):
                if (await client.get(f"{url}/health/ready")).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(0.1)
    raise LocalError("the private instance did not start; its own words stand above")


async def _place(
    url: str, token: str, call: Call, frames: list[bytes], say: Callable[[str], None]
) -> None:
    carrier = Carrier(url, token)
    async with httpx.AsyncClient() as client:
        target = await carrier.ring(client, call)
    say(f"webhook  signed POST {url}/twilio-voice -> TwiML with a stream to {target.url}")
    bar = ProgressBar(len(frames), "call")
    await carrier.stream(call, target, frames, on_frame=bar.show)
    bar.finish()


async def _read_back(pubsub: RedisStreams, call: Call) -> Heard:
    heard = Heard([], [], 0)
    gaps = 0
    async for _, entry in pubsub.entries(call.stream_sid):
        if isinstance(entry, AudioEntry) and entry.track is Track.INBOUND:
            heard.audio.append(entry.audio)
            heard.seqs.append(entry.seq)
        elif isinstance(entry, GapEntry):
            gaps += entry.frames
        elif isinstance(entry, EndEntry):
            break
    return Heard(heard.audio, heard.seqs, gaps)


async def _receipt(pubsub: RedisStreams, call: Call) -> dict[str, object]:
    async for event in pubsub.lifecycle():
        if event.name == "stream.stopped" and event.call.stream_sid == call.stream_sid:
            return dict(event.data["receipt"])
    raise LocalError("the receipt never came")


def _write_wav(path: Path, audio: list[bytes]) -> None:
    made = io.BytesIO()
    with wave.open(made, "wb") as recording:
        recording.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        recording.writeframes(b"".join(audio))
    with NewFile(path, force=True) as file:
        file.write(made.getvalue())
        file.keep()
