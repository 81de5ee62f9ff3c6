"""Deleting a business over real HTTP, on two replicas: what is erased, and what stays away."""

import asyncio
import json
import secrets
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from app.admin.access_keys import digest_of, new_key
from app.admin.audit_log import AuditLog
from app.admin.audit_redis import RedisAuditStore
from app.archive.library import Library
from app.archive.redis import RedisArchive
from app.errors import NotThere
from app.events import CallIdentity, LifecycleEvent
from app.pubsub.base import Announce, ListCall, NoteCall, OpenStream
from app.pubsub.redis_streams import RedisStreams
from app.records.business_erasure import BusinessErasure
from app.records.kept_data import RedisKeptData
from app.store.access import AccessKey
from app.store.redis import RedisStore
from app.store.redis_access import RedisAccess
from app.store.redis_configuration import RedisConfiguration
from app.tools.embedded import EmbeddedRedis
from tests.businesses import NUMBER
from tests.samples import a_record
from tests.service import (
    WAIT_SECONDS,
    Service,
    a_call,
    a_peer,
    post,
    receipt_of,
    running_service,
    started,
)
from tests.waiting import until
from tests.web.admins import TOKEN, Caller, bearer
from tests.web.test_voice import parameters

HISTORY_SECONDS = 3600
CALLER = "+12025550143"
KEPT = ("audio", "control", "stream")
# A wrong credential; of many from one address, further wrong ones are answered with 429.
REFUSED = (401, 429)
# An entry waits in the inbox until a replica signs it.
LOGS = {"audit", "held:{audit}:inbox"}
MARK = "seen-in-a-greeting-of-the-deleted"


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    """Give two replicas on one Redis."""
    directory = tmp_path_factory.mktemp("deletion")
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis(directory / "redis", persistent=False))
        made = []
        for name in ("one", "two"):
            place = directory / name
            place.mkdir()
            made.append(stack.enter_context(running_service(place, redis.url, ADMIN_TOKEN=TOKEN)))
        yield made[0], made[1]


async def a_call_that_is_over(service: Service, number: str = NUMBER) -> str:
    """Place a call with a little audio; return its CallSid."""
    form = a_call(number) | {"From": CALLER}
    answer = await post(service, "/twilio-voice", form)
    async with a_peer(service, call_sid=form["CallSid"]) as peer:
        await peer.start(parameters(answer.text))
        await started(service, peer.stream_sid)
        await peer.media(20)
        await peer.stop()
        await peer.closed()
    await receipt_of(service, peer.stream_sid)
    return form["CallSid"]


async def everything(service: Service) -> dict[str, str]:
    """Return every key of Redis with its content as text."""
    found = {}
    async with Redis.from_url(service.redis_url) as redis:
        async for key in redis.scan_iter():
            match await redis.type(key):
                case b"string":
                    content: Any = await redis.get(key)
                case b"hash":
                    content = await redis.hgetall(key)
                case b"list":
                    content = await redis.lrange(key, 0, -1)
                case b"set":
                    content = await redis.smembers(key)
                case b"zset":
                    content = await redis.zrange(key, 0, -1)
                case _:
                    content = await redis.xrange(key)
            found[key.decode()] = repr(content)
    return found


def a_business(replica: Service, number: str) -> str:
    """Create a business on a plan that is there; return its id."""
    business_id = f"shop-{secrets.token_hex(3)}"
    body = {"id": business_id, "name": "Shop", "plan": "premium", "numbers": [number]}
    answer = Caller(replica)("POST", "/businesses", {**body, "greeting": MARK})
    assert answer.status_code == 201, answer.text
    return business_id


async def test_nothing_is_left_of_a_deleted_business_on_any_replica(
    replicas: tuple[Service, Service],
) -> None:
    one, two = replicas
    shop, number = a_business(one, "+15005550041"), "+15005550041"
    operator = Caller(one)
    key = operator.new_key(shop)
    own = Caller(two, bearer(key["key"]))
    assert operator("PATCH", f"/businesses/{shop}", {"forward_to": ""}, "*").status_code == 200
    assert own("PATCH", f"/businesses/{shop}/secrets",
               {"twilio_auth_tokens": ["0123456789abcdef" * 2]}).status_code == 200  # fmt: skip
    sid, other = await a_call_that_is_over(one, number), await a_call_that_is_over(two)
    assert own("GET", f"/calls/{sid}/waveform").status_code == 200
    exported = own("GET", f"/businesses/{shop}/export.zip")
    assert exported.status_code == 200, exported.text
    answer = Caller(two)("DELETE", f"/businesses/{shop}", if_match="*")
    assert answer.status_code == 200, answer.text
    erased = {kind: part["count"] for kind, part in answer.json()["erased"].items()}
    assert (erased["calls"], erased["records"], erased["access_keys"]) == (1, 1, 1)
    assert erased["audio"] > 20
    for replica in replicas:
        ask = Caller(replica)
        assert ask("GET", f"/businesses/{shop}").status_code == 404
        assert ask("GET", f"/calls/{sid}").status_code == 404
        assert Caller(replica, bearer(key["key"]))("GET", "/me").status_code == 401
        again = ask("POST", "/businesses", {"id": shop, "name": "New", "plan": "premium"})
        assert (again.status_code, again.json()["error"]) == (409, "business_deleted")
        refused = await post(replica, "/twilio-voice", a_call(number))
        assert "<Stream" not in refused.text
        assert ask("DELETE", f"/businesses/{shop}", if_match="*").status_code == 404
        assert ask("GET", f"/calls/{other}").status_code == 200

    async def named() -> set[str]:
        found = await everything(one)
        return {
            key for key, content in found.items() if shop in key + content or sid in key + content
        }

    # That it was deleted, and what was done to it. A process lets go of an ended stream's lease
    # some seconds later.
    proofs = {f"live:{{{shop}}}:deleted", "businesses:{deleted}", "audit"}

    async def nothing_else_is_left() -> bool:
        return await named() == proofs

    await until(nothing_else_is_left)
    left = await everything(one)
    personal = [content for key, content in left.items() if key.endswith(":personal")]
    assert number not in str(personal)
    (proof,) = [one for one in operator("GET", "/audit?limit=100").json()["items"]
                if (one["action"], one["target"]) == ("business.deleted", shop)]  # fmt: skip
    assert proof["data"]["calls_count"] == 1
    assert proof["data"]["audio_count"] == erased["audio"]


async def test_a_business_is_exported_as_lines_and_with_its_recordings(
    replicas: tuple[Service, Service],
) -> None:
    one, _ = replicas
    shop, number = a_business(one, "+15005550042"), "+15005550042"
    key = Caller(one).new_key(shop)
    sid = await a_call_that_is_over(one, number)
    own = Caller(one, bearer(key["key"]))
    answer = own("GET", f"/businesses/{shop}/export.jsonl")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["kind"] for line in lines if line["kind"] != "audit"] == [
        "business",
        "usage",
        "access_key",
        "call",
        "end",
    ]
    (call,) = [line for line in lines if line["kind"] == "call"]
    assert (call["call_sid"], call["from"], call["to"]) == (sid, CALLER, number)
    assert {event["event"] for event in call["events"]} >= {"call.incoming", "stream.stopped"}
    assert key["key"] not in answer.text
    assert "exotel_pairs" not in lines[0]
    archive = zipfile.ZipFile(BytesIO(own("GET", f"/businesses/{shop}/export.zip").content))
    assert archive.testzip() is None
    (wav,) = [name for name in archive.namelist() if name.startswith(f"audio/{sid}/")]
    assert archive.read(wav) == own("GET", f"/calls/{sid}/audio.wav").content
    assert archive.read("records.jsonl").decode().splitlines()[0] == answer.text.splitlines()[0]
    for path in ("export.jsonl", "export.zip"):
        assert own("GET", f"/businesses/business-2/{path}").status_code == 404


async def test_a_business_with_a_live_call_is_not_deleted(
    replicas: tuple[Service, Service],
) -> None:
    one, two = replicas
    shop, number = a_business(one, "+15005550043"), "+15005550043"
    form = a_call(number)
    answer = await post(one, "/twilio-voice", form)
    async with a_peer(one, call_sid=form["CallSid"]) as peer:
        await peer.start(parameters(answer.text))
        await started(one, peer.stream_sid)
        refused = Caller(two)("DELETE", f"/businesses/{shop}", if_match="*")
        assert (refused.status_code, refused.json()["error"]) == (409, "business_has_calls")
        assert Caller(two)("GET", f"/businesses/{shop}").status_code == 200
        await peer.stop()
        await peer.closed()
    await receipt_of(one, peer.stream_sid)
    assert Caller(two)("DELETE", f"/businesses/{shop}", if_match="*").status_code == 200


async def test_a_status_callback_at_another_replica_opens_no_way_to_delete_a_live_business(
    replicas: tuple[Service, Service],
) -> None:
    one, two = replicas
    shop, number = a_business(one, "+15005550048"), "+15005550048"
    form = a_call(number)
    answer = await post(two, "/twilio-voice", form)
    async with (
        a_peer(two, call_sid=form["CallSid"]) as peer,
        Redis.from_url(one.redis_url) as redis,
    ):
        await peer.start(parameters(answer.text))
        await started(two, peer.stream_sid)
        await post(one, "/twilio-status", {**form, "CallStatus": "completed"})
        assert await redis.zcard(f"live:{{{shop}}}") == 1
        await redis.zrem(f"live:{{{shop}}}", form["CallSid"])  # as a replica of 0.1 does
        refused = Caller(one)("DELETE", f"/businesses/{shop}", if_match="*")
        assert (refused.status_code, refused.json()["error"]) == (409, "business_has_calls")
        # And if it were deleted all the same, its holder ends the stream.
        store = RedisStore.from_url(one.redis_url, WAIT_SECONDS)
        await redis.zrem(f"live:{{{shop}}}", form["CallSid"])
        await RedisConfiguration.delete_business(store, shop, None)
        await store.close()
        await redis.delete(*[f"{kind}:{{{peer.stream_sid}}}" for kind in KEPT])
        await peer.media(20)
        await peer.closed()
        await receipt_of(two, peer.stream_sid)
        for key in KEPT:
            assert await redis.ttl(f"{key}:{{{peer.stream_sid}}}") > 0, key
        again = Caller(one)("DELETE", f"/businesses/{shop}", if_match="*")
        assert again.status_code == 200, again.text
        assert await redis.keys(f"*{peer.stream_sid}*") == []


# --------------------------------------------------- interrupted, and late replicas


@pytest.fixture
async def erasure(replicas: tuple[Service, Service]) -> Any:
    """Give the parts of a process of its own on the replicas' Redis."""
    url = replicas[0].redis_url
    store, archive = RedisStore.from_url(url, WAIT_SECONDS), RedisArchive(url)
    access, kept = (
        RedisAccess.from_url(url, WAIT_SECONDS),
        RedisKeptData.from_url(url, WAIT_SECONDS),
    )
    logged = RedisAuditStore.from_url(url, WAIT_SECONDS).sign_with(None)
    audit = AuditLog(logged, time.time, time.monotonic)
    yield BusinessErasure(store, access, Library(archive), kept, store, audit, time.time)
    for one in (store, archive, access, kept, logged):
        await one.close()


async def test_an_interrupted_deletion_admits_no_calls_and_is_finished_by_the_next(
    replicas: tuple[Service, Service], erasure: BusinessErasure
) -> None:
    one, two = replicas
    shop, number = a_business(one, "+15005550044"), "+15005550044"
    sid = await a_call_that_is_over(one, number)
    store = RedisStore.from_url(one.redis_url, WAIT_SECONDS)
    await store.delete_business(shop, None)  # and here its process dies
    await store.close()
    refused = await post(two, "/twilio-voice", a_call(number))
    assert "<Stream" not in refused.text
    assert any(sid in key for key in await everything(one))
    answer = Caller(two)("DELETE", f"/businesses/{shop}", if_match='"1"')
    assert answer.status_code == 200, answer.text
    assert answer.json()["erased"]["calls"]["count"] == 1
    assert not any(sid in key + content for key, content in (await everything(one)).items()
                   if key != "audit")  # fmt: skip


async def test_a_replica_that_comes_back_late_does_not_bring_a_business_back(
    replicas: tuple[Service, Service], erasure: BusinessErasure
) -> None:
    one, _ = replicas
    shop = a_business(one, "+15005550045")
    assert Caller(one)("DELETE", f"/businesses/{shop}", if_match="*").status_code == 200
    pubsub = RedisStreams(one.redis_url, HISTORY_SECONDS)
    await pubsub.open()
    call = CallIdentity("CA-zz9late", "MZ-zz9late", shop, "premium", "twilio")
    at = int(time.time() * 1000)
    said = {"from": CALLER, "to": NUMBER}
    begun = LifecycleEvent("stream.started", "zz9late-1", at, call, said)
    record = replace(a_record(at), call=call)
    writes = (
        OpenStream("MZ-zz9late", record, 600),
        NoteCall(begun),
        ListCall(begun),
        Announce(begun),
    )
    await pubsub.write(writes)
    store = RedisStore.from_url(one.redis_url, WAIT_SECONDS)
    archive = RedisArchive(one.redis_url)
    with pytest.raises(NotThere):
        await archive.call(shop, "CA-zz9late")  # not for a moment
    await store.note_usage(shop, "2026-11", at, calls=["CA-zz9late"])
    await erasure.sweep()
    left = await everything(one)
    named = {
        key for key, content in left.items() if "zz9late" in key + content or shop in key + content
    } - LOGS
    assert named == {f"live:{{{shop}}}:deleted", "businesses:{deleted}"}
    for each in (pubsub, store, archive):
        await each.close()


async def test_keys_and_edits_during_a_deletion_do_not_outlive_it(
    replicas: tuple[Service, Service], erasure: BusinessErasure
) -> None:
    one, two = replicas
    shop = a_business(one, "+15005550046")
    operator, at_two = Caller(one), Caller(two)

    async def issue(n: int) -> Any:
        return await asyncio.to_thread(
            at_two, "POST", f"/businesses/{shop}/keys", {"label": f"key {n}"}
        )

    async def edit(n: int) -> Any:
        body = {"forward_to": f"+120255501{n:02}"}
        return await asyncio.to_thread(at_two, "PATCH", f"/businesses/{shop}", body, "*")

    asked = [asyncio.ensure_future(issue(n) if n % 2 else edit(n)) for n in range(30)]
    await asyncio.wait(asked[:6])
    gone = await asyncio.to_thread(operator, "DELETE", f"/businesses/{shop}", if_match="*")
    assert gone.status_code in (200, 409, 412), gone.text
    answers = await asyncio.gather(*asked)
    if gone.status_code != 200:  # an edit had come first
        assert operator("DELETE", f"/businesses/{shop}", if_match="*").status_code == 200
    for answer in answers:
        if "key" in answer.json():
            for replica in replicas:
                own = Caller(replica, bearer(answer.json()["key"]))
                assert own("GET", "/me").status_code in REFUSED
    await erasure.sweep()
    left = await everything(one)
    named = {key for key, content in left.items() if shop in key + content} - LOGS
    assert named == {f"live:{{{shop}}}:deleted", "businesses:{deleted}"}
    assert "+1202555010" not in str([left[key] for key in left if key.endswith(":personal")])


async def test_what_a_replica_of_0_1_adds_to_a_deleted_business_admits_nobody_and_is_swept(
    replicas: tuple[Service, Service], erasure: BusinessErasure
) -> None:
    one, _ = replicas
    shop = a_business(one, "+15005550047")
    assert Caller(one)("DELETE", f"/businesses/{shop}", if_match="*").status_code == 200
    made = new_key()
    key = AccessKey(made.id, shop, "late", digest_of(made.text), int(time.time() * 1000))
    async with Redis.from_url(one.redis_url) as redis:
        await redis.set(f"key:{{{key.digest}}}", f"{key.id} {shop}")
        await redis.hset(f"keys:{{{shop}}}", key.id, msgspec.json.encode(key))
        await redis.hset(f"business:{{{shop}}}:secrets", "exotel_pairs:at", "1")
        await redis.xadd(f"audit:{{{shop}}}", {"entry": "{}"})
    assert Caller(one, bearer(made.text))("GET", "/me").status_code in REFUSED
    await erasure.sweep()
    left = await everything(one)
    named = {k for k, content in left.items() if shop in k + content or key.digest in k}
    assert named - LOGS == {f"live:{{{shop}}}:deleted", "businesses:{deleted}"}


async def test_what_a_late_replica_counts_of_a_deleted_business_is_swept(
    replicas: tuple[Service, Service], erasure: BusinessErasure
) -> None:
    one, _ = replicas
    shop = a_business(one, "+15005550048")
    assert Caller(one)("DELETE", f"/businesses/{shop}", if_match="*").status_code == 200
    counts = "held:{audit}:counts"
    async with Redis.from_url(one.redis_url) as redis:
        for kind in ("made", "refused"):
            await redis.hincrby(counts, f"{kind} {shop}", 1)
        await redis.hincrby(counts, "made another", 1)
        await erasure.sweep()
        left = await redis.hkeys(counts)
    assert b"made another" in left
    assert not any(shop.encode() in field for field in left)
