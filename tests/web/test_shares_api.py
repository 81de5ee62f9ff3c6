"""What one business's key may take of a process, and what stays for others."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import httpx
import pytest

from app.archive.library import MAX_LISTENERS
from app.watchers import MAX_WATCHERS
from tests.service import Service, http_client
from tests.web.admins import API, OPERATOR, Caller, administered, bearer
from tests.web.test_live import a_live_call

A, B = "business-1", "business-2"
NUMBERS = {A: "+15005550006", B: "+15005550002"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with administered(tmp_path_factory.mktemp("shares")) as service:
        yield service


@pytest.fixture(scope="module")
def keys(house: Service) -> dict[str, dict[str, str]]:
    operator = Caller(house)
    return {name: bearer(operator.new_key(name)["key"]) for name in NUMBERS}


@asynccontextmanager
async def opened(
    client: httpx.AsyncClient, url: str, headers: dict[str, str]
) -> AsyncIterator[httpx.Response]:
    """Ask, and read the first of what comes without end."""
    async with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 200:
            pieces = response.aiter_raw()  # the answer ends when nobody holds this
            async with aclosing(pieces):
                await anext(pieces)
                yield response
        else:
            await response.aread()
            yield response


async def fill(
    stack: AsyncExitStack, client: httpx.AsyncClient, url: str, headers: dict[str, str], count: int
) -> list[httpx.Response]:
    asked = [stack.enter_async_context(opened(client, url, headers)) for _ in range(count)]
    return [await one for one in asked]


def check_refused(response: httpx.Response, error: str, limit: int) -> None:
    assert (response.status_code, response.json()["error"]) == (503, error)
    assert f"{limit} of one business in a process are the limit" in response.json()["detail"]
    assert int(response.headers["retry-after"]) > 0


async def test_a_key_takes_its_share_of_watchers_and_no_more(
    house: Service, keys: dict[str, dict[str, str]]
) -> None:
    url, share = f"{house.url}{API}/live/events", MAX_WATCHERS.of_business
    limits = httpx.Limits(max_connections=None)
    async with AsyncExitStack() as stack, http_client(limits=limits) as client:
        async with AsyncExitStack() as mine:
            answers = await fill(mine, client, url, keys[A], share + 1)
            assert [answer.status_code for answer in answers] == [200] * share + [503]
            check_refused(answers[-1], "too_many_watchers", share)
            for others in (keys[B], OPERATOR):
                [answer] = await fill(stack, client, url, others, 1)
                assert answer.status_code == 200

        async def is_free() -> bool:
            async with opened(client, url, keys[A]) as answer:
                return answer.status_code == 200

        async with asyncio.timeout(10):
            while not await is_free():
                await asyncio.sleep(0.05)


async def test_a_key_takes_its_share_of_listeners_and_no_more(
    house: Service, keys: dict[str, dict[str, str]]
) -> None:
    share = MAX_LISTENERS.of_business
    limits = httpx.Limits(max_connections=None)
    async with (
        a_live_call(house, NUMBERS[A]) as one,
        a_live_call(house, NUMBERS[B]) as other,
        AsyncExitStack() as stack,
        http_client(limits=limits) as client,
    ):
        for peer in (one, other):
            await peer.media(20)
        urls = {
            name: f"{house.url}{API}/calls/{peer.call_sid}/live.pcm"
            for name, peer in ((A, one), (B, other))
        }
        answers = await fill(stack, client, urls[A], keys[A], share + 1)
        assert [answer.status_code for answer in answers] == [200] * share + [503]
        check_refused(answers[-1], "archive_busy", share)
        for url, others in ((urls[B], keys[B]), (urls[A], OPERATOR)):
            [answer] = await fill(stack, client, url, others, 1)
            assert answer.status_code == 200
