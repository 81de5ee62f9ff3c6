"""The printed command line, run by a real wscat: every frame arrives."""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.carriers.stream_ids import stream_id
from app.tools.capture.load import load_capture
from app.tools.capture.routes import Route
from app.tools.capture.wscat import wscat_command
from tests.capture.conftest import PAIR, SIGNED, Run
from tests.captures.make_captures import DIRECTORY
from tests.npm import installed
from tests.service import Service, receipt_of
from tests.waiting import WAIT_SECONDS

SPEECH = DIRECTORY / "speech.jsonl"
EXOTEL = DIRECTORY / "exotel_speech.jsonl"
STREAM = re.compile(r'"(?:streamSid|stream_sid)":"(\w+)"')


@pytest.fixture(scope="module")
def npx(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give the environment of a shell in which `npx wscat@6` is at hand, and begins at once.

    Four of npm's own take seconds of a busy machine to begin, and a socket may not wait
    long for its `start`.
    """
    directory = tmp_path_factory.mktemp("npx")
    wscat = installed(directory, "wscat@6") / "wscat"
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    quick = directory / "npx"
    named = 'test "$1 $2" = "--yes wscat@6" && shift 2'
    quick.write_text(f'#!/bin/sh\n{named} && exec "{wscat}" "$@"\n')
    quick.chmod(0o755)
    return environment | {"PATH": f"{directory}:{environment['PATH']}"}


async def typed(command: str, environment: dict[str, str]) -> None:
    """Run a line as a shell does that knows no more than POSIX."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", command),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(4 * WAIT_SECONDS):
        assert await process.wait() == 0


def stream_of(command: str) -> str:
    found = STREAM.search(command)
    assert found is not None
    return found[1]


def printed(run: Run, *arguments: object, environ: Mapping[str, str] | None = None) -> str:
    """Give the line that `wscat` prints; it has time enough to begin, however busy we are."""
    with ThreadPoolExecutor() as threads:  # the command has an event loop of its own
        ran = threads.submit(run, "wscat", *arguments, "--lead", 4, environ=environ).result()
    assert ran.status == 0, ran.words
    line = ran.out.strip()
    assert "\n" not in line
    return line


async def test_what_is_printed_places_the_call_with_every_frame(
    waiving: Service, enforcing: Service, run: Run, npx: dict[str, str], tmp_path: Path
) -> None:
    odd = tmp_path / "it's a call & more; $HOME.jsonl"
    odd.write_text("".join(SPEECH.read_text().splitlines(keepends=True)[:52]))
    unsigned = printed(run, SPEECH, waiving.url, "--burst")
    signed = printed(run, SPEECH, enforcing.url, "--burst", environ=SIGNED)
    slow = printed(run, odd, waiving.url)
    exotel = printed(run, EXOTEL, enforcing.url, "--burst", "--to", "+918047112345", environ=PAIR)
    commands = [unsigned, signed, slow, exotel]
    assert ["X-Twilio-Signature" in one for one in commands] == [False, True, False, False]
    assert ["ticket" in one for one in commands] == [False, True, False, False]
    assert ["while IFS= read -r line" in one for one in commands] == [False, False, True, False]
    assert ["--auth" in one for one in commands] == [False, False, False, True]
    await asyncio.gather(*(typed(one, npx) for one in commands))
    streams = [stream_of(one) for one in commands]
    streams[3] = stream_id("exotel", "indian", streams[3])
    found = [
        await receipt_of(service, stream)
        for service, stream in zip([waiving, enforcing, waiving, enforcing], streams, strict=True)
    ]
    assert [one["received"] for one in found] == [454, 454, 50, 91]
    assert [one["published"] for one in found] == [454, 454, 50, 91]
    assert [one["end_reason"] for one in found] == ["stop", "stop", "closed", "stop"]
    assert found[2]["wall_ms"] >= 49 * 20


@pytest.mark.parametrize("text", ["a & b", "a|b", "back\\slash \\n", "it's", "$HOME `id` %s !"])
def test_whatever_a_start_holds_passes_the_shell_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "call.jsonl"
    path.write_text("".join(SPEECH.read_text().splitlines(keepends=True)[:4]))
    route = Route("ws://127.0.0.1:1/", json.dumps({"event": "start", "said": text}))
    line = wscat_command(load_capture(path), route, lead_seconds=0, in_real_time=False)
    lines, _, _ = line.removeprefix("(sleep 0; ").partition("; sleep 2) | npx")
    ran = subprocess.run(["sh", "-c", lines], capture_output=True, text=True, check=True)
    found = ran.stdout.splitlines()
    assert json.loads(found[1])["said"] == text
    assert [found[0], *found[2:]] == [
        one for at, one in enumerate(path.read_text().splitlines()) if at != 1
    ]


# ------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"binary":"AAAA"}', "line 3: a binary frame, which wscat cannot send"),
        ('{"text":"{}\\n{}"}', "line 3: not one line of text, which wscat cannot send"),
    ],
)
def test_what_wscat_cannot_send_is_named(run: Run, tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "call.jsonl"
    lines = SPEECH.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[2:5]]))
    ran = run("wscat", path, "http://127.0.0.1:1", "--damaged")
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.words


def test_an_own_clients_call_cannot_be_pasted(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    path.write_text('{"event":"start","interaction_id":"a","tenant_id":"b"}\n')
    ran = run("wscat", path, "http://127.0.0.1:1", environ={"INGEST_TOKEN": "x"})
    assert (ran.status, ran.out) == (2, "")
    assert "wscat cannot send" in ran.words


def test_a_service_that_refuses_the_webhook_is_named(enforcing: Service, run: Run) -> None:
    ran = run("wscat", SPEECH, enforcing.url, environ={"TWILIO_AUTH_TOKEN": "wrong"})
    assert (ran.status, ran.out) == (2, "")
    assert "403" in ran.words
