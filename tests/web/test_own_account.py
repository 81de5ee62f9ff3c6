"""Businesses with a Twilio account of their own: what their tokens sign, and what not."""

import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from fastapi import Request
from websockets.exceptions import InvalidStatus

from app.auth import TwilioSignatures
from app.carriers.authorization import Authorization, Proof, Purpose
from app.credentials.sealing import Sealing
from app.metrics import Metrics
from app.plans import Business, Directory, Plan
from app.session.accounts import OwnAccounts
from app.store.memory import MemoryStore
from app.store.redis import RedisStore
from app.tools.embedded import EmbeddedRedis
from app.web.twilio_form import TwilioRequests
from tests.service import (
    TOKEN,
    Service,
    a_call,
    a_peer,
    events_of,
    lines_with,
    post,
    receipt_of,
    running_service,
    signature,
    started,
)
from tests.waiting import until
from tests.web.test_hang_up import serving
from tests.web.test_voice import parameters

SECRET_KEY = "s" * 32
A_SID, B_SID = "AC" + "a" * 32, "AC" + "b" * 32
A_TOKEN, A_OLD_TOKEN, B_TOKEN = "token-of-a", "older-token-of-a", "token-of-b"
A_NUMBER, B_NUMBER, C_NUMBER = "+15005551001", "+15005551002", "+15005551003"
A = Business("own-a", "A", "premium", (A_NUMBER,), twilio_account_sid=A_SID)
B = Business("own-b", "B", "premium", (B_NUMBER,), twilio_account_sid=B_SID)
# Without an account of its own.
C = Business("own-none", "C", "premium", (C_NUMBER,))
TOKENS = {A.id: f"{A_TOKEN},{A_OLD_TOKEN}", B.id: B_TOKEN}


async def give_accounts(redis_url: str, secret_key: str = SECRET_KEY) -> None:
    """Configure the three businesses, as an admin does."""
    store = RedisStore.from_url(redis_url, 20.0)
    for business in (A, B, C):
        if await store.stored_business(business.id):
            await store.save_business(business, None)
        else:
            await store.add_business(business)
    for business_id, tokens in TOKENS.items():
        sealed = Sealing((secret_key,)).seal(business_id, "twilio_auth_tokens", tokens)
        await store.save_secrets(business_id, {"twilio_auth_tokens": sealed})
    await store.close()


@pytest.fixture
async def accounts(service: Service) -> Service:
    """Give the service, on which two businesses have accounts of their own."""
    await give_accounts(service.redis_url)
    return service


def signed(url: str, form: dict[str, str] | None, token: str) -> dict[str, str]:
    return {"X-Twilio-Signature": signature(url, form, token)}


async def ask(service: Service, path: str, form: dict[str, str], token: str) -> tuple[int, str]:
    answer = await post(service, path, form, headers=signed(service.url + path, form, token))
    return answer.status_code, answer.text


# ----------------------------------------------------------------------- webhooks


@pytest.mark.parametrize("token", [A_TOKEN, A_OLD_TOKEN])
@pytest.mark.parametrize(
    ("query", "number"), [("", A_NUMBER), (f"?businessId={A.id}", "+19999999999")]
)
async def test_a_businesss_own_tokens_sign_for_its_calls(
    accounts: Service, token: str, query: str, number: str
) -> None:
    status, text = await ask(accounts, f"/twilio-voice{query}", a_call(number), token)
    assert status == 200
    assert parameters(text)["businessId"] == A.id
    stream = ElementTree.fromstring(text).find("Connect/Stream")
    assert stream is not None
    assert stream.get("url") == f"{accounts.ws_url}/twilio-media/{A.id}"


async def test_the_services_token_signs_for_any_business(accounts: Service) -> None:
    for number in (A_NUMBER, B_NUMBER, C_NUMBER):
        status, text = await ask(accounts, "/twilio-voice", a_call(number), TOKEN)
        stream = ElementTree.fromstring(text).find("Connect/Stream")
        assert status == 200
        assert stream is not None
        assert stream.get("url") == f"{accounts.ws_url}/twilio-media"


FOREIGN = {
    "another's number": ("", B_NUMBER),
    "another's id": (f"?businessId={B.id}", A_NUMBER),
    "another's id, then its own": (f"?businessId={B.id}&businessId={A.id}", A_NUMBER),
    "one that has no account": (f"?businessId={C.id}", A_NUMBER),
    "a number of one without": ("", C_NUMBER),
    "an id that nobody has": ("?businessId=nobody", A_NUMBER),
    "an id of another case": (f"?businessId={A.id.upper()}", A_NUMBER),
    "an id that is none": (f"?businessId={quote(A.id + '}')}", A_NUMBER),
    "a number that nobody has": ("", "+19999999999"),
    "a blank id, and another's number": ("?businessId=", B_NUMBER),
    "an id in another parameter": (f"?businessid={A.id}", B_NUMBER),
}
PATHS = ("/twilio-voice", "/twilio-dial", "/twilio-status", "/twilio-stream-status")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", FOREIGN)
async def test_a_businesss_token_signs_for_nothing_that_is_not_about_it(
    accounts: Service, path: str, kind: str
) -> None:
    query, number = FOREIGN[kind]
    # What a form says of a business counts for nothing.
    form = {**a_call(number), "businessId": A.id, "CallStatus": "completed"}
    status, text = await ask(accounts, path + query, form, A_TOKEN)
    assert status == 403
    assert "signature_invalid" in text
    assert await events_of(accounts, form["CallSid"]) == []


async def test_whose_a_request_is_is_fixed_when_its_signature_is_checked() -> None:
    """The number may become another's before the call is answered."""
    store, sealing = MemoryStore(time.monotonic), Sealing((SECRET_KEY,))
    await store.load_if_empty(Directory((Plan("premium"),), (A,)))
    sealed = sealing.seal(A.id, "twilio_auth_tokens", A_TOKEN)
    await store.save_secrets(A.id, {"twilio_auth_tokens": sealed})
    requests = TwilioRequests(
        TwilioSignatures([TOKEN], "https://bridge", "wss://bridge"),
        OwnAccounts(store, sealing),
        Metrics(),
        waive_unsigned=False,
    )
    query = f"CallSid=CA1&To={quote(A_NUMBER)}"
    right = signature(f"https://bridge/twilio-voice?{query}", token=A_TOKEN)
    scope = {
        **{"type": "http", "method": "GET", "path": "/twilio-voice"},
        **{"query_string": query.encode(), "headers": [(b"x-twilio-signature", right.encode())]},
    }
    said = await requests.read(Request(scope), Purpose.ANSWER_CALL)
    own = Authorization(Proof.TWILIO_BUSINESS, Purpose.ANSWER_CALL, A.id)
    assert said.authorization == own


async def test_of_two_ids_the_first_counts_for_whoever_reads_it(accounts: Service) -> None:
    path = f"/twilio-voice?businessId={A.id}&businessId={B.id}"
    status, text = await ask(accounts, path, a_call(B_NUMBER), A_TOKEN)
    assert status == 200
    said = parameters(text)
    assert said["businessId"] == A.id


async def test_a_callback_of_an_own_account_is_an_event_of_its_business_alone(
    accounts: Service,
) -> None:
    """Another business's call is named, by its CallSid: nothing of it changes."""
    others = a_call(B_NUMBER)
    status, text = await ask(accounts, "/twilio-voice", others, B_TOKEN)
    assert status == 200
    form = {**others, "To": A_NUMBER, "CallStatus": "completed"}
    assert (await ask(accounts, "/twilio-status", form, A_TOKEN))[0] == 204
    # The other business's slot is held still, and its ticket admits its stream.
    path = f"/twilio-media/{B.id}"
    headers = signed(accounts.ws_url + path, None, B_TOKEN)
    async with a_peer(accounts, path, headers=headers, call_sid=others["CallSid"]) as peer:
        await peer.start(parameters(text))
        await peer.media()
        await started(accounts, peer.stream_sid)
        await peer.stop()
        await peer.closed()


async def test_a_call_that_another_business_named_before_is_announced(accounts: Service) -> None:
    call = a_call(A_NUMBER)
    assert (await ask(accounts, "/twilio-voice", call, A_TOKEN))[0] == 200
    assert (await ask(accounts, "/twilio-voice", {**call, "To": B_NUMBER}, B_TOKEN))[0] == 200
    events = await events_of(accounts, call["CallSid"], at_least=2)
    assert [name for name, _ in events] == ["call.incoming"] * 2


# --------------------------------------------------------------------- handshakes


async def test_a_stream_of_an_own_account_is_admitted_by_its_path(accounts: Service) -> None:
    call = a_call(A_NUMBER)
    _, text = await ask(accounts, "/twilio-voice", call, A_TOKEN)
    path = f"/twilio-media/{A.id}"
    headers = signed(accounts.ws_url + path, None, A_OLD_TOKEN)
    async with a_peer(accounts, path, headers=headers, call_sid=call["CallSid"]) as peer:
        await peer.start(parameters(text))
        await peer.media(3)
        await peer.stop()
        assert await peer.closed() == (1000, "stop")
    assert (await receipt_of(accounts, peer.stream_sid))["published"] == 3


@pytest.mark.parametrize(
    ("path", "token"),
    [
        ("/twilio-media", A_TOKEN),
        ("/twilio-media/", A_TOKEN),
        (f"/twilio-media?businessId={A.id}", A_TOKEN),
        (f"/twilio-media/{B.id}", A_TOKEN),
        (f"/twilio-media/{B.id}?businessId={A.id}", A_TOKEN),
        (f"/twilio-media/{C.id}", A_TOKEN),
        ("/twilio-media/nobody", A_TOKEN),
        ("/twilio-media/nobody", ""),
        (f"/twilio-media/{A.id}", B_TOKEN),
        (f"/twilio-media/{A.id}", ""),
        (f"/twilio-media/{C.id}", ""),
    ],
)
async def test_a_handshake_that_a_foreign_token_signed_is_refused(
    accounts: Service, path: str, token: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with a_peer(accounts, path, headers=signed(accounts.ws_url + path, None, token)):
            pass
    assert refused.value.response.status_code == 403


async def test_another_businesss_ticket_admits_no_stream_of_an_own_account(
    accounts: Service,
) -> None:
    call = a_call(B_NUMBER)
    _, text = await ask(accounts, "/twilio-voice", call, B_TOKEN)
    path = f"/twilio-media/{A.id}"
    for query in ("", f"?businessId={B.id}"):
        url = accounts.ws_url + path + query
        headers = signed(url, None, A_TOKEN)
        async with a_peer(
            accounts, path + query, headers=headers, call_sid=call["CallSid"]
        ) as peer:
            await peer.start(parameters(text))
            code, _ = await peer.closed()
            assert code == 1008


# ------------------------------------------------------------------------- secrets


async def test_a_token_that_was_replaced_signs_no_more_within_a_second(
    accounts: Service,
) -> None:
    store = RedisStore.from_url(accounts.redis_url, 20.0)
    assert (await ask(accounts, "/twilio-voice", a_call(A_NUMBER), A_TOKEN))[0] == 200
    sealed = Sealing((SECRET_KEY,)).seal(A.id, "twilio_auth_tokens", "newest")
    await store.save_secrets(A.id, {"twilio_auth_tokens": sealed})
    await store.close()

    async def answered(token: str, status: int) -> bool:
        return (await ask(accounts, "/twilio-voice", a_call(A_NUMBER), token))[0] == status

    await until(lambda: answered(A_TOKEN, 403))
    assert await answered("newest", 200)


async def test_with_another_secret_key_calls_go_on_without_own_tokens(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis", persistent=False) as redis:
        with running_service(tmp_path, redis.url, SECRET_KEY="t" * 32) as service:
            await give_accounts(redis.url)
            for _ in range(3):
                status, _ = await ask(service, "/twilio-voice", a_call(A_NUMBER), A_TOKEN)
                assert status == 403
                status, _ = await ask(service, "/twilio-voice", a_call(A_NUMBER), TOKEN)
                assert status == 200
            log = service.logged()
            assert len(lines_with(log, f"Business {A.id} has no auth tokens", "SECRET_KEY")) == 1
            for secret in (*TOKENS.values(), A_TOKEN, "Traceback", "v1."):
                assert secret not in log


async def test_calls_of_an_own_account_are_ended_by_its_own_token_alone(
    tmp_path: Path, redis_url: str
) -> None:
    """A stream that its own token signed never borrows the service's credentials."""
    account, service_sid = replace(A, plan="short", forward_to="+14155550199"), "AC" + "0" * 32
    async with serving(tmp_path, redis_url, TWILIO_ACCOUNT_SID=service_sid) as (service, twilio):
        await give_accounts(redis_url)
        store = RedisStore.from_url(redis_url, 20.0)
        await store.save_business(account, None)
        await store.close()
        for named_account in (service_sid, B_SID, A_SID):
            call = a_call(A_NUMBER)
            _, text = await ask(service, "/twilio-voice", call, A_TOKEN)
            path = f"/twilio-media/{A.id}"
            headers = signed(service.ws_url + path, None, A_TOKEN)
            async with a_peer(service, path, headers=headers, call_sid=call["CallSid"]) as peer:
                await peer.start(parameters(text), account_sid=named_account)
                assert await peer.closed() == (1000, "max_call_seconds")
            await receipt_of(service, peer.stream_sid)
        await until(lambda: bool(twilio.asked))
        assert [asked.credentials for asked in twilio.asked] == [f"{A_SID}:{A_TOKEN}"]
        assert twilio.asked[0].path.endswith(f"/{call['CallSid']}.json")
