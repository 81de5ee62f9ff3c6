"""A running service and its enemies: each is closed, and costs other calls nothing."""

import asyncio
import json
import math
import resource
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from app.server.sockets import WANTED_FILES
from app.wire import twilio
from benchmarks.attacks import ATTACKS, PING, TEXT, Attack, Target, flood, frame, upgrade_request
from tests.server.raw import a_connection, a_raw_peer
from tests.service import (
    Peer,
    Service,
    a_call,
    a_peer,
    adds_up,
    http_client,
    lines_with,
    post,
    receipt_of,
    running_service,
    service_alone,
    started,
)

MEDIA = "/twilio-media?businessId=business-1"
# Without its guard, each attack takes far more of both; a limit on time is for hangs.
MEMORY_BYTES = 16 * 2**20
ATTACK_SECONDS = 60.0


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give an instance for these tests alone, since its memory is looked at."""
    with service_alone(tmp_path_factory.mktemp("attacked"), ALLOW_UNSIGNED="true") as running:
        yield running


def port_of(service: Service) -> int:
    return int(service.url.rpartition(":")[2])


def target_of(service: Service) -> Target:
    return Target("127.0.0.1", port_of(service), upgrade_request(MEDIA))


def memory_of(service: Service) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


async def metric(service: Service, name: str) -> float:
    async with http_client() as client:
        text = (await client.get(f"{service.url}/metrics")).text
    found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name + " ")]
    return float(found[0]) if found else 0.0


async def talk(peer: Peer, frames: int) -> None:
    for _ in range(frames):
        await peer.media()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("attackers", [1, 4])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_an_attacker_is_closed_and_another_call_loses_nothing(
    attacked: Service, attack: Attack, attackers: int
) -> None:
    async with a_peer(attacked, MEDIA, headers={}) as peer:
        await peer.start()
        await talk(peer, 5)
        before = memory_of(attacked)
        target = target_of(attacked)
        ends = asyncio.gather(
            *(asyncio.to_thread(flood, target, attack, ATTACK_SECONDS) for _ in range(attackers))
        )
        await talk(peer, 45)
        for closed_after in await ends:
            assert math.isfinite(closed_after)
        grown = memory_of(attacked) - before
        await peer.stop()
        assert await peer.closed() == (1000, "stop")
    receipt = await receipt_of(attacked, peer.stream_sid)
    assert (receipt["received"], receipt["published"]) == (50, 50)
    assert grown < MEMORY_BYTES


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        (frame(PING), "flooding"),
        (frame(TEXT, b"{}"), "too_many_bad_messages"),
        (frame(TEXT, b"x" * 60_000), "too_many_bad_messages"),
        (frame(TEXT, json.dumps({"event": "dance", "x": "y" * 99}).encode()), "too_many_bad"),
        (frame(TEXT, json.dumps({"event": "connected", "x": "y" * 99}).encode()), "flooding"),
    ],
)
async def test_an_attacker_is_told_why(attacked: Service, unit: bytes, reason: str) -> None:
    async with a_raw_peer(port_of(attacked), MEDIA) as peer:
        flooding = asyncio.create_task(peer.flood(unit))
        code, text = await peer.closed()
        assert code == 1008
        assert text.startswith(reason)
        await peer.gone()
        await flooding


async def test_a_stream_that_is_cut_has_a_receipt_and_all_it_sent_before(
    attacked: Service,
) -> None:
    before = await metric(attacked, 'bridge_sockets_closed_total{reason="flooding"}')
    async with a_peer(attacked, MEDIA, headers={}) as peer:
        await peer.start()
        await peer.media(30)
        with suppress(ConnectionClosed):
            for number in range(2000):
                await peer.socket.ping(f"{number:0100}")
        await peer.socket.wait_closed()
        assert (peer.socket.close_code, peer.socket.close_reason) == (1008, "flooding")
    receipt = await receipt_of(attacked, peer.stream_sid)
    assert receipt["end_reason"] == "flooding"
    assert (receipt["received"], receipt["published"], receipt["rejected"]) == (30, 30, {})
    closed = await metric(attacked, 'bridge_sockets_closed_total{reason="flooding"}')
    assert closed == before + 1
    assert await metric(attacked, 'bridge_streams_total{end_reason="flooding"}') >= 1
    assert lines_with(attacked.logged(), "[server] ✂️ Socket closed: flooding - 127.0.0.1")


async def test_a_good_frame_now_and_then_excuses_no_flood(attacked: Service) -> None:
    unknown = json.dumps({"event": "dance", "padding": "x" * 100})
    sent = 0
    async with a_peer(attacked, MEDIA, headers={}) as peer:
        await peer.start()
        with suppress(ConnectionClosed):
            for _ in range(200):
                await peer.media()
                sent += 1
                for _ in range(50):
                    await peer.socket.send(unknown)
        await peer.socket.wait_closed()
        assert (peer.socket.close_code, peer.socket.close_reason) == (1008, "flooding")
    receipt = await receipt_of(attacked, peer.stream_sid)
    assert receipt["end_reason"] == "flooding"
    assert 0 < receipt["published"] <= sent
    assert adds_up(receipt)


@pytest.mark.parametrize("beside", ["a mark", "a blank line"])
async def test_a_replay_with_something_beside_each_frame_passes_whole(
    attacked: Service, beside: str
) -> None:
    count = 3000
    async with a_peer(attacked, MEDIA, headers={}) as peer:
        await peer.start()
        for _ in range(count):
            await peer.media()
            if beside == "a mark":
                peer.seq += 1
                await peer.socket.send(twilio.mark_message(peer.stream_sid, "m", seq=peer.seq))
            else:
                await peer.socket.send("")
        await peer.stop()
        assert await peer.closed() == (1000, "stop")
    receipt = await receipt_of(attacked, peer.stream_sid)
    assert (receipt["received"], receipt["published"]) == (count, count)
    assert receipt["carrier_gaps"] == 0


# ------------------------------------------------------------------ slow and silent

HALF_HEADERS = b"POST /twilio-voice HTTP/1.1\r\nHost: a\r\nX-Slow: "
HALF_BODY = (
    b"POST /twilio-voice HTTP/1.1\r\nHost: a\r\nX-Twilio-Signature: x\r\nContent-Length: 100\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\nCallSid="
)


async def test_slow_and_silent_peers_are_closed_while_webhooks_are_answered(
    service: Service,
) -> None:
    counted = {
        reason: await metric(service, f'bridge_sockets_closed_total{{reason="{reason}"}}')
        for reason in ("no_request", "slow_request")
    }
    port = port_of(service)
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(a_connection(port)) for _ in range(300)]
        for number, peer in enumerate(peers):
            await peer.send((b"", HALF_HEADERS, HALF_BODY)[number % 3])
        # A client's connection between two requests is none of them.
        client = await stack.enter_async_context(http_client())
        assert (await client.get(f"{service.url}/health")).status_code == 200
        for _ in range(20):
            answer = await post(service, "/twilio-voice", a_call())
            assert answer.status_code == 200
            await asyncio.sleep(0.1)
        ends = await asyncio.gather(*(peer.gone() for peer in peers))
        assert (await client.get(f"{service.url}/health")).status_code == 200
    for number, received in enumerate(ends):
        assert received.startswith((b"", b"HTTP/1.1 408 ", b"HTTP/1.1 408 ")[number % 3])
        assert received or number % 3 == 0
    for reason, expected in (("no_request", 100), ("slow_request", 200)):
        found = await metric(service, f'bridge_sockets_closed_total{{reason="{reason}"}}')
        assert found - counted[reason] == expected
    assert "Traceback" not in service.logged()
    assert not lines_with(service.logged(), " ERROR ")


async def test_settings_bound_the_sockets_that_carry_no_stream(
    tmp_path: Path, redis_url: str
) -> None:
    with running_service(
        tmp_path,
        redis_url,
        ALLOW_UNSIGNED="true",
        MAX_UNADMITTED_SOCKETS="2",
        MAX_UNADMITTED_PER_ADDRESS="1",
        TRUSTED_PROXIES="127.0.0.0/8",
    ) as service:
        async with (
            a_peer(service, MEDIA, headers={"X-Forwarded-For": "192.0.2.7"}) as first,
            a_peer(service, MEDIA, headers={}),
        ):
            async with a_connection(port_of(service)) as late:
                await late.send(upgrade_request(MEDIA))
                refused = await late.gone()
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b'"error": "too_many_sockets"' in refused
            await first.start()
            await first.media()
            await started(service, first.stream_sid)
            # Its stream is admitted: it counts no more, neither in all nor for its address.
            async with a_peer(service, MEDIA, headers={"X-Forwarded-For": "192.0.2.7"}) as third:
                assert third.socket.protocol.state.name == "OPEN"
            await first.stop()
            assert await first.closed() == (1000, "stop")
        assert await metric(service, 'bridge_sockets_closed_total{reason="too_many_sockets"}') == 1


def test_as_many_sockets_may_be_open_as_the_platform_allows(tmp_path: Path, redis_url: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        with running_service(tmp_path, redis_url, ALLOW_UNSIGNED="true") as service:
            limits = Path(f"/proc/{service.process.pid}/limits").read_text(encoding="ascii")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    raised = int(limits.partition("Max open files")[2].split()[0])
    assert raised == min(hard, WANTED_FILES) > 512


async def test_a_flood_of_refused_sockets_does_not_flood_the_log(service: Service) -> None:
    lines, began = len(service.logged().splitlines()), time.monotonic()
    port = port_of(service)

    async def knock(times: int) -> None:
        for _ in range(times):
            async with a_connection(port) as peer:
                await peer.send(upgrade_request("/twilio-media"))
                assert (await peer.gone()).startswith(b"HTTP/1.1 403 ")

    refused = 'bridge_streams_refused_total{reason="signature_missing"}'
    before = await metric(service, refused)
    await asyncio.gather(*(knock(50) for _ in range(20)))
    assert await metric(service, refused) - before == 1000
    # Five kinds of lines, 200 of each in 10 s, and a word on those left out.
    windows = 2 + (time.monotonic() - began) // 10
    assert len(service.logged().splitlines()) - lines <= 5 * 201 * windows
