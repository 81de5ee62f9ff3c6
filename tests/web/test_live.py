"""Live calls by the API: watched as they go on, and ended; and what a month has used."""

import asyncio
import csv
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.store.redis import RedisStore
from tests.businesses import NUMBER
from tests.service import (
    Peer,
    Service,
    a_call,
    a_peer,
    adds_up,
    http_client,
    post,
    receipt_of,
    running_service,
    started,
)
from tests.waiting import WAIT_SECONDS, until
from tests.web.admins import API, OPERATOR, TOKEN, Caller, administered, bearer

LOUD = b"\x80\x00" * 80  # the highest and the lowest code of mu-law


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with administered(tmp_path_factory.mktemp("live")) as service:
        yield service


@asynccontextmanager
async def a_live_call(service: Service, number: str = NUMBER) -> AsyncIterator[Peer]:
    """Ring and begin to stream."""
    form = a_call(number)
    answer = await post(service, "/twilio-voice", form)
    ticket = answer.text.partition('name="ticket" value="')[2].partition('"')[0]
    async with a_peer(service, call_sid=form["CallSid"]) as peer:
        await peer.start({"ticket": ticket, "from": form["From"]})
        await started(service, peer.stream_sid)
        yield peer


@asynccontextmanager
async def events(
    service: Service, headers: dict[str, str], query: str = ""
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Watch, and give the data of each event of figures."""
    async with http_client() as client:
        url = f"{service.url}{API}/live/events{query}"
        async with client.stream("GET", url, headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")

            async def data() -> AsyncIterator[dict[str, Any]]:
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line.removeprefix("data: "))

            yield data()


async def shown(
    seen: AsyncIterator[dict[str, Any]], stream_sid: str, published: int = 0
) -> dict[str, Any]:
    """Wait until a stream is seen, with so many frames published."""
    async with asyncio.timeout(WAIT_SECONDS):
        async for data in seen:
            for one in data.get("items", ()):  # else it is something that happened
                if one["stream_sid"] == stream_sid and one["published"] >= published:
                    found: dict[str, Any] = one
                    return found
    raise AssertionError("the stream was never shown")


async def test_a_live_call_is_watched_as_it_goes_on(house: Service) -> None:
    async with events(house, OPERATOR) as seen, a_live_call(house) as peer:
        first = await shown(seen, peer.stream_sid)
        assert (first["call_sid"], first["business_id"]) == (peer.call_sid, "business-1")
        assert first["levels"] == {"inbound": None, "outbound": None}
        await peer.media(3, LOUD)
        peer.seq += 2
        await peer.media(1, LOUD)
        after = await shown(seen, peer.stream_sid, published=4)
        assert (after["received"], after["missing"], after["dropped"]) == (4, 2, 0)
        assert after["from_number"] == "+12763659195"
        assert after["duration_ms"] >= first["duration_ms"]
        level = after["levels"]["inbound"]
        while level is None:
            await peer.media(1, LOUD)
            level = (await shown(seen, peer.stream_sid))["levels"]["inbound"]
        assert level > -6
        await peer.stop()


async def test_a_business_is_shown_its_own_calls_alone(house: Service) -> None:
    operator = Caller(house)
    own, other = (bearer(operator.new_key(one)["key"]) for one in ("business-1", "indian"))
    async with a_live_call(house) as peer, events(house, own) as seen:
        await shown(seen, peer.stream_sid)

        async def is_drawn_up() -> bool:
            live = await asyncio.to_thread(Caller(house, own), "GET", "/live")
            return any(
                one["stream_sid"] == peer.stream_sid and one["figures"]
                for one in live.json()["items"]
            )

        await until(is_drawn_up)
        stranger = Caller(house, other)
        assert (await asyncio.to_thread(stranger, "GET", "/live")).json()["items"] == []
        refused = await asyncio.to_thread(stranger, "GET", "/live?business=business-1")
        assert refused.status_code == 404
        refused = await asyncio.to_thread(stranger, "POST", f"/calls/{peer.call_sid}/end")
        assert refused.status_code == 404
        async with events(house, other) as nothing:
            assert await anext(nothing) == {"items": []}
        await peer.stop()


async def test_an_admin_ends_a_live_call(house: Service) -> None:
    key = bearer(Caller(house).new_key("business-1")["key"])
    async with a_live_call(house) as peer:
        await peer.media(5)
        admin = Caller(house, key)
        answer = await asyncio.to_thread(admin, "POST", f"/calls/{peer.call_sid}/end")
        assert (answer.status_code, answer.json()["status"]) == (202, "ending")
        assert await peer.closed() == (1000, "ended_by_admin")
        receipt = await receipt_of(house, peer.stream_sid)
        assert receipt["end_reason"] == "ended_by_admin"
        assert receipt["received"] == 5
        assert adds_up(receipt)
        log = (await asyncio.to_thread(admin, "GET", "/audit")).json()["items"]
        assert ("call.ended", peer.call_sid) in {(one["action"], one["target"]) for one in log}

        async def is_gone() -> bool:
            again = await asyncio.to_thread(admin, "POST", f"/calls/{peer.call_sid}/end")
            return again.status_code == 404

        await until(is_gone)


async def test_a_call_that_is_not_live_is_not_ended(house: Service) -> None:
    answer = await asyncio.to_thread(Caller(house), "POST", "/calls/CA404/end")
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


async def test_a_revoked_key_watches_no_more(house: Service) -> None:
    operator = Caller(house)
    made = operator.new_key("business-1")
    async with events(house, bearer(made["key"])) as seen:
        assert await anext(seen) is not None
        operator("DELETE", f"/businesses/business-1/keys/{made['id']}")
        async with asyncio.timeout(WAIT_SECONDS):
            async for _ in seen:
                pass


async def test_a_drain_ends_those_who_watch_at_once(tmp_path: Path, redis_url: str) -> None:
    url = redis_url.rsplit("/", 1)[0] + "/7"
    with running_service(tmp_path, url, ADMIN_TOKEN=TOKEN, DRAIN_SECONDS="600") as service:
        async with a_live_call(service) as peer, events(service, OPERATOR) as seen:
            await shown(seen, peer.stream_sid)
            service.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(WAIT_SECONDS):
                async for _ in seen:
                    pass
            await peer.media(2)  # the call goes on
            await peer.stop()
            await peer.closed()
        assert (await receipt_of(service, peer.stream_sid))["published"] == 2
        assert service.process.wait(WAIT_SECONDS) == 0


async def test_a_call_of_another_process_is_watched_and_ended(
    tmp_path: Path, redis_url: str
) -> None:
    url = redis_url.rsplit("/", 1)[0] + "/8"
    (tmp_path / "two").mkdir()
    with (
        running_service(tmp_path, url, ADMIN_TOKEN=TOKEN) as one,
        running_service(tmp_path / "two", url, ADMIN_TOKEN=TOKEN) as two,
    ):
        async with a_live_call(one) as peer, events(two, OPERATOR) as seen:
            await peer.media(2)
            await shown(seen, peer.stream_sid, published=2)
            answer = await asyncio.to_thread(Caller(two), "POST", f"/calls/{peer.call_sid}/end")
            assert answer.status_code == 202
            assert await peer.closed() == (1000, "ended_by_admin")


# -------------------------------------------------------------------------- usage


async def test_a_call_and_its_minutes_are_counted_and_shown(house: Service) -> None:
    operator = Caller(house)
    key = bearer(operator.new_key("wide")["key"])
    month = f"{datetime.now(UTC):%Y-%m}"
    async with a_live_call(house, "+15005550005") as peer:
        await peer.media(1)
        await peer.stop()
        await peer.closed()

    async def of_month() -> dict[str, Any]:
        answer = await asyncio.to_thread(Caller(house, key), "GET", "/businesses/wide/usage")
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        assert len(found["items"]) == 12
        newest: dict[str, Any] = found["items"][0]
        return newest

    assert (await of_month())["calls"] == 1
    assert (await of_month())["month"] == month
    store = RedisStore.from_url(house.redis_url)

    async def is_metered() -> bool:
        [use] = await store.usage_of("wide", [month])
        return use.ms > 0

    await until(is_metered)
    await store.close()
    answer = await asyncio.to_thread(
        Caller(house, key), "GET", "/businesses/wide/usage.csv?months=2"
    )
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [row["month"] for row in rows][0] == month
    assert (rows[0]["calls"], rows[0]["minutes"], rows[0]["state"]) == ("1", "0.0", "within")
    assert len(rows) == 2


@pytest.mark.parametrize("months", ["0", "25", "x", ""])
async def test_a_bad_number_of_months_is_named(house: Service, months: str) -> None:
    answer = await asyncio.to_thread(
        Caller(house), "GET", f"/businesses/wide/usage?months={months}"
    )
    assert answer.status_code == 422
    assert "months" in answer.json()["fields"]


async def test_another_business_s_usage_is_not_there(house: Service) -> None:
    stranger = Caller(house, bearer(Caller(house).new_key("indian")["key"]))
    for path in ("usage", "usage.csv"):
        answer = await asyncio.to_thread(stranger, "GET", f"/businesses/wide/{path}")
        assert answer.status_code == 404


async def test_calls_beyond_the_month_are_turned_away_in_words(house: Service) -> None:
    operator = Caller(house)
    plan = operator("GET", "/plans/tiny")
    edited = operator("PATCH", "/plans/tiny", {"calls_per_month_hard": 1}, plan.headers["etag"])
    assert edited.status_code == 200, edited.text

    first = a_call("+15005550002")
    answer = await post(house, "/twilio-voice", first)
    assert "<Stream" in answer.text
    await post(house, "/twilio-status", first | {"CallStatus": "completed"})

    async def is_refused() -> bool:
        answer = await post(house, "/twilio-voice", a_call("+15005550002"))
        return "All our lines are taken." in answer.text

    await until(is_refused)
    async with Redis.from_url(house.redis_url) as redis:
        assert await redis.zcard("live:{business-2}") == 0
    async with Redis.from_url(house.redis_url) as redis:

        async def is_told() -> bool:
            found: Any = await redis.xrange("calls")
            told = [json.loads(fields[b"data"]) for _, fields in found]
            return any(data.get("reason") == "monthly_limit_reached" for data in told)

        await until(is_told)
