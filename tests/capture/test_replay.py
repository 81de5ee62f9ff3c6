"""Captured calls placed again: every frame arrives, or the status and a sentence say why not."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from app.wire.capture import CaptureFacts, capture_line, facts_path, write_facts
from tests.businesses import NUMBER
from tests.capture.conftest import JWT_SECRET, PAIR, SIGNED, Run
from tests.captures.make_captures import DIRECTORY
from tests.service import Service

SPEECH = DIRECTORY / "speech.jsonl"
EXOTEL = DIRECTORY / "exotel_speech.jsonl"
FRAMES = 454
EXOTEL_FRAMES = 91


def whole(receipt: dict[str, Any], frames: int) -> bool:
    told = receipt["received"], receipt["published"], receipt["carrier_gaps"]
    return told == (frames, frames, 0)


def client_capture(directory: Path, frames: int = 5) -> Path:
    """Write a capture of an own client: 20 ms of PCM16 at 24 kHz a frame."""
    start = {"event": "start", "interaction_id": "int-1", "tenant_id": "old", "sample_rate": 24000}
    messages: list[str | bytes] = [json.dumps(start)]
    messages += [bytes([number, 0]) * 480 for number in range(frames)]
    messages += ['{"event":"stop"}']
    path = directory / "client.jsonl"
    path.write_text("".join(capture_line(one) + "\n" for one in messages))
    return path


# ---------------------------------------------------------------------- what arrives


def test_a_signed_call_arrives_whole_by_its_webhook_and_ticket(
    enforcing: Service, run: Run
) -> None:
    ran = run("replay", SPEECH, enforcing.url, "--speed", 20, "--to", NUMBER, environ=SIGNED)
    assert (ran.status, len(ran.receipts)) == (0, 1), ran.words
    assert whole(ran.receipts[0], FRAMES)
    assert ran.receipts[0]["end_reason"] == "stop"
    assert "1 of 1 calls arrived whole" in ran.words


def test_an_unsigned_call_arrives_whole_in_real_time(waiving: Service, run: Run) -> None:
    began = time.monotonic()
    ran = run("replay", DIRECTORY / "two_tracks.jsonl", waiving.url, "--business", "business-1")
    assert (ran.status, ran.receipts[0]["published"]) == (0, 200), ran.words
    assert time.monotonic() - began >= 99 * 0.02  # its last frame is due then


def test_many_calls_at_once_are_calls_of_their_own(enforcing: Service, run: Run) -> None:
    ran = run(
        *("replay", SPEECH, enforcing.url, "--burst", "--calls", 20, "--business", "business-1"),
        environ=SIGNED,
    )
    assert ran.status == 0, ran.words
    assert [whole(receipt, FRAMES) for receipt in ran.receipts] == [True] * 20
    assert len({receipt["callSid"] for receipt in ran.receipts}) == 20


def test_a_receipt_is_read_from_redis_too(waiving: Service, run: Run) -> None:
    environ = {"ADMIN_TOKEN": "", "REDIS_URL": waiving.redis_url}
    ran = run("replay", SPEECH, waiving.url, "--burst", environ=environ)
    assert ran.status == 0, ran.words
    assert whole(ran.receipts[0], FRAMES)


@pytest.mark.parametrize("environ", [PAIR, {}], ids=["pair", "ticket"])
def test_an_exotel_call_arrives_whole(
    enforcing: Service, waiving: Service, run: Run, environ: dict[str, str]
) -> None:
    service = enforcing if environ else waiving
    ran = run(*("replay", EXOTEL, service.url, "--burst", "--to", "+918047112345"), environ=environ)
    assert ran.status == 0, ran.words
    assert whole(ran.receipts[0], EXOTEL_FRAMES)


def test_an_own_clients_call_arrives_whole_with_its_token(
    enforcing: Service, run: Run, tmp_path: Path
) -> None:
    claims = {"tenant_id": "business-1", "exp": int(time.time()) + 300}
    token = jwt.encode(claims, JWT_SECRET, "HS256")
    path = client_capture(tmp_path)
    ran = run("replay", path, enforcing.url, "--calls", 2, environ={"INGEST_TOKEN": token})
    assert ran.status == 0, ran.words
    assert [whole(receipt, 5) for receipt in ran.receipts] == [True, True]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("seq_repeat", 4, 0),
        ("no_stop", 3, 0),
        ("truncated_base64", 2, 7),
        ("media_before_start", 2, 2),
        ("exotel_broken_media", 2, 5),
        ("exotel_beta", 1, 0),
        ("exotel_flat", 2, 0),
        ("exotel_camel_case", 2, 0),
    ],
)
def test_what_was_bad_as_it_came_is_no_loss(
    waiving: Service, run: Run, name: str, good: int, bad: int
) -> None:
    path = DIRECTORY / f"{name}.jsonl"
    ran = run("replay", path, waiving.url, "--burst", "--business", "business-1")
    assert ran.status == 0, ran.words
    assert ran.receipts[0]["published"] + ran.receipts[0]["duplicates"] == good
    assert sum(ran.receipts[0]["rejected"].values()) == bad


def test_frames_that_the_plan_leaves_out_are_not_called_arrived(waiving: Service, run: Run) -> None:
    path = DIRECTORY / "two_tracks.jsonl"
    ran = run("replay", path, waiving.url, "--burst", "--business", "business-2")
    assert ran.status == 1
    assert ran.receipts[0]["rejected"] == {"track_not_in_plan": 100}
    assert "0 of 1 calls are known to have arrived whole" in ran.words


def test_without_a_way_to_the_receipt_nothing_is_claimed(waiving: Service, run: Run) -> None:
    ran = run("replay", SPEECH, waiving.url, "--burst", environ={"ADMIN_TOKEN": ""})
    assert (ran.status, ran.receipts) == (1, [])
    assert "set ADMIN_TOKEN" in ran.words


def test_arrival_times_pace_a_call_when_they_are_known(
    waiving: Service, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "late.jsonl"
    lines = SPEECH.read_text().splitlines()[:6]
    path.write_text("\n".join(lines) + "\n")
    arrivals = [500, 500, 510, 520, 2500, 2520]
    facts = CaptureFacts(carrier="twilio", business_id="business-1", arrivals_ms=arrivals)
    facts_path(path).write_bytes(write_facts(facts))
    began = time.monotonic()
    ran = run("replay", path, waiving.url, "--speed", 2)
    assert ran.status == 0, ran.words
    assert time.monotonic() - began >= 1.0


# ------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"TWILIO_AUTH_TOKEN": "wrong"}, "signature_invalid"),
        ({}, "signature_missing"),
    ],
)
def test_wrong_secrets_of_twilio_are_named(
    enforcing: Service, run: Run, environ: dict[str, str], words: str
) -> None:
    ran = run("replay", SPEECH, enforcing.url, "--business", "business-1", environ=environ)
    assert (ran.status, ran.receipts) == (2, [])
    assert words in ran.words
    assert "wrong" not in ran.words


@pytest.mark.parametrize("environ", [{**PAIR, "EXOTEL_API_TOKEN": "wrong"}, {}])
def test_wrong_secrets_of_exotel_are_named(
    enforcing: Service, run: Run, environ: dict[str, str]
) -> None:
    ran = run("replay", EXOTEL, enforcing.url, environ=environ)
    assert ran.status == 2
    assert "401: credentials_" in ran.words


@pytest.mark.parametrize(("token", "words"), [("", "INGEST_TOKEN is not set"), ("x", "401: token")])
def test_a_wrong_token_of_a_client_is_named(
    enforcing: Service, run: Run, tmp_path: Path, token: str, words: str
) -> None:
    path = client_capture(tmp_path)
    ran = run("replay", path, enforcing.url, environ={"INGEST_TOKEN": token})
    assert ran.status == 2
    assert words in ran.words


def test_a_wrong_admin_token_is_named(waiving: Service, run: Run) -> None:
    ran = run("replay", SPEECH, waiving.url, "--burst", environ={"ADMIN_TOKEN": "w" * 32})
    assert ran.status == 2
    assert "it answered 401" in ran.words


def test_a_business_that_is_not_there_is_named(enforcing: Service, run: Run) -> None:
    ran = run("replay", SPEECH, enforcing.url, "--business", "nobody", environ=SIGNED)
    assert ran.status == 2
    assert "not in service" in ran.words


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1", "no service answers at ws://127.0.0.1:1"),
        ("127.0.0.1:1", "is no URL of a service"),
        ("ftp://127.0.0.1", "is no URL of a service"),
        ("http://[::1", "is no URL of a service"),
        ("http://127.0.0.1:99999", "is no URL of a service"),
        ("http://127.0.0.1:port", "is no URL of a service"),
        ("ws://127.0.0.1:1/v1/ingest", "a capture of carrier twilio, which streams to /twilio-"),
        ("http://127.0.0.1:1/elsewhere", "has a path"),
    ],
)
def test_a_url_without_a_service_is_told_in_a_sentence(run: Run, url: str, words: str) -> None:
    ran = run("replay", SPEECH, url)
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.words
    assert "Traceback" not in ran.words


def test_a_redis_that_is_not_there_is_told_in_a_sentence(waiving: Service, run: Run) -> None:
    environ = {"ADMIN_TOKEN": "", "REDIS_URL": "redis://127.0.0.1:1"}
    ran = run("replay", DIRECTORY / "no_stop.jsonl", waiving.url, environ=environ)
    assert ran.status == 2
    assert "no receipt from REDIS_URL" in ran.words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--speed", "0"], "must be 0.01 to 1000"),
        (["--speed", "fast"], "must be 0.01 to 1000"),
        (["--calls", "0"], "must be 1 to 10000"),
        (["--speed", "2", "--burst"], "not allowed with"),
        (["--to", "+1", "--business", "a"], "not allowed with"),
        (["--carrier", "telnyx"], "invalid choice"),
    ],
)
def test_bad_arguments_are_refused(run: Run, arguments: list[str], words: str) -> None:
    ran = run("replay", SPEECH, "http://127.0.0.1:1", *arguments)
    assert ran.status == 2
    assert words in ran.words


@pytest.mark.parametrize("command", ["replay", "wscat"])
def test_a_service_that_is_not_ours_is_shown_no_secret(run: Run, command: str) -> None:
    environ = SIGNED | {"PUBLIC_URL": "https://bridge.example", "ADMIN_TOKEN": "t" * 32}
    # 127.0.0.2 is none of this machine's usual names.
    ran = run(command, SPEECH, "http://127.0.0.2:9", environ=environ)
    assert "no secret of this environment is shown to it" in ran.words
    assert "Signature" not in ran.out
    # Whoever may see ADMIN_TOKEN is asked for receipts; here nobody is.
    assert ("set ADMIN_TOKEN" in ran.words) is (command == "replay")
