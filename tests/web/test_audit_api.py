"""What the audit log has of requests over real HTTP: reads, refusals, sign-ins, and addresses."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.admin.audit_limits import EDITS_A_MINUTE, SIGN_INS_A_MINUTE
from tests.service import WAIT_SECONDS, Service, a_call, a_peer, post, receipt_of, started
from tests.waiting import until
from tests.web.admins import OPERATOR, TOKEN, Caller, administered, bearer
from tests.web.test_voice import parameters

HOME, AWAY = "198.51.100.7", "203.0.113.9"
FORWARD_TO = "+12025550123"


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give an instance that has an operator."""
    with administered(tmp_path_factory.mktemp("audited")) as running:
        yield running


def entries(service: Service, business: str = "", **wanted: Any) -> list[dict[str, Any]]:
    query = f"&business={business}" if business else ""
    found = Caller(service)("GET", f"/audit?limit=200{query}").json()["items"]
    return [one for one in found if wanted.items() <= one.items()]


def from_address(address: str, headers: dict[str, str] | None = None) -> dict[str, str]:
    return {**(headers or OPERATOR), "X-Forwarded-For": address}


async def test_reading_a_call_is_recorded_once_and_with_its_address(audited: Service) -> None:
    form = a_call("+15005550006")
    answer = await post(audited, "/twilio-voice", form)
    key = bearer(Caller(audited).new_key("business-1")["key"])
    own = Caller(audited, from_address(HOME, key))
    sid = form["CallSid"]
    async with a_peer(audited, call_sid=sid) as peer:
        await peer.start(parameters(answer.text))
        await started(audited, peer.stream_sid)
        await peer.media(20)
        url = f"{audited.url}/api/v1/calls/{sid}/live.pcm"
        for _ in range(2):
            with httpx.stream("GET", url, headers=from_address(HOME, key), timeout=20) as listening:
                assert listening.status_code == 200
        await peer.stop()
        await peer.closed()
    await receipt_of(audited, peer.stream_sid)
    for part in ("bytes=0-99", "bytes=100-199", "bytes=200-"):
        asked = own("GET", f"/calls/{sid}/audio.wav", headers={"Range": part})
        assert asked.status_code == 206
    for _ in range(3):
        assert own("GET", f"/calls/{sid}").status_code == 200
        assert own("GET", f"/calls/{sid}/events").status_code == 200
        assert own("GET", "/live").status_code == 200
    at_home = reversed(entries(audited, "business-1", address=HOME))
    read = [(one["action"], one["target"], one["address"]) for one in at_home]
    assert read == [
        ("call.listened", sid, HOME),
        ("call.listened", sid, HOME),
        ("call.audio_read", sid, HOME),
        ("call.viewed", sid, HOME),
        ("live.watched", "business-1", HOME),
    ]
    listened = entries(audited, action="call.listened")
    assert {one["data"]["stream"] for one in listened} == {peer.stream_sid}


async def test_refusals_are_recorded_and_a_flood_of_them_is_counted(audited: Service) -> None:
    key = Caller(audited).new_key("business-1")
    own = Caller(audited, from_address(AWAY, bearer(key["key"])))
    for _ in range(30):
        assert own("POST", "/plans", {"name": "mine"}).status_code == 403
        assert own("GET", "/businesses/business-2").status_code == 404
        assert own("GET", "/calls?business=business-2").status_code == 404
    refused = entries(audited, action="access.refused", address=AWAY)
    assert {one["actor"] for one in refused} == {f"key:{key['id']}"}
    assert sorted((one["target"], one["data"]["reason"], one["data"].get("asked_for"))
                  for one in refused) == [
        ("GET /api/v1/businesses/{business_id}", "other_business", "business-2"),
        ("GET /api/v1/calls", "other_business", "business-2"),
        ("POST /api/v1/plans", "forbidden", None),
    ]  # fmt: skip
    # In the log of whose key it is, and not in that of whom they asked for.
    assert len(entries(audited, "business-1", action="access.refused", address=AWAY)) == 3
    assert entries(audited, "business-2", action="access.refused") == []


async def test_wrong_credentials_are_recorded_without_them(audited: Service) -> None:
    for number in range(12):
        wrong = Caller(audited, from_address("192.0.2.50", bearer(f"a-wrong-token-{number}")))
        assert wrong("GET", "/me").status_code in (401, 429)
    (refused,) = entries(audited, address="192.0.2.50")
    assert (refused["actor"], refused["action"]) == ("unknown", "access.refused")
    assert refused["data"] == {"reason": "wrong_credentials"}
    assert "a-wrong-token" not in audited.logged()


async def test_signing_in_and_out_is_recorded(audited: Service) -> None:
    address = {"X-Forwarded-For": "192.0.2.60"}
    async with httpx.AsyncClient(
        base_url=audited.url, headers=address, timeout=WAIT_SECONDS
    ) as browser:
        assert (await browser.post("/admin/sign-in", data={"key": "wrong"})).status_code == 401
        assert (await browser.post("/admin/sign-in", data={"key": TOKEN})).status_code == 303
        page = (await browser.get("/admin")).text
        csrf = page.split('name="csrf" value="')[1].split('"')[0]
        assert (await browser.post("/admin/sign-out", data={"csrf": "wrong"})).status_code == 403
        assert (await browser.post("/admin/sign-out", data={"csrf": csrf})).status_code == 303
    done = [
        (one["actor"].partition(":")[0], one["action"])
        for one in entries(audited, address="192.0.2.60")
    ]
    assert done[::-1] == [
        ("unknown", "access.refused"),
        ("operator", "session.begun"),
        ("operator", "access.refused"),
        ("operator", "session.ended"),
    ]


async def test_an_edit_is_recorded_with_old_and_new_values_and_no_secret(audited: Service) -> None:
    operator = Caller(audited, from_address(HOME))
    changes = {
        "forward_to": FORWARD_TO,
        "greeting": "Welcome.",
        "usage_webhook_url": "https://hooks.example.com/usage?token=a-secret-token",
    }
    assert operator("PATCH", "/businesses/business-2", changes, "*").status_code == 200
    again = operator("PATCH", "/businesses/business-2", {"forward_to": ""}, "*")
    assert again.status_code == 200, again.text
    secrets = {"twilio_auth_tokens": ["a-token-of-its-own-account-32-chars"]}
    assert operator("PATCH", "/businesses/business-2/secrets", secrets).status_code == 200
    kept, cleared, edited = entries(audited, "business-2", address=HOME)[:3]
    assert edited["data"]["forward_to_after"] == FORWARD_TO
    assert "forward_to_before" not in edited["data"]
    assert edited["data"]["greeting"].endswith("→ Welcome.")
    assert edited["data"]["usage_webhook_url"].endswith("https://hooks.example.com/usage?***")
    assert cleared["data"]["forward_to_before"] == FORWARD_TO
    assert kept["data"] == {"fields": "twilio_auth_tokens"}
    assert edited["address"] == HOME
    assert edited["seq"] == cleared["seq"] - 1


@pytest.mark.parametrize(
    "before", ["0-0", "0-1", "1-0", "0-9999999999999999999", "999999999999999-9999999999999999999"]
)
async def test_any_id_gives_a_page(audited: Service, before: str) -> None:
    answer = Caller(audited)("GET", f"/audit?before={before}&limit=1")
    assert (answer.status_code, "items" in answer.json()) in ((200, True), (422, False))
    if before == "0-0":
        assert answer.json() == {"items": [], "next": None}


async def test_a_log_of_a_running_service_begins_with_its_chain(audited: Service) -> None:
    async def has_begun() -> bool:
        found = Caller(audited)("GET", "/audit?limit=200").json()["items"]
        return bool(found) and found[-1]["action"] == "audit.chain_begun" and found[-1]["seq"] == 1

    await until(has_begun)


HOSTILE = (
    *("0-0", "0-18446744073709551615", "18446744073709551615-18446744073709551615", "-", "+", "$"),
    *("(0-0", "9" * 40, "-1", "1e999", "inf", "nan", "%00", "a%0Ab", "%7B%7D", "%F0%9F%92%A9"),
    *("MC0w", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5IGE", "bmFuIGE", "LTEgYQ", "MF8xIGE"),
)


def _queries(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return each path that is read, with each parameter of its query."""
    return [
        (path.replace("{business_id}", "business-1"), one["name"])
        for path, operations in document["paths"].items()
        if path.startswith("/api/v1/") and not path.endswith("/events") and "get" in operations
        for one in operations["get"].get("parameters", ())
        if one["in"] == "query"
    ]


def test_no_parameter_of_a_query_makes_the_service_fail(audited: Service) -> None:
    document = httpx.get(f"{audited.url}/openapi.json", timeout=WAIT_SECONDS).json()
    queries = _queries(document)
    assert ("/api/v1/audit", "before") in queries
    failed = set()
    with httpx.Client(base_url=audited.url, headers=OPERATOR, timeout=WAIT_SECONDS) as client:
        for path, name in queries:
            for value in HOSTILE:
                answer = client.get(f"{path.replace('{call_sid}', 'CA1')}?{name}={value}")
                if answer.status_code >= 500:
                    failed.add((path, name, value, answer.status_code))
    assert failed == set()


def test_a_business_edits_and_signs_in_at_a_bounded_pace_and_delays_nobody_else(
    audited: Service,
) -> None:
    keys = {name: Caller(audited).new_key(name)["key"] for name in ("business-1", "business-2")}
    own, other = (Caller(audited, bearer(key)) for key in keys.values())
    answers = [
        own("PATCH", "/businesses/business-1", {"name": f"Name {number}"}, "*")
        for number in range(EDITS_A_MINUTE + 60)
    ]
    refused = [one for one in answers if one.status_code != 200]
    assert refused
    assert {one.status_code for one in refused} == {429}
    assert {one.json()["error"] for one in refused} == {"too_often"}
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert other("PATCH", "/businesses/business-2", {"name": "Other"}, "*").status_code == 200
    operator = Caller(audited)
    assert operator("PATCH", "/businesses/business-1", {"name": "A"}, "*").status_code == 200

    with httpx.Client(base_url=audited.url, timeout=WAIT_SECONDS) as browser:
        signed = [
            browser.post("/admin/sign-in", data={"key": keys["business-1"]})
            for _ in range(SIGN_INS_A_MINUTE + 15)
        ]
        assert {one.status_code for one in signed} == {303, 429}
        assert "Retry-After" in signed[-1].headers
        one_more = browser.post("/admin/sign-in", data={"key": keys["business-2"]})
        assert one_more.status_code == 303
