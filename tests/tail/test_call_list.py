"""`media-bridge calls`: live calls and past ones."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import pytest
from redis.asyncio import Redis

from app.archive.redis import RedisArchive
from app.cli import main
from app.events import CallIdentity
from app.pubsub.redis_streams import RedisStreams
from tests.archive.kept import Kept
from tests.waiting import WAIT_SECONDS

NOW_MS = int(time.time() * 1000)


def call(n: int, business: str = "business-1") -> CallIdentity:
    return CallIdentity(f"CA{n}", f"MZ{n}", business, "premium", "twilio")


Listed = Callable[..., tuple[list[str], str]]


@pytest.fixture
def listed(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Listed:
    """Run `calls`; give its lines, and its words."""
    monkeypatch.setenv("REDIS_URL", redis_url)

    def run(*arguments: str) -> tuple[list[str], str]:
        assert main(["calls", *arguments]) == 0
        out, err = capsys.readouterr()
        return out.splitlines(), err

    return run


@pytest.fixture
async def some_calls(redis: Redis, redis_url: str) -> None:
    """Leave one call that is over, one that was rejected, and two that are live."""
    kept = Kept(RedisStreams(redis_url), RedisArchive(redis_url))
    await kept.whole(call(1), [], at=NOW_MS - 60_000)
    rejected = call(2)
    said = {"reason": "busy", "from": "+15005550009", "to": "+15005550006"}
    await kept.tell(rejected, "call.rejected", NOW_MS - 50_000, **said)
    await kept.begin(call(3), NOW_MS - 40_000)
    await kept.begin(call(4, "business-2"), NOW_MS - 30_000)
    await kept.pubsub.close()
    await kept.archive.close()


@pytest.mark.usefixtures("some_calls")
@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), ["CA4", "CA3", "CA2", "CA1"]),
        (("--live",), ["CA4", "CA3"]),
        (("--ended",), ["CA2", "CA1"]),
        (("--limit", "3"), ["CA4", "CA3", "CA2"]),
        (("--business", "business-1"), ["CA3", "CA2", "CA1"]),
        (("--business", "business-2", "--live"), ["CA4"]),
    ],
)
def test_calls_are_listed_the_latest_first(
    listed: Listed, arguments: Sequence[str], found: list[str]
) -> None:
    lines, words = listed(*arguments)
    assert [line.split()[-1] for line in lines[1:]] == found
    assert words == ""
    lines, _ = listed("--json", *arguments)
    assert [json.loads(line)["call_sid"] for line in lines] == found


@pytest.mark.usefixtures("some_calls")
def test_a_line_says_how_long_and_who_without_their_numbers(listed: Listed) -> None:
    lines, _ = listed()
    assert lines[4].split()[2:] == [
        "0:05",
        "ended",
        "business-1",
        "+1******0009",
        "+1******0006",
        "CA1",
    ]
    assert "rejected (busy)" in lines[3]
    assert len({line.index("business-") for line in lines[1:]}) == 1
    objects, _ = listed("--json")
    over = json.loads(objects[3])
    assert (over["from"], over["state"]) == ("+1******0009", "ended")
    assert over["streams"][0]["end_reason"] == "stop"
    assert "5550009" not in "".join([*lines, *objects])


@pytest.mark.usefixtures("redis")
def test_no_call_is_said(listed: Listed) -> None:
    assert listed() == ([], "there are no such calls\n")


@pytest.mark.usefixtures("some_calls")
def test_a_reader_that_has_enough_ends_it_without_a_word(redis_url: str) -> None:
    pipe = '("$0" -m app calls; echo status $? >&2) | :'
    ran = subprocess.run(
        ["/bin/sh", "-c", pipe, sys.executable],
        env={"PATH": os.environ["PATH"], "REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert (ran.stdout, ran.stderr) == ("", "status 0\n")
