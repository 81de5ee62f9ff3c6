"""Live calls recorded at the wire: whole files of the calls that may be, and words for the rest."""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from redis.asyncio import Redis

from app.errors import CommandFailed, StoreUnavailable
from app.events import CallIdentity, HeldStream
from app.plans import Business
from app.store.captures import ANY, Asked, Batch, Captured, Message, Opening
from app.store.configuration import Stored
from app.store.memory_captures import MemoryCaptures
from app.tools.capture import record as module
from app.tools.capture.load import load_capture
from app.tools.capture.record import Recorder
from app.wire.capture import CaptureFacts, capture_line, facts_path, read_capture, read_facts
from tests.capture.conftest import JWT_SECRET, Run
from tests.captures.make_captures import DIRECTORY
from tests.service import Peer, Service, a_peer, http_client, receipt_of, started, written
from tests.waiting import WAIT_SECONDS, until

SPEECH = DIRECTORY / "speech.jsonl"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(one.message) for one in read_capture(path)]


def facts_of(path: Path) -> CaptureFacts:
    facts = read_facts(path)
    assert facts is not None
    return facts


@asynccontextmanager
async def recording(
    service: Service, directory: Path, *arguments: str, variables: dict[str, str] | None = None
) -> AsyncIterator[Process]:
    """Run `record` as an operator does, and wait until it asks."""
    await no_longer_asked(service)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "record", *arguments, "-o", str(directory)),
        env={"PATH": os.environ["PATH"], "REDIS_URL": service.redis_url, **(variables or {})},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with Redis.from_url(service.redis_url) as redis:
            await until(lambda: redis.zcard("held:{captures}"))
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: Process) -> tuple[int, str]:
    async with asyncio.timeout(WAIT_SECONDS):
        _, words = await process.communicate()
    return process.returncode or 0, words.decode()


async def no_longer_asked(service: Service) -> None:
    """Take back what recorders before have asked for; it would run out by itself."""
    async with Redis.from_url(service.redis_url) as redis:
        await redis.delete("held:{captures}")


QUERY = "/twilio-media?businessId=business-1&secret=s3cr3t"


# -------------------------------------------------------------- by a running service


async def test_a_recorded_call_is_what_was_sent_and_can_be_placed_again(
    waiving: Service, tmp_path: Path, run: Run
) -> None:
    async with recording(waiving, tmp_path, "--all", "--calls", "1") as process:
        async with a_peer(waiving, QUERY, headers={}) as peer:
            await peer.start({"ticket": "s3cr3t", "from": "+12763659195"})
            await peer.media(60)
            await peer.socket.send('{"event":"media","media":{"payl')
            await peer.socket.send(b"\x01\x02")
            await peer.socket.send('{\n"event":"mark"}')
            await peer.socket.send('{"event":"dtmf","dtmf":{"digit":"7"}}')
            await peer.stop()
            await peer.closed()
        status, words = await ended(process)
    path = tmp_path / f"{peer.call_sid}.jsonl"
    assert (status, words.splitlines()[-1]) == (0, f"{path}: 67 messages")
    text = path.read_text() + facts_path(path).read_text()
    assert "s3cr3t" not in text
    assert "276365" not in text
    assert '"digit":"0"' in text
    assert '{"binary":"AQI="}' in text
    facts = facts_of(path)
    assert (facts.ended, facts.left_out, facts.begins_midway) == (True, 0, False)
    assert (facts.business_id, facts.stream_sid) == ("business-1", peer.stream_sid)
    assert facts.query == {"businessId": "business-1"}
    assert facts.bad_lines == [63]
    assert len(facts.arrivals_ms or ()) == 67
    assert facts.arrivals_ms == sorted(facts.arrivals_ms or ())
    receipt = await receipt_of(waiving, peer.stream_sid)
    ran = await asyncio.to_thread(run, "replay", path, waiving.url, "--speed", 20)
    assert ran.status == 0, ran.words
    assert [ran.receipts[0][name] for name in ("received", "published", "rejected")] == [
        receipt[name] for name in ("received", "published", "rejected")
    ]


@pytest.mark.parametrize("carrier", ["client", "exotel"])
async def test_a_call_of_binary_frames_is_recorded_and_placed_again(
    waiving: Service, tmp_path: Path, run: Run, carrier: str
) -> None:
    claims = {"tenant_id": "business-1", "exp": int(time.time()) + 300}
    environ = {"INGEST_TOKEN": jwt.encode(claims, JWT_SECRET, "HS256")}
    lines = [capture_line(bytes([number, 1]) * 480) for number in range(6)]
    if carrier == "client":
        start = {"event": "start", "interaction_id": "a", "tenant_id": "b", "sample_rate": 24000}
        lines = [json.dumps(start), *lines, '{"event":"stop"}']
    source = tmp_path / "source.jsonl"
    source.write_text("\n".join(lines))
    recorded = tmp_path / "recorded"
    arguments = "replay", source, waiving.url, "--business", "business-1"
    async with recording(waiving, recorded, "--all", "--calls", "1") as process:
        sent = await asyncio.to_thread(run, *arguments, environ=environ)
        status, words = await ended(process)
    assert (sent.status, status) == (0, 0), sent.words + words
    path = recorded / f"{sent.receipts[0]['callSid']}.jsonl"
    assert facts_of(path).carrier == carrier
    assert path.read_text().splitlines()[-7:].count(lines[3]) == 1
    again = await asyncio.to_thread(run, "replay", path, waiving.url, environ=environ)
    assert (again.status, again.receipts[0]["published"]) == (0, 6), again.words


async def test_a_call_is_recorded_from_its_middle_with_its_start(
    waiving: Service, tmp_path: Path
) -> None:
    await no_longer_asked(waiving)
    async with a_peer(waiving, QUERY, headers={}) as peer:
        await peer.start()
        await started(waiving, peer.stream_sid)
        await peer.media(10)
        await written(waiving, peer.stream_sid, 10)
        async with recording(waiving, tmp_path, peer.call_sid) as process:
            await _recorded(waiving, peer)
            await peer.media(10)
            await peer.stop()
            await peer.closed()
            status, words = await ended(process)
    path = tmp_path / f"{peer.call_sid}.jsonl"
    assert status == 0, words
    assert "from the middle of the call" in words
    found = lines_of(path)
    assert [one["event"] for one in found] == ["connected", "start", *["media"] * 10, "stop"]
    assert found[2]["sequenceNumber"] == "12"
    assert facts_of(path).begins_midway
    assert load_capture(path).good == 10


def names_in(directory: Path) -> set[str]:
    return {one.name for one in directory.iterdir()}


async def _recorded(service: Service, peer: Peer) -> None:
    """Wait until a stream's messages are taken."""
    async with Redis.from_url(service.redis_url) as redis:
        await until(lambda: redis.exists(f"capture:{{{peer.stream_sid}}}:opening"))


async def test_ctrl_c_keeps_what_has_come(waiving: Service, tmp_path: Path) -> None:
    async with recording(waiving, tmp_path, "--all", "--business", "business-1") as process:
        async with a_peer(waiving, QUERY, headers={}) as peer:
            await peer.start()
            await peer.media(5)
            await _recorded(waiving, peer)
            path = tmp_path / f"{peer.call_sid}.jsonl"
            await until(lambda: path.with_name(f"{path.name}.part").exists())
            process.send_signal(signal.SIGINT)
            status, words = await ended(process)
            assert status == 130
            assert "not to the stream's end" in words
    assert not facts_of(path).ended
    # A call of another test's may still be there, and is recorded too.
    assert names_in(tmp_path) >= {path.name, facts_path(path).name}
    assert not [name for name in names_in(tmp_path) if name.endswith(".part")]


async def test_a_business_that_does_not_allow_it_is_not_recorded(
    waiving: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_peer(waiving, "/twilio-media?businessId=business-2", headers={}) as peer:
        await peer.start()
        await peer.media(5)
        async with recording(waiving, tmp_path, peer.call_sid) as process:
            status, words = await ended(process)
        async with Redis.from_url(waiving.redis_url) as redis:
            assert not await redis.exists(f"capture:{{{peer.stream_sid}}}:opening")
    assert status == 2
    assert "business-2 does not allow it; set its field capture_calls" in words
    assert names_in(tmp_path) == set()


async def test_a_message_that_is_too_big_is_counted_as_left_out(
    waiving: Service, tmp_path: Path
) -> None:
    async with recording(waiving, tmp_path, "--all", "--calls", "1") as process:
        async with a_peer(waiving, QUERY, headers={}) as peer:
            await peer.start()
            await peer.media(5)
            await started(waiving, peer.stream_sid)
            await peer.socket.send("a" * 70_000)
            assert (await peer.closed())[0] == 1009
        status, words = await ended(process)
    assert (status, "7 messages, 1 left out" in words) == (1, True)


async def test_erasing_a_call_erases_what_was_recorded_of_it(
    waiving: Service, tmp_path: Path
) -> None:
    async with recording(waiving, tmp_path, "--all", "--calls", "1") as process:
        async with a_peer(waiving, QUERY, headers={}) as peer:
            await peer.start()
            await peer.media(5)
            await peer.stop()
            await peer.closed()
        await ended(process)
    async with Redis.from_url(waiving.redis_url) as redis:
        keys = [f"capture:{{{peer.stream_sid}}}{end}" for end in ("", ":opening")]
        assert await redis.exists(*keys) == 2
        async with http_client(headers={"Authorization": f"Bearer {'a' * 32}"}) as client:
            erased = await client.delete(f"{waiving.url}/api/v1/calls/{peer.call_sid}")
        assert erased.json()["erased"]["captures"]["count"] == 2
        assert await redis.exists(*keys) == 0


# ------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (["CA1"], {}, "REDIS_URL is not set"),
        (["CA1"], {"REDIS_URL": "redis://127.0.0.1:1"}, "REDIS_URL: Redis failed"),
        (["CA1", "--all"], {}, "not allowed with"),
        ([], {}, "one of the arguments"),
    ],
)
def test_what_cannot_begin_is_told_in_a_sentence(
    run: Run, tmp_path: Path, arguments: list[str], environ: dict[str, str], words: str
) -> None:
    ran = run("record", *arguments, "-o", tmp_path / "new", environ=environ)
    assert ran.status == 2
    assert words in ran.words


def test_a_directory_that_cannot_be_made_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environ = {"REDIS_URL": "redis://127.0.0.1:1"}
    for place in ("file", "not/there"):
        ran = run("record", "--all", "-o", tmp_path / place, environ=environ)
        assert ran.status == 2
        assert f"{tmp_path / place} cannot be written to" in ran.words


# ------------------------------------------------------------- by calls that are staged


class New(MemoryCaptures):
    """Captures that have all begun since they were asked for, or with `old` before."""

    old = False

    async def begun(self, after: int | None) -> tuple[int, list[str]]:
        return 0, [] if self.old else list(self._kept)


class Stage:
    """Calls that are live as the test says, and what a recorder says of them."""

    def __init__(self, directory: Path) -> None:
        self.captures = New(lambda: 0.0)
        self.directory = directory
        self.held: list[HeldStream] = []
        self.said: list[str] = []
        self.away = False

    async def held_streams(self) -> list[HeldStream]:
        if self.away:
            raise StoreUnavailable("away")
        return self.held

    async def stored_business(self, business_id: str) -> Stored[Business] | None:
        return Stored(Business(business_id, "Shop", "premium", capture_calls=True), 1)

    async def live(self, call_sid: str, stream_sid: str = "") -> str:
        """Let a call begin, and be captured from its first message."""
        stream_sid = stream_sid or f"MZ-{call_sid}"
        call = CallIdentity(call_sid, stream_sid, "shop", "premium", "twilio")
        self.held.append(HeldStream(call, 1, 60))
        await self.captures.begin(
            Opening(stream_sid, call_sid, "shop", "twilio", {}, 1, 1, [], from_first=True)
        )
        return stream_sid

    async def put(self, stream_sid: str, first: int, *texts: str, ended: bool = False) -> None:
        messages = [Message(first + n, text) for n, text in enumerate(texts)]
        await self.captures.put(Captured(stream_sid, "shop"), Batch(first, messages, ended))

    async def record(self, call_sid: str = ANY, **options: Any) -> bool:
        recorder = Recorder(
            *(self.captures, self, Asked(ANY, call_sid), self.directory, self.said.append),
            **options,
        )
        async with asyncio.timeout(WAIT_SECONDS):
            return await recorder.run(asyncio.Event())


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name in ("READ_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(module, name, 0.0)
    return Stage(tmp_path)


async def test_what_is_missing_is_counted_and_the_recording_is_not_whole(stage: Stage) -> None:
    sid = await stage.live("CA1")
    await stage.put(sid, 0, "{}", "{}")
    await stage.put(sid, 5, "{}")
    await stage.put(sid, 7, ended=True)
    assert not await stage.record("CA1")
    assert "3 messages, 4 left out" in stage.said[-1]
    assert facts_of(stage.directory / "CA1.jsonl").left_out == 4


async def test_a_holder_that_dies_leaves_a_recording_that_is_not_whole(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.05)
    sid = await stage.live("CA1")
    await stage.put(sid, 0, "{}")
    assert not await stage.record("CA1")
    assert "not to the stream's end" in stage.said[-1]


async def test_a_redis_that_comes_back_in_time_costs_nothing(stage: Stage) -> None:
    sid = await stage.live("CA1")
    await stage.put(sid, 0, "{}")
    running = asyncio.create_task(stage.record("CA1"))
    await until(lambda: list(stage.directory.iterdir()))
    stage.away = True
    await asyncio.sleep(0.02)
    stage.away = False
    await stage.put(sid, 1, "{}", ended=True)
    assert await running


async def test_a_second_stream_of_a_call_is_a_file_of_its_own(stage: Stage) -> None:
    for number in range(2):
        await stage.put(await stage.live("CA1", f"MZ{number}"), 0, "{}", ended=True)
    assert await stage.record(calls=2)
    names = {"CA1.jsonl", "CA1.meta.json", "CA1-2.jsonl", "CA1-2.meta.json"}
    assert names_in(stage.directory) == names


async def test_a_call_that_was_over_before_is_not_recorded_and_one_that_goes_on_is(
    stage: Stage,
) -> None:
    stage.captures.old = True
    await stage.put(await stage.live("CA1"), 0, "{}", ended=True)
    with pytest.raises(CommandFailed, match="the call CA1 is over"):
        await stage.record("CA1")
    sid = await stage.live("CA2")
    await stage.put(sid, 0, "{}")
    running = asyncio.create_task(stage.record(calls=1))
    await until(lambda: names_in(stage.directory))
    await stage.put(sid, 1, "{}", ended=True)
    assert await running
    assert names_in(stage.directory) == {"CA2.jsonl", "CA2.meta.json"}


async def test_a_file_that_is_there_is_not_written_over(stage: Stage) -> None:
    there = stage.directory / "CA1.jsonl"
    there.write_text("mine")
    await stage.put(await stage.live("CA1"), 0, "{}", ended=True)
    with pytest.raises(CommandFailed, match="is there already; --force"):
        await stage.record("CA1")
    assert (there.read_text(), len(list(stage.directory.iterdir()))) == ("mine", 1)
    assert await stage.record("CA1", force=True)
    assert there.read_text() == "{}\n"


async def test_of_all_calls_one_that_cannot_be_written_does_not_stop_the_others(
    stage: Stage,
) -> None:
    (stage.directory / "CA1.jsonl").write_text("mine")
    for call_sid in ("CA1", "CA2"):
        await stage.put(await stage.live(call_sid), 0, "{}", ended=True)
    assert not await stage.record(calls=1)
    assert any("CA1.jsonl is there already" in one for one in stage.said)
    assert (stage.directory / "CA2.jsonl").read_text() == "{}\n"


async def test_a_call_that_is_not_live_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(CommandFailed, match="there is no live call CA9"):
        await stage.record("CA9")


async def test_a_call_that_began_before_it_was_allowed_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    await stage.live("CA1")
    stage.captures._kept.clear()
    with pytest.raises(CommandFailed, match="it began before its business allowed it"):
        await stage.record("CA1")
