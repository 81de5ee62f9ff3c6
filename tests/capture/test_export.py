"""Calls rebuilt from what Redis retains: the audio as it was published, gaps as gaps."""

import asyncio
import json
import os
import subprocess
import sys
import wave
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from app.archive.memory import MemoryArchive
from app.audio import mulaw_to_pcm16
from app.events import AudioEntry, CallIdentity, EndEntry, Entry, StreamRecord
from app.log import mask_phone
from app.media import Encoding, MediaFormat, Track
from app.pubsub.memory import MemoryPubSub
from app.pubsub.records import KeptStream, StoredRecord
from app.tools.capture.export import Kept, rebuilt
from app.tools.capture.load import load_capture
from app.wire.capture import read_facts
from tests.archive.kept import audio, gap
from tests.capture.conftest import Run
from tests.captures.make_captures import DIRECTORY
from tests.service import Service, a_peer, written

SPEECH = DIRECTORY / "speech.jsonl"
MULAW_8K = MediaFormat(Encoding.MULAW, 8000)
PCM16_8K = MediaFormat(Encoding.PCM16, 8000)
PCM16_16K = MediaFormat(Encoding.PCM16, 16000)
SILENCE = b"\xff" * 160


def payloads(lines: Sequence[str]) -> list[str]:
    read = [json.loads(line) for line in lines]
    return [one["media"]["payload"] for one in read if one["event"] == "media"]


class Few(MemoryArchive):
    """An archive that has these entries of one stream."""

    def __init__(self, *kept: Entry) -> None:
        super().__init__(MemoryPubSub(lambda: 0.0))
        self.kept = kept

    async def entries(self, stream: KeptStream, after: str, count: int) -> list[tuple[str, Entry]]:
        return [(f"1-{entry.n}", entry) for entry in self.kept]


async def messages(
    *kept: Entry,
    carrier: str = "twilio",
    published: MediaFormat = PCM16_8K,
    carried: MediaFormat = MULAW_8K,
    is_live: bool = False,
) -> list[Any]:
    """Rebuild a stream of these entries; give its messages, those in JSON read."""
    call = CallIdentity("CA1", "MZ1", "shop", "premium", carrier)
    params = {"ticket": "s3cr3t", "agent": "7", "from": "+12763659195"}
    numbers = "+12763659195", "+15005550006"
    tracks = tuple(dict.fromkeys(one.track for one in kept if isinstance(one, AudioEntry)))
    record = StreamRecord(call, *numbers, params, published, carried, tracks, 1_700_000_000_000)
    stored = StoredRecord(record, None if is_live else 1_700_000_001_000, {})
    found = Kept("shop", "MZ1", stored, is_trimmed=False)
    written = [one async for one in rebuilt(Few(*kept), found, mask_phone)]
    return [one if isinstance(one, bytes) else json.loads(one) for one in written]


def media(found: list[Any]) -> list[tuple[str, str, str, str]]:
    """Give of each frame its number, track, chunk and time."""
    return [
        (
            one["sequenceNumber"],
            *(one["media"][name] for name in ("track", "chunk", "timestamp")),
        )
        for one in found
        if one["event"] == "media"
    ]


# ---------------------------------------------------------------------- by a service


def test_what_is_exported_is_what_was_sent_and_arrives_whole(
    waiving: Service, run: Run, tmp_path: Path
) -> None:
    sent = run("replay", SPEECH, waiving.url, "--burst")
    call_sid = sent.receipts[0]["callSid"]
    environ = {"REDIS_URL": waiving.redis_url}
    path = tmp_path / "call.jsonl"
    ran = run("export", call_sid, "--format", "jsonl", "-o", path, environ=environ)
    assert (ran.status, ran.out, ran.words) == (0, "", "")
    assert payloads(path.read_text().splitlines()) == payloads(SPEECH.read_text().splitlines())
    facts = read_facts(path)
    assert facts is not None
    assert (facts.business_id, facts.call_sid, facts.arrivals_ms) == ("business-1", call_sid, None)
    assert load_capture(path).seconds == pytest.approx(453 * 0.02)
    again = run("replay", path, waiving.url, "--burst")
    assert (again.status, again.receipts[0]["published"]) == (0, 454), again.words
    shown = run("export", call_sid, "--format", "jsonl", environ=environ)
    assert shown.out == path.read_text()


def test_an_exotel_call_is_exported_as_exotels(waiving: Service, run: Run, tmp_path: Path) -> None:
    source = DIRECTORY / "exotel_speech.jsonl"
    sent = run("replay", source, waiving.url, "--burst", "--business", "indian")
    path = tmp_path / "call.jsonl"
    environ = {"REDIS_URL": waiving.redis_url}
    arguments = "--format", "jsonl", "--business", "indian", "-o", path
    ran = run("export", sent.receipts[0]["callSid"], *arguments, environ=environ)
    assert ran.status == 0, ran.words
    assert payloads(path.read_text().splitlines()) == payloads(source.read_text().splitlines())
    assert load_capture(path).carrier == "exotel"
    assert "+9*******0001" in path.read_text()


def test_a_wav_has_every_sample(waiving: Service, run: Run, tmp_path: Path) -> None:
    sent = run("replay", DIRECTORY / "two_tracks.jsonl", waiving.url, "--burst")
    call_sid = sent.receipts[0]["callSid"]
    environ = {"REDIS_URL": waiving.redis_url}
    path = tmp_path / "call.wav"
    ran = run("export", call_sid, "--format", "wav", "-o", path, environ=environ)
    assert (ran.status, ran.words) == (0, "")
    with wave.open(str(path)) as found:
        assert (found.getnchannels(), found.getframerate(), found.getnframes()) == (2, 8000, 16000)
    piped = subprocess.run(
        [sys.executable, "-m", "app", "export", call_sid, "--format", "wav"],
        env=environ,
        capture_output=True,
    )
    assert (piped.returncode, piped.stdout) == (0, path.read_bytes())
    assert wave.open(BytesIO(piped.stdout)).getnframes() == 16000


def test_who_reads_no_further_gets_no_traceback(waiving: Service, run: Run) -> None:
    call_sid = run("replay", SPEECH, waiving.url, "--burst").receipts[0]["callSid"]
    line = f"{sys.executable} -m app export {call_sid} --format jsonl | head -n 1"
    ran = subprocess.run(
        ["sh", "-c", line],
        env={"REDIS_URL": waiving.redis_url, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert (ran.stdout.count("\n"), ran.stderr) == (1, "")


async def test_a_live_call_is_exported_as_far_as_it_has_come(
    waiving: Service, run: Run, tmp_path: Path
) -> None:
    async with a_peer(waiving, "/twilio-media?businessId=business-1", headers={}) as peer:
        await peer.start()
        await peer.media(5)
        await written(waiving, peer.stream_sid, 5)
        path = tmp_path / "call.jsonl"
        environ = {"REDIS_URL": waiving.redis_url}
        arguments = peer.call_sid, "--format", "jsonl", "-o", path
        ran = await asyncio.to_thread(run, "export", *arguments, environ=environ)
    assert ran.status == 0
    assert "this is what there was by now" in ran.words
    assert not load_capture(path).stops


# ------------------------------------------------------------------- by entries alone


async def test_missing_audio_is_numbers_that_were_never_sent() -> None:
    pcm = mulaw_to_pcm16(SILENCE)
    found = await messages(
        audio(1, 0, pcm), gap(2, 3), audio(3, 80, pcm), EndEntry(4, "stop"), carried=MULAW_8K
    )
    assert [one["event"] for one in found] == ["connected", "start", "media", "media", "stop"]
    assert media(found) == [("2", "inbound", "1", "0"), ("6", "inbound", "2", "80")]
    assert found[-1]["sequenceNumber"] == "7"
    assert found[1]["start"]["mediaFormat"]["encoding"] == "audio/x-mulaw"


async def test_frames_that_were_joined_are_sent_one_by_one() -> None:
    joined = AudioEntry(1, 4, 0, Track.INBOUND, mulaw_to_pcm16(SILENCE * 3), frames=3)
    other = AudioEntry(2, 5, 0, Track.OUTBOUND, mulaw_to_pcm16(SILENCE))
    found = await messages(joined, other)
    assert media(found) == [
        ("2", "inbound", "1", "0"),
        ("3", "inbound", "2", "20"),
        ("4", "inbound", "3", "40"),
        ("5", "outbound", "1", "0"),
    ]
    assert found[1]["start"]["tracks"] == ["inbound", "outbound"]


async def test_audio_of_another_rate_is_sent_as_it_was_published() -> None:
    found = await messages(audio(1, 0, b"\1\0" * 960), published=PCM16_16K)
    assert found[1]["start"]["mediaFormat"] == {
        "encoding": "audio/x-l16",
        "sampleRate": 16000,
        "channels": 1,
    }


async def test_secrets_and_numbers_are_hidden_and_a_live_call_has_no_stop() -> None:
    found = await messages(audio(1, 0, b"\1\0" * 160), is_live=True)
    said = found[1]["start"]["customParameters"]
    assert said == {"ticket": "***", "agent": "7", "from": "+1******9195"}
    assert found[-1]["event"] == "media"


async def test_an_own_clients_call_has_binary_frames() -> None:
    found = await messages(
        *(audio(1, 0, b"\1\0" * 240), gap(2, 1)), carrier="client", carried=PCM16_8K
    )
    assert found[0]["interaction_id"] == "CA1"
    assert found[1:] == [b"\1\0" * 240, {"event": "stop"}]


async def test_mulaw_that_was_published_of_exotels_is_linear_again() -> None:
    found = await messages(
        audio(1, 0, SILENCE), carrier="exotel", published=MULAW_8K, carried=PCM16_8K
    )
    assert found[1]["start"]["media_format"]["encoding"] == "audio/x-raw"
    assert len(found[2]["media"]["payload"]) == 428


# ------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "environ", "words"),
    [
        ("CAnone", None, "there is no call CAnone"),
        ("CA1", {}, "REDIS_URL is not set"),
        ("CA1", {"REDIS_URL": "redis://127.0.0.1:1"}, "REDIS_URL: Redis failed"),
        ("CA1", {"REDIS_URL": "http://127.0.0.1:1"}, "REDIS_URL"),
    ],
)
def test_what_cannot_be_exported_is_told_in_a_sentence(
    waiving: Service,
    run: Run,
    tmp_path: Path,
    call: str,
    environ: dict[str, str] | None,
    words: str,
) -> None:
    if environ is None:
        environ = {"REDIS_URL": waiving.redis_url}
    path = tmp_path / "call.jsonl"
    ran = run("export", call, "--format", "jsonl", "-o", path, environ=environ)
    assert ran.status == 2
    assert words in ran.words
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_not_written_over(
    waiving: Service, run: Run, tmp_path: Path
) -> None:
    call_sid = run("replay", SPEECH, waiving.url, "--burst").receipts[0]["callSid"]
    environ = {"REDIS_URL": waiving.redis_url}
    for name in ("jsonl", "wav"):
        path = tmp_path / f"call.{name}"
        path.write_text("mine")
        ran = run("export", call_sid, "--format", name, "-o", path, environ=environ)
        assert (ran.status, path.read_text()) == (2, "mine")
        assert "is there already; --force" in ran.words
        ran = run("export", call_sid, "--format", name, "-o", path, "--force", environ=environ)
        assert ran.status == 0, ran.words


def test_a_full_disk_leaves_nothing_half_written(
    waiving: Service, run: Run, tmp_path: Path
) -> None:
    call_sid = run("replay", SPEECH, waiving.url, "--burst").receipts[0]["callSid"]
    for name in ("jsonl", "wav"):
        limited = (
            "import resource, sys\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
            "from app.cli import main\n"
            f"sys.exit(main(['export', '{call_sid}', '--format', '{name}', '-o', 'call']))"
        )
        ran = subprocess.run(
            [sys.executable, "-c", limited],
            env={"REDIS_URL": waiving.redis_url, "PYTHONPATH": str(Path.cwd())},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (ran.returncode, ran.stderr) == (2, "call cannot be written: File too large\n")
        assert list(tmp_path.iterdir()) == []
