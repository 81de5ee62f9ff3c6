"""`media-bridge simulate` on services that run, ours and others, and what it says of them."""

import asyncio
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from websockets.asyncio.server import ServerConnection, serve

from app.cli import main
from app.cli.target import is_own
from app.errors import CommandFailed
from app.tools.service import Credentials
from app.tools.simulate import receipts as asking
from app.tools.simulate import simulate
from app.tools.simulate.asked import Asked, Fault
from app.tools.simulate.lines import service_at
from tests.service import (
    NUMBER,
    TOKEN,
    Service,
    entries_of,
    events_of,
    lines_with,
    logged_line,
    service_alone,
)
from tests.waiting import wait_until
from tests.web.admins import TOKEN as ADMIN_TOKEN
from tests.web.admins import administered

CALL = re.compile(r"CA[0-9a-f]{32}")
STREAM = re.compile(r"(?:MZ|exotel-)[0-9a-f]{32}")
TIME_LIMIT_SECONDS = 60
SECONDS = "0.5"
EXOTEL = {"SUPPORT_EXOTEL": "true", "EXOTEL_API_KEY": "key", "EXOTEL_API_TOKEN": "token"}
PAIR = {name: value for name, value in EXOTEL.items() if name != "SUPPORT_EXOTEL"}
SIGNED = {"TWILIO_AUTH_TOKEN": TOKEN}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An instance that serves carriers alone that prove who they are."""
    with administered(tmp_path_factory.mktemp("strict"), **EXOTEL) as service:
        yield service


@pytest.fixture(scope="module")
def lax(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An instance that serves whoever comes, and does not wait long for a `start`."""
    with service_alone(
        tmp_path_factory.mktemp("lax"),
        ALLOW_UNSIGNED="true",
        SUPPORT_EXOTEL="true",
        STREAM_START_TIMEOUT_SECONDS="1",
    ) as service:
        yield service


@dataclass(frozen=True)
class Ran:
    """What came of a run of the command."""

    returncode: int
    stdout: str
    stderr: str


def simulated(*arguments: str, **environment: str) -> Ran:
    """Run `simulate` in this process, knowing nothing but what it is told."""
    out, errors = io.StringIO(), io.StringIO()

    def run() -> int:
        try:
            return main(["simulate", "--seconds", SECONDS, *arguments])
        except SystemExit as left:  # by argparse
            return int(left.code or 0)

    with (
        patch.dict(os.environ, environment, clear=True),
        redirect_stdout(out),
        redirect_stderr(errors),
        ThreadPoolExecutor() as aside,  # it has an event loop of its own
    ):
        status = aside.submit(run).result(TIME_LIMIT_SECONDS)
    return Ran(status, out.getvalue(), errors.getvalue())


def table_of(ran: Ran) -> dict[str, dict[str, str]]:
    """Read the closing table: the cells of each kind of caller by their headings."""
    lines = (re.split(r"\s{2,}", line) for line in ran.stdout.splitlines())
    headings, *rows = (line for line in lines if len(line) > 1)
    return {row[0]: dict(zip(headings, row, strict=True)) for row in rows}


def receipts_in(service: Service, ran: Ran) -> list[dict[str, Any]]:
    """Read the receipts of the calls that a run names, from the service's log."""
    called = CALL.findall(ran.stderr)

    def ended() -> list[str]:
        lines = lines_with(service.logged(), "receipt:")
        return [line for line in lines if CALL.findall(line)[0] in called]

    wait_until(lambda: len(ended()) == len(called), service.logged)
    return [json.loads(line.partition("receipt: ")[2]) for line in ended()]


# ------------------------------------------------------------------- our own service


@pytest.mark.parametrize("carrier", ["twilio", "exotel"])
def test_a_call_by_a_businesss_id_needs_nothing_but_the_url(lax: Service, carrier: str) -> None:
    ran = simulated(lax.url, "--business", "wide", "--carrier", carrier)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("1 of 1 calls went as they should\n")
    assert "whether all that was sent was received is not known" in ran.stderr
    assert table_of(ran)["good"]["received"] == "?"
    [receipt] = receipts_in(lax, ran)
    assert str(receipt["received"]) == table_of(ran)["good"]["frames sent"]
    [ended] = lines_with(lax.logged(), "receipt:", *CALL.findall(ran.stderr)[:1])
    started = lines_with(lax.logged(), f"Stream {STREAM.findall(ended)[0]} started")
    assert "business: wide" in started[0]


@pytest.mark.parametrize("kept_by", ["redis", "api"])
@pytest.mark.parametrize(
    ("carrier", "secrets", "frames"), [("twilio", SIGNED, "50"), ("exotel", PAIR, "10")]
)
def test_signed_calls_by_a_number_are_received_as_they_were_sent(
    strict: Service, kept_by: str, carrier: str, secrets: dict[str, str], frames: str
) -> None:
    where = {"REDIS_URL": strict.redis_url} if kept_by == "redis" else {"ADMIN_TOKEN": ADMIN_TOKEN}
    ran = simulated(
        *(strict.url, "--to", NUMBER, "--carrier", carrier, "--calls", "2", "--seed", "7"),
        **secrets,
        **where,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    good = table_of(ran)["good"]
    assert [good[name] for name in ("frames sent", "received", "published")] == [frames] * 3
    assert "sent and received are the same" in ran.stdout
    said = CALL.sub("", ran.stdout + ran.stderr)
    for secret in (*secrets.values(), *where.values()):
        assert secret not in said


def test_a_socket_is_called_at_once_where_it_is_the_url(strict: Service, lax: Service) -> None:
    ran = simulated(
        *(f"{strict.ws_url}/v1/ingest?sample-rate=16000", "--carrier", "exotel"),
        **{"REDIS_URL": strict.redis_url, **PAIR},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    ran = simulated(
        f"{lax.ws_url}/twilio-media", "--business", "business-1", REDIS_URL=lax.redis_url
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


async def test_both_parties_speak_where_twiml_asks_for_them(lax: Service) -> None:
    ran = simulated(lax.url, "--business", "forwarding", "--dtmf", "12", REDIS_URL=lax.redis_url)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert table_of(ran)["good"]["published"] == "50"
    [ended] = lines_with(lax.logged(), "receipt:", *CALL.findall(ran.stderr)[:1])
    entries = await entries_of(lax, STREAM.findall(ended)[0])
    tracks = [entry[b"track".decode()] for entry in entries if "track" in entry]
    assert tracks.count(b"inbound") == tracks.count(b"outbound") == 25
    assert "1 calls pressed no keys: of a one-way stream Twilio tells none" in ran.stderr


async def test_a_callers_digits_and_a_calls_end_are_told(lax: Service) -> None:
    ran = simulated(lax.url, "--business", "business-1", "--dtmf", "47#*")
    [call_sid] = CALL.findall(ran.stderr)
    events = await events_of(lax, call_sid, at_least=8)
    assert [data["digit"] for name, data in events if name == "stream.dtmf"] == list("47#*")
    [status] = [data for name, data in events if name == "call.status"]
    assert status["status"] == "completed"
    assert status["duration"].isdecimal()
    assert "47#*" not in ran.stdout + ran.stderr
    assert "pressed no keys" not in ran.stderr


async def test_calls_that_are_cut_have_no_stop(lax: Service) -> None:
    ran = simulated(
        *(lax.url, "--business", "business-1", "--calls", "4", "--drop", "0.5", "--seconds", "1"),
        REDIS_URL=lax.redis_url,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (table_of(ran)["good"]["heard"], table_of(ran)["cut mid-call"]["cut"]) == ("2", "2")
    reasons = sorted(receipt["end_reason"] for receipt in receipts_in(lax, ran))
    assert reasons == ["disconnected", "disconnected", "stop", "stop"]


async def test_bad_carriers_do_not_hurt_the_good_ones_beside_them(lax: Service) -> None:
    bad = [part for fault in Fault for part in ("--bad", f"{fault}:2")]
    ran = simulated(
        *(lax.url, "--business", "business-1", "--calls", "4", "--seconds", "1-2"),
        *("--jitter", "300", "--seed", "5", *bad),
        REDIS_URL=lax.redis_url,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = table_of(ran)
    good = rows["good"]
    assert (good["calls"], good["heard"]) == ("4", "4")
    assert good["frames sent"] == good["received"] == good["published"]
    assert set(rows) == {"good", *(f"bad: {fault}" for fault in Fault)}
    assert rows["bad: no-start"]["ended"] == rows["bad: huge"]["ended"] == "2"
    for fault in ("broken-json", "repeats"):
        assert rows[f"bad: {fault}"]["published"] < rows[f"bad: {fault}"]["received"]
    for reason in ("start_timeout", "message_too_big"):
        await logged_line(lax, reason)


def test_a_seed_is_told_and_makes_the_same_callers_again(lax: Service) -> None:
    arguments = (lax.url, "--business", "business-1", "--calls", "3", "--seconds", "0.2-1")
    first = simulated(*arguments)
    [seed] = re.findall(r"--seed (\d+)", first.stderr)
    again = simulated(*arguments, "--seed", seed)
    assert table_of(again) == table_of(first)
    assert not set(CALL.findall(first.stderr)) & set(CALL.findall(again.stderr))


def test_it_runs_as_a_developer_runs_it(strict: Service) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "app", "simulate", strict.url, "--seconds", SECONDS],
        env={**SIGNED, "REDIS_URL": strict.redis_url},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_SECONDS,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == (
        "1 of 1 calls went as they should; sent and received are the same"
    )
    assert "\r" not in ran.stderr, "a running line, where no terminal is"


# --------------------------------------------------------------- what does not come true


def test_a_call_without_the_right_token_is_told_so(strict: Service) -> None:
    ran = simulated(strict.url, "--to", NUMBER, TWILIO_AUTH_TOKEN="wrong")
    assert ran.returncode == 1
    assert "signature_invalid" in ran.stderr
    assert table_of(ran)["good"]["refused"] == "1"


def test_exotel_without_a_pair_is_told_so(strict: Service) -> None:
    ran = simulated(strict.url, "--to", NUMBER, "--carrier", "exotel")
    assert ran.returncode == 1
    assert "credentials_missing" in ran.stderr


def test_a_call_that_nobody_owns_hears_why(lax: Service) -> None:
    ran = simulated(lax.url, "--to", "+15005550000")
    assert ran.returncode == 1
    assert "this number is not in service" in ran.stderr


def test_a_call_that_the_service_ends_was_not_heard(lax: Service) -> None:
    ran = simulated(lax.url, "--business", "short", "--seconds", "9", REDIS_URL=lax.redis_url)
    assert ran.returncode == 1
    assert "was ended: max_call_seconds" in ran.stderr
    assert table_of(ran)["good"]["ended"] == "1"


def test_receipts_that_may_not_be_read_are_said_so_after_the_table(lax: Service) -> None:
    ran = simulated(lax.url, "--business", "business-1", ADMIN_TOKEN="not-this-one")
    assert ran.returncode == 2
    assert table_of(ran)["good"]["heard"] == "1"
    assert "no receipt from" in ran.stderr.splitlines()[-1]
    assert "not-this-one" not in ran.stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "nothing answers at http://127.0.0.1:1"),
        ("ws://127.0.0.1:1/media", "nothing answers at http://127.0.0.1:1"),
        ("ftp://bridge.example", "is no URL of a service"),
        ("bridge.example", "is no URL of a service"),
        ("http://", "is no URL of a service"),
        ("http://[::1", "is no URL of a service"),
        ("http://bridge.example:99999", "is no URL of a service"),
        ("ws://" + "a" * 70 + ".example", "nothing answers"),
    ],
)
def test_a_service_that_is_not_there_is_named_in_a_sentence(url: str, said: str) -> None:
    ran = simulated(url)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert said in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--business", "a", "--to", "+1"),
        ("--calls", "0"),
        ("--seconds", "5-2"),
        ("--seconds", "nan"),
        ("--rate", "0"),
        ("--dtmf", "12x"),
        ("--jitter", "-1"),
        ("--drop", "1.5"),
        ("--bad", "evil"),
        ("--bad", "gaps:0"),
        ("--carrier", "pigeon"),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: tuple[str, ...]) -> None:
    ran = simulated("http://127.0.0.1:1", *options)
    assert ran.returncode == 2
    assert options[0] in ran.stderr


# ---------------------------------------------------------------- somebody else's service


@dataclass
class Stranger:
    """A service of somebody else's, at which each socket is served by `behave`."""

    closes_at: str = ""
    url: str = ""
    messages: list[Any] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    async def behave(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.shown += socket.request.headers.get_all("Authorization")
        async for message in socket:
            heard = json.loads(message)
            self.messages.append(heard)
            if heard["event"] == self.closes_at:
                await socket.close(1011, "not in the mood")
            if heard["event"] == "stop":
                return


@asynccontextmanager
async def a_stranger(closes_at: str = "", host: str = "127.0.0.1") -> AsyncIterator[Stranger]:
    """Serve sockets; with `closes_at` until the first message of that event."""
    stranger = Stranger(closes_at)
    async with serve(stranger.behave, host, 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        stranger.url = f"ws://{host}:{port}/media"
        yield stranger


class NoReceipts:
    async def of(self, call_sid: str) -> None:
        return None


async def run(url: str, asked: Asked, receipts: NoReceipts | None = None) -> tuple[int, list[str]]:
    said: list[str] = []
    async with httpx.AsyncClient(verify=False) as client:
        status = await simulate(
            *(asked, service_at(url, asked.carrier), Credentials(), client, receipts),
            tell=said.append,
            result=said.append,
        )
    return status, said


async def test_a_foreign_socket_hears_the_whole_call_and_what_was_not_checked_is_said() -> None:
    async with a_stranger() as stranger:
        status, said = await run(stranger.url, Asked(1, seconds=(0.5, 0.5)))
        assert status == 0
    events = [message["event"] for message in stranger.messages]
    assert events == ["connected", "start", *["media"] * 25, "stop"]
    assert any("no status callback is known" in line for line in said)
    assert any("is not known: set ADMIN_TOKEN" in line for line in said)


@pytest.mark.parametrize(("closes_at", "seconds"), [("media", 5), ("stop", 0.2)])
async def test_a_foreign_service_that_fails_is_quoted(closes_at: str, seconds: float) -> None:
    async with a_stranger(closes_at) as stranger:
        status, said = await run(stranger.url, Asked(1, seconds=(seconds, seconds)))
    assert status == 1
    assert any(line.endswith("was ended: not in the mood") for line in said)


async def test_frames_without_a_receipt_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WAIT_SECONDS", 0.01)
    async with a_stranger() as stranger:
        status, said = await run(stranger.url, Asked(1, seconds=(0.1, 0.1)), NoReceipts())
    assert status == 1
    assert said[-1] == "1 of 1 calls went as they should; frames are missing"


@pytest.mark.parametrize(
    "answer",
    [
        "<html><p>an unclosed page</html>",
        "<Response><Connect><Stream url='http://bridge.example/x'/></Connect></Response>",
        "<Response><Connect><Stream url='wss://[::1'/></Connect></Response>",
        "<Response><Connect><Stream/></Connect></Response>",
        "{}",
    ],
)
async def test_a_webhook_that_answers_nonsense_refuses_the_call(answer: str) -> None:
    def webhook(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=answer)

    said: list[str] = []
    async with httpx.AsyncClient(transport=httpx.MockTransport(webhook)) as client:
        service = service_at("http://bridge.example", "twilio")
        status = await simulate(
            *(Asked(1), service, Credentials(), client, None), tell=said.append, result=said.append
        )
    assert status == 1
    assert any("was refused: " in line for line in said)


async def test_a_stream_url_that_is_none_refuses_an_exotel_call() -> None:
    for body in (b"", b"[]", b"{}", b'{"url": 7}', b'{"url": "https://x.example"}', b"\xff"):

        def asked_for(request: httpx.Request, body: bytes = body) -> httpx.Response:
            return httpx.Response(200, content=body)

        said: list[str] = []
        async with httpx.AsyncClient(transport=httpx.MockTransport(asked_for)) as client:
            service = service_at("http://bridge.example", "exotel")
            status = await simulate(
                *(Asked(1, carrier="exotel"), service, Credentials(), client, None),
                tell=said.append,
                result=said.append,
            )
        assert status == 1, body
        assert any("was refused: " in line for line in said), body


@pytest.mark.parametrize(
    ("base", "public_url", "expected"),
    [
        ("https://bridge.example", "", True),
        ("https://bridge.example", "https://bridge.example", True),
        ("http://localhost:8000", "https://bridge.example", True),
        ("http://127.0.0.1:8000", "https://bridge.example", True),
        ("http://[::1]:8000", "https://bridge.example", True),
        ("https://other.example", "https://bridge.example", False),
        ("https://bridge.example.evil.example", "https://bridge.example", False),
        ("https://localhost.evil.example", "https://bridge.example", False),
    ],
)
def test_secrets_are_shown_to_our_own_service_alone(
    base: str, public_url: str, expected: bool
) -> None:
    assert is_own(base, public_url) is expected


@pytest.mark.parametrize(
    ("public_url", "shown"), [("https://bridge.example", 0), ("http://127.0.0.2", 1), ("", 1)]
)
async def test_a_pair_is_not_shown_to_a_stranger(public_url: str, shown: int) -> None:
    # 127.0.0.2 is none of this machine's usual names.
    async with a_stranger(host="127.0.0.2") as stranger:
        ran = await asyncio.to_thread(
            *(simulated, stranger.url, "--carrier", "exotel"), PUBLIC_URL=public_url, **PAIR
        )
    assert ran.returncode == 0, ran.stderr
    assert len(stranger.shown) == shown
    assert ("no secret of this environment is shown" in ran.stderr) is (not shown)


def test_a_digest_of_a_token_reads_no_receipts(lax: Service) -> None:
    ran = simulated(lax.url, "--business", "business-1", ADMIN_TOKEN="sha256-" + "0" * 64)
    assert ran.returncode == 0
    assert "is not known: set ADMIN_TOKEN" in ran.stderr


async def test_nothing_reached_at_all_is_a_failure_of_the_command() -> None:
    with pytest.raises(CommandFailed, match="nothing answers at"):
        await run("http://127.0.0.1:1", Asked(1, calls=2))
