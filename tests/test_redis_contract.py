"""Every key that the service writes stands in docs/redis-contract.md, with its type."""

import ast
import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from app.admin.access_keys import digest_of
from app.admin.redis_users import KEYS, RedisUser, user_rules
from app.carriers.stream_ids import stream_id
from app.store.access import Session
from app.store.captures import Asked
from app.store.redis_access import RedisAccess
from app.store.redis_captures import RedisCaptures
from app.wire import exotel
from tests.businesses import BUSINESSES, business, plan
from tests.markdown import ROOT, rows
from tests.service import (
    Peer,
    Service,
    a_call,
    a_peer,
    http_client,
    post,
    receipt_of,
    started,
)
from tests.test_architecture import CONFINED
from tests.waiting import WAIT_SECONDS, until
from tests.web.admins import TOKEN, Caller, administered
from tests.web.test_live import events
from tests.web.test_voice import parameters

CONTRACT = "docs/redis-contract.md"
TYPES = {"stream": "stream", "hash": "hash", "set": "set", "string": "string", "list": "list"}
TYPES |= {"sorted set": "zset"}
TALKING, PACED = "+15005550021", "+15005550022"
# Those that live for less than a moment, or that only others write.
FLEETING = {"configuration:{lock}", "store:{check}", "held:{control}:HOLDER"}
FLEETING |= {"held:{streams}:ending", "held:{audit}:inbox"}
# Of `redis_pubsub` alone; tests/pubsub/test_ownership.py looks at it.
FLEETING |= {"owner:{STREAM}"}
OF_WORKERS = "consumer:{GROUP}"


def table() -> dict[str, str]:
    """Give each key of the table, as it is written there, with its type as Redis names it."""
    found = {}
    for keys, kind, _, _ in rows(CONTRACT, "## Every key"):
        for key in re.findall(r"`([^`]+)`", keys):
            assert key not in found, f"{key} stands there twice"
            found[key] = TYPES[kind]
    return found


def named(key: str) -> list[str]:
    """Say which keys of the table this one is."""
    return [one for one in table() if _pattern(one).fullmatch(key)]


def _pattern(shown: str) -> "re.Pattern[str]":
    """Let words in capitals stand for values; those of a tag may hold what a tag may."""
    parts = re.split(r"([A-Z][A-Z0-9_]+)", shown)
    within = [re.escape(part) if at % 2 == 0 else r"[^{}:@]+" for at, part in enumerate(parts)]
    # An address may be one of IPv6.
    return re.compile("".join(within).replace(r"attempts:\{[^{}:@]+", r"attempts:\{[^{}]+"))


@pytest.mark.parametrize(
    ("key", "is_of"),
    [
        ("calls", "calls"),
        ("audio:{MZ1}", "audio:{STREAM}"),
        ("live:{b}", "live:{BUSINESS}"),
        ("live:{b}:call:CA1", "live:{BUSINESS}:call:CALLSID"),
        ("live:{b}:metered:MZ1@17:2026-11", "live:{BUSINESS}:metered:STREAM@START_MS:MONTH"),
        ("live:{b}:ended:CA1", "live:{BUSINESS}:ended:CALLSID"),
        ("seen:{b:CA1}", "seen:{BUSINESS:CALLSID}"),
        ("attempts:{2001:db8::/64}", "attempts:{ADDRESS}"),
        ("live:{b}:whatever:CA1", None),
        ("audio:MZ1", None),
        ("call:{CA1}", None),
        ("calls:{b}", None),
    ],
)
def test_a_key_is_told_from_others(key: str, is_of: str | None) -> None:
    assert named(key) == ([is_of] if is_of else [])


def test_every_key_of_the_contract_says_what_each_user_may_do_with_it() -> None:
    named = set(table())
    assert named - set(KEYS) == set(), "add these keys to KEYS in app/admin/redis_users.py"
    assert set(KEYS) - named == set(), "remove these keys from KEYS in app/admin/redis_users.py"


# ------------------------------------------------------------------ a busy service


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory: Path = tmp_path_factory.mktemp("busy")
    more = directory / "more.toml"
    more.write_text(
        BUSINESSES
        + plan("talking", return_audio=True, calls_per_month_soft=1)
        + plan("paced", max_calls_per_second=5)
        + business("talking", "talking", TALKING, capture_calls=True)
        + business("paced", "paced", PACED, country="US"),
        encoding="utf-8",
    )
    with administered(
        directory,
        BUSINESSES_FILE=str(more),
        SUPPORT_EXOTEL="true",
        EXOTEL_API_KEY="key",
        EXOTEL_API_TOKEN="token",
    ) as running:
        yield running


@asynccontextmanager
async def a_call_in_progress(service: Service, number: str) -> AsyncIterator[Peer]:
    form = a_call(number)
    answer = await post(service, "/twilio-voice", form)
    async with a_peer(service, call_sid=form["CallSid"]) as peer:
        await peer.start(parameters(answer.text))
        await started(service, peer.stream_sid)
        await peer.media(20)
        yield peer


async def over(service: Service, number: str) -> Peer:
    """Let a call come and go."""
    async with a_call_in_progress(service, number) as peer:
        await peer.stop()
        await peer.closed()
    await receipt_of(service, peer.stream_sid)
    return peer


async def by_exotel(service: Service) -> None:
    url = service.ws_url.replace("://", "://key:token@") + "/v1/ingest"
    async with connect(url, compression=None) as socket:
        await socket.send(exotel.start_message("ex-1", "call-ex-1", to_number=TALKING))
        await socket.send(exotel.media_message("ex-1", b"\0\1" * 160, seq=2, chunk=1, timestamp=0))
        await socket.send(exotel.stop_message("ex-1", "call-ex-1", seq=3))
    await receipt_of(service, stream_id("exotel", "talking", "ex-1"))


async def administer(service: Service, heard: Peer, erased: Peer) -> None:
    """Do what operators and admins do."""
    operator = Caller(service)

    def ask(method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        answer = operator(method, path, body, **more)
        assert answer.status_code < 300, answer.text
        return answer

    key = operator.new_key("talking")
    given = {
        "twilio_auth_tokens": ["1" * 32, "2" * 32],
        "exotel_pairs": ["own-key-" * 2 + ":" + "own-token-" * 2],
    }
    ask("PATCH", "/businesses/talking/secrets", given)
    wanted = f"{service.url}/exotel-stream-url?CallSid=ex-2&CallTo={quote(TALKING)}"
    async with http_client(auth=("key", "token")) as client:
        assert (await client.get(wanted)).status_code == 200
    assert Caller(service, {"Authorization": "Bearer mbk_wrong"})("GET", "/me").status_code == 401
    numbers = {"numbers": [TALKING, "+15005550023"]}
    ask("PATCH", "/businesses/talking", numbers, if_match="*")
    ask("GET", f"/calls/{heard.call_sid}/waveform")
    ask("DELETE", f"/calls/{erased.call_sid}")
    ask("POST", "/businesses", {"id": "gone", "name": "Gone", "plan": "talking"})
    ask("DELETE", "/businesses/gone", if_match="*")
    access = RedisAccess.from_url(service.redis_url, WAIT_SECONDS)
    session = Session(digest_of(secrets.token_hex()), f"key:{key['id']}", "talking", key["id"])
    await access.begin_session(session, 60.0)
    await access.close()


async def keys_of(redis: Redis) -> dict[str, str]:
    """Give all keys that are there with their types; one may go meanwhile."""
    found = {key.decode(): (await redis.type(key)).decode() async for key in redis.scan_iter()}
    return {key: kind for key, kind in found.items() if kind != "none"}


async def test_every_key_of_a_busy_service_stands_in_the_contract_with_its_type(
    busy: Service,
) -> None:
    seen: dict[str, str] = {}
    async with Redis.from_url(busy.redis_url) as redis:

        async def look() -> set[str]:
            seen.update(await keys_of(redis))
            return {one for key in seen for one in named(key)}

        await asyncio.gather(over(busy, PACED), by_exotel(busy))
        await look()
        heard, erased = await over(busy, TALKING), await over(busy, TALKING)
        await administer(busy, heard, erased)
        captures = RedisCaptures.from_url(busy.redis_url, WAIT_SECONDS)
        await captures.ask(Asked("talking"))
        await captures.close()
        await look()
        async with (
            a_call_in_progress(busy, TALKING) as peer,
            events(busy, {"Authorization": f"Bearer {TOKEN}"}) as watched,
        ):
            await redis.xadd(f"control:{{{peer.stream_sid}}}", {"command": "mark", "mark": "here"})
            async for _ in watched:
                break
            wanted = set(table()) - FLEETING
            wanted -= {one for one in table() if one.startswith(OF_WORKERS)}

            async def all_came() -> bool:
                return wanted <= await look()

            await until(all_came, lambda: wanted - {one for key in seen for one in named(key)})
            Caller(busy)("POST", f"/calls/{peer.call_sid}/end")
            await look()
    strangers = {key for key in seen if len(named(key)) != 1}
    assert strangers == set()
    wrong = {key: kind for key, kind in seen.items() if table()[named(key)[0]] != kind}
    assert wrong == {}


def test_every_key_that_the_code_names_stands_in_the_contract() -> None:
    """Those too that nobody happens to write in a test."""
    begun = {one.partition("{")[0] for one in table()}
    found = set[str]()
    for room in ("admin", "archive", "consumer", "pubsub", "store"):
        for path in (ROOT / "app" / room).rglob("*.py"):
            found |= set(re.findall(r'"([a-z]+:)\{', path.read_text(encoding="utf-8")))
    assert len(found) > 12
    assert found - begun == set()


def commands_named_in(rooms: Collection[str], known: Collection[str]) -> set[str]:
    """Return the Redis commands that scripts run, and those that are words in these rooms."""
    found = set[str]()
    for path in (ROOT / "app").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"redis\.p?call\('(\w+)'", text))
        if path.relative_to(ROOT / "app").parts[0] in rooms and path.stem != "redis_users":
            found |= {
                node.value
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            } & {one.upper() for one in known}
    return found


async def test_the_services_redis_user_has_every_command_that_the_code_names(
    redis_url: str,
) -> None:
    """Those too that no test happens to run as that user."""
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        known = await redis.execute_command("COMMAND LIST")
    named = commands_named_in({*CONFINED["redis"], "admin", "consumer"}, known)
    assert {"XADD", "EVAL", "GETEX", "HVALS", "ZREVRANGEBYSCORE"} <= named
    rules = user_rules(RedisUser.SERVICE).split(" ")
    granted = {one[1:].partition("|")[0].upper() for one in rules if one.startswith("+")}
    # `CONFIG GET` is asked once, and the service does without an answer.
    missing = named - granted - {"CONFIG"}
    assert missing == set(), "add them to SERVICE_COMMANDS in app/admin/redis_users.py"
