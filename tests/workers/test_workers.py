"""`serve --workers 2`: one service to callers, signals, scrapes and faults."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from app.tools.embedded import EmbeddedRedis
from tests.redis_process import fixed_port
from tests.service import (
    WAIT_SECONDS,
    Peer,
    Service,
    a_call,
    a_peer,
    adds_up,
    entries_of,
    http_client,
    lines_with,
    post,
    receipt_of,
    running_service,
    written,
)
from tests.waiting import until, wait_until
from tests.web.test_voice import parameters

ROOT = Path(__file__).parents[2]
QUERY = "/twilio-media?businessId=business-1"
SLOTS = (1, 2)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give two workers that enforce tickets, and have no SECRET_KEY but a common one."""
    directory = tmp_path_factory.mktemp("pair")
    with (
        EmbeddedRedis(directory / "redis", persistent=False) as redis,
        two_workers(directory, redis.url, SECRET_KEY="") as running,
    ):
        yield running
        assert running.stop() == 0


@contextmanager
def two_workers(
    directory: Path, redis_url: str, *arguments: str, **variables: str
) -> Iterator[Service]:
    """Run a service of two workers; after it nothing of it may be left."""
    with running_service(
        directory, redis_url, "--workers", "2", *arguments, **variables
    ) as running:
        wait_for_line(running, "listening on port")
        for slot in SLOTS:
            with only(running, slot):
                wait_until(lambda: is_ready(running))
        yield running
    wait_until(lambda: not any(runs(pid) for pid in pids_of(running).values()))


def wait_for_line(service: Service, *parts: str, times: int = 1) -> None:
    wait_until(lambda: len(lines_with(service.logged(), *parts)) >= times, service.logged)


def pids_of(service: Service) -> dict[int, int]:
    """Tell which process is each slot's last."""
    found = re.findall(r"Worker (\d) listens, as process (\d+)", service.logged())
    return {int(slot): int(pid) for slot, pid in found}


def runs(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody collects does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc/self").exists()


def is_ready(service: Service) -> bool:
    ready = httpx.get(f"{service.url}/health/ready", verify=False, timeout=WAIT_SECONDS)
    return ready.status_code == httpx.codes.OK


def accepts(service: Service) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(service.url.rpartition(":")[2]))) == 0


@contextmanager
def only(service: Service, slot: int) -> Iterator[None]:
    """Freeze the other worker, so that this one takes what comes."""
    other = pids_of(service)[3 - slot]
    os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(other, signal.SIGCONT)


async def fetch(service: Service, path: str) -> httpx.Response:
    """Ask on a connection of its own."""
    async with http_client() as client:
        return await client.get(service.url + path)


async def figure(service: Service, series: str) -> float:
    """Read a figure from whichever worker answers."""
    text = (await fetch(service, "/metrics")).text
    [line] = [line for line in text.splitlines() if line.startswith(f"{series} ")]
    return float(line.split()[1])


async def live_streams(service: Service) -> int:
    count: int = (await fetch(service, "/health")).json()["liveStreams"]
    return count


async def no_stream_lives(service: Service) -> bool:
    return await live_streams(service) == 0


@asynccontextmanager
async def a_call_on_each(service: Service) -> AsyncIterator[dict[int, Peer]]:
    """Have a live call on each worker, without tickets."""
    async with AsyncExitStack() as stack:
        peers = {}
        for slot in SLOTS:
            with only(service, slot):
                peers[slot] = await stack.enter_async_context(a_peer(service, QUERY, headers={}))
                await peers[slot].start()
                await peers[slot].media(10)
                wait_for_line(service, f"w{slot} ", f"Stream {peers[slot].stream_sid} started")
        yield peers


# ------------------------------------------------------------------- one service


async def test_calls_and_tickets_cross_workers_and_figures_add_up(pair: Service) -> None:
    received = await figure(pair, "bridge_frames_received_total")
    published = await figure(pair, "bridge_frames_published_total")
    async with AsyncExitStack() as stack:
        peers = []
        for slot in SLOTS:
            with only(pair, 3 - slot):
                form = parameters((await post(pair, "/twilio-voice", a_call())).text)
            with only(pair, slot):
                peer = await stack.enter_async_context(a_peer(pair, call_sid=form["callSid"]))
                await peer.start(form)
                await peer.media(20 * slot)
                wait_for_line(pair, f"w{slot} ", f"Stream {peer.stream_sid} started")
            peers.append(peer)
        for slot in SLOTS:
            with only(pair, slot):
                assert await live_streams(pair) == 2
                assert await figure(pair, "bridge_live_streams") == 2
        for peer in peers:
            await peer.stop()
            assert await peer.closed() == (1000, "stop")
    for slot, peer in zip(SLOTS, peers, strict=True):
        receipt = await receipt_of(pair, peer.stream_sid)
        assert (receipt["published"], receipt["end_reason"]) == (20 * slot, "stop")
        assert adds_up(receipt)
        seqs = [int(entry["seq"]) for entry in (await entries_of(pair, peer.stream_sid))[:-1]]
        assert seqs == list(range(2, 2 + 20 * slot))
    for slot in SLOTS:
        with only(pair, slot):
            assert await figure(pair, "bridge_frames_received_total") == received + 60
            assert await figure(pair, "bridge_frames_published_total") == published + 60
            await until(lambda: no_stream_lives(pair))


async def test_series_are_of_the_service_and_name_no_process_and_no_call(pair: Service) -> None:
    text = (await fetch(pair, "/metrics")).text
    series = [line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#"]
    assert len(series) == len(set(series))
    assert "bridge_workers 2.0" in text
    for secret in ("pid=", "CA", "MZ", "w1"):
        assert secret not in text


async def test_a_scrape_asks_no_worker_that_stands_still(pair: Service) -> None:
    for slot in SLOTS:
        with only(pair, slot):
            for _ in range(5):
                assert await figure(pair, "bridge_workers") == 2


async def test_a_worker_that_is_killed_is_replaced_and_costs_the_others_nothing(
    tmp_path: Path, redis_url: str
) -> None:
    with two_workers(tmp_path, redis_url, ALLOW_UNSIGNED="true") as service:
        async with a_call_on_each(service) as peers:
            for peer in peers.values():
                await written(service, peer.stream_sid, 10)
            killed = pids_of(service)[1]
            os.kill(killed, signal.SIGKILL)
            wait_for_line(service, "Worker 1 ended by itself: signal 9")
            # What it had counted stands; its call is no longer live.
            assert await figure(service, "bridge_frames_published_total") == 20
            assert await live_streams(service) == 1
            await peers[2].media(10)
            wait_for_line(service, "Worker 1 listens", times=2)
            assert pids_of(service)[1] != killed
            assert await figure(service, "bridge_workers") == 2
            assert await figure(service, "bridge_worker_starts_total") == 3
            await peers[2].media(10)
            await peers[2].stop()
            assert await peers[2].closed() == (1000, "stop")
        with only(service, 1):
            async with a_peer(service, QUERY, headers={}) as peer:
                await peer.start()
                await peer.media(5)
                await peer.stop()
                assert await peer.closed() == (1000, "stop")
        assert (await receipt_of(service, peers[2].stream_sid))["published"] == 30
        assert (await receipt_of(service, peer.stream_sid))["published"] == 5
        assert await figure(service, "bridge_frames_published_total") == 45
        # It ended cleanly in the end.
        assert service.stop() == 0


# ------------------------------------------------------------------------ the stop


async def test_sigterm_to_the_parent_drains_every_worker(tmp_path: Path, redis_url: str) -> None:
    with two_workers(tmp_path, redis_url, ALLOW_UNSIGNED="true") as service:
        async with a_call_on_each(service) as peers:
            for _ in range(3):
                service.process.send_signal(signal.SIGTERM)
                wait_for_line(service, "Draining: 1 live calls", times=2)
            for slot in SLOTS:
                with only(service, slot):
                    ready = await fetch(service, "/health/ready")
                    assert ready.status_code == 503
                    assert ready.json()["checks"]["accepting"].startswith("draining")
                    refused = await post(service, "/twilio-voice", a_call())
                    assert refused.status_code == 200
                    assert ElementTree.fromstring(refused.text).find("Say") is not None
                    assert "Stream" not in refused.text
            for peer in peers.values():
                await peer.media(10)
                await peer.stop()
                assert await peer.closed() == (1000, "stop")
        assert await asyncio.to_thread(service.process.wait, WAIT_SECONDS) == 0
        for peer in peers.values():
            receipt = await receipt_of(service, peer.stream_sid)
            assert (receipt["published"], receipt["end_reason"]) == (20, "stop")
        assert not lines_with(service.logged(), "ended by itself")


async def test_sigterm_to_every_process_is_harmless_and_the_drain_has_an_end(
    tmp_path: Path, redis_url: str
) -> None:
    with two_workers(tmp_path, redis_url, ALLOW_UNSIGNED="true", DRAIN_SECONDS="0.5") as service:
        async with a_call_on_each(service) as peers:
            for pid in (*pids_of(service).values(), service.process.pid) * 2:
                os.kill(pid, signal.SIGTERM)
            for peer in peers.values():
                assert await peer.closed() == (1001, "drain")
        assert await asyncio.to_thread(service.process.wait, WAIT_SECONDS) == 0
        for peer in peers.values():
            receipt = await receipt_of(service, peer.stream_sid)
            assert (receipt["published"], receipt["end_reason"]) == (10, "drain")


async def test_ctrl_c_reaches_workers_once_and_twice_stops_at_once(
    tmp_path: Path, redis_url: str
) -> None:
    with two_workers(tmp_path, redis_url, ALLOW_UNSIGNED="true", DRAIN_SECONDS="600") as service:
        async with a_call_on_each(service) as peers:
            # As a terminal does: to all of the foreground's process group.
            os.killpg(service.process.pid, signal.SIGINT)
            wait_for_line(service, "Draining: 1 live calls", times=2)
            # Long enough for a second one to be heard of.
            await asyncio.sleep(0.5)
            for peer in peers.values():
                await peer.media(5)
                assert await asyncio.wait_for(peer.socket.ping(), WAIT_SECONDS)
            assert service.process.poll() is None
            os.killpg(service.process.pid, signal.SIGINT)
            await asyncio.to_thread(service.process.wait, WAIT_SECONDS)


async def test_when_the_parent_is_killed_workers_drain_and_leave_nothing(
    tmp_path: Path, redis_url: str
) -> None:
    variables = {"ALLOW_UNSIGNED": "true", "DRAIN_SECONDS": "3", "TMPDIR": str(tmp_path)}
    with two_workers(tmp_path, redis_url, **variables) as service:
        async with a_call_on_each(service) as peers:
            service.process.kill()
            wait_for_line(service, "Draining: 1 live calls", times=2)
            await peers[1].media(10)
            await peers[1].stop()
            assert await peers[1].closed() == (1000, "stop")
            assert await peers[2].closed() == (1001, "drain")
        wait_until(lambda: not any(runs(pid) for pid in pids_of(service).values()))
        assert not accepts(service)
        assert not [name for name in os.listdir(tmp_path) if name.startswith("media-bridge-")]
        first, second = [await receipt_of(service, peer.stream_sid) for peer in peers.values()]
        assert (first["published"], first["end_reason"]) == (20, "stop")
        assert (second["published"], second["end_reason"]) == (10, "drain")


# ----------------------------------------------------------------------- the start


def test_a_redis_of_our_own_is_started_once_and_so_is_the_greeting(tmp_path: Path) -> None:
    embedded = ("--embedded-redis", str(tmp_path / "data"))
    with two_workers(tmp_path, "", *embedded, SECRET_KEY="") as service:
        assert httpx.get(f"{service.url}/health/ready").status_code == 200
        assert service.stop() == 0
        log = service.logged()
        for once in ("✅ Ingestion server listening", "is it up?", "SECRET_KEY is not set"):
            assert log.count(once) == 1
    assert (tmp_path / "data" / "redis.log").exists()


def start(directory: Path, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a start that comes to an end by itself."""
    return subprocess.run(
        [sys.executable, *command, "serve", "--workers", "2"],
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "ALLOW_UNSIGNED": "true",
            "REDIS_URL": "redis://127.0.0.1:1",
            "HOST": "127.0.0.1",
            "PORT": str(fixed_port()),
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"DRAIN_SECONDS": "long"}, "DRAIN_SECONDS is not a number"),
        ({"BUSINESSES_FILE": "/nowhere.toml"}, "BUSINESSES_FILE /nowhere.toml cannot be read"),
        ({"PUBSUB_ADAPTER": "memory"}, "PUBSUB_ADAPTER is memory, which 2 workers cannot share"),
        ({"PORT": "taken"}, "PORT cannot be listened on: Address already in use"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_line(variables: dict[str, str], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = {name: port if value == "taken" else value for name, value in variables.items()}
        done = start(ROOT, "-m", "app", **given)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert "ERROR" not in done.stdout


def test_workers_are_the_program_that_started_them(tmp_path: Path) -> None:
    # Whatever else is called `app` where it was started.
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('another program')")
    script = "import sys; from app.cli import main; sys.exit(main())"
    variables = {"PYTHONPATH": str(ROOT), "BUSINESSES_FILE": "/nowhere.toml"}
    done = start(tmp_path, "-P", "-c", script, **variables)
    assert done.stderr.startswith("BUSINESSES_FILE /nowhere.toml cannot be read")
