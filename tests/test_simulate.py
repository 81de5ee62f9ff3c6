"""Simulated callers on a service that runs, and what they say of it."""

import json
import re
import subprocess
import sys

from tests.service import NUMBER, TOKEN, Service

SECONDS = "1"
CALL = re.compile(r"CA[0-9a-f]{32}")
TIME_LIMIT_SECONDS = 60


def simulated(*arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """Run `simulate` as a developer would, knowing nothing but what it is told."""
    return subprocess.run(
        [sys.executable, "-m", "app", "simulate", "--seconds", SECONDS, *arguments],
        env={"TWILIO_AUTH_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_SECONDS,
    )


async def test_a_call_by_a_businesss_id_is_heard_to_its_end(open_service: Service) -> None:
    ran = simulated(open_service.url, "--business", "business-1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("1 of 1 calls were heard to their end\n")


async def test_a_signed_call_by_a_number_is_heard_to_its_end(service: Service) -> None:
    ran = simulated(service.url, "--to", NUMBER, "--calls", "2", token=TOKEN)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    ended = [line for line in service.logged().splitlines() if "receipt:" in line]
    receipts = [json.loads(line.partition("receipt: ")[2]) for line in ended]
    assert [receipt["published"] for receipt in receipts] == [50, 50]
    assert set(CALL.findall(ran.stdout)) == {CALL.findall(line)[0] for line in ended}


def test_a_call_without_the_right_token_is_told_so(service: Service) -> None:
    ran = simulated(service.url, "--to", NUMBER, token="wrong")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "signature_invalid" in ran.stdout


def test_a_call_that_nobody_owns_hears_why(open_service: Service) -> None:
    ran = simulated(open_service.url, "--to", "+15005550000")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "this number is not in service" in ran.stdout


def test_a_service_that_is_not_there_is_named_in_a_sentence() -> None:
    ran = simulated("http://127.0.0.1:1", "--business", "listening")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "did not reach the service" in ran.stdout


def test_a_caller_must_be_told_whom_to_call() -> None:
    ran = simulated("http://127.0.0.1:1")
    assert ran.returncode == 2
    assert "--business" in ran.stderr
