"""Two services for all tests of this folder, and the commands as a developer runs them."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from app.cli import main
from tests.service import TOKEN, Service, service_alone

ADMIN_TOKEN = "a" * 32
JWT_SECRET = "j" * 32
OF_EACH = {
    "ADMIN_TOKEN": ADMIN_TOKEN,
    "SUPPORT_EXOTEL": "true",
    "JWT_SECRET": JWT_SECRET,
}
PAIR = {"EXOTEL_API_KEY": "key", "EXOTEL_API_TOKEN": "tok'en $HOME"}


@pytest.fixture(scope="package")
def enforcing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a running instance that enforces signatures, tickets and credentials."""
    with service_alone(tmp_path_factory.mktemp("enforcing"), **OF_EACH, **PAIR) as running:
        yield running


@pytest.fixture(scope="package")
def waiving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a running instance with ALLOW_UNSIGNED; two businesses allow captures."""
    directory = tmp_path_factory.mktemp("waiving")
    with service_alone(directory, ALLOW_UNSIGNED="true", **OF_EACH) as running:
        for business_id in ("business-1", "indian"):
            _allow_captures(running, business_id)
        yield running


def _allow_captures(service: Service, business_id: str) -> None:
    """Let a business's calls be recorded, as its admin does."""
    answer = httpx.patch(
        f"{service.url}/api/v1/businesses/{business_id}",
        json={"capture_calls": True},
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}", "If-Match": "*"},
    )
    assert answer.json()["capture_calls"] is True


@dataclass
class Ran:
    """What a command gave: its status, its result, and its words."""

    status: int
    out: str
    words: str
    receipts: list[dict[str, Any]] = field(default_factory=list)


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give what runs `media-bridge ARGUMENTS` with these variables and no others of ours."""

    def run_command(*arguments: object, environ: Mapping[str, str] | None = None) -> Ran:
        for name in ("PUBLIC_URL", "REDIS_URL", "ADMIN_TOKEN", "TWILIO_AUTH_TOKEN", *PAIR):
            monkeypatch.delenv(name, raising=False)
        for name, value in ({"ADMIN_TOKEN": ADMIN_TOKEN} | dict(environ or {})).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        try:
            status = main([str(one) for one in arguments])
        except SystemExit as exit:
            status = int(exit.code or 0)
        said = capsys.readouterr()
        lines = [line for line in said.out.splitlines() if line.startswith('{"callSid"')]
        return Ran(status, said.out, said.err, [json.loads(line) for line in lines])

    return run_command


SIGNED = {"TWILIO_AUTH_TOKEN": TOKEN}
