"""Peers that fall silent: gone, asleep, or driven by hand; on both media endpoints."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import jwt
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.carriers.stream_ids import stream_id
from app.tools.embedded import EmbeddedRedis
from app.wire import exotel
from tests.service import (
    NUMBER,
    WAIT_SECONDS,
    Service,
    a_call,
    a_peer,
    adds_up,
    events_of,
    lines_with,
    post,
    receipt_of,
    running_service,
    service_alone,
    signature,
    written,
)
from tests.waiting import until
from tests.web.test_voice import parameters

SECRET = "j" * 32
BY_HAND = "/twilio-media?businessId=business-1"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give an instance that lets nobody be silent for more than a second."""
    with service_alone(
        tmp_path_factory.mktemp("hasty"),
        ALLOW_UNSIGNED="true",
        JWT_SECRET=SECRET,
        SUPPORT_EXOTEL="true",
        EXOTEL_DEFAULT_BUSINESS="business-1",
        MEDIA_IDLE_SECONDS="1",
        INGEST_IDLE_SECONDS="1",
    ) as running:
        yield running


def shown(service: Service, protocol: str) -> tuple[str, dict[str, str]]:
    """Give the URL and the headers by which a peer of this protocol is known."""
    if protocol == "twilio":
        url = service.ws_url + "/twilio-media"
        return url, {"X-Twilio-Signature": signature(url)}
    claims = {"tenant_id": "business-1", "exp": int(time.time()) + 60}
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    return service.ws_url + "/v1/ingest", {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def talking(
    service: Service, protocol: str, sockets: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[str]]]:
    """Run peers in a process of their own; give it, and its streams' ids."""
    url, headers = shown(service, protocol)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.talking_peer"),
        *(url, json.dumps(headers), protocol, str(sockets)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            lines = [await process.stdout.readline() for _ in range(sockets)]
        streams = [line.decode().strip() for line in lines]
        for stream in streams:
            await written(service, stream, 1)
        yield process, streams
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def connections(service: Service) -> int:
    """Count the connections of others to the service that it holds open."""
    directory = Path(f"/proc/{service.process.pid}")
    held = set()
    for file in (directory / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed in this very moment
            held.add(os.readlink(file))
    port = f":{int(service.url.rpartition(':')[2]):04X}"
    lines = [line.split() for line in (directory / "net/tcp").read_text().splitlines()[1:]]
    listening = "0A"
    return sum(
        line[1].endswith(port) and line[3] != listening and f"socket:[{line[9]}]" in held
        for line in lines
    )


async def slots(service: Service) -> int:
    redis = Redis.from_url(service.redis_url)
    try:
        return int(await redis.zcard("live:{business-1}"))
    finally:
        await redis.aclose()


# ------------------------------------------------------------------------- vanished


@pytest.mark.parametrize("protocol", ["twilio", "client"])
async def test_a_peer_that_vanishes_without_a_word_leaves_nothing_behind(
    hasty: Service, protocol: str
) -> None:
    async with talking(hasty, protocol, 5) as (process, streams):
        await until(lambda: connections(hasty) == 5)
        assert await slots(hasty) == 5
        process.send_signal(signal.SIGSTOP)
        receipts = [await receipt_of(hasty, stream) for stream in streams]
        for receipt in receipts:
            assert receipt["end_reason"] == "vanished"
            assert receipt["published"] > 0
            assert adds_up(receipt)
        # All of it is gone, though the peer's kernel still holds its ends.
        assert await slots(hasty) == 0
        await until(lambda: not connections(hasty))
    if protocol == "twilio":
        told = dict(await events_of(hasty, "CA" + streams[0], at_least=2))
        assert told["stream.stopped"]["receipt"]["end_reason"] == "vanished"


# --------------------------------------------------------------- there, and silent


async def ticketed(service: Service) -> dict[str, str]:
    return parameters((await post(service, "/twilio-voice", a_call())).text)


async def test_a_stream_of_twilios_that_stands_still_is_idle(hasty: Service) -> None:
    said = await ticketed(hasty)
    async with a_peer(hasty, call_sid=said["callSid"]) as peer:
        await peer.start(said)
        await peer.media(3)
        assert await peer.closed() == (1000, "idle")
    receipt = await receipt_of(hasty, peer.stream_sid)
    assert (receipt["published"], receipt["end_reason"]) == (3, "idle")


async def test_a_stream_of_twilios_that_never_sends_media_is_idle_too(hasty: Service) -> None:
    said = await ticketed(hasty)
    async with a_peer(hasty, call_sid=said["callSid"]) as peer:
        await peer.start(said)
        assert await peer.closed() == (1000, "idle")


async def test_a_stream_of_exotels_that_stands_still_is_idle(hasty: Service) -> None:
    async with connect(hasty.ws_url + "/v1/ingest", compression=None) as peer:
        await peer.send(exotel.start_message("idle1", "call-idle1", to_number=NUMBER))
        await peer.send(exotel.media_message("idle1", b"\0" * 1600, seq=2, chunk=1, timestamp=0))
        await asyncio.wait_for(peer.wait_closed(), WAIT_SECONDS)
        assert (peer.close_code, peer.close_reason) == (1000, "idle")
    receipt = await receipt_of(hasty, stream_id("exotel", "business-1", "idle1"))
    assert (receipt["published"], receipt["end_reason"]) == (1, "idle")


async def test_a_socket_driven_by_hand_may_pause(hasty: Service) -> None:
    async with a_peer(hasty, BY_HAND, headers={}) as peer:
        await peer.start()
        await peer.media(3)
        await asyncio.sleep(2.2)  # more than two silences that would be too long
        await peer.media(3)
        await peer.stop()
        assert await peer.closed() == (1000, "stop")
    assert (await receipt_of(hasty, peer.stream_sid))["published"] == 6


async def test_a_socket_closed_in_good_order_is_told_from_one_that_is_lost(
    hasty: Service,
) -> None:
    for goodbye in ({}, {"code": 1001}):
        async with a_peer(hasty, BY_HAND, headers={}) as peer:
            await peer.start()
            await peer.media(2)
            await peer.socket.close(**goodbye)
        assert (await receipt_of(hasty, peer.stream_sid))["end_reason"] == "closed"
    async with a_peer(hasty, BY_HAND, headers={}) as peer:
        await peer.start()
        await peer.media(2)
        await written(hasty, peer.stream_sid, 2)
        peer.socket.transport.abort()
    assert (await receipt_of(hasty, peer.stream_sid))["end_reason"] == "disconnected"


# ------------------------------------------------------------------ we do not read


async def test_a_replay_that_waits_for_room_is_not_silent(tmp_path: Path) -> None:
    directory = tmp_path / "redis"
    with (
        EmbeddedRedis(directory, persistent=False) as redis,
        running_service(
            tmp_path,
            redis.url,
            JWT_SECRET=SECRET,
            INGEST_IDLE_SECONDS="1",
            BROKER_BUFFER_SECONDS="8",
        ) as service,
    ):
        url, headers = shown(service, "client")
        start = {"event": "start", "interaction_id": "replay", "tenant_id": "business-1"}
        async with connect(url, additional_headers=headers, compression=None) as peer:
            await peer.send(json.dumps({**start, "sample_rate": 8000, "encoding": "pcm16"}))
            assert "started" in str(await peer.recv())
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                sending = asyncio.create_task(send_all(peer))
                await asyncio.sleep(3)
                assert not lines_with(service.logged(), " ended - CallSid: replay")
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            await sending
        receipt = await receipt_of(service, stream_id("client", "business-1", "replay"))
        assert (receipt["received"], receipt["published"]) == (1000, 1000)
        assert receipt["end_reason"] == "stop"


async def send_all(peer: ClientConnection) -> None:
    """Send twenty seconds of audio at once, and read every answer to the end."""
    for _ in range(1000):
        await peer.send(b"\x00\x01" * 160)
    await peer.send(json.dumps({"event": "stop"}))
    with suppress(ConnectionClosed):
        while True:
            await peer.recv()
