"""A replica of version 0.1 beside one of this version, on one Redis, as during a deploy.

Whichever of the two a request reaches, tickets, sessions, keys and live calls of the
other hold. Version 0.1 is taken from this repository's history.
"""

import asyncio
import io
import os
import secrets
import signal
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from app.tools.embedded import EmbeddedRedis
from app.wire import exotel
from tests.service import (
    Peer,
    Service,
    a_call,
    a_peer,
    events_of,
    http_client,
    post,
    receipt_of,
    running_service,
    signature,
    started,
    written,
)
from tests.waiting import until
from tests.web.admins import API, OPERATOR, TOKEN, Caller, bearer
from tests.web.test_voice import parameters

ROOT = Path(__file__).parent.parent
# The last commit of version 0.1.0.
VERSION_0_1 = "52a92099fb0cc3fbe57dc94db68e543a7991a0cb"
PAIR = ("an-exotel-api-key", "an-exotel-api-token")
WAYS = pytest.mark.parametrize(
    ("first", "second"), [("old", "new"), ("new", "old")], ids=["old to new", "new to old"]
)


@pytest.fixture(scope="module")
def version_0_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with version 0.1 of the service."""
    archive = subprocess.run(
        ["git", "archive", VERSION_0_1, "app", "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archive.returncode:
        pytest.skip("version 0.1 is not in this clone: fetch the whole history")
    directory = tmp_path_factory.mktemp("version-0.1")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(directory, filter="data")
    return directory


@dataclass(frozen=True)
class Deployment:
    """Both replicas; each has the other's businesses, secrets and settings."""

    old: Service
    new: Service

    def __getitem__(self, name: str) -> Service:
        found: Service = getattr(self, name)
        return found


@contextmanager
def deploying(directory: Path, version_0_1: Path) -> Iterator[Deployment]:
    """Run a replica of each version on one Redis."""
    variables = {
        "ADMIN_TOKEN": TOKEN,
        "SUPPORT_EXOTEL": "true",
        "EXOTEL_API_KEY": PAIR[0],
        "EXOTEL_API_TOKEN": PAIR[1],
        "EXOTEL_DEFAULT_BUSINESS": "business-1",
        "MEDIA_IDLE_SECONDS": "60",
        "INGEST_IDLE_SECONDS": "60",
    }
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis(directory / "redis", persistent=False))
        running = []
        for name, code in (("old", version_0_1), ("new", ROOT)):
            place = directory / name
            place.mkdir()
            running.append(
                stack.enter_context(running_service(place, redis.url, code=code, **variables))
            )
        yield Deployment(*running)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, version_0_1: Path) -> Iterator[Deployment]:
    """Return a deployment in the middle of its upgrade."""
    with deploying(tmp_path_factory.mktemp("upgrade"), version_0_1) as running:
        yield running
        assert "Traceback" not in running.new.logged()


async def a_stream(ringing: Service, streaming: Service) -> tuple[Peer, ClientConnection]:
    """Ring at one replica, and open the call's stream at another; it stays open."""
    answer = await post(ringing, "/twilio-voice", a_call())
    assert answer.status_code == 200, answer.text
    said = parameters(answer.text)
    url = f"{streaming.ws_url}/twilio-media"
    headers = {"X-Twilio-Signature": signature(url)}
    socket = await connect(url, additional_headers=headers, compression=None)
    peer = Peer(socket, said["callSid"])
    await peer.start(said)
    await peer.media(5)
    await written(streaming, peer.stream_sid, 5)
    return peer, socket


async def sign_in(service: Service, key: str) -> str:
    """Sign in on the page; return the cookie."""
    async with http_client() as client:
        answer = await client.post(f"{service.url}/admin/sign-in", data={"key": key})
    assert answer.status_code == 303, answer.text
    return answer.headers["set-cookie"].partition(";")[0]


async def get(service: Service, path: str, headers: Mapping[str, str]) -> httpx.Response:
    async with http_client() as client:
        return await client.get(service.url + API + path, headers=headers)


@WAYS
async def test_a_ticket_of_one_opens_a_stream_at_the_other(
    deployment: Deployment, first: str, second: str
) -> None:
    peer, socket = await a_stream(deployment[first], deployment[second])
    await peer.stop()
    receipt = await receipt_of(deployment.new, peer.stream_sid)
    assert (receipt["published"], receipt["end_reason"]) == (5, "stop")
    await socket.wait_closed()


@WAYS
async def test_a_ticket_is_spent_at_both(deployment: Deployment, first: str, second: str) -> None:
    said = parameters((await post(deployment[first], "/twilio-voice", a_call())).text)
    async with a_peer(deployment[first], call_sid=said["callSid"]) as peer:
        await peer.start(said)
        await started(deployment[first], peer.stream_sid)
        await peer.stop()
        await receipt_of(deployment.new, peer.stream_sid)
    async with a_peer(deployment[second], call_sid=said["callSid"]) as again:
        await again.start(said)
        code, reason = await again.closed()
    assert (code, reason.partition(":")[0]) == (1008, "ticket_spent")


@WAYS
async def test_a_stream_url_of_one_is_good_at_the_other(
    deployment: Deployment, first: str, second: str
) -> None:
    call_sid = secrets.token_hex(16)
    async with http_client(auth=PAIR) as client:
        asked = {"CallSid": call_sid, "businessId": "business-1"}
        answer = await client.get(f"{deployment[first].url}/exotel-stream-url", params=asked)
    assert answer.status_code == 200, answer.text
    query = urlsplit(answer.json()["url"]).query
    async with connect(
        f"{deployment[second].ws_url}/v1/ingest?{query}", compression=None
    ) as socket:
        await socket.send(exotel.connected_message())
        await socket.send(exotel.start_message(secrets.token_hex(16), call_sid))
        [(_, about)] = [
            event
            for event in await events_of(deployment.new, call_sid, at_least=2)
            if event[0] == "stream.started"
        ]
        assert about["sampleRate"] == 8000


@WAYS
async def test_keys_and_sessions_of_one_are_good_at_the_other(
    deployment: Deployment, first: str, second: str
) -> None:
    issued = await asyncio.to_thread(Caller(deployment[first]).new_key, "business-1")
    key = issued["key"]
    by_key = await get(deployment[second], "/me", bearer(key))
    assert (by_key.status_code, by_key.json()["business_id"]) == (200, "business-1")
    for shown, business in ((key, "business-1"), (TOKEN, None)):
        cookie = await sign_in(deployment[first], shown)
        for service in (deployment[second], deployment[first]):
            by_session = await get(service, "/me", {"Cookie": cookie})
            assert (by_session.status_code, by_session.json()["business_id"]) == (200, business)
    path = f"/businesses/business-1/keys/{issued['id']}"
    revoked = await asyncio.to_thread(Caller(deployment[second]), "DELETE", path)
    assert revoked.status_code == 204
    for service in (deployment[first], deployment[second]):
        assert (await get(service, "/me", bearer(key))).status_code == 401


@WAYS
async def test_a_live_call_of_one_is_seen_ended_and_heard_at_the_other(
    deployment: Deployment, first: str, second: str
) -> None:
    holder, asked = deployment[first], deployment[second]
    peer, socket = await a_stream(holder, holder)
    query = "?business=business-1"

    async def is_live() -> bool:
        items = (await get(asked, f"/live{query}", OPERATOR)).json()["items"]
        return peer.stream_sid in [one["stream_sid"] for one in items]

    await until(is_live)
    ended = await asyncio.to_thread(Caller(asked), "POST", f"/calls/{peer.call_sid}/end{query}")
    assert ended.status_code == 202
    assert await peer.closed() == (1000, "ended_by_admin")
    await receipt_of(asked, peer.stream_sid)
    await until(lambda: is_over(asked, peer.call_sid))
    for service in (asked, holder):
        audio = await get(service, f"/calls/{peer.call_sid}/audio.wav{query}", OPERATOR)
        assert audio.status_code == 200
        assert len(audio.content) == 44 + 5 * 320
    await socket.wait_closed()


async def is_over(service: Service, call_sid: str) -> bool:
    found = await get(service, f"/calls/{call_sid}?business=business-1", OPERATOR)
    return bool(found.json().get("ended_at"))


async def test_an_old_replicas_exotel_and_client_calls_are_read_by_the_new(
    deployment: Deployment,
) -> None:
    call_sid = secrets.token_hex(16)
    async with connect(
        f"{deployment.old.ws_url}/v1/ingest?businessId=business-1",
        additional_headers={"Authorization": httpx.BasicAuth(*PAIR)._auth_header},
        compression=None,
    ) as socket:
        await socket.send(exotel.connected_message())
        await socket.send(exotel.start_message("exotel-old.form", call_sid))
        for number in range(3):
            await socket.send(
                exotel.media_message(
                    "exotel-old.form",
                    bytes(3200),
                    seq=number + 2,
                    chunk=number + 1,
                    timestamp=200 * number,
                )
            )
        await socket.send(exotel.stop_message("exotel-old.form", call_sid, seq=9))
        await receipt_of(deployment.new, "exotel-old.form")
    await until(lambda: is_over(deployment.new, call_sid))
    path = f"/calls/{call_sid}/audio.wav?business=business-1"
    audio = await get(deployment.new, path, OPERATOR)
    assert (audio.status_code, len(audio.content)) == (200, 44 + 3 * 3200)


async def test_the_new_replica_leaves_a_stream_of_the_old_to_its_business(
    deployment: Deployment,
) -> None:
    """A stream that 0.1 began has a record, and no claim."""
    victim, socket = await a_stream(deployment.old, deployment.old)
    for is_live in (True, False):
        if not is_live:
            await victim.stop()
            before = await receipt_of(deployment.new, victim.stream_sid)
            await socket.wait_closed()
        answer = await post(deployment.new, "/twilio-voice", a_call("+15005550005"))
        said = parameters(answer.text)
        async with a_peer(deployment.new, call_sid=said["callSid"]) as attacker:
            attacker.stream_sid = victim.stream_sid
            await attacker.start(said)
            code, reason = await attacker.closed()
        assert (code, reason.partition(":")[0]) == (1008, "business_mismatch")
    assert await receipt_of(deployment.new, victim.stream_sid) == before
    assert (before["published"], before["end_reason"]) == (5, "stop")


async def test_the_new_replica_ends_a_stream_whose_id_the_old_gave_to_another_business(
    deployment: Deployment,
) -> None:
    """0.1 lets it happen; the new replica sees it at its next renewal."""
    victim, socket = await a_stream(deployment.new, deployment.new)
    answer = await post(deployment.old, "/twilio-voice", a_call("+15005550005"))
    said = parameters(answer.text)
    async with a_peer(deployment.old, call_sid=said["callSid"]) as attacker:
        attacker.stream_sid = victim.stream_sid
        await attacker.start(said)
        await asyncio.wait_for(socket.wait_closed(), 15)
        assert (socket.close_code, socket.close_reason) == (1008, "business_mismatch")
        await attacker.stop()


async def test_each_ends_the_streams_of_the_other_when_it_dies(
    tmp_path: Path, version_0_1: Path
) -> None:
    async def killed(name: str) -> dict[str, Any]:
        directory = tmp_path / f"{name}-dies"
        directory.mkdir()
        with deploying(directory, version_0_1) as running:
            holder = running[name]
            peer, socket = await a_stream(holder, holder)
            os.killpg(holder.process.pid, signal.SIGKILL)
            await socket.wait_closed()
            survivor = running.new if name == "old" else running.old
            return await receipt_of(survivor, peer.stream_sid)

    # Both wait for a lease to run out: side by side.
    for receipt in await asyncio.gather(killed("old"), killed("new")):
        assert (receipt["end_reason"], receipt["provisional"]) == ("lost", True)


def test_the_replicas_run_different_code(deployment: Deployment) -> None:
    old, new = (
        httpx.get(f"{service.url}/docs", verify=False).text
        for service in (deployment.old, deployment.new)
    )
    # What version 0.1 loaded from elsewhere, later versions serve themselves.
    assert "cdn.jsdelivr.net" in old
    assert "cdn.jsdelivr.net" not in new
