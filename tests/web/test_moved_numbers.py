"""A number that moves to another business while a call runs: the call stays where it was."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from app.admin.redis_users import KEYS
from tests.businesses import NUMBER
from tests.service import Service, a_call, post
from tests.waiting import until
from tests.web.admins import Caller, administered
from tests.web.test_voice import parameters

BEFORE, AFTER = "business-1", "indian"
AFTERS_OWN = "+918047112345"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with administered(tmp_path_factory.mktemp("moved")) as running:
        yield running


@pytest.fixture
async def move(service: Service) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Return what moves the number to the other business; it is moved back after the test."""
    caller = Caller(service)

    async def give(business_id: str, *numbers: str) -> None:
        path, fields = f"/businesses/{business_id}", {"numbers": list(numbers)}
        answer = await asyncio.to_thread(caller, "PATCH", path, fields, if_match="*")
        assert answer.status_code == 200, answer.text

    async def is_owned_by(business_id: str) -> bool:
        call = a_call(NUMBER)
        answer = await post(service, "/twilio-voice", call)
        await post(service, "/twilio-status", {**call, "CallStatus": "completed"})  # frees its slot
        return "<Stream" in answer.text and parameters(answer.text)["businessId"] == business_id

    async def moved() -> None:
        await give(BEFORE)
        await give(AFTER, AFTERS_OWN, NUMBER)
        await until(lambda: is_owned_by(AFTER))

    yield moved
    await give(AFTER, AFTERS_OWN)
    await give(BEFORE, NUMBER)
    await until(lambda: is_owned_by(BEFORE))


async def businesses_told(service: Service, call_sid: str, at_least: int) -> list[tuple[str, str]]:
    """Return whose each event of a call is, as soon as there are so many."""
    async with Redis.from_url(service.redis_url, decode_responses=True) as redis:
        found: list[tuple[str, str]] = []

        async def are_there() -> bool:
            entries: Any = await redis.xrange("calls")
            found[:] = [
                (fields["event"], fields["businessId"])
                for _, fields in entries
                if fields["callSid"] == call_sid
            ]
            return len(found) >= at_least

        await until(are_there)
        return found


async def slots_of(service: Service, business_id: str) -> list[str]:
    async with Redis.from_url(service.redis_url, decode_responses=True) as redis:
        held: list[str] = await redis.zrange(f"live:{{{business_id}}}", 0, -1)
        return held


CALLBACKS: dict[str, dict[str, str]] = {
    "/twilio-status": {"CallStatus": "completed"},
    "/twilio-dial": {"DialCallStatus": "completed"},
    "/twilio-stream-status": {"StreamEvent": "stream-error", "StreamError": "31921"},
}


@pytest.mark.parametrize("path", CALLBACKS)
async def test_callbacks_of_a_running_call_are_the_business_that_answered_it(
    service: Service, move: Callable[[], Awaitable[None]], path: str
) -> None:
    call = a_call(NUMBER)
    answer = await post(service, "/twilio-voice", call)
    assert parameters(answer.text)["businessId"] == BEFORE
    await move()
    new = a_call(NUMBER)
    assert parameters((await post(service, "/twilio-voice", new)).text)["businessId"] == AFTER
    for one in (call, new):
        answer = await post(service, path, {**one, **CALLBACKS[path]})
        assert answer.status_code in (200, 204)
    assert {owner for _, owner in await businesses_told(service, call["CallSid"], 2)} == {BEFORE}
    assert {owner for _, owner in await businesses_told(service, new["CallSid"], 2)} == {AFTER}
    if path == "/twilio-status":
        assert call["CallSid"] not in await slots_of(service, BEFORE)
        assert new["CallSid"] not in await slots_of(service, AFTER)
    async with Redis.from_url(service.redis_url) as redis:
        keys = [key.decode() async for key in redis.scan_iter(f"*{call['CallSid']}*")]
    assert keys
    assert not [key for key in keys if f"{{{AFTER}" in key]


async def test_a_call_that_returns_is_the_business_that_answered_it(
    service: Service, move: Callable[[], Awaitable[None]]
) -> None:
    call = a_call(NUMBER)
    await post(service, "/twilio-voice", call)
    await move()
    answer = await post(service, "/twilio-voice", {**call, "CallStatus": "in-progress"})
    assert parameters(answer.text)["businessId"] == BEFORE


async def test_the_status_of_a_call_that_was_not_answered_is_its_numbers_owners(
    service: Service,
) -> None:
    call = a_call(NUMBER)
    await post(service, "/twilio-status", {**call, "CallStatus": "no-answer"})
    assert await businesses_told(service, call["CallSid"], 1) == [("call.status", BEFORE)]


async def test_who_answered_is_known_for_a_bounded_time(service: Service) -> None:
    call = a_call(NUMBER)
    await post(service, "/twilio-voice", call)
    async with Redis.from_url(service.redis_url) as redis:
        key = f"answered:{{{call['CallSid']}}}"
        assert await redis.get(key) == BEFORE.encode()
        assert 86_400 < await redis.ttl(key) <= 90_000
    answer = Caller(service)("DELETE", f"/calls/{call['CallSid']}")
    assert answer.status_code in (200, 204, 409), answer.text
    assert "answered:{CALLSID}" in KEYS


@pytest.mark.parametrize(
    "text", ["x\ny", "a\x1b[31mb", "\x9b31m", "\u202egnp", "e" * 60_000], ids=ascii
)
async def test_an_error_of_a_stream_is_short_and_on_one_line(service: Service, text: str) -> None:
    call = a_call(NUMBER)
    form = {**call, "StreamEvent": "stream-error", "StreamError": text}
    assert (await post(service, "/twilio-stream-status", form)).status_code == 204
    async with Redis.from_url(service.redis_url, decode_responses=True) as redis:

        async def told() -> str:
            entries: Any = await redis.xrange("calls")
            found = [
                fields["data"] for _, fields in entries if fields["callSid"] == call["CallSid"]
            ]
            return found[0] if found else ""

        data = str(await until(told))
    assert len(data) < 1_100
    assert all(
        code not in data for code in ("\\n", "\\u001b", "\\u009b", "\\u202e", "\x9b", "\u202e")
    )
