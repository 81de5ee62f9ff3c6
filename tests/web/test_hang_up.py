"""Calls that are over their plan's longest call, ended through a stand-in for Twilio's API."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI

from app.auth import TwilioSignatures
from app.events import EndReason
from app.session.accounts import OwnAccounts
from app.session.hangups import Hangups
from app.web.twilio_form import TwilioRequests
from app.web.voice import FINAL_STATUSES, VoiceDesk, voice_router
from tests.service import (
    WAIT_SECONDS,
    Service,
    a_call,
    a_peer,
    http_client,
    lines_with,
    logged_line,
    post,
    receipt_of,
    running_service,
    signature,
)
from tests.session.test_call import DIRECTORY, Parts
from tests.session.test_hangups import LATE, Carrier, admitted
from tests.twilio_stand_in import Answer, StandIn, standing_in
from tests.waiting import until
from tests.web.test_voice import parameters

ACCOUNT = "AC" + "0" * 32
TOKEN = "canary-auth-token"
CONNECTED, FORWARDED = "+15005550004", "+15005550008"


@asynccontextmanager
async def serving(
    tmp_path: Path, redis_url: str, answers: Sequence[Answer] = (Answer(),), **variables: str
) -> AsyncIterator[tuple[Service, StandIn]]:
    async with standing_in(answers) as stand_in:
        given = {
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": f"{TOKEN},an-older-one",
            "TWILIO_API_URL": f"{stand_in.url}/",
            "LOG_LEVEL": "DEBUG",
            **variables,
        }
        with running_service(tmp_path, redis_url, **given) as service:
            yield service, stand_in


async def outlive(service: Service, number: str, account_sid: str = ACCOUNT) -> str:
    """Place a call that goes on until its plan ends it; give its CallSid."""
    call = a_call(number)
    signed = {"X-Twilio-Signature": signature(service.url + "/twilio-voice", call, TOKEN)}
    answer = await post(service, "/twilio-voice", call, headers=signed)
    said = parameters(answer.text)
    signed = {"X-Twilio-Signature": signature(service.ws_url + "/twilio-media", token=TOKEN)}
    async with a_peer(service, headers=signed, call_sid=call["CallSid"]) as peer:
        await peer.start(said, account_sid=account_sid)
        await peer.media(5)
        assert await peer.closed() == (1000, "max_call_seconds")
    receipt = await receipt_of(service, peer.stream_sid)
    assert (receipt["published"], receipt["end_reason"]) == (5, "max_call_seconds")
    return call["CallSid"]


async def counted(service: Service, outcome: str) -> bool:
    async with http_client() as client:
        metrics = (await client.get(f"{service.url}/metrics")).text
    series = f'bridge_twilio_requests_total{{outcome="{outcome}",what="end_call"}} 1.0'
    return series in metrics


async def test_a_forwarded_call_ends_with_its_stream(tmp_path: Path, redis_url: str) -> None:
    async with serving(tmp_path, redis_url) as (service, stand_in):
        call_sid = await outlive(service, FORWARDED)
        await logged_line(service, f"[Twilio] Call {call_sid} ended")
        [asked] = stand_in.asked
        assert asked.path == f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{call_sid}.json"
        assert asked.credentials == f"{ACCOUNT}:{TOKEN}"
        await until(lambda: counted(service, "done"))
        log = service.logged()
    assert TOKEN not in log
    assert base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode() not in log
    assert not lines_with(log, "TWILIO_ACCOUNT_SID is not set")


async def test_a_call_that_is_only_listened_to_is_left_to_its_twiml(
    tmp_path: Path, redis_url: str
) -> None:
    async with serving(tmp_path, redis_url) as (service, stand_in):
        await outlive(service, CONNECTED)
        await asyncio.sleep(0.5)
        assert await asyncio.to_thread(service.stop) == 0
        assert stand_in.asked == []


async def test_another_accounts_call_and_one_by_hand_are_left_alone(
    tmp_path: Path, redis_url: str
) -> None:
    async with serving(tmp_path, redis_url, ALLOW_UNSIGNED="true") as (service, stand_in):
        await outlive(service, FORWARDED, account_sid="AC" + "9" * 32)
        await until(lambda: counted(service, "no_credentials"))
        path = "/twilio-media?businessId=short-forwarding"
        async with a_peer(service, path, headers={}) as peer:
            await peer.start(account_sid=ACCOUNT)
            assert await peer.closed() == (1000, "max_call_seconds")
        await receipt_of(service, peer.stream_sid)
        assert await asyncio.to_thread(service.stop) == 0
        assert stand_in.asked == []


async def test_neither_receipt_nor_exit_waits_for_twilio(tmp_path: Path, redis_url: str) -> None:
    async with serving(tmp_path, redis_url, [Answer(delay=60)]) as (service, stand_in):
        await outlive(service, FORWARDED)
        await until(lambda: stand_in.under_way)
        assert await asyncio.to_thread(service.stop) == 0


async def test_without_an_account_sid_the_start_says_what_will_not_work(
    tmp_path: Path, redis_url: str
) -> None:
    async with serving(tmp_path, redis_url, TWILIO_ACCOUNT_SID="") as (service, stand_in):
        assert lines_with(service.logged(), "TWILIO_ACCOUNT_SID is not set", "max_call_seconds")
        await outlive(service, FORWARDED)
        await until(lambda: counted(service, "no_credentials"))
        assert stand_in.asked == []


async def test_a_call_whose_end_twilio_has_told_is_not_ended_again() -> None:
    parts, carrier = Parts(), Carrier()
    await parts.store.load_if_empty(DIRECTORY)
    bridge, hangups = parts.bridge, Hangups(carrier, twiml_seconds=LATE)
    bases = ("http://bridge", "ws://bridge")
    requests = TwilioRequests(
        TwilioSignatures([], *bases),
        OwnAccounts(parts.store, None),
        bridge.metrics,
        waive_unsigned=True,
    )
    desk = VoiceDesk(
        requests, bridge.reception, parts.registry, bridge.herald, hangups, *bases, mask_phone=str
    )
    app = FastAPI()
    app.include_router(voice_router(desk))
    before = asyncio.all_tasks()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://bridge"
    ) as client:
        for status in FINAL_STATUSES:
            hangups.hang_up(admitted("CA1"), EndReason.MAX_CALL_SECONDS)
            for told, waiting in (("in-progress", 1), (status, 0)):
                form = {"CallSid": "CA1", "CallStatus": told}
                path = "/twilio-status?businessId=b"
                assert (await client.post(path, data=form)).status_code == 204
                await asyncio.sleep(0.01)  # in which it would be ended that should not be
                await until(lambda waiting=waiting: len(asyncio.all_tasks() - before) == waiting)
    await hangups.close(WAIT_SECONDS)
