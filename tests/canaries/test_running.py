"""No secret leaves a running service: not in logs, answers or metrics, nor in Redis."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import jwt
import pytest
from redis import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.tools.embedded import EmbeddedRedis
from app.wire import exotel
from tests.businesses import BUSINESSES, business
from tests.canaries.drive import (
    CALLED,
    CALLER,
    TOKENS,
    Drive,
    allow_service,
    basic,
    messages,
)
from tests.canaries.watch import OWN_PAIR, REDIS_USER, SETTINGS, Watch, canary
from tests.service import NUMBER, WAIT_SECONDS, lines_with, post, running_service

ADMIN = "admin-password"


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    directory = tmp_path_factory.mktemp("canaries")
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis(directory / "redis", persistent=False))
        place = server.url.partition("@")[2]
        url = f"redis://{REDIS_USER}:{SETTINGS['REDIS_URL']}@{place}"
        admin = Redis.from_url(server.url)
        allow_service(admin, SETTINGS["REDIS_URL"])
        admin.config_set("requirepass", ADMIN)
        admin = Redis.from_url(f"redis://:{ADMIN}@{place}")
        businesses = directory / "own.toml"
        own = business("own", "tiny", CALLED, exotel_pairs=[OWN_PAIR])
        businesses.write_text(BUSINESSES + own)
        variables = {**SETTINGS, "BUSINESSES_FILE": str(businesses), "REDIS_URL": url}
        with running_service(
            directory,
            url,
            **variables,
            SUPPORT_EXOTEL="true",
            LOG_LEVEL="DEBUG",
        ) as service:
            secrets = [one for value in SETTINGS.values() for one in value.split(",")]
            watch = Watch([*secrets, *OWN_PAIR.split(":"), ADMIN, url])
            yield Drive(service, admin, watch)
            # Its Redis may be gone, for which it would wait.
            service.process.send_signal(signal.SIGKILL)


async def test_calls_that_are_served_tell_no_secret(drive: Drive) -> None:
    watch = drive.watch
    given = await drive.call(1)
    assert await drive.stream(messages(given, "MZ1"), Cookie=watch.keep(canary("cookie"))) == "stop"
    older = await drive.call(2, token=TOKENS[1])
    assert await drive.stream(messages(older, "MZ2")) == "stop"

    pair = f"{SETTINGS['EXOTEL_API_KEY']}:{SETTINGS['EXOTEL_API_TOKEN']}"
    for number, credentials in enumerate((pair, OWN_PAIR)):
        sid = f"ex{number}"
        start = exotel.start_message(sid, sid, from_number=CALLER, to_number=NUMBER)
        said: list[str | bytes] = [start, b"\x00\x00" * 800, exotel.dtmf_message(sid, "7", seq=3)]
        end = await drive.ingest(
            [*said, exotel.stop_message(sid, sid, seq=4)], **basic(credentials)
        )
        assert end == "stop"
    async with drive.client() as client:
        answer = await client.get("/exotel-stream-url", headers=basic(pair), params={"To": NUMBER})
    query = answer.json()["url"].partition("?")[2]
    ticket = query.partition("ticket=")[2]
    for part in [ticket, *ticket.split(".")[1:]]:
        watch.keep(part)
    start = exotel.start_message("ex9", "ex9", from_number=CALLER)
    assert await drive.ingest([start, '{"event":"stop"}'], f"?{query}") == "stop"

    claims = {"tenant_id": "business-1", "interaction_id": "int-1", "exp": time.time() + 60}
    token = watch.keep(jwt.encode(claims, SETTINGS["JWT_SECRET"], algorithm="HS256"))
    watch.keep(token.rpartition(".")[2])
    own: list[str | bytes] = [
        '{"event":"start","sample_rate":8000}',
        b"\x00\x00" * 800,
        '{"event":"stop"}',
    ]
    assert await drive.ingest(own, Authorization=f"Bearer {token}") == "stop"

    await drive.verify_metrics()
    drive.verify()
    drive.verify_redis()
    assert not lines_with(drive.service.logged().lower(), "digit")
    assert not lines_with(drive.service.logged().lower(), "dtmf")


async def test_refusals_tell_no_secret(drive: Drive) -> None:
    secret = drive.watch.keep
    given = await drive.call(3)
    await drive.stream(messages(given, "MZ3"))
    await drive.stream(messages(given, "MZ4"))  # the ticket is spent
    forged = {**given, "ticket": secret(canary("forged-ticket"))}
    await drive.stream(messages(forged, "MZ5"))
    await drive.stream(messages({**given, "callSid": "CA9"}, "MZ6"))
    async with drive.client() as client:
        for name in (
            "Authorization",
            "Proxy-Authorization",
            "Cookie",
            "X-Api-Key",
            "X-Auth-Token",
            "X-Twilio-Signature",
            "X-Goog-Iap-Jwt-Assertion",
        ):
            for path in ("/twilio-media", "/v1/ingest", "/twilio-voice", "/metrics", "/nowhere"):
                plain = secret(canary(f"plain-{name.lower()}"))
                for value in (plain, f"Bearer {plain}", f"Basic {plain}", f"{plain} x"):
                    await client.get(path, headers={name: value})
                    await client.post(path, headers={name: value}, data={"CallSid": "CA1"})
        for name in ("token", "ticket", "signature", "password", "Digits", "x"):
            for path in ("/twilio-media", "/v1/ingest", "/exotel-stream-url", "/health/ready"):
                value = secret(canary(f"query-{name.lower()}"))
                await client.get(path, params={name: value})
                await client.get(path, headers={"Referer": f"https://x.example/?{name}={value}"})
                await client.get(f"{path}?{value}")
    pair = f"{SETTINGS['EXOTEL_API_KEY']}:{secret(canary('wrong-token'))}"
    await drive.ingest([], **basic(pair))
    await drive.ingest([], **basic(pair.replace(":", "")))
    await drive.ingest([], f"?ticket={secret(canary('ticket-in-url'))}")
    await drive.ingest([], **{"Sec-WebSocket-Protocol": secret(canary("subprotocol"))})
    for claims in ({}, {"exp": 1, "tenant_id": "t"}, {"exp": time.time() + 60}):
        for key in (SETTINGS["JWT_SECRET"], "another-secret-of-32-characters!"):
            token = secret(jwt.encode({**claims, "x": canary("claim")}, key, algorithm="HS256"))
            await drive.ingest([], Authorization=f"Bearer {token}")
            await drive.ingest([], Authorization=f"Bearer {token}x")
    drive.verify()
    await drive.verify_metrics()
    drive.verify_redis()


async def test_messages_that_cannot_be_used_tell_no_secret(drive: Drive) -> None:
    secret = drive.watch.keep(canary("message"))
    start = {"streamSid": "MZ7", "callSid": "CA7", "customParameters": {"ticket": secret}}
    for broken in (
        {"event": "start", "start": start},
        {"event": "start", "start": {**start, "mediaFormat": {"encoding": secret}}},
        {"event": "start", "start": {**start, "streamSid": secret + "/"}},
        {"event": "start", "start": {**start, "callSid": [secret]}},
        {"event": secret, "token": secret},
        {"event": "start", "start": secret},
    ):
        text = json.dumps(broken)
        for message in (text, text[:-1], text.encode(), "[" + text, text + secret):
            await drive.stream([message, '{"event":"start"}'])
            await drive.ingest(
                [message, '{"event":"start","sample_rate":1}'],
                **basic(f"{SETTINGS['EXOTEL_API_KEY']}:{SETTINGS['EXOTEL_API_TOKEN']}"),
            )
    drive.verify()
    drive.verify_redis()


async def test_faults_of_redis_tell_no_secret(drive: Drive) -> None:
    password = SETTINGS["REDIS_URL"]
    wrong = drive.watch.keep(canary("new-redis-password"))
    faults = {"auth": (wrong, "+@all"), "noperm": (password, "+@all -xadd -multi")}
    for number, (kind, (now, rights)) in enumerate(faults.items()):
        given = await drive.call(40 + number)
        drive.login(now, rights)
        live = asyncio.create_task(drive.stream(messages(given, f"MZ4{number}", frames=20)))
        await drive.fails(kind)
        async with drive.client() as client:
            await client.get("/health/ready")
            form = {"CallSid": f"CA4{number}x", "From": CALLER, "To": NUMBER}
            await client.post(
                "/twilio-voice",
                content=urlencode(form),
                headers=drive.signed("/twilio-voice", form),
            )
        before = drive.service.logged().count("Publishing again")
        drive.login(password)
        async with asyncio.timeout(WAIT_SECONDS):
            await live
            while drive.service.logged().count("Publishing again") == before:
                await asyncio.sleep(0.05)
    drive.verify()
    await drive.verify_metrics()
    drive.verify_redis()


async def test_a_redis_that_is_gone_tells_no_secret(drive: Drive) -> None:
    given = await drive.call(50)
    drive.redis.shutdown(nosave=True)
    await drive.stream(messages(given, "MZ50"))
    async with drive.client() as client:
        await client.get("/health/ready")
        form = {"CallSid": "CA51", "From": CALLER, "To": NUMBER}
        headers = drive.signed("/twilio-voice", form)
        await client.post("/twilio-voice", content=urlencode(form), headers=headers)
        await client.get("/exotel-stream-url", headers=basic(OWN_PAIR))
    await drive.fails("connection")
    drive.verify()
    await drive.verify_metrics()


async def test_an_issuers_address_is_no_line_of_the_log_and_a_number_only_on_demand(
    tmp_path: Path, redis_url: str
) -> None:
    secret = canary("jwks")
    url = f"http://user:{secret}@127.0.0.1:1/jwks?key={secret}"
    variables = {"JWT_JWKS_URL": url, "LOG_PHONE_NUMBERS": "full", "LOG_LEVEL": "DEBUG"}
    with running_service(tmp_path, redis_url, **variables) as service:
        token = jwt.encode({}, "k" * 32, algorithm="HS256", headers={"kid": "k"})
        headers = {"Authorization": f"Bearer {token}"}
        with pytest.raises(InvalidStatus):
            await connect(f"{service.ws_url}/v1/ingest", additional_headers=headers)
        assert lines_with(service.logged(), "JWT_JWKS_URL gave no keys")
        assert secret not in service.logged()
        await post(service, "/twilio-voice", {"CallSid": "CA1", "From": CALLER, "To": NUMBER})
        assert lines_with(service.logged(), "[Voice Webhook]", CALLER)
