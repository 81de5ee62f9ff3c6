"""A start that fails quotes nothing; and the watch over secrets can see them."""

import base64
import os
import re
import subprocess
import sys
import traceback
from dataclasses import fields
from pathlib import Path

import pytest

from app.errors import BridgeError
from app.main import create_app
from app.settings import Settings
from tests.businesses import BUSINESSES, business
from tests.canaries.watch import SETTINGS, Watch, canary, secret_settings
from tests.waiting import WAIT_SECONDS


def test_every_setting_that_is_a_secret_has_a_canary() -> None:
    assert set(SETTINGS) == secret_settings()


def test_what_is_called_a_secret_is_one_by_its_type() -> None:
    called = {
        field.name.upper()
        for field in fields(Settings)
        if re.search("token|secret|password|key", field.name) and field.name != "jwt_public_key"
    }
    assert called <= secret_settings()


BAD = (
    "{}",
    "{},",
    "{}\n{}",
    "0x{}",
    "redis://:{}@",
    "redis://user:{}@localhost:port",
    "https://user:{}@a.example.com/x",
    "https://a.example.com/x?token={}",
    "-----BEGIN PRIVATE KEY-----\\n{}\\n-----END PRIVATE KEY-----",
    "-----BEGIN PUBLIC KEY-----\\n{}\\n-----END PUBLIC KEY-----",
)


# A path is quoted, so that it can be found.
@pytest.mark.parametrize(
    "name", sorted({field.name.upper() for field in fields(Settings)} - {"BUSINESSES_FILE"})
)
def test_no_refusal_of_a_setting_quotes_it(name: str) -> None:
    secret = canary("setting")
    others = {"PUBLIC_URL": "https://bridge.example.com", "REDIS_URL": "redis://localhost:1"}
    for form in BAD:
        given = {**others, "TWILIO_AUTH_TOKEN": "12345", name: form.replace("{}", secret)}
        assert secret not in refusal_of(given)


def refusal_of(environ: dict[str, str]) -> str:
    """Give all that could be printed of a start that is refused; nothing when it is not."""
    try:
        create_app(Settings.load(environ))
    except BridgeError as error:
        return "".join(traceback.format_exception(error))
    return ""


@pytest.mark.parametrize(
    ("variables", "pairs"),
    [
        ({"REDIS_URL": f"redis://:{canary('start')}@localhost:port"}, []),
        ({}, [canary("start")]),
    ],
    ids=["REDIS_URL", "BUSINESSES_FILE"],
)
def test_a_start_that_fails_says_why_and_quotes_nothing(
    variables: dict[str, str], pairs: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    businesses = tmp_path / "BUSINESSES_FILE"
    own = business("own", "premium", exotel_pairs=pairs)
    businesses.write_text(BUSINESSES + (own if pairs else ""))
    environment = {"ALLOW_UNSIGNED": "true", "PUBSUB_ADAPTER": "memory", **variables}
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve"],
        env={"PATH": os.environ["PATH"], "BUSINESSES_FILE": str(businesses), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )
    assert done.returncode == 2
    assert request.node.callspec.id in done.stderr
    assert "Traceback" not in done.stderr
    assert canary("start") not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "hidden",
    [
        "x {} y",
        "password={}&x=y",
        base64.b64encode(f"user:{canary('x')}".encode()).decode(),
        base64.b64encode(f"some user:{canary('x')}:y".encode()).decode(),
    ],
)
def test_a_secret_is_found_in_each_form_it_may_have(hidden: str) -> None:
    watch = Watch([canary("x"), canary("y")])
    watch.search("a log", hidden.replace("{}", canary("x")))
    assert len(watch.found) == 1
