"""docs/troubleshooting.md: each command runs, each answer comes, each log line is ours."""

import ast
import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app import errors
from app.events import EndReason
from app.settings import SECRET_NAMES, SUFFIX, Settings
from app.wire import exotel
from tests.markdown import ANYTHING, ROOT, Block, blocks, pattern, read, rows, spans
from tests.npm import installed
from tests.service import (
    Service,
    a_call,
    a_peer,
    logged_line,
    post,
    receipt_of,
    service_alone,
    signature,
)
from tests.waiting import WAIT_SECONDS, until
from tests.web.test_voice import parameters

GUIDE = "docs/troubleshooting.md"
BLOCKS = blocks(GUIDE)
KEY, TOKEN = "key", "token"
SECONDS_OF_CURL = 60


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give an instance that checks everybody, and serves Exotel."""
    with service_alone(
        tmp_path_factory.mktemp("bridge"),
        SUPPORT_EXOTEL="true",
        EXOTEL_API_KEY=KEY,
        EXOTEL_API_TOKEN=TOKEN,
        EXOTEL_DEFAULT_BUSINESS="business-1",
    ) as running:
        asyncio.run(a_call_from_twilio(running))
        yield running


# ------------------------------------------------------------------- what happens


async def a_start(bridge: Service) -> None:
    """Nothing more: it has started."""


async def the_webhook_alone(bridge: Service) -> None:
    answer = await post(bridge, "/twilio-voice", a_call())
    assert answer.status_code == 200


async def a_call_from_twilio(bridge: Service) -> None:
    call = a_call()
    answer = await post(bridge, "/twilio-voice", call)
    async with a_peer(bridge, call_sid=call["CallSid"]) as peer:
        await peer.start(parameters(answer.text))
        await peer.media(5)
        await peer.stop()
        await peer.closed()
    await receipt_of(bridge, peer.stream_sid)


async def a_caller_turned_away(bridge: Service) -> None:
    await post(bridge, "/twilio-voice", a_call("+15005559999"))


async def a_webhook_that_twilio_did_not_sign(bridge: Service) -> None:
    wrong = {"X-Twilio-Signature": signature(bridge.url + "/twilio-voice", token="another")}
    answer = await post(bridge, "/twilio-voice", a_call(), headers=wrong)
    assert answer.status_code == 403


async def of_exotel(bridge: Service, messages: list[str | bytes]) -> None:
    url = bridge.ws_url.replace("://", f"://{KEY}:{TOKEN}@") + "/v1/ingest"
    async with connect(url, compression=None) as socket:
        for message in messages:
            await socket.send(message)


async def an_exotel_call(bridge: Service) -> None:
    frame = b"\x01\x00" * 160
    media = [
        exotel.media_message("guide", frame, seq=at + 1, chunk=at, timestamp=20 * at)
        for at in range(1, 4)
    ]
    start = exotel.start_message("guide", "call-guide", to_number="+15005550006")
    await of_exotel(bridge, [exotel.connected_message(), start, *media])


async def binary_audio(bridge: Service) -> None:
    await of_exotel(bridge, [b"\x00\x01" * 480] * 100)


async def a_key_that_is_none(bridge: Service) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    words = [
        word
        for name, value in {**headers, "Sec-WebSocket-Key": "test"}.items()
        for word in ("-H", f"{name}: {value}")
    ]
    url = bridge.url + "/v1/ingest"
    done = await asyncio.create_subprocess_exec(
        "curl", "-s", "--noproxy", "*", *words, url, stdout=asyncio.subprocess.DEVNULL
    )
    await done.wait()


SCENARIOS: MappingProxyType[str, Callable[[Service], Awaitable[None]]] = MappingProxyType(
    {
        "a start": a_start,
        "the webhook alone": the_webhook_alone,
        "a call from Twilio": a_call_from_twilio,
        "a caller turned away": a_caller_turned_away,
        "a webhook that Twilio did not sign": a_webhook_that_twilio_did_not_sign,
        "an Exotel call": an_exotel_call,
        "binary audio": binary_audio,
        "a key that is none": a_key_that_is_none,
    }
)

# ------------------------------------------------------------------- its commands


def commands() -> Iterator[tuple[Block, Block]]:
    """Pair each command with the answer that follows it."""
    for block, following in zip(BLOCKS, [*BLOCKS[1:], None], strict=True):
        if block.kind == "sh" and block.name != "wscat":
            assert following is not None
            assert following.kind == "text", f"line {block.line} shows no answer"
            yield block, following


def environment(bridge: Service) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    given = {"BRIDGE": bridge.url, "REDIS_URL": bridge.redis_url}
    pair = {"EXOTEL_API_KEY": KEY, "EXOTEL_API_TOKEN": TOKEN}
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "no_proxy": "*", **given, **pair}


@pytest.mark.parametrize(
    ("command", "answer"),
    [pytest.param(*pair, id=f"line {pair[0].line}") for pair in commands()],
)
def test_a_command_of_the_guide_is_answered_as_it_says(
    bridge: Service, command: Block, answer: Block
) -> None:
    program = next(word for word in command.text.split() if "=" not in word)
    if shutil.which(program) is None and program != "python":
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        ["bash", "-c", command.text],
        cwd=ROOT,
        env=environment(bridge),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS_OF_CURL,
        check=False,
    )
    shown = done.stdout.decode().replace("\r", "").strip()
    assert pattern(answer.text).fullmatch(shown), f"line {answer.line}: the answer is {shown}"


@pytest.fixture(scope="module")
def wscat(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the directory that holds wscat."""
    return str(installed(tmp_path_factory.mktemp("wscat"), "wscat@6.1.0"))


async def test_the_guides_wscat_lines_connect(
    bridge: Service, open_service: Service, wscat: str
) -> None:
    twilio, of_exotel = [block.text for block in BLOCKS if block.name == "wscat"]

    async def connects(line: str, service: Service, told: str, *, waits: bool = False) -> int:
        environ = environment(service)
        environ["PATH"] = os.pathsep.join([wscat, environ["PATH"]])
        before = service.logged().count(told)
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", line),
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        await logged_line(service, told, times=before + 1)
        async with asyncio.timeout(WAIT_SECONDS):
            if waits:
                await process.wait()
            assert process.stdin is not None
            process.stdin.close()
            shown, _ = await process.communicate()
        assert b"Unexpected" not in shown or b"Unexpected server response: 403" in shown
        return process.returncode or 0

    attempt = "[WebSocket] 🔌 Connection attempt received"
    assert await connects(twilio, open_service, attempt) == 0
    assert await connects(of_exotel, bridge, "[exotel] New Exotel WebSocket connection") == 0
    # Where signatures are checked: the error that the guide names, before wscat's input ends.
    assert await connects(twilio, bridge, attempt, waits=True) != 0


# ------------------------------------------------------------------ its log lines


# Of the webhook and the callbacks: one message, with the label filled in.
LABELS = ("Voice Webhook", "Dial Action", "Call Status", "Stream Status")


@lru_cache
def templates() -> frozenset[str]:
    """Give each message that our code logs, with `…` where a value is filled in."""
    found = set[str]()
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                text = "".join(
                    str(one.value) if isinstance(one, ast.Constant) else "%s" for one in node.values
                )
            shown = re.sub(r"%(?:s|d|\.1f)", ANYTHING, text)
            if shown.startswith("[…] ❌"):
                found |= {shown.replace("…", label, 1) for label in LABELS}
            elif re.match(r"\[([A-Z][A-Za-z ]+|[a-z]+)\] ", shown):
                found.add(shown)
    return frozenset(found)


def is_of(template: str, line: str) -> bool:
    """Tell whether a line, which may break off with `…`, is this message filled in."""
    filled = ".*".join(re.escape(part) for part in template.split(ANYTHING))
    if re.fullmatch(filled, line.replace(ANYTHING, "x")):
        return True
    begun = line.rstrip(ANYTHING)
    return begun != line and len(begun.partition("] ")[2]) > 4 and _begins(template, begun)


@lru_cache
def _begins(template: str, text: str) -> bool:
    if not text or not template:
        return not text
    if template[0] == ANYTHING:
        return _begins(template[1:], text) or _begins(template, text[1:])
    return text[0] in (template[0], ANYTHING) and _begins(template[1:], text[1:])


def log_lines() -> dict[str, int]:
    """Give every log line of the guide, in its blocks and its sentences, and of the README."""
    found = {
        line: block.line
        for block in BLOCKS
        if block.kind == "log"
        for line in block.text.splitlines()
    }
    # The README shows what a call looks like, indented.
    shown = re.findall(r"^    (\[[A-Za-z ]+\] .*)$", read("README.md"), re.MULTILINE)
    said = [span for span in spans(GUIDE) if re.match(r"\[[A-Za-z ]+\] ", span)]
    return found | dict.fromkeys([*shown, *said], 0)


@pytest.mark.parametrize("line", log_lines())
def test_a_log_line_of_the_guide_is_one_that_we_write(line: str) -> None:
    assert any(is_of(template, line) for template in templates())


@pytest.mark.parametrize(
    "line",
    [
        "[WebSocket] Connection attempt received",
        "[WebSocket] 🔌 Connection attempts received",
        "[Voice Webhook] Calls … from …",
        "[server] …",
        "[exotel] Published sound …",
    ],
)
def test_a_line_that_we_do_not_write_is_caught(line: str) -> None:
    with pytest.raises(AssertionError):
        test_a_log_line_of_the_guide_is_one_that_we_write(line)


@pytest.mark.parametrize(
    "block",
    [pytest.param(one, id=one.name) for one in BLOCKS if one.kind == "log" and one.name],
)
async def test_the_log_tells_a_story_as_the_guide_does(bridge: Service, block: Block) -> None:
    before = 0 if block.name == "a start" else len(bridge.logged())
    await SCENARIOS[block.name](bridge)
    # There is no TLS on the loopback.
    text = block.text.replace("wss://", "ws://")
    wanted = re.compile(".*".join(pattern(line).pattern for line in text.splitlines()), re.DOTALL)
    await until(lambda: wanted.search(bridge.logged()[before:]), bridge.logged)


def test_every_story_is_told() -> None:
    assert {one.name for one in BLOCKS if one.kind == "log" and one.name} == set(SCENARIOS)


async def test_the_paths_that_the_guide_calls_wrong_are_refused_so(bridge: Service) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(bridge.ws_url + "/twilio-medai"):
            pass
    assert refused.value.response.status_code == 404
    async with connect(bridge.ws_url.replace("://", f"://{KEY}:{TOKEN}@") + "/v1/ingest/") as one:
        await one.send(exotel.connected_message())


async def test_a_stream_url_has_no_query_and_the_parameters_have_the_call(bridge: Service) -> None:
    call = a_call()
    answer = await post(bridge, "/twilio-voice", call)
    assert re.search(r'url="(wss?://[^"?]+/twilio-media)"', answer.text)
    assert parameters(answer.text)["callSid"] == call["CallSid"]


# ------------------------------------------------------------------- its words


def _reasons() -> set[str]:
    of_errors = {
        one.reason
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.BridgeError)
    }
    return of_errors | {f"{reason}_before_start" for reason in EndReason}


@pytest.mark.parametrize(
    "heading", ["## Refusals", "## The caller hears a sentence, and the call ends"]
)
def test_the_reasons_of_refusals_are_ours(heading: str) -> None:
    named = [reason for row in rows(GUIDE, heading) for reason in re.findall(r"`([^`]+)`", row[0])]
    assert len(named) > 5
    assert set(named) - _reasons() == set()


def test_what_the_receipts_say_is_explained() -> None:
    shown = " ".join(row[0] for row in rows(GUIDE, "## Audio is missing, or stops"))
    reasons = re.findall(r"`end_reason` is `(\w+)`(?: or `(\w+)`)?", shown)
    explained = {reason for pair in reasons for reason in pair if reason}
    assert explained <= set(EndReason)
    # Those that are nobody's fault, or say themselves what it was.
    plain = {"stop", "ended_by_admin", "error", "message_too_big", "too_many_bad_messages"}
    assert set(EndReason) - explained - plain == {"flooding", "peer_not_reading"}


def twilio_codes(text: str) -> set[int]:
    """Give the codes of Twilio's errors in a text, those of a range too."""
    found = set[int]()
    for first, last in re.findall(r"\b(1[12]\d{3}|31\d{3})(?:(?:–| to )(\d{5}))?\b", text):
        found |= set(range(int(first), int(last or first) + 1))
    return found


def test_every_code_of_twilios_that_the_doctor_knows_is_explained() -> None:
    told = twilio_codes(" ".join(row[0] for row in rows(GUIDE, "### What Twilio says")))
    sources = (ROOT / "app" / "diagnosis").rglob("*.py")
    known = twilio_codes(" ".join(path.read_text(encoding="utf-8") for path in sources))
    assert len(known) > 10
    assert known - told == set()


# What others' systems call themselves, and what others' programs answer.
FOREIGN = {"CLUSTERDOWN", "KEY", "LOADING", "MISCONF", "NOAUTH", "NOPERM", "OOM", "READONLY"}
FOREIGN |= {"TRYAGAIN", "WRONGPASS", "POST", "HOST", "STREAM", "BUSINESS_ID", "TOKEN", "URL"}


def test_the_settings_that_the_guide_names_are_ours() -> None:
    named = {
        word for span in spans(GUIDE) for word in re.findall(r"\b[A-Z][A-Z_]{2,}\b", span)
    } - FOREIGN
    named -= {name + SUFFIX for name in SECRET_NAMES}
    assert len(named) > 15
    assert {name for name in named if name.lower() not in Settings.__dataclass_fields__} == set()
