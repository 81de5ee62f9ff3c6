"""Two replicas on one Redis: no business reaches another's stream by its name or its id."""

import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect

from app.carriers.stream_ids import stream_id
from app.tools.embedded import EmbeddedRedis
from app.wire import exotel
from tests.service import (
    Peer,
    Service,
    a_peer,
    adds_up,
    entries_of,
    receipt_of,
    running_service,
    written,
)
from tests.waiting import until

SECRET = "j" * 32
VICTIM, ATTACKER = "business-1", "indian"
# The attacker's own Exotel pair, as the businesses of tests have it.
OWN_PAIR = base64.b64encode(b"own-key:own-token").decode()
AUDIO = b"\x01\x00" * 800


@dataclass(frozen=True)
class Replicas:
    """Two replicas; the attacker uses either."""

    one: Service
    two: Service

    @property
    def both(self) -> tuple[Service, Service]:
        return self.one, self.two


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    directory = tmp_path_factory.mktemp("ownership")
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis(directory / "redis", persistent=False))

        def replica(name: str) -> Service:
            (directory / name).mkdir()
            return stack.enter_context(
                running_service(
                    directory / name,
                    redis.url,
                    ALLOW_UNSIGNED="true",
                    SUPPORT_EXOTEL="true",
                    JWT_SECRET=SECRET,
                )
            )

        yield Replicas(replica("one"), replica("two"))


@asynccontextmanager
async def a_client(service: Service, business_id: str) -> AsyncIterator[ClientConnection]:
    claims = {"tenant_id": business_id, "exp": int(time.time()) + 60}
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    headers = {"Authorization": f"Bearer {token}"}
    url = service.ws_url + "/v1/ingest"
    async with connect(url, additional_headers=headers, compression=None) as socket:
        yield socket


async def start_client(socket: ClientConnection, interaction: str) -> None:
    start = {"event": "start", "interaction_id": interaction, "sample_rate": 8000}
    await socket.send(json.dumps({**start, "encoding": "pcm16"}))


async def closed(socket: ClientConnection) -> tuple[int, str]:
    await until(lambda: socket.close_code is not None)
    return socket.close_code or 0, (socket.close_reason or "").partition(":")[0]


async def exotel_call(service: Service, stream_sid: str) -> None:
    """Place a whole call with the attacker's own pair."""
    headers = {"Authorization": f"Basic {OWN_PAIR}"}
    url = service.ws_url + "/v1/ingest"
    async with connect(url, additional_headers=headers, compression=None) as socket:
        await socket.send(exotel.start_message(stream_sid, "attack", sample_rate=8000))
        media = exotel.media_message(stream_sid, b"\xee" * 1600, seq=2, chunk=1, timestamp=0)
        await socket.send(media)
        await socket.send(exotel.stop_message(stream_sid, "attack", seq=3))
        assert await closed(socket) == (1000, "stop")


async def keys_of(service: Service, stream_sid: str) -> dict[str, Any]:
    """Return all that Redis has of a stream, but how long it is kept."""
    async with Redis.from_url(service.redis_url) as redis:
        found: dict[str, Any] = {"record": await redis.hgetall(f"stream:{{{stream_sid}}}")}
        found["audio"] = await redis.xrange(f"audio:{{{stream_sid}}}")
        found["commands"] = await redis.exists(f"control:{{{stream_sid}}}")
    return found


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "finished"])
async def test_an_exotel_pair_cannot_name_another_businesss_client_stream(
    replicas: Replicas, is_live: bool
) -> None:
    interaction = f"int-{is_live}"
    theirs = stream_id("client", VICTIM, interaction)
    async with a_client(replicas.one, VICTIM) as socket:
        await start_client(socket, interaction)
        await socket.send(AUDIO)
        await written(replicas.one, theirs, 1)
        if not is_live:
            await socket.send(json.dumps({"event": "stop"}))
            await receipt_of(replicas.one, theirs)
        before = await keys_of(replicas.one, theirs)
        for service in replicas.both:
            # As 0.1 published it, as it is published now, and by the interaction's own name.
            for name in (f"{VICTIM}.{interaction}", theirs, interaction):
                await exotel_call(service, name)
                mine = stream_id("exotel", ATTACKER, name)
                assert adds_up(await receipt_of(service, mine))
        assert await keys_of(replicas.one, theirs) == before


async def test_a_client_stream_is_held_by_one_connection_over_all_replicas(
    replicas: Replicas,
) -> None:
    theirs = stream_id("client", VICTIM, "int-held")
    async with a_client(replicas.one, VICTIM) as first:
        await start_client(first, "int-held")
        await first.send(AUDIO)
        await written(replicas.one, theirs, 1)
        for service in replicas.both:
            async with a_client(service, VICTIM) as second:
                await start_client(second, "int-held")
                assert await closed(second) == (1008, "stream_already_live")
            # Another business's interaction of the same name is another stream.
            async with a_client(service, ATTACKER) as other:
                await start_client(other, "int-held")
                assert "started" in str(await other.recv())
        await first.send(AUDIO)
        await first.send(json.dumps({"event": "stop"}))
        receipt = await receipt_of(replicas.one, theirs)
        assert (receipt["published"], receipt["end_reason"]) == (2, "stop")


async def test_a_client_may_start_again_at_once_on_another_replica(replicas: Replicas) -> None:
    theirs = stream_id("client", VICTIM, "int-again")
    for service in (*replicas.both, *replicas.both):
        async with a_client(service, VICTIM) as socket:
            await start_client(socket, "int-again")
            assert "started" in str(await socket.recv())
            await socket.send(AUDIO)
            await socket.send(json.dumps({"event": "stop"}))
            assert await closed(socket) == (1000, "stop")
            assert (await receipt_of(service, theirs))["published"] == 1


@asynccontextmanager
async def by_hand(service: Service, business_id: str, call_sid: str = "") -> AsyncIterator[Peer]:
    path = f"/twilio-media?businessId={business_id}"
    async with a_peer(service, path, headers={}, call_sid=call_sid) as peer:
        yield peer


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "finished"])
@pytest.mark.parametrize("same_call", [True, False], ids=["same CallSid", "another CallSid"])
async def test_a_twilio_socket_cannot_take_another_businesss_stream(
    replicas: Replicas, is_live: bool, same_call: bool
) -> None:
    async with by_hand(replicas.one, VICTIM) as victim:
        await victim.start()
        await victim.media(3)
        await written(replicas.one, victim.stream_sid, 3)
        if not is_live:
            await victim.stop()
            await receipt_of(replicas.one, victim.stream_sid)
        before = await keys_of(replicas.one, victim.stream_sid)
        for service in replicas.both:
            call_sid = victim.call_sid if same_call else ""
            async with by_hand(service, ATTACKER, call_sid) as attacker:
                attacker.stream_sid = victim.stream_sid
                await attacker.start()
                await attacker.media(3)
                code, reason = await attacker.closed()
                assert (code, reason.partition(":")[0]) == (1008, "business_mismatch")
        assert await keys_of(replicas.one, victim.stream_sid) == before
        if is_live:
            await victim.media(2)
            await victim.stop()
            receipt = await receipt_of(replicas.one, victim.stream_sid)
            assert (receipt["published"], receipt["end_reason"]) == (5, "stop")
    async with Redis.from_url(replicas.one.redis_url) as redis:
        events: Any = await redis.xrange("calls")
        owners = {
            fields[b"businessId"].decode()
            for _, fields in events
            if fields[b"streamSid"] == victim.stream_sid.encode()
        }
        assert owners == {VICTIM}
        assert await redis.zscore(f"live:{{{ATTACKER}}}", victim.call_sid) is None


async def test_a_short_twilio_id_is_kept_and_another_name_is_derived(replicas: Replicas) -> None:
    async with by_hand(replicas.one, VICTIM) as peer:
        peer.stream_sid = "client-" + "0" * 32
        await peer.start()
        await peer.media(1)
        await peer.stop()
        derived = stream_id("twilio", VICTIM, peer.stream_sid)
        assert (await receipt_of(replicas.one, derived))["published"] == 1
        assert await entries_of(replicas.one, peer.stream_sid) == []
        record = (await keys_of(replicas.one, derived))["record"]
        assert record[b"peerStreamSid"].decode() == peer.stream_sid


async def test_one_call_opens_two_streams_over_all_replicas(replicas: Replicas) -> None:
    headers = {"Authorization": f"Basic {OWN_PAIR}"}

    async def open_stream(tasks: AsyncExitStack, number: int, call_sid: str) -> ClientConnection:
        url = replicas.both[number % 2].ws_url + "/v1/ingest"
        socket = await tasks.enter_async_context(
            connect(url, additional_headers=headers, compression=None)
        )
        name = f"{call_sid}-{number}"
        await socket.send(exotel.start_message(name, call_sid, sample_rate=8000))
        await socket.send(exotel.media_message(name, b"\xee" * 1600, seq=2, chunk=1, timestamp=0))
        return socket

    async with AsyncExitStack() as tasks:
        sockets = [await open_stream(tasks, number, "many") for number in range(12)]
        await until(lambda: [one.close_code for one in sockets].count(None) == 2)
        refused = [one for one in sockets if one.close_code is not None]
        assert {await closed(one) for one in refused} == {(1013, "too_many_streams")}
        admitted = [number for number, one in enumerate(sockets) if one not in refused]
        await open_stream(tasks, 0, "another")
        for sid, number in [("another", 0), *(("many", number) for number in admitted)]:
            await written(replicas.one, stream_id("exotel", ATTACKER, f"{sid}-{number}"), 1)
    # Both have ended: the call may have others.
    for number in admitted:
        await receipt_of(replicas.one, stream_id("exotel", ATTACKER, f"many-{number}"))
    await exotel_call(replicas.one, "after-many")
