"""Two replicas on one Redis, and somebody who rings them as Twilio does."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import httpx

from app.tools.embedded import EmbeddedRedis
from tests.businesses import business, plan
from tests.service import Service, a_call, http_client, running_service, signature

FLOODING = "+15005550006"
BESIDE = "+15005550002"
# Twilio retries a webhook whose answer was late: one call in ten is asked for twice.
TWICE = 0.1
HANG_SECONDS = 120.0


class Offer(NamedTuple):
    """A call that comes at a moment (seconds), to these replicas."""

    at: float
    call: dict[str, str]
    replicas: Sequence[Service]


@contextmanager
def two_replicas(directory: Path, limit: int) -> Iterator[tuple[EmbeddedRedis, list[Service]]]:
    """Run two replicas on one Redis, for two businesses of `limit` calls each."""
    directory.mkdir(parents=True, exist_ok=True)
    businesses = directory / "two.toml"
    businesses.write_text(
        plan("p", max_concurrent_calls=limit)
        + business("flooding", "p", FLOODING)
        + business("beside", "p", BESIDE),
        encoding="utf-8",
    )
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis(directory / "redis", persistent=False))
        replicas = []
        for name in ("one", "two"):
            (directory / name).mkdir()
            running = running_service(directory / name, redis.url, BUSINESSES_FILE=str(businesses))
            replicas.append(stack.enter_context(running))
        yield redis, replicas


@dataclass
class Desk:
    """Calls webhooks as Twilio does, and remembers how each was answered.

    `admitted` are CallSids that got a stream; `seconds` is how long each answer took.
    """

    client: httpx.AsyncClient
    admitted: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    async def ask(self, service: Service, call: dict[str, str]) -> None:
        begun = time.monotonic()
        answer = await self.post(service, "/twilio-voice", call)
        self.seconds.append(time.monotonic() - begun)
        if answer.status_code != httpx.codes.OK:
            self.failures[str(answer.status_code)] += 1
        elif "<Stream " in answer.text:
            self.admitted.add(call["CallSid"])
        elif "<Reject " in answer.text:
            self.refused.add(call["CallSid"])
        else:
            self.failures["other TwiML"] += 1

    async def hang_up(self, service: Service, call_sid: str, number: str) -> None:
        said = {**a_call(number), "CallSid": call_sid, "CallStatus": "completed"}
        await self.post(service, "/twilio-status", said)

    async def post(self, service: Service, path: str, form: dict[str, str]) -> httpx.Response:
        headers = {
            "X-Twilio-Signature": signature(service.url + path, form),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        return await self.client.post(service.url + path, content=urlencode(form), headers=headers)

    async def serve(self, offers: Sequence[Offer]) -> None:
        """Make each call at its moment, whether or not the others are answered."""
        begun = time.monotonic()

        async def make(offer: Offer) -> None:
            await asyncio.sleep(offer.at - (time.monotonic() - begun))
            await asyncio.gather(*(self.ask(replica, offer.call) for replica in offer.replicas))

        await asyncio.gather(*map(make, offers))


@asynccontextmanager
async def a_desk() -> AsyncIterator[Desk]:
    async with http_client(timeout=HANG_SECONDS) as client:
        yield Desk(client)


def offers(
    rng: random.Random, count: int, seconds: float, number: str, replicas: Sequence[Service]
) -> list[Offer]:
    """Draw calls at random moments, each to one of the replicas or to all."""
    return [
        Offer(
            rng.uniform(0, seconds),
            a_call(number),
            replicas if rng.random() < TWICE else [rng.choice(replicas)],
        )
        for _ in range(count)
    ]
