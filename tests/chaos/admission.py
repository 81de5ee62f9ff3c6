"""More calls than two replicas may take, with Redis there and with Redis hung."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis.asyncio import Redis

from tests.chaos.registry import Row
from tests.chaos.replicas import BESIDE, FLOODING, Desk, a_desk, offers, two_replicas
from tests.service import Service, a_call, a_peer
from tests.web.test_voice import parameters

OVERLOAD = 3


@dataclass(frozen=True)
class Storm:
    """How a storm of calls was met.

    `most_held` is the highest number of slots that Redis held at any time;
    `freed` slots were given back during a second storm and `used_again` of them
    taken. `beside` calls of another business came meanwhile.
    """

    limit: int
    offered: int
    admitted: int
    refused: int
    most_held: int
    freed: int
    used_again: int
    beside: int
    beside_admitted: int
    failures: Counter[str]
    seconds: Sequence[float]

    def rows(self) -> list[Row]:
        """Report it."""
        used = min(self.admitted / self.limit, self.used_again / self.freed)
        slowest = sorted(self.seconds)[int(len(self.seconds) * 0.99)]
        return [
            Row(
                f"{self.offered} calls at two processes, limit {self.limit}",
                "never over the limit",
                f"{self.admitted} admitted, at most {self.most_held} held",
                self.admitted <= self.limit and self.most_held <= self.limit,
            ),
            Row(
                f"the limit, and {self.freed} slots freed meanwhile",
                "≥ 98 % used",
                f"{used:.0%}",
                used >= 0.98,
            ),
            Row(
                "the calls in excess",
                "refused by TwiML",
                f"{self.refused} refused, failures: {dict(self.failures) or 'none'}",
                not self.failures,
            ),
            Row(
                "another business's calls beside the storm",
                "100 % admitted",
                f"{self.beside_admitted} of {self.beside}",
                self.beside_admitted == self.beside,
            ),
            Row("webhook p99 in the storm", "≤ 200 ms", f"{slowest * 1000:.0f} ms", slowest <= 0.2),
        ]


async def storm(
    rng: random.Random, directory: Path, *, limit: int = 30, seconds: float = 5.0
) -> Storm:
    """Offer three times the limit, twice: the second time slots are freed meanwhile."""
    with two_replicas(directory, limit) as (redis, replicas):
        over = asyncio.Event()
        watching = asyncio.create_task(most_held(redis.url, over))
        async with a_desk() as desk, a_desk() as by:
            await asyncio.gather(
                desk.serve(offers(rng, OVERLOAD * limit, seconds, FLOODING, replicas)),
                by.serve(offers(rng, limit, seconds, BESIDE, replicas)),
            )
            first, refused = set(desk.admitted), set(desk.refused)
            leaving = rng.sample(sorted(first), min(len(first), max(1, limit // 2)))

            async def leave(call_sid: str) -> None:
                await asyncio.sleep(rng.uniform(0, seconds / 2))
                await desk.hang_up(rng.choice(replicas), call_sid, FLOODING)

            await asyncio.gather(
                desk.serve(offers(rng, OVERLOAD * limit, seconds, FLOODING, replicas)),
                *map(leave, leaving),
            )
        over.set()
        most = await watching
    return Storm(
        limit,
        OVERLOAD * limit,
        len(first),
        len(refused),
        most,
        len(leaving),
        len(desk.admitted - first),
        limit,
        len(by.admitted),
        desk.failures + by.failures,
        desk.seconds + by.seconds,
    )


async def most_held(redis_url: str, over: asyncio.Event) -> int:
    """Watch the flooding business's slots until it is over; give the most there were."""
    most = 0
    async with Redis.from_url(redis_url) as redis:
        while not over.is_set():
            most = max(most, int(await redis.zcard("live:{flooding}")))
            await asyncio.sleep(0.002)
    return most


# --------------------------------------------------------------------- Redis is hung


@dataclass(frozen=True)
class WithoutRedis:
    """How calls were met while Redis hung; `admitted` by each process."""

    limit: int
    admitted: Sequence[int]
    failures: Counter[str]
    seconds: Sequence[float]
    unsigned_status: int
    forged: str
    spent: str
    counted: bool

    def rows(self) -> list[Row]:
        """Report it."""
        slowest = max(self.seconds)
        return [
            Row(
                "webhook, Redis hung",
                "≤ 500 ms, 0 × 5xx",
                f"{slowest * 1000:.0f} ms, failures: {dict(self.failures) or 'none'}",
                slowest <= 0.5 and not self.failures,
            ),
            Row(
                f"each process by itself, limit {self.limit}",
                "its plan's limit, counted",
                f"{' and '.join(map(str, self.admitted))}, counted: {self.counted}",
                set(self.admitted) == {self.limit} and self.counted,
            ),
            Row(
                "an unsigned call, a forged ticket, a spent one",
                "refused all the same",
                f"{self.unsigned_status}, {self.forged}, {self.spent}",
                (self.unsigned_status, self.forged, self.spent)
                == (httpx.codes.FORBIDDEN, "ticket_invalid", "ticket_spent"),
            ),
        ]


async def without_redis(
    rng: random.Random, directory: Path, *, limit: int = 30, seconds: float = 5.0
) -> WithoutRedis:
    """Freeze Redis, and offer each process three times the limit."""
    with two_replicas(directory, limit) as (redis, replicas):
        async with a_desk() as before:
            await know_the_businesses(before, replicas)
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            desks = []
            for replica in replicas:
                async with a_desk() as desk:
                    calls = offers(rng, OVERLOAD * limit, seconds / 2, FLOODING, [replica])
                    await desk.serve(calls)
                desks.append(desk)
            async with a_desk() as other:
                unsigned, forged, spent = await intrusions(other, replicas[0])
                metrics = (await other.client.get(f"{replicas[0].url}/metrics")).text
        finally:
            os.kill(redis.pid, signal.SIGCONT)
    kinds = [f'bridge_local_decisions_total{{kind="{kind}"}}' for kind in ("slot", "ticket")]
    return WithoutRedis(
        limit,
        [len(desk.admitted) for desk in desks],
        sum((desk.failures for desk in desks), Counter()),
        [took for desk in desks for took in desk.seconds],
        unsigned,
        forged,
        spent,
        all(kind in metrics for kind in kinds),
    )


async def know_the_businesses(desk: Desk, replicas: Sequence[Service]) -> None:
    """Have one call of each business come and go: what is configured is then known."""
    for replica in replicas:
        for number in (FLOODING, BESIDE):
            call = a_call(number)
            await desk.ask(replica, call)
            await desk.hang_up(replica, call["CallSid"], number)


async def intrusions(desk: Desk, service: Service) -> tuple[int, str, str]:
    """Try a call without a signature, a ticket that is forged, and one a second time."""
    call = a_call(BESIDE)
    unsigned = await desk.client.post(f"{service.url}/twilio-voice", data=call)
    said = parameters((await desk.post(service, "/twilio-voice", call)).text)
    forged = await closing_of(service, {**said, "ticket": said["ticket"].swapcase()})
    async with a_peer(service, call_sid=said["callSid"]) as peer:
        await peer.start(said)
        await peer.media(1)
        spent = await closing_of(service, said)
    return unsigned.status_code, forged, spent


async def closing_of(service: Service, said: dict[str, str]) -> str:
    async with a_peer(service, call_sid=said["callSid"]) as peer:
        await peer.start(said)
        _, reason = await peer.closed()
    return reason.partition(":")[0]
