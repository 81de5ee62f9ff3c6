"""`media-bridge audit`, `business` and `person` against a running service's Redis."""

import asyncio
import json
import os
import stat
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.businesses import NUMBER
from tests.records.test_deletion import CALLER, a_business, a_call_that_is_over, everything
from tests.service import WAIT_SECONDS, Service, a_call, a_peer, post, started
from tests.waiting import until
from tests.web.admins import Caller, administered, bearer
from tests.web.test_voice import parameters

SECRET_KEY = "s" * 32


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with administered(tmp_path_factory.mktemp("commands")) as running:
        yield running


def command(
    service: Service, *arguments: str, status: int = 0, key: str = SECRET_KEY, stdin: str = ""
) -> str:
    """Run a command beside the service; return what it printed."""
    environment = {"PATH": os.environ["PATH"], "REDIS_URL": service.redis_url}
    if key:
        environment["SECRET_KEY"] = key
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def actions(service: Service, actor: str = "cli:") -> list[tuple[str, str]]:
    found = Caller(service)("GET", "/audit?limit=200").json()["items"]
    actors = (actor, f"unsigned:{actor}")
    return [(one["action"], one["target"]) for one in found if one["actor"].startswith(actors)]


# ------------------------------------------------------------------------------ audit


async def test_a_log_is_verified_and_tampering_is_shown(tmp_path: Path) -> None:
    with administered(tmp_path) as service:
        operator = Caller(service)
        for name in ("one", "two", "three"):
            assert operator("POST", "/plans", {"name": name}).status_code == 201
        said = command(service, "audit", "verify")
        assert said.startswith("audit: holds; 4 entries, 1 to 4 in its chain")
        kept = tmp_path / "head.json"
        kept.write_text(command(service, "audit", "head"))
        assert operator("DELETE", "/plans/one", if_match="*").status_code == 204
        assert "holds" in command(service, "audit", "verify", "--since-head", str(kept))
        async with Redis.from_url(service.redis_url) as redis:
            entries = await redis.xrange("audit")
            await redis.xdel("audit", entries[2][0])
        later = tmp_path / "later.json"
        later.write_text(command(service, "audit", "head"))
        assert "missing" in command(
            service, "audit", "verify", "--since-head", str(later), status=1
        )
        said = command(service, "audit", "verify", status=1)
        assert "audit: DOES NOT HOLD" in said
        assert f"missing: entry 4 ({entries[3][0].decode()}): before it entry 3 is missing" in said
        wrong = command(service, "audit", "verify", status=1, key="x" * 32)
        assert "forged_head" in wrong
        without = command(service, "audit", "verify", status=2, key="")
        assert "SECRET_KEY is not set" in without
        assert "no head" in command(service, "audit", "head", status=2, key="x" * 32)


def test_a_log_is_exported_as_lines_that_only_their_owner_reads(
    audited: Service, tmp_path: Path
) -> None:
    assert Caller(audited)("POST", "/plans", {"name": "exported"}).status_code == 201
    file = tmp_path / "audit.jsonl"
    command(audited, "audit", "export", "-o", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    by_api = Caller(audited)("GET", "/audit/export.jsonl").text.splitlines()
    assert lines[:-1] == [json.loads(line) for line in reversed(by_api)][: len(lines) - 1]
    printed = command(audited, "audit", "export").splitlines()
    assert json.loads(printed[0]) == lines[0]
    assert actions(audited)[0] == ("audit.exported", "audit")


async def test_changes_by_commands_are_recorded_also_without_the_key(
    audited: Service, tmp_path: Path
) -> None:
    file = tmp_path / "businesses.toml"
    command(audited, "config", "export", str(file))
    text = file.read_text().replace('name = "business-1"', 'name = "Renamed"')
    file.write_text(text)
    command(audited, "config", "import", str(file), key="")
    command(audited, "config", "import", str(file))  # changes nothing
    file.write_text(text.replace('name = "business-2"', 'name = "Renamed too"'))
    command(audited, "config", "import", str(file))
    await until(lambda: ("business.saved", "business-1") in actions(audited))
    done = actions(audited)
    assert done.count(("business.saved", "business-1")) == 1
    assert ("business.saved", "business-2") in done
    assert ("configuration.exported", "plans and businesses") in done
    found = Caller(audited)("GET", "/audit?limit=200&business=business-1").json()["items"]
    (saved,) = [one for one in found if one["action"] == "business.saved"]
    assert saved["data"]["name"] == "business-1 → Renamed"
    assert saved["data"]["written_without_key"] == 1
    assert saved["actor"].startswith("unsigned:cli:")
    assert "holds" in command(audited, "audit", "verify")
    # With another key than the service's, no chain is begun beside its own.
    command(audited, "config", "export", str(tmp_path / "again.toml"), key="z" * 32)
    assert "holds" in command(audited, "audit", "verify")


async def test_listening_by_a_command_is_recorded(audited: Service, tmp_path: Path) -> None:
    sid = await a_call_that_is_over(audited)
    command(audited, "export", sid, "--format", "wav", "-o", str(tmp_path / "call.wav"))
    assert ("call.exported", sid) in actions(audited)


def test_an_exported_log_moves_no_terminals_cursor(audited: Service) -> None:
    key = Caller(audited).new_key("business-1")["key"]
    asked = Caller(audited, bearer(key))("GET", "/live?business=%C2%9B31mRED")
    assert asked.status_code in (404, 422)
    printed = command(audited, "audit", "export")
    assert "\x9b" not in printed
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert asked.status_code == 422 or "\x9b31mRED" in {
        one["data"].get("asked_for") for one in lines
    }


# --------------------------------------------------------------------------- business


async def test_a_business_is_exported_and_deleted(audited: Service, tmp_path: Path) -> None:
    shop = a_business(audited, "+15005550051")
    sid = await a_call_that_is_over(audited, "+15005550051")
    file = tmp_path / "shop.zip"
    command(audited, "business", "export", shop, "-o", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert any(name.startswith(f"audio/{sid}/") for name in zipfile.ZipFile(file).namelist())
    refused = command(audited, "business", "delete", shop, status=2)
    assert "business export" in refused
    assert Caller(audited)("GET", f"/businesses/{shop}").status_code == 200
    assert "calls: 1 erased" in command(audited, "business", "delete", shop, "--yes")
    assert Caller(audited)("GET", f"/businesses/{shop}").status_code == 404
    command(audited, "business", "delete", shop, "--yes", status=2)
    again = tmp_path / "again.toml"
    command(audited, "config", "export", str(again))
    assert shop not in tomllib.loads(again.read_text())["businesses"]
    text = (
        again.read_text() + f'[businesses.{shop}]\nname = "Again"\nplan = "premium"\nnumbers = []\n'
    )
    again.write_text(text)
    refused = command(audited, "config", "import", str(again), status=2)
    assert f"a business '{shop}' was deleted" in refused


async def test_an_import_that_deletes_erases_the_business_whole(
    audited: Service, tmp_path: Path
) -> None:
    file = tmp_path / "before.toml"
    command(audited, "config", "export", str(file))
    shop = a_business(audited, "+15005550052")
    sid = await a_call_that_is_over(audited, "+15005550052")
    command(audited, "config", "import", str(file), "--delete-missing")
    assert ("business.deleted", shop) in actions(audited)
    assert not any(sid in key for key in await everything(audited))


# ----------------------------------------------------------------------------- person


async def test_a_person_is_found_and_erased_in_every_spelling(audited: Service) -> None:
    person = "+12025550177"
    spelled = (person, "12025550177", "+1 (202) 555-0177", f"sip:{person}@carrier.example.com")
    other = await a_call_that_is_over(audited)
    sids = []
    for spelling in spelled:
        form = a_call(NUMBER) | {"From": spelling}
        answer = await post(audited, "/twilio-voice", form)
        assert "<Stream" in answer.text
        sids.append(form["CallSid"])
        async with a_peer(audited, call_sid=form["CallSid"]) as peer:
            await peer.start(parameters(answer.text))
            await started(audited, peer.stream_sid)
            await peer.stop()
            await peer.closed()
    stranger = a_call("+15005559999") | {"From": person}  # of no business
    await post(audited, "/twilio-voice", stranger)
    operator = Caller(audited)
    assert (
        operator("PATCH", "/businesses/business-2", {"forward_to": person}, "*").status_code == 200
    )
    assert operator("PATCH", "/businesses/business-2", {"forward_to": ""}, "*").status_code == 200

    async def all_are_kept() -> bool:
        found = operator("POST", "/persons/find", {"number": person}).json()
        are_over = not any(call["live"] for call in found["calls"])
        expected = {"calls": 4, "streams": 0, "events": 1, "audit_values": 2}
        return are_over and found["found"] == expected

    await until(all_are_kept)
    own = Caller(audited, bearer(operator.new_key("business-2")["key"]))
    asked = own("POST", "/persons/find", {"number": person})
    assert asked.json()["found"] == {"calls": 0, "streams": 0, "events": 0, "audit_values": 2}
    assert (
        own("POST", "/persons/erase", {"number": person, "business": "business-1"}).status_code
        == 404
    )
    said = json.loads(
        command(audited, "person", "erase", "-", "--json", "--yes", stdin=f"{person}\n")
    )
    assert {one["call_sid"] for one in said["calls"]} == set(sids)
    assert (said["erased"]["calls"], said["erased"]["audit_values"]) == (4, 2)
    assert "nothing that is kept names this person" in command(audited, "person", "find", person)
    left = await everything(audited)
    digits = "2025550177"
    named = {key for key, one in left.items() if digits in "".join(filter(str.isdigit, key + one))}
    assert not {key for key in named if person[1:] in left[key] or person in left[key]}
    assert operator("GET", f"/calls/{other}").status_code == 200
    assert "holds" in command(audited, "audit", "verify")
    assert person not in audited.logged()
    assert person not in json.dumps(operator("GET", "/audit?limit=200").json())
    erased = [one for one in operator("GET", "/audit?limit=200").json()["items"]
              if one["action"] == "person.erased"]  # fmt: skip
    assert len(erased) == 1
    assert len(erased[0]["target"]) == 24


async def test_a_person_in_a_live_call_is_named_and_erased_when_it_is_over(
    audited: Service,
) -> None:
    person = "+12025550188"
    form = a_call(NUMBER) | {"From": person}
    answer = await post(audited, "/twilio-voice", form)
    ask = Caller(audited)
    async with a_peer(audited, call_sid=form["CallSid"]) as peer:
        await peer.start(parameters(answer.text))
        await started(audited, peer.stream_sid)
        report = await asyncio.to_thread(ask, "POST", "/persons/erase", {"number": person})
        assert report.json()["calls"] == [
            {"business_id": "business-1", "call_sid": form["CallSid"], "live": True}
        ]
        assert "erase again when it is over" in await asyncio.to_thread(
            command, audited, "person", "erase", person, "--yes", status=1
        )
        await peer.stop()
        await peer.closed()

    async def is_erased() -> bool:
        erased = ask("POST", "/persons/erase", {"number": person}).json()
        return not erased["calls"] or not erased["calls"][0]["live"]

    await until(is_erased)
    assert "nothing that is kept" in command(audited, "person", "find", person)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"number"}),
        ({"number": ""}, {"number"}),
        ({"number": "5550177"}, {"number"}),
        ({"number": 12025550177}, {"number"}),
        ({"number": "+" + "1" * 300}, {"number"}),
        ({"number": "+12025550177", "business": "../x"}, {"business"}),
        ({"number": "+12025550177", "all": True}, {"all"}),
    ],
)
def test_refuses_a_query_that_names_nobody(
    audited: Service, body: dict[str, object], fields: set[str]
) -> None:
    answer = Caller(audited)("POST", "/persons/find", body)
    assert (answer.status_code, set(answer.json()["fields"])) == (422, fields)


def test_refuses_to_erase_a_businesss_own_number(audited: Service) -> None:
    answer = Caller(audited)("POST", "/persons/erase", {"number": NUMBER})
    assert answer.status_code == 422
    assert "receives calls on" in answer.json()["fields"]["number"]
    assert CALLER != NUMBER


def test_erases_a_caller_who_is_another_businesss_number(audited: Service) -> None:
    key = Caller(audited).new_key("business-2")
    own = Caller(audited, bearer(key["key"]))
    # It is business-1's; to business-2 it is like any other number.
    for number in (NUMBER, "+12025550188"):
        answer = own("POST", "/persons/erase", {"number": number})
        assert (answer.status_code, answer.json()["calls"]) == (200, []), answer.text


async def test_searches_of_one_business_leave_room_for_others(audited: Service) -> None:
    ask = Caller(audited)
    mine, theirs = (
        Caller(audited, bearer(ask.new_key(name)["key"])) for name in ("business-1", "business-2")
    )
    body = {"number": "+12025550189"}
    asked = [asyncio.to_thread(mine, "POST", "/persons/find", body) for _ in range(8)]
    other = asyncio.to_thread(theirs, "POST", "/persons/find", body)
    answers = await asyncio.gather(other, *asked)
    assert answers[0].status_code == 200
    statuses = [answer.status_code for answer in answers[1:]]
    assert 200 in statuses
    assert set(statuses) <= {200, 429, 503}
    assert mine("POST", "/persons/find", body).status_code in (200, 429)
