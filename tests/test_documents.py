"""What the documents say of settings, secrets, alerts, platforms and each other is so."""

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from redis.exceptions import AuthenticationError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.administration.secret_fields import NAMES
from app.cli import main
from app.notices import signature as notice_signature
from app.settings import SECRET_NAMES, SUFFIX, Settings
from tests.markdown import ROOT, blocks, read, rows, spans
from tests.redis_process import RedisProcess
from tests.service import Service, a_call, http_client, post, service_alone, signature
from tests.waiting import until
from tests.web.admins import Caller, bearer

OPERATIONS = "docs/operations.md"
DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
]

# ------------------------------------------------------------------------- links


def anchors(name: str) -> set[str]:
    """Give the headings of a document as GitHub names them in links."""
    heads = re.findall(r"^#+ (.+)$", read(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_links_of_a_document_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", read(name)):
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(str(target.resolve().relative_to(ROOT))), link


def test_every_document_is_in_the_readmes_list() -> None:
    listed = {cell for row in rows("README.md", "## Where things are") for cell in row[:1]}
    for name in DOCUMENTS[1:]:
        assert f"[{name}]({name})" in listed


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_commands_that_a_document_names_are_there(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    named = re.findall(r"(?:`|^ {4,})media-bridge ([a-z][a-z-]*)", read(name), re.M)
    assert {one for one in named if not re.search(rf"^    {one} ", told, re.M)} == set()


def test_each_document_of_an_operator_names_only_settings_that_are() -> None:
    foreign = {"README", "CHANGELOG", "SIGTERM", "PORT", "STORE", "SECONDS", "HEX", "NAME", "ID"}
    foreign |= {
        "ACL",
        "BLOCK",
        "SETUSER",
        "XREAD",
        "PATCH",
        "GET",
        "POST",
        "AUTH_TOKEN",
        "HOST",
        "SIGKILL",
        "REGISTRY",
        # Arguments of commands, and names of values in keys.
        *("DELETE", "FILE", "GROUP", "NUMBER", "USER"),
    }
    named = {
        word for span in spans(OPERATIONS) for word in re.findall(r"\b[A-Z][A-Z_]{2,}\b", span)
    }
    named = {name for name in named - foreign if not name.startswith("RAILWAY_")}
    files = {"NAME_FILE", *(name + SUFFIX for name in SECRET_NAMES)}
    assert named & files
    named -= files
    assert len(named) > 20
    assert {name for name in named if name.lower() not in Settings.__dataclass_fields__} == set()


# --------------------------------------------------------------------- platforms


def test_the_table_of_platforms_says_what_their_files_say() -> None:
    table = {row[0]: row[1:] for row in rows(OPERATIONS, "## Platforms") if len(row) == 5}
    variables = dict(re.findall(r'(\w+): "(\d+)"', read(".railway/railway.ts")))
    railway = json.loads(read("railway.json"))["deploy"]
    window, drain, overlap = table["Railway"][1:]
    assert window == f"{railway['drainingSeconds']} s"
    assert window == f"{variables['RAILWAY_DEPLOYMENT_DRAINING_SECONDS']} s"
    assert drain == variables["DRAIN_SECONDS"]
    assert overlap.startswith(f"{railway['overlapSeconds']} s ")
    web = yaml.safe_load(read("render.yaml"))["services"][0]
    [given] = [one["value"] for one in web["envVars"] if one["key"] == "DRAIN_SECONDS"]
    assert table["Render"][1:3] == [f"{web['maxShutdownDelaySeconds']} s", given]
    assert "DRAIN_SECONDS=20" in read(OPERATIONS)
    assert table["Heroku"][2] == "20"
    default = Settings.__dataclass_fields__["drain_seconds"].default
    assert table["containers"][2] == f"{default:g}, the default"
    assert table["containers"][1] == f"`--timeout {default + 30:g}`"


# ------------------------------------------------------------------------ sizing


def test_the_example_of_the_sizing_is_reckoned_right() -> None:
    text = " ".join(read(OPERATIONS).split())
    w, r, size = 4.4e-6, 12.4e-6, 377
    assert "W = 4.4 µs, and R = 12.4 µs" in text
    frames = 300 * 1 * 1000 // 20
    assert f"F is {frames:,} entries/s" in text
    cores = frames * (w + r)
    assert f"{cores:.2f} of a core" in text
    memory = (300 + 100) * 60 * 50 * size / 1e9
    assert f"400 × 60 × 50 × 377 B = {memory:.2f} GB" in text
    cost = (300 / 900 + cores) * 0.04 + memory * 0.005
    assert f"= {cost:.3f} an hour" in text
    assert f"about {round(300 * 0.6 / cores, -1):.0f} such calls" in text


# ------------------------------------------------------------------------ alerts


def test_every_alert_has_a_line_that_says_what_to_do() -> None:
    groups = yaml.safe_load(read("docs/monitoring/alerts.yml"))["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]
    told = [
        name
        for row in rows(OPERATIONS, "## Metrics and alerts")
        for name in re.findall(r"`(Bridge\w+)`", row[0])
    ]
    assert sorted(told) == sorted(alerts)


# ------------------------------------------------------------------------ secrets


def test_the_replacement_of_every_secret_is_told() -> None:
    told = " ".join(row[0] for row in rows(OPERATIONS, "## Replacing secrets"))
    named = set(re.findall(r"`(\w+)`", told))
    secret = {
        name.upper()
        for name, field in Settings.__dataclass_fields__.items()
        if "Secret" in str(field.type) or name.startswith("jwt_public") or name == "jwt_jwks_url"
    }
    assert named == secret | set(NAMES)
    assert "access keys" in told


OLD, NEW = "the-old-one-of-at-least-32-letters", "the-new-one-of-at-least-32-letters"


def variables(value: str) -> dict[str, str]:
    return {
        "TWILIO_AUTH_TOKEN": value,
        "ADMIN_TOKEN": value,
        "METRICS_TOKEN": value,
        "EXOTEL_API_KEY": value,
        "EXOTEL_API_TOKEN": value,
        "SUPPORT_EXOTEL": "true",
    }


@pytest.fixture(scope="module")
def during(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give an instance in the midst of each replacement: the new one first."""
    with service_alone(tmp_path_factory.mktemp("during"), **variables(f"{NEW},{OLD}")) as running:
        yield running


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give an instance after it."""
    with service_alone(tmp_path_factory.mktemp("after"), **variables(NEW)) as running:
        yield running


async def by_twilio(service: Service, secret: str) -> bool:
    signed = signature(service.url + "/twilio-status", form := a_call(), token=secret)
    answer = await post(service, "/twilio-status", form, headers={"X-Twilio-Signature": signed})
    return answer.status_code == 204


async def by_an_operator(service: Service, secret: str) -> bool:
    async with http_client() as client:
        answer = await client.get(service.url + "/api/v1/plans", headers=bearer(secret))
    return answer.status_code == 200


async def by_prometheus(service: Service, secret: str) -> bool:
    async with http_client() as client:
        answer = await client.get(service.url + "/metrics", headers=bearer(secret))
    return answer.status_code == 200


async def by_exotel(service: Service, secret: str) -> bool:
    url = service.ws_url.replace("://", f"://{secret}:{secret}@") + "/v1/ingest"
    try:
        async with connect(url, compression=None):
            return True
    except InvalidStatus:
        return False


@pytest.mark.parametrize("shown", [by_twilio, by_an_operator, by_prometheus, by_exotel])
async def test_of_two_secrets_both_are_good_until_the_old_one_is_taken_out(
    during: Service, after: Service, shown: Callable[[Service, str], Awaitable[bool]]
) -> None:
    assert [await shown(during, secret) for secret in (OLD, NEW, OLD + NEW)] == [True, True, False]
    assert [await shown(after, secret) for secret in (OLD, NEW)] == [False, True]


async def test_a_businesss_pairs_and_keys_are_replaced_without_a_break(after: Service) -> None:
    operator = Caller(after, bearer(NEW))

    async def is_served(pair: str) -> bool:
        url = after.ws_url.replace("://", f"://{pair}@") + "/v1/ingest"
        try:
            async with connect(url, compression=None):
                return True
        except InvalidStatus:
            return False

    path = "/businesses/business-2/secrets"
    old, new = (f"{name}-key-of-exotel:{name}-token-of-exotel" for name in ("old", "new"))
    for pairs, served in (
        ([old], {old: True, new: False}),
        ([new, old], {old: True, new: True}),
        ([new], {old: False, new: True}),
    ):
        assert operator("PATCH", path, {"exotel_pairs": pairs}).status_code == 200
        for pair, is_good in served.items():
            # What is stored holds within a second.
            async def holds(pair: str = pair, is_good: bool = is_good) -> bool:
                return await is_served(pair) is is_good

            await until(holds)
    first, second = (operator.new_key("business-2") for _ in range(2))
    mine = f"/businesses/business-2/keys/{first['id']}"
    assert Caller(after, bearer(first["key"]))("GET", "/businesses").status_code == 200
    assert operator("DELETE", mine).status_code == 204
    assert Caller(after, bearer(first["key"]))("GET", "/businesses").status_code == 401
    assert Caller(after, bearer(second["key"]))("GET", "/businesses").status_code == 200


def test_redis_takes_two_passwords_at_a_time_and_keeps_open_connections(tmp_path: Path) -> None:
    with RedisProcess(tmp_path, fsync=None, password="old") as server:
        with server.client() as client:
            client.ping()
            client.execute_command("ACL", "SETUSER", "default", ">new")
            server.password = "new"
            with server.client() as renewed:
                assert renewed.ping()
            client.execute_command("ACL", "SETUSER", "default", "<old")
            assert client.ping()
        with (
            Redis(host="127.0.0.1", port=server.port, password="old", retry=None) as late,
            pytest.raises(AuthenticationError),
        ):
            late.ping()


# ------------------------------------------------------------------------ notices


@dataclass(frozen=True)
class _Receiver:
    """What a reader of the document has."""

    is_genuine: Callable[[str, bytes, str], bool]


def receiver() -> _Receiver:
    [code] = [block.text for block in blocks(OPERATIONS) if block.kind == "python"]
    names: dict[str, Any] = {}
    exec(compile(code, OPERATIONS, "exec"), names)
    return _Receiver(names["is_genuine"])


@pytest.mark.parametrize(
    ("changed", "is_good"),
    [
        ({}, True),
        ({"body": b"{ }"}, False),
        ({"secret": "another-secret-of-theirs"}, False),
        ({"at": -301}, False),
        ({"at": 301}, False),
        ({"at": -200}, True),
    ],
)
def test_a_receiver_made_as_the_document_says_knows_what_is_ours(
    changed: dict[str, Any], is_good: bool
) -> None:
    secret, body = "a-secret-of-a-business", b"{}"
    header = notice_signature(secret, int(time.time()) + changed.get("at", 0), body)
    genuine = receiver().is_genuine(
        header, changed.get("body", body), changed.get("secret", secret)
    )
    assert genuine is is_good
