"""Two replicas under more calls than they may take: `python -m tests.chaos_admission`.

Scenarios of any size: a storm of calls, Redis hung, a replica killed, and both at
once. Chance comes from a seed, which is printed.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from app.store.base import LIVE_SECONDS
from app.tools.embedded import EmbeddedRedis
from tests.service import (
    Peer,
    Service,
    a_call,
    a_peer,
    entries_of,
    running_service,
    signature,
)
from tests.web.test_voice import parameters

FLOODING = "+15005550006"
BESIDE = "+15005550002"
OVERLOAD = 3
# Twilio retries a webhook whose answer was late: one call in ten is asked for twice.
TWICE = 0.1
FRAME_SECONDS = 0.02
HANG_SECONDS = 120.0


class Row(NamedTuple):
    """One line of the report: what was done, what must hold, what was measured."""

    what: str
    held: str
    measured: str
    ok: bool


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
        f"[plans.p]\nmax_concurrent_calls = {limit}\n"
        f'[businesses.flooding]\nname = "F"\nplan = "p"\nnumbers = ["{FLOODING}"]\n'
        f'[businesses.beside]\nname = "B"\nplan = "p"\nnumbers = ["{BESIDE}"]\n',
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
    async with httpx.AsyncClient(timeout=HANG_SECONDS) as client:
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


# ------------------------------------------------------------------------- a storm


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


# --------------------------------------------------------------- a replica is killed


@dataclass
class Speaker:
    """A live call that sends a frame every 20 ms; `sent` is when each was on its way."""

    peer: Peer
    sent: list[tuple[float, int]] = field(default_factory=list)

    async def speak(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self.peer.media(1)
                self.sent.append((time.monotonic(), self.peer.seq))
                await asyncio.sleep(FRAME_SECONDS)


@dataclass(frozen=True)
class Killed:
    """What came of the calls of a replica that was killed, and of one that lives.

    `seconds` until the last of the dead one's streams was ended; `lost_ms` of
    audio is the most that any of them lost.
    """

    calls: int
    seconds: float
    lost_ms: int
    ended_once: int
    living: int
    untouched: int

    def rows(self) -> list[Row]:
        """Report it."""
        return [
            Row(
                f"SIGKILL of a replica with {self.calls} calls",
                "`end reason=lost` once each, ≤ 30 s",
                f"{self.ended_once} of {self.calls}, {self.seconds:.1f} s",
                self.ended_once == self.calls and self.seconds <= 30,
            ),
            Row(
                "audio lost with it, the most of any call",
                "≤ 100 ms",
                f"{self.lost_ms} ms",
                self.lost_ms <= 100,
            ),
            Row(
                "calls of a replica that lives",
                "untouched",
                f"{self.untouched} of {self.living}",
                self.untouched == self.living,
            ),
        ]


async def replica_killed(rng: random.Random, directory: Path, *, calls: int = 20) -> Killed:
    """Kill one of two replicas in the midst of its calls."""
    with two_replicas(directory, 2 * calls) as (_, (dying, living)):
        async with speaking(dying, calls) as doomed, speaking(living, 3) as safe:
            await asyncio.sleep(rng.uniform(2, 4))
            killed_at = time.monotonic()
            dying.process.kill()
            await until_all_end(living, [speaker.peer for speaker in doomed])
            seconds = time.monotonic() - killed_at
            stories = [await entries_of(living, speaker.peer.stream_sid) for speaker in doomed]
            others = [await entries_of(living, speaker.peer.stream_sid) for speaker in safe]
    lost = [
        max(seq for at, seq in speaker.sent if at < killed_at) - last_audio(entries)
        for speaker, entries in zip(doomed, stories, strict=True)
    ]
    ends = [[entry for entry in entries if "reason" in entry] for entries in stories]
    return Killed(
        calls,
        seconds,
        max(0, *lost) * int(FRAME_SECONDS * 1000),
        sum(found == [{"event": b"end", "reason": b"lost"}] for found in ends),
        len(safe),
        sum(all("audio" in entry for entry in entries) for entries in others),
    )


def last_audio(entries: Sequence[dict[str, bytes]]) -> int:
    return max(int(entry["seq"]) for entry in entries if "audio" in entry)


@asynccontextmanager
async def speaking(service: Service, count: int) -> AsyncIterator[list[Speaker]]:
    """Hold live calls that speak until the block ends, or their replica does."""
    speakers: list[Speaker] = []
    opened: list[Any] = []
    async with a_desk() as desk:
        for _ in range(count):
            answer = await desk.post(service, "/twilio-voice", a_call(FLOODING))
            said = parameters(answer.text)
            socket = a_peer(service, call_sid=said["callSid"])
            speakers.append(Speaker(await socket.__aenter__()))
            opened.append(socket)
            await speakers[-1].peer.start(said)
    tasks = [asyncio.create_task(speaker.speak()) for speaker in speakers]
    try:
        yield speakers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for socket in opened:
            with suppress(ConnectionClosed):
                await socket.__aexit__(None, None, None)


async def until_all_end(service: Service, peers: Sequence[Peer]) -> None:
    """Wait until each stream's record says that it has ended."""
    deadline = time.monotonic() + HANG_SECONDS
    waiting = [f"stream:{{{peer.stream_sid}}}" for peer in peers]
    async with Redis.from_url(service.redis_url) as redis:
        while waiting and time.monotonic() < deadline:
            waiting = [key for key in waiting if not await redis.hexists(key, "endedAt")]
            await asyncio.sleep(0.1)


# ------------------------------------------- a replica is killed while Redis hangs


@dataclass(frozen=True)
class KilledInOutage:
    """What came of two replicas' calls when Redis hung, and one was killed meanwhile.

    `seconds` run from the end of the outage to the first stream that was ended.
    """

    outage: float
    calls: int
    seconds: float
    ended: int
    living: int
    untouched: int

    def rows(self) -> list[Row]:
        """Report it."""
        return [
            Row(
                f"Redis frozen for {self.outage:g} s, a replica killed meanwhile",
                "its streams ended a full lease later, ≤ 30 s",
                f"{self.ended} of {self.calls}, from {self.seconds:.1f} s on",
                self.ended == self.calls and LIVE_SECONDS <= self.seconds <= 30,
            ),
            Row(
                "calls of the replica that lives",
                "untouched",
                f"{self.untouched} of {self.living}",
                self.untouched == self.living,
            ),
        ]


async def killed_in_outage(
    rng: random.Random, directory: Path, *, calls: int = 5, outage: float = 25.0
) -> KilledInOutage:
    """Freeze Redis for longer than a lease, and kill one of two replicas meanwhile."""
    with two_replicas(directory, 2 * calls) as (redis, (dying, living)):
        async with speaking(dying, calls) as doomed, speaking(living, calls) as safe:
            await asyncio.sleep(2)
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(outage / 2)
                dying.process.kill()
                await asyncio.sleep(outage / 2)
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            thawed_at = time.monotonic()
            await until_all_end(living, [doomed[0].peer])
            seconds = time.monotonic() - thawed_at
            await until_all_end(living, [speaker.peer for speaker in doomed])
            stories = [
                [await entries_of(living, speaker.peer.stream_sid) for speaker in speakers]
                for speakers in (doomed, safe)
            ]
    ended, untouched = (
        [not any(entry.get("reason") == b"lost" for entry in entries) for entries in story]
        for story in stories
    )
    return KilledInOutage(outage, calls, seconds, ended.count(False), calls, untouched.count(True))


# ---------------------------------------------------------------------- the command

Scenario = Callable[
    [random.Random, Path], Awaitable[Storm | WithoutRedis | Killed | KilledInOutage]
]
SCENARIOS: dict[str, Scenario] = {
    "storm": storm,
    "without-redis": without_redis,
    "replica-killed": replica_killed,
    "killed-in-outage": killed_in_outage,
}


async def rows_of(name: str, rng: random.Random, directory: Path) -> list[Row]:
    """Play one scenario in its long form."""
    return (await SCENARIOS[name](rng, directory)).rows()


def main() -> int:
    """Play the scenarios, print a row for each figure, and tell whether all hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SCENARIOS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    said = parser.parse_args()
    sys.stdout.write(f"seed {said.seed}\n")
    everything = True
    for name in [said.only] if said.only else SCENARIOS:
        with tempfile.TemporaryDirectory() as directory:
            rng = random.Random(f"{said.seed} {name}")
            for row in asyncio.run(rows_of(name, rng, Path(directory))):
                sys.stdout.write(f"{json.dumps(row, ensure_ascii=False)}\n")
                everything = everything and row.ok
    return 0 if everything else 1


if __name__ == "__main__":
    sys.exit(main())
