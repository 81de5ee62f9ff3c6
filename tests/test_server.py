"""The process: how it starts, refuses to, and stops without losing a call."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from app.events import AudioEntry, Entry, LifecycleEvent
from app.pubsub.base import CALLS_KEY, audio_key
from app.pubsub.redis_pubsub import RedisPubSub
from tests.service import (
    TOKEN,
    WAIT_SECONDS,
    Service,
    a_call,
    a_peer,
    adds_up,
    entries_of,
    http_client,
    lines_with,
    logged_line,
    post,
    receipt_of,
    running_service,
    started,
)
from tests.waiting import until, until_subscribed

QUERY = "/twilio-media?businessId=business-1"


async def draining(service: Service) -> None:
    """Wait until the service has heard that it is to stop."""
    await logged_line(service, "Draining: 1 live calls")


async def exited(service: Service) -> int:
    return await asyncio.to_thread(service.process.wait, WAIT_SECONDS)


async def test_a_live_call_outlives_sigterm_and_new_ones_are_refused_politely(
    tmp_path: Path, redis_url: str
) -> None:
    with running_service(tmp_path, redis_url, ALLOW_UNSIGNED="true") as service:
        async with a_peer(service, QUERY, headers={}) as peer:
            await peer.start()
            await peer.media(10)
            await started(service, peer.stream_sid)
            for _ in range(3):
                service.process.send_signal(signal.SIGTERM)
                await draining(service)
            async with http_client() as client:
                ready = await client.get(f"{service.url}/health/ready")
                alive = await client.get(f"{service.url}/health")
            assert (ready.status_code, alive.status_code) == (503, 200)
            assert ready.json()["checks"]["accepting"].startswith("draining")
            refused = await post(service, "/twilio-voice", a_call())
            assert refused.status_code == 200
            assert ElementTree.fromstring(refused.text).find("Say") is not None
            assert "Stream" not in refused.text
            await peer.media(10)
            await peer.stop()
            assert await peer.closed() == (1000, "stop")
        assert await exited(service) == 0
        receipt = await receipt_of(service, peer.stream_sid)
        assert (receipt["published"], receipt["end_reason"]) == (20, "stop")


async def test_a_ticket_given_before_a_drain_is_honoured_during_it(
    tmp_path: Path, redis_url: str
) -> None:
    from tests.web.test_voice import parameters

    with running_service(tmp_path, redis_url) as service:
        first, second = [
            parameters((await post(service, "/twilio-voice", a_call())).text) for _ in range(2)
        ]
        async with a_peer(service, call_sid=first["callSid"]) as peer:
            await peer.start(first)
            await started(service, peer.stream_sid)
            service.process.send_signal(signal.SIGTERM)
            await draining(service)
            async with a_peer(service, call_sid=second["callSid"]) as late:
                await late.start(second)
                await late.media(3)
                await late.stop()
                assert await late.closed() == (1000, "stop")
            await peer.stop()
        assert await exited(service) == 0
        assert (await receipt_of(service, late.stream_sid))["published"] == 3


async def test_calls_that_outlive_the_drain_are_ended_with_all_they_sent(
    tmp_path: Path, redis_url: str
) -> None:
    with running_service(
        tmp_path, redis_url, ALLOW_UNSIGNED="true", DRAIN_SECONDS="0.5"
    ) as service:
        async with a_peer(service, QUERY, headers={}) as peer:
            await peer.start()
            await peer.media(25)
            await started(service, peer.stream_sid)
            service.process.send_signal(signal.SIGTERM)
            assert await peer.closed() == (1001, "drain")
        assert await exited(service) == 0
        receipt = await receipt_of(service, peer.stream_sid)
        assert (receipt["published"], receipt["end_reason"]) == (25, "drain")
        assert (await entries_of(service, peer.stream_sid))[-1]["reason"] == b"drain"


async def test_ctrl_c_twice_stops_at_once(tmp_path: Path, redis_url: str) -> None:
    with running_service(
        tmp_path, redis_url, ALLOW_UNSIGNED="true", DRAIN_SECONDS="600"
    ) as service:
        async with a_peer(service, QUERY, headers={}) as peer:
            await peer.start()
            await started(service, peer.stream_sid)
            service.process.send_signal(signal.SIGINT)
            await draining(service)
            assert service.process.poll() is None
            service.process.send_signal(signal.SIGINT)
            await exited(service)


async def test_audio_waits_while_redis_is_away_and_none_is_lost(tmp_path: Path) -> None:
    from app.tools.embedded import EmbeddedRedis

    with (
        EmbeddedRedis(tmp_path / "redis", persistent=False) as redis,
        running_service(tmp_path, redis.url, ALLOW_UNSIGNED="true") as service,
    ):
        async with a_peer(service, QUERY, headers={}) as peer:
            await peer.start()
            await peer.media(10)
            await started(service, peer.stream_sid)
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                await peer.media(100)
                async with http_client() as client:
                    await until(lambda: audio_waits(service))
                    await asyncio.sleep(1.1)
                    ready = await client.get(f"{service.url}/health/ready")
                    alive = await client.get(f"{service.url}/health")
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            assert (ready.status_code, alive.status_code) == (503, 200)
            await peer.media(10)
            await peer.stop()
            await peer.closed()
        receipt = await receipt_of(service, peer.stream_sid)
        entries = await entries_of(service, peer.stream_sid)
    assert (receipt["received"], receipt["published"], receipt["dropped"]) == (120, 120, {})
    assert [int(entry["seq"]) for entry in entries[:-1]] == list(range(2, 122))
    assert receipt["max_lag_ms"] > 1000
    assert adds_up(receipt)


async def audio_waits(service: Service) -> bool:
    """Tell whether audio waits for the broker."""
    async with http_client() as client:
        figures = (await client.get(f"{service.url}/metrics")).text
    return "\nbridge_queued_bytes 0.0\n" not in figures


async def test_the_service_starts_without_redis_and_answers_calls(tmp_path: Path) -> None:
    with running_service(tmp_path, "redis://127.0.0.1:1", has_store=False) as service:
        async with http_client() as client:
            assert (await client.get(f"{service.url}/health")).status_code == 200
            assert (await client.get(f"{service.url}/health/ready")).status_code == 503
        answer = await post(service, "/twilio-voice", a_call())
        assert answer.status_code == 200
        assert ElementTree.fromstring(answer.text).find("Say") is not None
        # It would wait for its broker, to write what was told of the call.
        service.process.kill()


async def test_memory_alone_serves_a_call(tmp_path: Path) -> None:
    with running_service(
        tmp_path, "", REDIS_URL="", PUBSUB_ADAPTER="memory", ALLOW_UNSIGNED="true"
    ) as service:
        async with a_peer(service, QUERY, headers={}) as peer:
            await peer.start()
            await peer.media(5)
            await peer.stop()
            assert await peer.closed() == (1000, "stop")
        await logged_line(service, "5 of 5 frames published")


async def test_by_pub_sub_a_listener_hears_a_call_whole(tmp_path: Path, redis_url: str) -> None:
    listener = RedisPubSub(redis_url)
    told: list[LifecycleEvent] = []

    async def listen() -> None:
        async for event in listener.lifecycle():
            told.append(event)

    listening = asyncio.create_task(listen())
    await until_subscribed(redis_url, CALLS_KEY)
    with running_service(
        tmp_path, redis_url, PUBSUB_ADAPTER="redis_pubsub", ALLOW_UNSIGNED="true"
    ) as service:
        async with a_peer(service, QUERY, headers={}) as peer:
            reading = asyncio.create_task(_read_all(listener, peer.stream_sid))
            await until_subscribed(redis_url, audio_key(peer.stream_sid))
            await peer.start()
            await peer.media(20)
            await peer.stop()
            entries = await asyncio.wait_for(reading, WAIT_SECONDS)
            await until(lambda: any(event.name == "stream.stopped" for event in told))
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await listener.close()
    assert [entry.seq for entry in entries if isinstance(entry, AudioEntry)] == list(range(2, 22))
    assert [event.name for event in told] == ["stream.started", "stream.stopped"]


async def _read_all(pubsub: RedisPubSub, stream_sid: str) -> list[Entry]:
    return [entry async for _, entry in pubsub.entries(stream_sid)]


async def test_json_logs_are_one_object_a_line(tmp_path: Path, redis_url: str) -> None:
    with running_service(tmp_path, redis_url, LOG_FORMAT="json") as service:
        await post(service, "/twilio-voice", a_call())
        lines = [json.loads(line) for line in service.logged().splitlines()]
    assert any("[Voice Webhook] Incoming call" in line["message"] for line in lines)
    assert all({"at", "level", "logger", "message"} <= set(line) for line in lines)


async def test_metrics_need_their_token_where_one_is_set(tmp_path: Path, redis_url: str) -> None:
    with running_service(tmp_path, redis_url, METRICS_TOKEN="canary-metrics") as service:
        async with http_client() as client:
            url = f"{service.url}/metrics"
            assert (await client.get(url)).status_code == 401
            wrong = {"Authorization": "Bearer wrong"}
            assert (await client.get(url, headers=wrong)).status_code == 401
            right = {"Authorization": "Bearer canary-metrics"}
            answer = await client.get(url, headers=right)
        assert answer.status_code == 200
        assert "bridge_live_streams 0.0" in answer.text
        assert "canary" not in service.logged() + answer.text


async def test_secrets_from_files_serve_in_every_worker(tmp_path: Path, redis_url: str) -> None:
    given = {"METRICS_TOKEN": "canary-metrics-new,canary-metrics-old", "TWILIO_AUTH_TOKEN": TOKEN}
    files = {"METRICS_TOKEN": "", "TWILIO_AUTH_TOKEN": ""}
    for name, value in given.items():
        (tmp_path / name).write_text(value + "\n")
        (tmp_path / name).chmod(0o644 if name == "METRICS_TOKEN" else 0o600)
        files[f"{name}_FILE"] = str(tmp_path / name)
    with running_service(tmp_path, redis_url, "--workers", "2", **files) as service:
        async with http_client() as client:
            for token in given["METRICS_TOKEN"].split(","):
                right = {"Authorization": f"Bearer {token}"}
                answer = await client.get(f"{service.url}/metrics", headers=right)
                assert answer.status_code == 200
        assert (await post(service, "/twilio-voice", a_call())).status_code == 200
        log = service.logged()
    assert len(lines_with(log, "METRICS_TOKEN holds secrets, and every user may read it")) == 1
    assert "TWILIO_AUTH_TOKEN holds secrets" not in log
    assert "canary" not in log


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PUBLIC_URL": "https://a.example.com/"}, "PUBLIC_URL must not end with a slash"),
        ({"PORT": "many"}, "PORT is not a whole number"),
        ({"BUSINESSES_FILE": "/nowhere.toml"}, "BUSINESSES_FILE /nowhere.toml cannot be read"),
    ],
)
def test_a_bad_value_stops_the_start_with_one_line(variables: dict[str, str], said: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "ALLOW_UNSIGNED": "true",
        "REDIS_URL": "redis://127.0.0.1:1",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
