"""Three replicas on one Redis: one is killed, one is frozen for a while, one looks after both.

All that takes a lease happens once; the tests ask what came of it.
"""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from app.audio import mulaw_to_pcm16
from app.tools.embedded import EmbeddedRedis
from tests.service import (
    Peer,
    Service,
    a_call,
    a_peer,
    adds_up,
    entries_of,
    events_of,
    http_client,
    lines_with,
    post,
    running_service,
)
from tests.web.test_voice import parameters

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The promise is 30 s; no machine that this runs on should make a test of it.
HANG_SECONDS = 90.0
TINY = "+15005550002"  # a business of one call at a time


@dataclass
class Aftermath:
    """What each of two streams left behind: `dead` is the killed replica's."""

    witness: Service
    dead: Peer
    frozen: Peer
    provisional: dict[str, Any] = field(default_factory=dict)
    ids_at_the_lost_end: list[bytes] = field(default_factory=list)


async def until(holds: Callable[[], Awaitable[object]]) -> Any:
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        if found := await holds():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("what was waited for never came")


async def receipt(service: Service, peer: Peer) -> dict[str, Any]:
    async with Redis.from_url(service.redis_url) as redis:
        found: Any = await redis.hget(f"stream:{{{peer.stream_sid}}}", "receipt")
    return dict(json.loads(found)) if found else {}


async def published(service: Service, peer: Peer) -> list[int]:
    """Give the sequence numbers of the audio that stands, in its order."""
    entries = await entries_of(service, peer.stream_sid)
    return [int(entry["seq"]) for entry in entries if "audio" in entry]


async def a_live_peer(stack: list[Any], service: Service, number: str) -> Peer:
    said = parameters((await post(service, "/twilio-voice", a_call(number))).text)
    opened = a_peer(service, call_sid=said["callSid"])
    peer = await opened.__aenter__()
    stack.append(opened)
    await peer.start(said)
    await peer.media(10, b"\x01" * 160)
    await until(lambda: has_published(service, peer, 10))
    return peer


async def has_published(service: Service, peer: Peer, count: int) -> bool:
    return len(await published(service, peer)) >= count


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aftermath(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Aftermath]:
    directory = tmp_path_factory.mktemp("replicas")
    sockets: list[Any] = []
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis(directory / "redis", persistent=False))

        def replica(name: str) -> Service:
            (directory / name).mkdir()
            return stack.enter_context(running_service(directory / name, redis.url))

        witness, killed, frozen = replica("witness"), replica("killed"), replica("frozen")
        stack.callback(frozen.process.send_signal, signal.SIGCONT)
        one = await a_live_peer(sockets, killed, TINY)
        other = await a_live_peer(sockets, frozen, "+15005550006")
        result = Aftermath(witness, one, other)

        killed.process.kill()
        frozen.process.send_signal(signal.SIGSTOP)
        await other.media(10, b"\x02" * 160)  # these wait in the frozen one's socket
        for peer in (one, other):
            await until(lambda peer=peer: receipt(witness, peer))  # type: ignore[misc]
        result.provisional = await receipt(witness, other)
        async with Redis.from_url(redis.url) as client:
            found: Any = await client.xrevrange(f"audio:{{{other.stream_sid}}}", count=1)
        result.ids_at_the_lost_end = [entry_id for entry_id, _ in found]

        frozen.process.send_signal(signal.SIGCONT)
        await other.media(10, b"\x03" * 160)
        await other.stop()
        await until(lambda: has_true_receipt(witness, other))
        yield result
        for opened in sockets:
            await opened.__aexit__(None, None, None)


async def has_true_receipt(service: Service, peer: Peer) -> bool:
    return not (await receipt(service, peer)).get("provisional", False)


async def ends(service: Service, peer: Peer) -> list[str]:
    entries = await entries_of(service, peer.stream_sid)
    return [entry["reason"].decode() for entry in entries if entry.get("event") == b"end"]


async def stopped(service: Service, peer: Peer) -> list[dict[str, Any]]:
    events = await events_of(service, peer.call_sid)
    return [data for name, data in events if name == "stream.stopped"]


async def test_a_killed_replicas_stream_is_ended_by_another(aftermath: Aftermath) -> None:
    witness, dead = aftermath.witness, aftermath.dead
    assert await ends(witness, dead) == ["lost"]
    assert await published(witness, dead) == list(range(2, 12))
    [data] = await stopped(witness, dead)
    assert data["provisional"]
    assert data["receipt"] == await receipt(witness, dead)
    assert data["receipt"]["end_reason"] == "lost"


async def test_a_killed_replicas_slot_is_free_again(aftermath: Aftermath) -> None:
    call = a_call(TINY)
    answer = await post(aftermath.witness, "/twilio-voice", call)
    assert "Stream" in answer.text
    await post(aftermath.witness, "/twilio-status", {**call, "CallStatus": "completed"})


async def test_the_keys_of_a_lost_stream_expire(aftermath: Aftermath) -> None:
    async with Redis.from_url(aftermath.witness.redis_url) as redis:
        for kind in ("audio", "stream"):
            assert 0 < await redis.ttl(f"{kind}:{{{aftermath.dead.stream_sid}}}") <= 3600


async def test_a_frozen_holder_that_wakes_has_lost_no_frame(aftermath: Aftermath) -> None:
    witness, frozen = aftermath.witness, aftermath.frozen
    entries = await entries_of(witness, frozen.stream_sid)
    audio = [entry["audio"] for entry in entries if "audio" in entry]
    sent = [bytes([number]) * 160 for number in (1, 2, 3) for _ in range(10)]
    assert audio == [mulaw_to_pcm16(payload) for payload in sent]
    assert await published(witness, frozen) == list(range(2, 32))


async def test_it_goes_on_above_the_end_that_another_wrote_and_ends_again(
    aftermath: Aftermath,
) -> None:
    witness, frozen = aftermath.witness, aftermath.frozen
    assert await ends(witness, frozen) == ["lost", "stop"]
    async with Redis.from_url(witness.redis_url) as redis:
        found: Any = await redis.xrange(f"audio:{{{frozen.stream_sid}}}")
    ids = [entry_id for entry_id, _ in found]
    assert ids.index(aftermath.ids_at_the_lost_end[0]) == 10
    assert len(ids) == 32


async def test_its_true_receipt_replaces_the_provisional_one(aftermath: Aftermath) -> None:
    witness, frozen = aftermath.witness, aftermath.frozen
    assert aftermath.provisional["end_reason"] == "lost"
    true = await receipt(witness, frozen)
    assert (true["received"], true["published"], true["end_reason"]) == (30, 30, "stop")
    assert adds_up(true)
    await until(lambda: has_told(witness, frozen, 2))
    provisional, final = await stopped(witness, frozen)
    assert provisional == {"receipt": aftermath.provisional, "provisional": True}
    assert final == {"receipt": true}


async def has_told(service: Service, peer: Peer, count: int) -> bool:
    return len(await stopped(service, peer)) >= count


async def test_what_was_reaped_is_counted_and_logged(aftermath: Aftermath) -> None:
    witness = aftermath.witness
    async with http_client() as client:
        metrics = (await client.get(f"{witness.url}/metrics")).text
    assert "bridge_streams_reaped_total 2.0" in metrics
    for peer in (aftermath.dead, aftermath.frozen):
        assert lines_with(witness.logged(), "[Reaper]", peer.stream_sid)


async def test_a_lost_stream_holds_no_lease_any_more(aftermath: Aftermath) -> None:
    async with Redis.from_url(aftermath.witness.redis_url) as redis:
        names: Any = await redis.zrange("held:{streams}", 0, -1)
        facts: Any = await redis.hkeys("held:{streams}:facts")
    dead = f"{aftermath.dead.stream_sid}@".encode()
    assert not [name for name in [*names, *facts] if name.startswith(dead)]
