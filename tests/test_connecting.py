"""`twilio connect`: a number set to call this service."""

import asyncio
import io
from dataclasses import dataclass
from typing import Any

import pytest

from app.cli import main
from tests.twilio_account import TwilioAccount, a_number, an_account

NUMBER = "+15005550006"
URL = "https://bridge.example.com"
COMMON = {"PUBLIC_URL": URL}
HERE = {"voice_url": f"{URL}/twilio-voice", "status_callback": f"{URL}/twilio-status"}


@dataclass
class Operator:
    """Whoever types the command, and what they read."""

    patch: pytest.MonkeyPatch
    terminal: pytest.CaptureFixture[str]

    async def connects(
        self, account: TwilioAccount, *arguments: str, typed: str = "", **variables: str
    ) -> tuple[int, str, str]:
        """Run the command; give status, output and errors."""
        for name, value in (COMMON | account.environment | variables).items():
            self.patch.setenv(name, value)
        self.patch.setattr("sys.stdin", io.StringIO(typed))
        status = await asyncio.to_thread(main, ["twilio", "connect", NUMBER, *arguments])
        read = self.terminal.readouterr()
        return status, read.out, read.err


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(monkeypatch, capsys)


def posts(account: TwilioAccount) -> list[str]:
    return [one for one in account.asked if one.startswith("POST")]


@pytest.mark.parametrize(("arguments", "typed"), [(("--yes",), ""), ((), "y\n")])
async def test_a_number_is_set_after_the_change_was_shown(
    operator: Operator, arguments: tuple[str, ...], typed: str
) -> None:
    async with an_account(numbers=[a_number(NUMBER)]) as account:
        status, out, _ = await operator.connects(account, *arguments, typed=typed)
        assert status == 0, out
        assert "POST https://demo.twilio.com/welcome/voice/" in out
        assert f"->  POST {URL}/twilio-voice" in out
        assert {name: account.numbers[0][name] for name in HERE} == HERE
        assert account.numbers[0]["voice_fallback_url"] == "https://handler.example.com/sorry"
        again, told, _ = await operator.connects(account, "--yes")
        assert (again, "already" in told) == (0, True)
        assert len(posts(account)) == 1


@pytest.mark.parametrize("typed", ["", "n\n", "yours\n"])
async def test_nothing_is_changed_without_a_yes(operator: Operator, typed: str) -> None:
    async with an_account(numbers=[a_number(NUMBER)]) as account:
        status, out, _ = await operator.connects(account, typed=typed)
        assert (status, "nothing was changed" in out) == (1, True)
        assert posts(account) == []


@pytest.mark.parametrize(
    ("what", "variables", "status", "said"),
    [
        ({}, {}, 2, "has no number"),
        ({"numbers": [a_number(NUMBER, trunk_sid="TK1")]}, {}, 2, "SIP trunk"),
        ({"status": 401}, {}, 2, "answered 401"),
        ({}, {"TWILIO_API_URL": "http://127.0.0.1:1"}, 2, "cannot be reached"),
        ({}, {"TWILIO_ACCOUNT_SID": ""}, 2, "TWILIO_ACCOUNT_SID is not set"),
        ({}, {"PUBLIC_URL": ""}, 2, "PUBLIC_URL is not a public https:// URL"),
        ({}, {"PUBLIC_URL": "http://localhost:8000"}, 2, "PUBLIC_URL is not a public https://"),
        ({}, {"PUBLIC_URL": f"{URL}/"}, 2, "PUBLIC_URL must not end with a slash"),
        ({"numbers": [a_number(NUMBER)], "forgets": True}, {}, 1, "does not have it"),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_sentence(
    operator: Operator, what: dict[str, Any], variables: dict[str, str], status: int, said: str
) -> None:
    async with an_account(**what) as account:
        ended, out, err = await operator.connects(account, "--yes", **variables)
    assert ended == status, err
    assert said in (err if status == 2 else out)
    assert account.environment["TWILIO_AUTH_TOKEN"] not in out + err
