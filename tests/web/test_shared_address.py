"""Businesses that share an address: one's wrong credentials refuse no right one of another's."""

import asyncio
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.businesses import BUSINESSES, business, plan
from tests.redis_process import RedisProcess
from tests.service import WAIT_SECONDS, Service, running_service
from tests.web.test_credential_binding import B, basic
from tests.web.test_failed_credentials import (
    JWT_SECRET,
    METRICS_TOKEN,
    PAIR,
    client_at,
    counted,
    token,
    upgraded,
)

# Such as Exotel's, from which the calls of all its customers come.
ADDRESS = "127.0.0.71"
OWN = "b-key-of-the-tests:b-token-of-the-tests"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """Start a Redis that can be stopped."""
    with RedisProcess(tmp_path_factory.mktemp("redis"), fsync=None) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, redis: RedisProcess) -> Iterator[Service]:
    """Start a service with a business that has an Exotel pair of its own."""
    directory = tmp_path_factory.mktemp("shared")
    more = directory / "more.toml"
    text = plan("roomy", max_concurrent_calls=500)
    text += business(B, "roomy", "+15005552002", exotel_pairs=[OWN])
    more.write_text(BUSINESSES + text, encoding="utf-8")
    with running_service(
        directory,
        redis.url,
        BUSINESSES_FILE=str(more),
        SUPPORT_EXOTEL="true",
        EXOTEL_API_KEY=PAIR[0],
        EXOTEL_API_TOKEN=PAIR[1],
        JWT_SECRET=JWT_SECRET,
        METRICS_TOKEN=METRICS_TOKEN,
    ) as running:
        yield running


async def ticket_of(client: httpx.AsyncClient, call_sid: str) -> str:
    answer = await client.get(
        "/exotel-stream-url", headers=basic(OWN), params={"CallSid": call_sid}
    )
    assert answer.status_code == 200, answer.text
    url: str = answer.json()["url"]
    return parse_qs(urlsplit(url).query)["ticket"][0]


async def test_a_flood_of_wrong_credentials_refuses_no_right_one(shared: Service) -> None:
    answers: set[int] = set()
    is_over = asyncio.Event()

    async def flood(number: int) -> None:
        guesses = 0
        async with client_at(shared, ADDRESS) as client:
            while not is_over.is_set():
                guesses += 1
                wrong = basic(f"KEY{number}:TOKEN{guesses}")
                answer = await client.get("/exotel-stream-url", headers=wrong)
                answers.add(answer.status_code)
                bearer = {"Authorization": f"Bearer {number}-{guesses}"}
                answers.add((await client.get("/metrics", headers=bearer)).status_code)

    async with asyncio.TaskGroup() as tasks, client_at(shared, ADDRESS) as client:
        floods = [tasks.create_task(flood(number)) for number in range(2)]
        while 429 not in answers:
            await asyncio.sleep(0.01)
        for number in range(20):
            for shown in (basic(OWN), {"Authorization": token()}, basic(":".join(PAIR))):
                assert await upgraded(shared, ADDRESS, shown["Authorization"]) == 101
            unspent = await ticket_of(client, f"call-{number}")
            url = f"/v1/ingest?ticket={unspent}"
            assert await upgraded(shared, ADDRESS, path=url) == 101
            right = {"Authorization": f"Bearer {METRICS_TOKEN}"}
            assert (await client.get("/metrics", headers=right)).status_code == 200
        is_over.set()
        await asyncio.gather(*floods)
    assert answers == {401, 429}


async def test_an_own_pair_is_not_wrong_because_redis_is_away(
    shared: Service, redis: RedisProcess
) -> None:
    ways = ("ingest", "exotel_stream_url")
    before = [await counted(shared, way, "refused") for way in ways]
    pair, shared_pair = basic("key-that-is-not-remembered:token"), basic(":".join(PAIR))
    async with client_at(shared, "127.0.0.72") as client:
        redis.freeze()
        try:
            for _ in range(25):
                answer = await client.get("/exotel-stream-url", headers=pair)
                assert answer.status_code == 503, answer.text
                assert answer.json()["error"] == "store_unavailable"
            assert await upgraded(shared, "127.0.0.72", pair["Authorization"]) == 503
            assert await upgraded(shared, "127.0.0.72", shared_pair["Authorization"]) == 101
        finally:
            redis.thaw()
        assert [await counted(shared, way, "refused") for way in ways] == before

        async def is_asked_again() -> bool:
            return (await client.get("/exotel-stream-url", headers=pair)).status_code == 401

        async with asyncio.timeout(WAIT_SECONDS):
            while not await is_asked_again():
                await asyncio.sleep(0.05)
        assert (await client.get("/exotel-stream-url", headers=basic(OWN))).status_code == 200
