"""`media-bridge tail` as a process, on calls that are written as the service writes them."""

import io
import json
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from app.log import mask_phone
from app.tools.tail.display import Screen, event_line
from app.tools.tail.meter import Meter
from tests.consumer.bridge import START, Bridge, audio, gap, sound
from tests.consumer.reading import all_of, next_call, worker
from tests.redis_process import RedisProcess
from tests.samples import an_event
from tests.waiting import WAIT_SECONDS, until

NUMBER = "+15005550009"


@contextmanager
def tail(
    redis_url: str, output: Path, *arguments: str, **variables: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `tail`; what it says goes to `output`, and its last words to `output.err`."""
    environment = {"PATH": os.environ["PATH"], "REDIS_URL": redis_url, **variables}
    with output.open("wb") as out, output.with_suffix(".err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "tail", *arguments],
            env=environment,
            stdout=out,
            stderr=err,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command that ends by itself; give its status and its words."""

    def run(redis_url: str, *arguments: str) -> tuple[int, str]:
        monkeypatch.setenv("REDIS_URL", redis_url)
        status = main(arguments)
        out, err = capfd.readouterr()
        assert out == ""
        return status, err.strip()

    return run


@pytest.fixture
async def one_live_one_over(bridge: Bridge) -> None:
    await bridge.begin("MZ1")
    await bridge.say("MZ1", 1, 5)
    await bridge.whole("MZ2", 1)


async def test_a_call_is_shown_in_lines_to_its_end(
    bridge: Bridge, redis_url: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    call = await bridge.begin("MZ1")
    other = await bridge.begin("MZ2", at=START + 1)
    with tail(redis_url, output, "MZ1") as process:
        await until(lambda: "0:00 CA-MZ1" in output.read_text())
        await bridge.announce(call, "stream.dtmf", digit="7-seven", seq=1)
        await bridge.announce(call, "call.status", **{"from": NUMBER, "status": "in-progress"})
        await bridge.announce(other, "call.status", status="elsewhere")
        await bridge.say("MZ1", 1, 50)
        await bridge.put("MZ1", gap(51, 6, "overflow"))
        await bridge.end(call, 52)
        assert process.wait(WAIT_SECONDS) == 0, output.with_suffix(".err").read_text()
    said = output.read_text()
    assert "0:01 CA-MZ1  inbound" in said
    assert "CA-MZ1 6 frames are missing: overflow" in said
    assert "from=+1******0009 status=in-progress" in said
    assert "stream.stopped  CA-MZ1 business-1 receipt=stop, 51 of 51 frames" in said
    assert not [secret for secret in (NUMBER, "7-seven", "elsewhere", "MZ2") if secret in said]


async def test_every_line_for_a_pipe_is_an_object(
    bridge: Bridge, redis_url: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with tail(redis_url, output, "--business", "business-1", "--json") as process:
        await bridge.begin("MZ2", business="business-2")
        call = await bridge.begin("MZ1", at=START + 1)
        await bridge.say("MZ1", 1, 50, at=START + 1)
        await bridge.put("MZ1", gap(51, 6, "overflow"), at=START + 1)

        def lines() -> list[dict[str, Any]]:
            return [json.loads(line) for line in output.read_text().splitlines()]

        await until(lambda: any(line.get("missing") for line in lines()))
        await bridge.announce(call, "stream.dtmf", digit="7-seven", seq=1)
        await bridge.end(call, 52, at=START + 1, began=START + 1)
        await until(lambda: "stream.stopped" in output.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 130
    told = {line["event"]: line for line in lines()}
    assert told["gap"]["frames"] == 6
    assert told["meter"]["call_sid"] == "CA-MZ1"
    assert told["meter"]["levels"].keys() == {"inbound"}
    assert told["stream.dtmf"]["data"] == {"seq": 1}
    assert told["stream.stopped"]["data"]["receipt"]["end_reason"] == "stop"
    assert "MZ2" not in output.read_text()


async def test_audio_is_a_valid_file_when_it_is_stopped_at_any_time(
    bridge: Bridge, redis_url: str, tmp_path: Path
) -> None:
    wav = tmp_path / "call.wav"
    await bridge.begin("MZ1")
    with tail(redis_url, tmp_path / "out", "MZ1", "--wav", str(wav)) as process:
        await bridge.say("MZ1", 1, 100)
        await until(lambda: wav.exists() and wav.stat().st_size == 44 + 100 * 320)
        await bridge.put("MZ1", audio(103))
        await until(lambda: wav.stat().st_size == 44 + 103 * 320)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 130
    with wave.open(str(wav)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        heard = file.readframes(10**6)
    silence = bytes(2 * 320)
    assert heard == b"".join(map(sound, range(1, 101))) + silence + sound(103)


async def test_audio_goes_to_a_player(bridge: Bridge, redis_url: str, tmp_path: Path) -> None:
    played = tmp_path / "played"
    player = tmp_path / "aplay"
    player.write_text(f'#!/bin/sh\necho "$@" > {played}.how\nexec cat > {played}\n')
    player.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    call = await bridge.begin("MZ1")
    with tail(redis_url, tmp_path / "out", "MZ1", "--play", PATH=path) as process:
        await until(played.exists)
        await bridge.say("MZ1", 1, 20)
        await bridge.end(call, 21)
        assert process.wait(WAIT_SECONDS) == 0
    assert played.read_bytes() == b"".join(map(sound, range(1, 21)))
    assert (tmp_path / "played.how").read_text() == "-q -f S16_LE -t raw -r 8000 -c 1 -\n"


async def test_without_a_player_a_sentence_says_so(
    bridge: Bridge, redis_url: str, tmp_path: Path
) -> None:
    with tail(redis_url, tmp_path / "out", "MZ1", "--play", PATH=str(tmp_path)) as process:
        assert process.wait(WAIT_SECONDS) == 2
    said = (tmp_path / "out.err").read_text()
    assert said.startswith("nothing that plays audio was found (aplay, ffplay, play)")


@pytest.mark.usefixtures("one_live_one_over")
def test_bad_use_is_answered_by_one_sentence(
    ran: Run, redis_url: str, tmp_path: Path, unused_tcp_port: int
) -> None:
    there = tmp_path / "there.wav"
    there.write_bytes(b"mine")
    nowhere = f"redis://:secret@127.0.0.1:{unused_tcp_port}/0"
    wav = ("tail", "MZ1", "--wav")
    asked = {
        ("tail", "CAnone"): "there is no call CAnone",
        ("tail", "MZ1", "--business", "other"): "there is no call MZ1",
        ("tail", "MZ2"): "the call MZ2 is over",
        ("tail", "--play"): "need a CALL",
        (*wav, str(there)): "is there already; --force replaces it",
        (*wav, str(tmp_path / "no" / "x.wav")): "is no directory",
        (*wav, "/dev/full", "--force"): "/dev/full cannot be written: No space left on device",
    }
    for arguments, why in asked.items():
        status, said = ran(redis_url, *arguments)
        assert (status, len(said.splitlines())) == (2, 1), said
        assert why in said
    assert there.read_bytes() == b"mine"
    status, said = ran(nowhere, "tail")
    assert (status, "secret" in said) == (2, False)
    where = f"redis://127.0.0.1:{unused_tcp_port}/0"
    assert said == f"Redis at {where} cannot be used: Redis failed: ConnectionError"
    assert ran("", "calls")[1].startswith("REDIS_URL is not set")


def test_a_wrong_password_is_said_and_not_shown(ran: Run, tmp_path: Path) -> None:
    with RedisProcess(tmp_path, fsync=None, password="right") as server:
        for command in ("tail", "calls"):
            status, said = ran(server.url.replace("right", "wr0ng"), command)
            assert (status, "wr0ng" in said) == (2, False)
            assert said.endswith("cannot be used: Redis failed: AuthenticationError")


@pytest.mark.usefixtures("one_live_one_over")
def test_a_reader_that_has_enough_ends_it_without_a_word(redis_url: str) -> None:
    pipe = '("$0" -m app tail; echo status $? >&2) | :'
    ran = subprocess.run(
        ["/bin/sh", "-c", pipe, sys.executable],
        env={"PATH": os.environ["PATH"], "REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert (ran.stdout, ran.stderr) == ("", "status 0\n")


async def test_meters_are_drawn_anew_in_place(bridge: Bridge, redis_url: str) -> None:
    await bridge.whole("MZ1", 100)
    async with worker(redis_url, start="kept") as mine:
        call = await next_call(mine)
        meter = Meter(call)
        for item in await all_of(call):
            meter.hear(item)
        out = io.StringIO()
        screen = Screen(out, mask_phone)
        screen.meters([meter])
        screen.event(an_event("e1"))
        screen.meters([meter] * 500)
        screen.close()
    first, event, many, end = out.getvalue().split("\033[J")[1:]
    assert "0:02 CA-MZ1  inbound" in first
    assert event.splitlines()[0].endswith("from=+1******0009")
    assert "0:02 CA-MZ1" in event.splitlines()[1]
    assert "more calls" in many.splitlines()[-2]
    assert end == ""


def test_a_line_forges_no_other() -> None:
    event = an_event("e1", "call.rejected")
    object.__setattr__(event, "data", {"reason": "x\n00:00:00 stream.started\033[2J"})
    assert "\n" not in event_line(event, mask_phone)
    assert "\033" not in event_line(event, mask_phone)
