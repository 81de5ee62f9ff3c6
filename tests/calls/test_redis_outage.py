"""A replica that is cut off from Redis, while another replica's configuration is edited."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis

from app.store.remembered import FRESH_SECONDS
from app.tools.embedded import EmbeddedRedis
from tests.businesses import NUMBER
from tests.chaos.fault_proxy import FaultProxy
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
from tests.web.admins import TOKEN, Caller
from tests.web.test_voice import parameters

BEFORE, AFTER, OTHER = "business-1", "indian", "forwarding"
OTHER_NUMBER = "+15005550003"
PAIR = ("own-key", "own-token")


@dataclass(frozen=True)
class Replicas:
    """One that always reaches Redis, and one whose way there can be cut."""

    well: Service
    cut_off: Service
    way: FaultProxy

    async def edit(self, business_id: str, path: str = "", **fields: Any) -> None:
        """Edit a business at the replica that reaches Redis."""
        caller = Caller(self.well)
        answer = await asyncio.to_thread(
            *(caller, "PATCH", f"/businesses/{business_id}{path}", fields),
            if_match=None if path else "*",
        )
        assert answer.status_code < 300, answer.text

    async def move_number(self) -> None:
        await self.edit(BEFORE, numbers=[])
        await self.edit(AFTER, numbers=["+918047112345", NUMBER])


@asynccontextmanager
async def replicas(directory: Path) -> AsyncIterator[Replicas]:
    variables = {"ADMIN_TOKEN": TOKEN, "SUPPORT_EXOTEL": "true"}
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis(directory / "redis", persistent=False))
        at = urlsplit(redis.url)
        async with FaultProxy(at.port or 0, random.Random(1)) as way:
            user = at.netloc.rpartition("@")[0]
            through = urlunsplit(at._replace(netloc=f"{user}@127.0.0.1:{way.port}"))
            running = []
            for name, url in (("well", redis.url), ("cut-off", through)):
                (directory / name).mkdir()
                service = running_service(directory / name, url, **variables)
                running.append(await asyncio.to_thread(stack.enter_context, service))
            made = Replicas(running[0], running[1], way)
            # Tests read Redis where it can be reached.
            reached = Service(made.cut_off.url, redis.url, made.cut_off.log, made.cut_off.process)
            try:
                yield Replicas(made.well, reached, way)
            finally:
                way.calm()
                await asyncio.to_thread(stack.close)


async def ring(service: Service, number: str) -> tuple[Mapping[str, str], str]:
    """Ring a number; return what the TwiML tells the stream, and the TwiML."""
    answer = await post(service, "/twilio-voice", a_call(number))
    assert answer.status_code == 200, answer.text
    return (parameters(answer.text) if "<Stream" in answer.text else {}), answer.text


@asynccontextmanager
async def a_stream(service: Service, said: Mapping[str, str]) -> AsyncIterator[Peer]:
    async with a_peer(service, call_sid=said["callSid"]) as peer:
        await peer.start(said)
        await peer.media(20)
        yield peer


async def test_an_edit_that_was_seen_holds_while_redis_is_away(tmp_path: Path) -> None:
    """A number that moved, and a pair that was removed, are not as they were before."""
    async with replicas(tmp_path) as both:
        service = both.cut_off

        async def pair_is_good() -> bool:
            url = f"{service.url}/exotel-stream-url?CallSid=ex-1"
            async with http_client(auth=PAIR) as client:
                return (await client.get(url)).status_code == 200

        assert (await ring(service, NUMBER))[0]["businessId"] == BEFORE
        assert await pair_is_good()
        both.way.blackhole = True
        assert (await ring(service, NUMBER))[0]["businessId"] == BEFORE
        assert await pair_is_good()
        both.way.blackhole = False

        await both.move_number()
        await both.edit(AFTER, "/secrets", exotel_pairs=None)

        async def is_seen() -> bool:
            # Without Redis the number is not asked for: only what was read again decides.
            both.way.blackhole = True
            said, _ = await ring(service, NUMBER)
            seen = said.get("businessId") == AFTER and not await pair_is_good()
            both.way.blackhole = False
            await asyncio.sleep(0 if seen else 1)
            return seen

        await until(is_seen)


async def test_a_call_that_was_anothers_is_ended_when_redis_is_back(tmp_path: Path) -> None:
    """The edit came too late to be seen before the outage."""
    async with replicas(tmp_path) as both:
        service = both.cut_off
        for number in (NUMBER, OTHER_NUMBER):
            await ring(service, number)
        both.way.blackhole = True
        await both.move_number()
        await asyncio.sleep(FRESH_SECONDS)  # then Redis is asked, and memory decides
        (said, _), (unused, _), (right, _) = [
            await ring(service, number) for number in (NUMBER, NUMBER, OTHER_NUMBER)
        ]
        assert (said["businessId"], right["businessId"]) == (BEFORE, OTHER)
        async with a_stream(service, said) as wrong, a_stream(service, right) as good:
            await started(service, wrong.stream_sid)
            await started(service, good.stream_sid)
            both.way.blackhole = False
            code, reason = await wrong.closed()
            assert (code, reason) == (1008, "business_mismatch")
            await good.media(20)
            await good.stop()
            assert await good.closed() == (1000, "stop")
        for peer, count in ((wrong, 20), (good, 40)):
            receipt = await receipt_of(service, peer.stream_sid)
            assert adds_up(receipt)
            assert receipt["received"] == count
        async with Redis.from_url(service.redis_url) as redis:

            async def is_free() -> bool:
                held = await redis.zrange(f"live:{{{BEFORE}}}", 0, -1)
                return unused["callSid"].encode() not in held

            await until(is_free)
        # Its ticket is worth nothing now, at any replica.
        async with a_stream(both.well, unused) as late:
            async with asyncio.timeout(WAIT_SECONDS):
                assert (await late.closed())[0] == 1008
        async with asyncio.timeout(WAIT_SECONDS):
            assert (await ring(service, NUMBER))[0]["businessId"] == AFTER
