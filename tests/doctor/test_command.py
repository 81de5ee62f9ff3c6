"""`media-bridge doctor`, as it is typed: what it prints, and its status."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from app.cli import main
from app.tools.embedded import EmbeddedRedis
from tests.doctor.deployed import EXOTEL, Deployed, deployed
from tests.proxy import proxied
from tests.service import TOKEN, Service
from tests.waiting import WAIT_SECONDS
from tests.web.admins import TOKEN as ADMIN_TOKEN
from tests.web.admins import Caller, administered

SECRET = "s" * 32


@dataclass
class Ended:
    """What a command printed, and its status."""

    returncode: int
    stdout: str
    stderr: str

    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdout)
        return found


class Runs(Protocol):
    """Runs the doctor with an environment, and nothing else."""

    def __call__(self, *arguments: str, **environment: str) -> Ended: ...


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runs:
    def run(*arguments: str, **environment: str) -> Ended:
        monkeypatch.setattr(os, "environ", environment)
        status = main(["doctor", *arguments])
        read = capsys.readouterr()
        return Ended(status, read.out, read.err)

    return run


def test_a_service_on_this_machine_is_well_but_for_where_it_is(
    ran: Runs, open_service: Service
) -> None:
    ended = ran(open_service.url, "--business", "business-1", "--json")
    found = ended.told()
    causes = [one["cause"] for one in found["findings"] if one["cause"]]
    assert (ended.returncode, causes) == (1, ["public_url_local"]), ended.stdout
    assert found["status"] == "warning"
    by_check = {one["check"]: one["level"] for one in found["findings"]}
    assert by_check["test_call"] == "ok"


def test_a_service_of_make_run_is_found_by_its_port(ran: Runs, open_service: Service) -> None:
    port = open_service.url.rpartition(":")[2]
    ended = ran("--no-call", ALLOW_UNSIGNED="true", PORT=port)
    assert ended.returncode == 1, ended.stdout
    assert "media-bridge 0.1.0 answers." in ended.stdout


def test_the_server_that_commands_find_by_themselves_does_not_make_an_environment(
    ran: Runs, open_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with EmbeddedRedis(tmp_path / "data", persistent=False):
        ended = ran(open_service.url, "--no-call", "--json")
    found = {one["check"]: one["level"] for one in ended.told()["findings"]}
    assert (ended.returncode, found["settings"]) == (1, "skipped"), ended.stdout


def test_what_failed_is_said_with_its_reason_and_its_fix() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "app", "doctor", "http://127.0.0.1:1"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert ended.returncode == 2
    assert "FAILED   tcp" in ended.stdout
    assert "→ Start the service" in ended.stdout
    assert ended.stdout.endswith("Begin with tcp: tcp_refused.\n")
    assert ended.stderr == ""


@pytest.mark.parametrize("url", ["not a url", "ftp://x.example", "https://", ""])
def test_what_is_no_url_is_said(ran: Runs, url: str) -> None:
    ended = ran(url)
    assert ended.returncode == 2
    assert "FAILED   public_url" in ended.stdout


@pytest.fixture(scope="module")
def admin_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with administered(tmp_path_factory.mktemp("administered")) as running:
        yield running


def test_an_operators_token_finds_whom_to_call_and_reads_the_receipt(
    ran: Runs, admin_service: Service
) -> None:
    ended = ran(admin_service.url, TWILIO_AUTH_TOKEN=TOKEN, ADMIN_TOKEN=ADMIN_TOKEN)
    assert ended.returncode == 1, ended.stdout
    assert "A test call: 50 of 50 frames published." in ended.stdout
    assert ADMIN_TOKEN not in ended.stdout
    line = next(one for one in admin_service.logged().splitlines() if "receipt:" in one)
    assert '"published": 50' in line
    # Whoever looks at the calls sees that it was a test.
    callers = {one["from"] for one in Caller(admin_service)("GET", "/calls").json()["items"]}
    assert callers == {"client:media-bridge-doctor"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with deployed(tmp_path_factory.mktemp("deployed")) as running:
        yield running


async def test_with_the_services_environment_it_looks_from_inside_too(
    ran: Runs, place: Deployed
) -> None:
    authority = place.directory / "ca.crt"
    authority.write_bytes(place.root.pem)
    environment = {
        "PUBLIC_URL": place.url,
        "REDIS_URL": place.service.redis_url,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "SECRET_KEY": SECRET,
        "SSL_CERT_FILE": str(authority),
        **EXOTEL,
    }
    async with proxied(place.port, place.inner_port, place.context()):
        ended = await asyncio.to_thread(ran, "--json", **environment)
    by_check = {one["check"]: one for one in ended.told()["findings"]}
    assert ended.returncode == 1, ended.stdout
    wanted = ("settings", "secret_key", "redis", "tls", "signature", "ingest_socket", "test_call")
    assert {check: by_check[check]["level"] for check in wanted} == dict.fromkeys(wanted, "ok")
    assert by_check["redis_durability"]["cause"] == "redis_not_persistent"
    for secret in (SECRET, f'"{TOKEN}"', "key:token"):
        assert secret not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("environment", "cause", "named"),
    [
        ({"PUBLIC_URL": "https://x.invalid/"}, "public_url_slash", "PUBLIC_URL=https://x.invalid,"),
        ({"PUBLIC_URL": "https://x.invalid"}, "setting_unusable", "TWILIO_AUTH_TOKEN"),
        (
            {"PUBLIC_URL": "https://x.invalid", "TWILIO_AUTH_TOKEN": "t", "SECRET_KEY": "short"},
            "setting_unusable",
            "SECRET_KEY",
        ),
        (
            {"PUBLIC_URL": "https://x.invalid", "TWILIO_AUTH_TOKEN": "t", "REDIS_URL": "redis:/x"},
            "setting_unusable",
            "REDIS_URL",
        ),
        ({}, "public_url_missing", "PUBLIC_URL"),
    ],
)
def test_a_setting_that_keeps_the_service_from_starting_is_named_first(
    ran: Runs, environment: dict[str, str], cause: str, named: str
) -> None:
    ended = ran("--json", **environment)
    first = next(one for one in ended.told()["findings"] if one["level"] == "failed")
    assert (ended.returncode, first["cause"]) == (2, cause)
    assert named in first["fix"]
