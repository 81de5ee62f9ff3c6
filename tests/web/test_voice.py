"""The voice webhook and the callbacks, asked over HTTP as Twilio asks them."""

from xml.etree import ElementTree

import httpx
import pytest

from app.plans import NOT_ANSWERED
from tests.service import (
    NUMBER,
    TOKEN,
    Service,
    a_call,
    a_peer,
    events_of,
    http_client,
    lines_with,
    post,
    signature,
    started,
)


def parameters(document: str) -> dict[str, str]:
    root = ElementTree.fromstring(document)
    return {item.get("name", ""): item.get("value", "") for item in root.iter("Parameter")}


def verbs(document: str) -> list[str]:
    return [child.tag for child in ElementTree.fromstring(document)]


async def test_a_call_is_answered_with_a_stream_of_its_business(service: Service) -> None:
    call = a_call()
    answer = await post(service, "/twilio-voice", call)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/xml")
    stream = ElementTree.fromstring(answer.text).find("Connect/Stream")
    assert stream is not None
    assert stream.get("url") == f"{service.ws_url}/twilio-media"
    callback = stream.get("statusCallback", "")
    assert callback == f"{service.url}/twilio-stream-status?businessId=business-1"
    said = parameters(answer.text)
    assert said.pop("ticket")
    assert said == {
        "businessId": "business-1",
        "callSid": call["CallSid"],
        "plan": "premium",
        "from": "+12763659195",
        "to": NUMBER,
    }
    assert verbs(answer.text) == ["Connect", "Say", "Hangup"]


async def test_a_business_that_forwards_gets_a_stream_beside_the_call(service: Service) -> None:
    answer = await post(service, "/twilio-voice", a_call("+15005550003"))
    root = ElementTree.fromstring(answer.text)
    stream, dial = root.find("Start/Stream"), root.find("Dial")
    assert stream is not None
    assert dial is not None
    assert stream.get("track") == "both_tracks"
    assert dial.findtext("Number") == "+14155550199"
    assert dial.get("action", "").startswith(f"{service.url}/twilio-dial")
    assert dial.get("timeLimit") == "3600"
    # Nobody is heard before they were told.
    assert verbs(answer.text) == ["Say", "Say", "Start", "Dial"]
    assert [say.text for say in root.iter("Say")] == ["Hello & welcome", "This call is recorded."]


async def test_the_webhook_may_come_by_get_and_name_the_business(service: Service) -> None:
    query = "?businessId=business-1&CallSid=CAget&From=anonymous&To=%2B19999999999"
    url = f"{service.url}/twilio-voice{query}"
    async with http_client() as client:
        answer = await client.get(url, headers={"X-Twilio-Signature": signature(url)})
    assert parameters(answer.text)["businessId"] == "business-1"


SIGNATURES = {
    "missing": {},
    "wrong": {"X-Twilio-Signature": "d3Jvbmc="},
    "of another token": {"X-Twilio-Signature": "other token"},
    "empty": {"X-Twilio-Signature": ""},
}


@pytest.mark.parametrize("name", SIGNATURES)
async def test_a_request_twilio_did_not_sign_is_forbidden(service: Service, name: str) -> None:
    call = a_call()
    headers = dict(SIGNATURES[name])
    if name == "of another token":
        url = f"{service.url}/twilio-voice"
        headers["X-Twilio-Signature"] = signature(url, call, token="54321")
    answer = await post(service, "/twilio-voice", call, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"] in ("signature_missing", "signature_invalid")
    assert await events_of(service, call["CallSid"]) == []


@pytest.mark.parametrize("value", [b"\xff\xfe", "ä".encode(), b"x" * 9000])
async def test_any_bytes_as_a_signature_are_forbidden(service: Service, value: bytes) -> None:
    async with http_client() as client:
        answer = await client.post(
            f"{service.url}/twilio-voice",
            content="CallSid=CA1",
            headers=[
                (b"content-type", b"application/x-www-form-urlencoded"),
                (b"x-twilio-signature", value),
            ],
        )
    assert answer.status_code == 403


async def test_a_doubled_signature_is_forbidden_though_both_are_right(service: Service) -> None:
    call = a_call()
    right = signature(f"{service.url}/twilio-voice", call).encode()
    async with http_client() as client:
        answer = await client.post(
            f"{service.url}/twilio-voice",
            content=httpx.QueryParams(call).__str__(),
            headers=[
                (b"content-type", b"application/x-www-form-urlencoded"),
                (b"x-twilio-signature", right),
                (b"x-twilio-signature", right),
            ],
        )
    assert answer.status_code == 403


async def test_the_signature_is_over_public_url_not_over_headers(service: Service) -> None:
    call = a_call()
    forged = signature("http://evil.example/twilio-voice", call)
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    answer = await post(
        service, "/twilio-voice", call, headers={**headers, "X-Twilio-Signature": forged}
    )
    assert answer.status_code == 403


async def test_an_unknown_number_hears_a_polite_word(service: Service) -> None:
    call = a_call("+19999999999")
    answer = await post(service, "/twilio-voice", call)
    assert answer.status_code == 200
    assert verbs(answer.text) == ["Say", "Hangup"]
    events = await events_of(service, call["CallSid"], at_least=1)
    assert [(name, data["reason"]) for name, data in events] == [
        ("call.rejected", "unknown_business")
    ]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        pytest.param(b"CallSid=%ff%fe", "application/x-www-form-urlencoded", id="not UTF-8"),
        pytest.param(b"\xff\xfe", "application/x-www-form-urlencoded", id="not ASCII"),
        pytest.param(b"From=1", "application/x-www-form-urlencoded", id="no CallSid"),
        pytest.param(b"CallSid=", "application/x-www-form-urlencoded", id="blank CallSid"),
        pytest.param(b"CallSid=a%0Ab", "application/x-www-form-urlencoded", id="no id"),
        pytest.param(b"{}", "application/json", id="JSON"),
        pytest.param(b"a=b&" * 500, "application/x-www-form-urlencoded", id="500 fields"),
        pytest.param(b"a=" + b"x" * 70_000, "application/x-www-form-urlencoded", id="70 kB"),
    ],
)
async def test_a_malformed_form_is_a_bad_request(
    open_service: Service, content: bytes, kind: str
) -> None:
    async with http_client() as client:
        answer = await client.post(
            f"{open_service.url}/twilio-voice", content=content, headers={"Content-Type": kind}
        )
    assert answer.status_code == 400
    assert answer.json()["error"] == "malformed_request"


async def test_a_call_over_the_plans_limit_hears_that_it_is_busy(service: Service) -> None:
    first, second = a_call("+15005550002"), a_call("+15005550002")
    assert "Stream" in (await post(service, "/twilio-voice", first)).text
    refused = await post(service, "/twilio-voice", second)
    assert ElementTree.fromstring(refused.text).findtext("Say") == "All our lines are taken."
    again = await post(service, "/twilio-voice", first)
    assert "Stream" in again.text
    await post(service, "/twilio-status", {**first, "CallStatus": "completed"})
    assert "Stream" in (await post(service, "/twilio-voice", second)).text
    await post(service, "/twilio-status", {**second, "CallStatus": "completed"})


async def test_a_call_that_comes_too_fast_is_rejected_as_busy(service: Service) -> None:
    first, second = a_call("+15005550007"), a_call("+15005550007")
    for _ in range(2):
        assert "Stream" in (await post(service, "/twilio-voice", first)).text
    refused = await post(service, "/twilio-voice", second)
    assert refused.status_code == 200
    assert ElementTree.fromstring(refused.text)[0].attrib == {"reason": "busy"}
    assert lines_with(service.logged(), second["CallSid"], "refused: call_rate_exceeded")


async def test_a_webhook_that_comes_twice_is_one_call_with_a_fresh_ticket(
    service: Service,
) -> None:
    call = a_call()
    first, second = [
        parameters((await post(service, "/twilio-voice", call)).text)["ticket"] for _ in range(2)
    ]
    assert first != second
    events = await events_of(service, call["CallSid"], at_least=1)
    assert [name for name, _ in events] == ["call.incoming"]
    await post(service, "/twilio-status", {**call, "CallStatus": "completed"})


async def test_while_a_stream_of_the_call_is_live_there_is_no_other_ticket(
    service: Service,
) -> None:
    call = a_call()
    said = parameters((await post(service, "/twilio-voice", call)).text)
    async with a_peer(service, call_sid=call["CallSid"]) as peer:
        await peer.start(said)
        await peer.media()
        await started(service, peer.stream_sid)
        again = await post(service, "/twilio-voice", call)
        assert "ticket" not in parameters(again.text)
        await peer.stop()
        await peer.closed()


async def test_callbacks_become_lifecycle_events(service: Service) -> None:
    call = a_call()
    status = {**call, "CallStatus": "completed", "CallDuration": "12"}
    assert (await post(service, "/twilio-status", status)).status_code == 204
    failed = {
        **call,
        "StreamSid": "MZ1",
        "StreamEvent": "stream-error",
        "StreamError": "31921 closed",
    }
    path = "/twilio-stream-status?businessId=business-1"
    assert (await post(service, path, failed)).status_code == 204
    events = await events_of(service, call["CallSid"], at_least=2)
    assert events == [
        ("call.status", {"status": "completed", "duration": "12"}),
        ("stream.error", {"error": "31921 closed"}),
    ]


async def test_what_a_request_names_is_cut_before_it_is_announced(service: Service) -> None:
    call = {**a_call(), "From": "+1" + "5" * 50_000}
    assert (await post(service, "/twilio-voice", call)).status_code == 200
    failed = {**a_call(), "StreamEvent": "stream-error", "StreamError": "x" * 60_000}
    assert (await post(service, "/twilio-stream-status", failed)).status_code == 204
    status = {**a_call(), "CallStatus": "r" * 50_000, "CallDuration": "1" * 5000}
    assert (await post(service, "/twilio-status", status)).status_code == 204
    (incoming,) = await events_of(service, call["CallSid"])
    assert incoming[1]["from"] == "+1" + "5" * 125 + "…"
    assert incoming[1]["to"] == NUMBER
    (error,) = await events_of(service, failed["CallSid"])
    assert error[1] == {"error": "x" * 999 + "…"}
    (progress,) = await events_of(service, status["CallSid"])
    assert progress[1] == {"status": "r" * 63 + "…", "duration": "1" * 19 + "…"}


async def test_a_number_that_is_too_long_is_nobodys(service: Service) -> None:
    call = a_call(NUMBER + "0" * 200)
    answer = await post(service, "/twilio-voice", call)
    assert verbs(answer.text)[-1] in ("Reject", "Hangup")
    (rejected,) = await events_of(service, call["CallSid"])
    assert rejected[1]["reason"] == "unknown_business"
    assert len(rejected[1]["to"]) == 128


async def test_a_call_is_not_forwarded_where_the_plan_does_not_allow(service: Service) -> None:
    call = a_call("+15005550010")
    answer = await post(service, "/twilio-voice", call)
    assert verbs(answer.text) == ["Say", "Hangup"]
    assert ElementTree.fromstring(answer.text).findtext("Say") == "Nobody can be reached."
    [(name, data)] = await events_of(service, call["CallSid"])
    assert (name, data["reason"]) == ("call.rejected", "destination_not_allowed")
    log = service.logged()
    assert "Calls of offshore cannot be forwarded: forward_to is in JM; the plan allows US" in log
    assert "business offshore: its calls cannot be forwarded" in log  # already at the start
    assert "5550199" not in log


@pytest.mark.parametrize(
    ("status", "expected"), [("completed", ["Hangup"]), ("no-answer", ["Say", "Hangup"])]
)
async def test_the_end_of_a_forwarded_call_has_an_answer(
    service: Service, status: str, expected: list[str]
) -> None:
    answer = await post(service, "/twilio-dial", {**a_call(), "DialCallStatus": status})
    assert verbs(answer.text) == expected


@pytest.mark.parametrize(
    ("query", "to_number", "said"),
    [
        ("?businessId=forwarding", "+19999999999", "Nobody is at the desk."),
        ("", "+15005550003", "Nobody is at the desk."),
        ("?businessId=business-1", "+15005550003", NOT_ANSWERED),
        ("?businessId=nobody", "+15005550003", NOT_ANSWERED),
    ],
)
async def test_a_call_that_is_not_answered_hears_its_businesss_words(
    service: Service, query: str, to_number: str, said: str
) -> None:
    form = {**a_call(to_number), "DialCallStatus": "no-answer"}
    answer = await post(service, f"/twilio-dial{query}", form)
    assert ElementTree.fromstring(answer.text).findtext("Say") == said


async def test_the_log_has_the_guides_phrases_and_no_secret(service: Service) -> None:
    call = a_call()
    ticket = parameters((await post(service, "/twilio-voice", call)).text)["ticket"]
    log = service.logged()
    assert lines_with(log, f"[Voice Webhook] Incoming call - CallSid: {call['CallSid']}")
    phrase = f"[Voice Webhook] Call {call['CallSid']} from +1"
    assert lines_with(log, phrase, ", business: business-1, plan: premium")
    assert lines_with(log, f"[Voice Webhook] Stream URL: {service.ws_url}/twilio-media")
    for secret in (ticket, TOKEN + "\n", "+12763659195", "Traceback"):
        assert secret not in log


async def test_an_older_auth_token_is_still_accepted(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> None:
    from tests.service import running_service

    directory = tmp_path_factory.mktemp("rotation")
    with running_service(directory, redis_url, TWILIO_AUTH_TOKEN=f"new,{TOKEN}") as rotated:
        assert (await post(rotated, "/twilio-voice", a_call())).status_code == 200
        async with http_client() as client:
            metrics = (await client.get(f"{rotated.url}/metrics")).text
    assert "bridge_old_auth_token_total 1.0" in metrics
