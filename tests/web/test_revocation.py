"""What somebody reads for long ends once they may have it no more: over HTTP, with real Redis."""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from redis.asyncio import Redis

from app.admin.principal import THE_OPERATOR
from app.administration.gate import SignedIn, csrf_token
from app.main.administered import TIMEOUT_SECONDS
from app.web.api.lasting import CHECK_SECONDS, LAST_WORD_SECONDS
from tests.businesses import BUSINESSES, business, plan
from tests.service import Service, http_client, lines_with, receipt_of
from tests.waiting import WAIT_SECONDS, until
from tests.web.admins import API, TOKEN, Caller, administered, bearer
from tests.web.test_live import a_live_call

NUMBER, IDLE = "+15005550041", "+15005550042"
OF_COOKIE = re.compile(r"media-bridge=([^;]+)")


@dataclass
class Reader:
    """Somebody who reads something, and how they lose the right to it."""

    headers: dict[str, str]
    lose: Callable[[], Awaitable[None]]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("revocation")
    more = directory / "more.toml"
    more.write_text(
        BUSINESSES
        + plan("hifi", sample_rate=24000, tracks="both", max_concurrent_calls=30)
        + business("talking", "hifi", NUMBER),
        encoding="utf-8",
    )
    with administered(directory, BUSINESSES_FILE=str(more)) as service:
        yield service


# ------------------------------------------------------- those who lose the right to read


async def asked(house: Service, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    answer: httpx.Response = await asyncio.to_thread(Caller(house, headers), method, path)
    assert answer.status_code < 300, answer.text
    return answer


def operator() -> dict[str, str]:
    return bearer(TOKEN)


async def signed_in(house: Service, key: str) -> dict[str, str]:
    async with http_client() as client:
        answer = await client.post(f"{house.url}/admin/sign-in", data={"key": key})
    found = OF_COOKIE.search(answer.headers["set-cookie"])
    assert found is not None
    return {"Cookie": f"media-bridge={found[1]}"}


async def issued(house: Service, **more: Any) -> dict[str, Any]:
    body = {"label": "x", "role": "viewer", **more}
    caller = Caller(house)
    answer = await asyncio.to_thread(caller, "POST", "/businesses/talking/keys", body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def revoked_key(house: Service) -> Reader:
    key = await issued(house)

    async def lose() -> None:
        await asked(house, "DELETE", f"/businesses/talking/keys/{key['id']}", operator())

    return Reader(bearer(key["key"]), lose)


async def expired_key(house: Service) -> Reader:
    key = await issued(house, expires_at=int((time.time() + 3) * 1000))

    async def lose() -> None:
        """Wait: its time comes."""

    return Reader(bearer(key["key"]), lose)


async def key_whose_role_is_gone(house: Service) -> Reader:
    key = await issued(house)

    async def lose() -> None:
        async with Redis.from_url(house.redis_url) as redis:
            place, name = "keys:{talking}", f"{key['id']}:limited"
            stored = await redis.hget(place, name)
            await redis.hset(place, name, stored.replace(b'"viewer"', b'"nobody"'))

    return Reader(bearer(key["key"]), lose)


async def session_that_signs_out(house: Service) -> Reader:
    cookie = await signed_in(house, (await issued(house))["key"])
    secret = cookie["Cookie"].partition("=")[2]

    async def lose() -> None:
        async with http_client() as client:
            data = {"csrf": csrf_token(SignedIn(THE_OPERATOR, secret))}
            answer = await client.post(f"{house.url}/admin/sign-out", data=data, headers=cookie)
        assert answer.status_code == 303

    return Reader(cookie, lose)


async def session_that_another_ends(house: Service) -> Reader:
    cookie = await signed_in(house, (await issued(house))["key"])
    listed = (await asked(house, "GET", "/sessions", cookie)).json()["items"]

    async def lose() -> None:
        path = f"/sessions/{listed[0]['id']}?business=talking"
        await asked(house, "DELETE", path, operator())

    return Reader(cookie, lose)


async def session_that_signs_out_everywhere(house: Service) -> Reader:
    key = (await issued(house))["key"]
    cookie = await signed_in(house, key)

    async def lose() -> None:
        await asked(house, "DELETE", "/sessions", bearer(key))

    return Reader(cookie, lose)


async def session_of_a_revoked_key(house: Service) -> Reader:
    reader = await revoked_key(house)
    key = reader.headers["Authorization"].removeprefix("Bearer ")
    return Reader(await signed_in(house, key), reader.lose)


ReaderOf = Callable[[Service], Awaitable[Reader]]
READERS: list[ReaderOf] = [
    revoked_key,
    expired_key,
    key_whose_role_is_gone,
    session_that_signs_out,
    session_that_another_ends,
    session_that_signs_out_everywhere,
    session_of_a_revoked_key,
]


# ------------------------------------------------------------------------------ the tests


def test_a_response_ends_within_five_seconds_of_a_revocation() -> None:
    assert CHECK_SECONDS + TIMEOUT_SECONDS + LAST_WORD_SECONDS < 5


async def reads_until_refused(house: Service, path: str, reader_of: ReaderOf) -> None:
    reader = await reader_of(house)
    url = f"{house.url}{API}{path}"
    async with (
        http_client() as client,
        client.stream("GET", url, headers=reader.headers) as answer,
    ):
        assert answer.status_code == 200
        parts = answer.aiter_raw()
        assert await anext(parts)
        await reader.lose()
        async for _ in parts:  # the call goes on, and so would this
            pass
        refused = await client.get(url, headers=reader.headers)
        assert refused.status_code == 401


@pytest.mark.parametrize("path", ["/live/events", "/calls/{call}/live.pcm"])
async def test_watching_and_listening_end(house: Service, path: str) -> None:
    async with a_live_call(house, NUMBER) as call:
        await call.media(10)
        at = path.replace("{call}", call.call_sid)
        running = [
            asyncio.create_task(reads_until_refused(house, at, reader_of), name=reader_of.__name__)
            for reader_of in READERS
        ]
        _, still_reading = await asyncio.wait(running, timeout=WAIT_SECONDS)
        assert [task.get_name() for task in still_reading] == []
        for task in running:
            await task


@asynccontextmanager
async def slow_download(
    house: Service, path: str, headers: dict[str, str]
) -> AsyncIterator[tuple[int, Callable[[], Awaitable[bytes]]]]:
    """Ask for a file, and read its head alone; yield its length, and what reads the rest."""
    parts = urlsplit(house.url)
    with closing(socket.socket()) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(WAIT_SECONDS)
        raw.connect((parts.hostname, parts.port))
        lines = [f"GET {API}{path} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        raw.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += await asyncio.to_thread(raw.recv, 512)
        shown, _, body = head.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", shown)
        assert b" 200 OK" in shown, shown
        assert length is not None

        def rest() -> bytes:
            found = [body]
            while len(b"".join(found)) < int(length[1]) and (got := raw.recv(65536)):
                found.append(got)
            return b"".join(found)

        yield int(length[1]), lambda: asyncio.to_thread(rest)


async def test_a_download_ends_though_its_reader_is_slow(house: Service) -> None:
    async with a_live_call(house, NUMBER) as peer:
        await peer.media(100 * 50)  # its file is longer than what sockets hold
        await peer.stop()
        await peer.closed()
    await receipt_of(house, peer.stream_sid)
    path = f"/calls/{peer.call_sid}/audio.wav"
    key = await issued(house)
    async with slow_download(house, path, bearer(key["key"])) as (whole, rest_of_other):
        for reader_of in (revoked_key, session_that_another_ends):
            reader = await reader_of(house)
            async with slow_download(house, path, reader.headers) as (length, rest):
                before = len(lines_with(house.logged(), "A response ended", path))
                await reader.lose()
                await until(
                    lambda n=before: len(lines_with(house.logged(), "A response ended", path)) > n
                )
                assert len(await rest()) < length
        assert len(await rest_of_other()) == whole


async def test_watching_ends_with_the_business(house: Service) -> None:
    caller = Caller(house)
    made = {"id": "brief", "name": "Brief", "plan": "premium", "numbers": [IDLE]}
    assert (await asyncio.to_thread(caller, "POST", "/businesses", made)).status_code == 201
    key = await asyncio.to_thread(caller.new_key, "brief")
    async with (
        http_client() as client,
        client.stream("GET", f"{house.url}{API}/live/events", headers=bearer(key["key"])) as answer,
    ):
        parts = answer.aiter_raw()
        assert await anext(parts)
        gone = await asyncio.to_thread(caller, "DELETE", "/businesses/brief", None, "*")
        assert gone.status_code < 300, gone.text
        async with asyncio.timeout(WAIT_SECONDS):
            async for _ in parts:
                pass
