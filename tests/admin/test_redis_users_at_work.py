"""The service and workers at work as Redis users with no more permissions than they need."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.admin.redis_users import acl_commands, sentinel_commands
from app.cli import main
from app.consumer import Call, Calls, Choice, StoreUnavailable
from app.events import CallIdentity, HeldStream, StreamPolicy
from app.pubsub.base import Announce, NoteCall, OpenStream
from app.pubsub.redis_pubsub import RedisPubSub
from app.pubsub.redis_streams import RedisStreams
from app.store.base import LIVE_SECONDS
from app.store.captures import Asked
from app.store.redis import RedisStore
from app.store.redis_captures import RedisCaptures
from tests.businesses import BUSINESSES, business, plan
from tests.consumer.bridge import Bridge
from tests.consumer.reading import all_of, next_call, numbers, some, worker
from tests.redis_groups import cluster, sentinel_group
from tests.redis_process import RedisProcess
from tests.redis_users import (
    PASSWORD,
    SERVICE,
    WORKER,
    add_users,
    denials,
    server_with_users,
    url_as,
)
from tests.samples import a_record, an_event
from tests.service import Peer, Service, receipt_of, running_service
from tests.test_redis_contract import (
    PACED,
    TALKING,
    a_call_in_progress,
    administer,
    by_exotel,
    over,
)
from tests.waiting import WAIT_SECONDS, until, until_subscribed
from tests.web.admins import TOKEN
from tests.web.test_live import events

GROUP = "transcribe"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with server_with_users(tmp_path_factory.mktemp("redis"), [GROUP]) as running:
        yield running


@pytest.fixture(scope="module")
def restricted(server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run a service that signs in to Redis as its own user."""
    directory: Path = tmp_path_factory.mktemp("service")
    more = directory / "more.toml"
    talking = business("talking", "talking", TALKING, capture_calls=True, country="US")
    more.write_text(
        BUSINESSES
        + plan("talking", return_audio=True, max_calls_per_second=100, calls_per_month_soft=1)
        + plan("paced", max_calls_per_second=5)
        + talking
        + business("paced", "paced", PACED, country="US"),
        encoding="utf-8",
    )
    with running_service(
        directory,
        url_as(SERVICE, server.url),
        BUSINESSES_FILE=str(more),
        ADMIN_TOKEN=TOKEN,
        TRUSTED_PROXIES="127.0.0.0/8",
        SUPPORT_EXOTEL="true",
        EXOTEL_API_KEY="key",
        EXOTEL_API_TOKEN="token",
    ) as running:
        yield running


async def test_the_service_needs_no_more_than_its_user_may(
    server: RedisProcess, restricted: Service
) -> None:
    await by_exotel(restricted)
    heard, erased = await over(restricted, TALKING), await over(restricted, TALKING)
    await administer(restricted, heard, erased)
    captures = RedisCaptures.from_url(restricted.redis_url, WAIT_SECONDS)
    await captures.ask(Asked("talking"))
    async with (
        a_call_in_progress(restricted, TALKING) as peer,
        events(restricted, {"Authorization": f"Bearer {TOKEN}"}) as watched,
    ):
        async for _ in watched:
            break
        await until(lambda: captures.begun(0))
        await peer.media(20)
        await peer.stop()
        await peer.closed()
    await receipt_of(restricted, peer.stream_sid)
    await captures.close()
    assert denials(server) == []
    assert "NOPERM" not in restricted.logged()


async def call_of(peer: Peer, mine: Calls) -> Call:
    """Wait for the call of one caller; be done with those before it."""
    while (call := await next_call(mine)).stream_sid != peer.stream_sid:
        await mine.done(call)
    return call


async def test_a_worker_hears_and_speaks_as_its_own_user(
    server: RedisProcess, restricted: Service
) -> None:
    for user in (WORKER, f"{WORKER}-{GROUP}"):
        url = url_as(user, restricted.redis_url)
        async with a_call_in_progress(restricted, TALKING) as peer, worker(url, GROUP) as mine:
            call = await call_of(peer, mine)
            assert call.policy == StreamPolicy(
                business_name="talking",
                country="US",
                return_audio=True,
                max_call_seconds=3600,
                max_concurrent_calls=10,
                frame_ms=20,
                retention_seconds=3600,
            )
            item, *_ = await some(call, 5)
            await call.ack(item)
            said = await call.play(bytes(3200))
            await (await call.clear()).answer(WAIT_SECONDS)
            assert await said.answer(WAIT_SECONDS)
            await call.hang_up()
            await all_of(call)
            await mine.done(call)
    assert denials(server) == []


async def test_a_worker_of_another_group_is_refused_at_the_start(
    server: RedisProcess, restricted: Service
) -> None:
    url = url_as(f"{WORKER}-{GROUP}", restricted.redis_url)
    with pytest.raises(StoreUnavailable):
        async with Calls(url, "recorders", Choice()):
            pass
    assert {user for user, _, _ in denials(server)} == {f"{WORKER}-{GROUP}"}


async def test_a_worker_with_the_services_url_works_as_before(
    server: RedisProcess, restricted: Service
) -> None:
    url = restricted.redis_url
    async with a_call_in_progress(restricted, TALKING) as peer, worker(url, "g") as mine:
        call = await call_of(peer, mine)
        await some(call, 5)
        assert await (await call.clear()).answer(WAIT_SECONDS)
    assert denials(server) == []


async def test_the_service_ends_streams_of_a_dead_replica_as_its_user(
    server: RedisProcess,
) -> None:
    url = url_as(SERVICE, server.url)
    call = CallIdentity("CA-lost", "MZ-lost", "business-1", "premium", "twilio")
    held = HeldStream(call, 1_800_000_000_000, 60)
    bridge, store, streams = (
        Bridge.at(url),
        RedisStore.from_url(url, WAIT_SECONDS),
        RedisStreams(url),
    )
    await bridge.begin("MZ-lost")
    await store.hold_streams([held], LIVE_SECONDS)
    await store.claim_lost_streams(10, LIVE_SECONDS, 5.0)
    assert await streams.end_lost(held)
    await store.let_go([held])
    for one in (bridge, store, streams):
        await one.close()
    assert denials(server) == []


# --------------------------------------------------------------- other arrangements


async def test_users_serve_in_a_cluster(tmp_path: Path) -> None:
    with cluster(tmp_path, masters=2, fsync=None) as nodes:
        for node in nodes.nodes:
            add_users(node, acl_commands())
        await calls_from_service_to_worker(nodes.url)
        assert [one for node in nodes.nodes for one in denials(node)] == []


async def test_users_serve_behind_sentinels_that_have_users_too(tmp_path: Path) -> None:
    with sentinel_group(tmp_path, replicas=0, sentinels=1, fsync=None) as group:
        for server in group.servers:
            add_users(server, acl_commands())
        for sentinel in group.sentinels:
            add_users(sentinel, sentinel_commands())
            sentinel.command("ACL", "SETUSER", "default", "-sentinel")
        signed_in = f"?sentinel_username=bridge-sentinel&sentinel_password={PASSWORD}"
        await calls_from_service_to_worker(group.url + signed_in)
        refused = [
            one for process in (*group.servers, *group.sentinels) for one in denials(process)
        ]
        assert [one for one in refused if one[0] != "default"] == []


async def test_users_serve_with_channels(server: RedisProcess) -> None:
    url = url_as(SERVICE, server.url)
    service, listener = RedisPubSub(url), RedisPubSub(url_as(WORKER, server.url))
    hearing = asyncio.create_task(anext(listener.lifecycle()))
    await until_subscribed(server.url, "calls")
    event = an_event("event-1", "stream.started")
    await service.write([OpenStream("MZ1", a_record(), 60), NoteCall(event), Announce(event)])
    assert (await asyncio.wait_for(hearing, WAIT_SECONDS)).event_id == "event-1"
    call = CallIdentity("CA-lost", "MZ-lost", "business-1", "premium", "twilio")
    assert await service.end_lost(HeldStream(call, 1_800_000_000_000, 60))
    for one in (service, listener):
        await one.close()
    assert denials(server) == []


async def calls_from_service_to_worker(url: str) -> None:
    bridge = Bridge.at(url_as(SERVICE, url))
    async with worker(url_as(WORKER, url), "g") as mine:
        for n in range(3):
            await bridge.whole(f"MZ{n}", 20)
        for _ in range(3):
            call = await next_call(mine)
            assert numbers(await all_of(call)) == list(range(1, 21))
            await mine.done(call)
    await bridge.close()


def test_a_command_that_its_user_may_not_run_names_where_users_are_described(
    server: RedisProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", url_as(WORKER, server.url))
    assert main(["calls"]) == 2
    assert 'see docs/operations.md, "Redis users"' in capsys.readouterr().err
