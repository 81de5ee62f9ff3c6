"""The API of whoever administers: who is admitted, how it refuses, what it answers."""

import asyncio
import secrets
from collections.abc import Iterator

import httpx
import pytest

from app.admin.access_keys import digest_of
from app.admin.principal import Principal
from app.admin.roles import Role
from app.administration.gate import SignedIn, csrf_token
from app.store.access import Session
from app.store.redis_access import RedisAccess
from tests.businesses import NUMBER
from tests.service import WAIT_SECONDS, Service, a_call, http_client, post
from tests.waiting import until
from tests.web.admins import API, OPERATOR, TOKEN, Caller, administered

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def admin_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give an instance that has an operator."""
    with administered(tmp_path_factory.mktemp("admin")) as running:
        yield running


async def ask(
    service: Service, method: str, path: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    async with http_client() as client:
        return await client.request(
            method, f"{service.url}/api/v1{path}", headers=OPERATOR if headers is None else headers
        )


async def test_an_operator_is_told_who_they_are(admin_service: Service) -> None:
    answer = await ask(admin_service, "GET", "/me")
    assert answer.status_code == 200
    me = answer.json()
    assert (me["role"], me["actor"], me["business_id"]) == ("operator", "operator", None)
    assert "create a business" in me["permissions"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN}x", "X-Forwarded-For": "192.0.2.1"},
        {"Authorization": f"Bearer {TOKEN} x", "X-Forwarded-For": "192.0.2.1"},
        {"Cookie": f"media-bridge={TOKEN}"},
        {"Cookie": "media-bridge=%00"},
    ],
)
@pytest.mark.parametrize("path", ["/me", "/audit"])
async def test_whoever_shows_nothing_good_is_asked_to_sign_in(
    admin_service: Service, path: str, headers: dict[str, str]
) -> None:
    answer = await ask(admin_service, "GET", path, headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert set(answer.json()) == {"error", "detail"}
    assert answer.json()["error"] == "sign_in_required"


async def test_guessing_is_answered_more_and_more_slowly_but_not_for_the_right_key(
    admin_service: Service,
) -> None:
    wrong = {"Authorization": "Bearer wrong", "X-Forwarded-For": "192.0.2.77"}
    statuses = [(await ask(admin_service, "GET", "/me", wrong)).status_code for _ in range(11)]
    assert statuses == [401] * 10 + [429]
    limited = await ask(admin_service, "GET", "/me", wrong)
    assert (limited.json()["error"], limited.headers["retry-after"]) == ("too_many_attempts", "300")
    right = {**OPERATOR, "X-Forwarded-For": "192.0.2.77"}
    assert (await ask(admin_service, "GET", "/me", right)).status_code == 200
    elsewhere = {**wrong, "X-Forwarded-For": "192.0.2.78"}
    assert (await ask(admin_service, "GET", "/me", elsewhere)).status_code == 401


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("before=x", "before"),
        ("before=%2B", "before"),
        ("before=1-1%00", "before"),
    ],
)
async def test_a_bad_parameter_is_named_with_what_would_do(
    admin_service: Service, query: str, field: str
) -> None:
    answer = await ask(admin_service, "GET", f"/audit?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"] == "fields_invalid"
    assert set(answer.json()["fields"]) == {field}


async def test_an_endless_body_is_not_read(admin_service: Service) -> None:
    async with http_client() as client:
        answer = await client.request(
            "GET", f"{admin_service.url}/api/v1/me", headers=OPERATOR, content=b"x" * 70_000
        )
    assert (answer.status_code, answer.json()["error"]) == (400, "malformed_request")


async def test_without_a_token_the_refusal_says_how_to_have_an_operator(service: Service) -> None:
    answer = await ask(service, "GET", "/me", {})
    assert answer.status_code == 401
    assert "ADMIN_TOKEN" in answer.json()["detail"]
    assert (await ask(service, "GET", "/me")).status_code == 401


# --------------------------------------------------------------------- versions


async def test_an_edit_names_the_version_it_is_of(admin_service: Service) -> None:
    operator = Caller(admin_service)
    made = operator("POST", "/plans", {"name": "edited", "frame_ms": 40})
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    assert made.headers["location"] == f"{API}/plans/edited"
    assert made.headers["cache-control"] == "no-store"
    missing = operator("PATCH", "/plans/edited", {"frame_ms": 60})
    assert (missing.status_code, missing.json()["error"]) == (428, "version_missing")
    saved = operator("PATCH", "/plans/edited", {"frame_ms": 60}, '"1"')
    assert (saved.status_code, saved.headers["etag"], saved.json()["version"]) == (200, '"2"', 2)
    for stale in ('"1"', '"3"', '"x"', "1.5", '"-2"', '"' + "9" * 400 + '"', '"1", "2"', '""'):
        refused = operator("PATCH", "/plans/edited", {"frame_ms": 80}, stale)
        assert (refused.status_code, refused.json()["error"]) == (412, "edited_meanwhile"), stale
    assert operator("GET", "/plans/edited").json()["frame_ms"] == 60
    assert operator("PATCH", "/plans/edited", {"frame_ms": 80}, "*").status_code == 200
    assert operator("DELETE", "/plans/edited").status_code == 428
    assert operator("DELETE", "/plans/edited", if_match='"2"').status_code == 412
    gone = operator("DELETE", "/plans/edited", if_match='"3"')
    assert (gone.status_code, gone.content) == (204, b"")
    assert operator("GET", "/plans/edited").status_code == 404


async def test_of_many_who_edit_one_version_one_succeeds(admin_service: Service) -> None:
    operator = Caller(admin_service)
    operator("POST", "/plans", {"name": "contested"})

    async def edit(frame_ms: int) -> int:
        answer = await asyncio.to_thread(
            operator, "PATCH", "/plans/contested", {"frame_ms": frame_ms}, '"1"'
        )
        return answer.status_code

    statuses = await asyncio.gather(*(edit(30 + number) for number in range(8)))
    assert sorted(statuses) == [200] + [412] * 7
    assert operator("GET", "/plans/contested").json()["version"] == 2


async def test_what_stands_in_the_way_is_said_with_what_to_do(admin_service: Service) -> None:
    operator = Caller(admin_service)
    in_use = operator("DELETE", "/plans/premium", if_match="*")
    assert (in_use.status_code, in_use.json()["error"]) == (409, "plan_in_use")
    assert "business-1" in in_use.json()["detail"]
    taken = operator("PUT", "/businesses/business-2/numbers", {"numbers": [NUMBER]}, "*")
    assert (taken.status_code, taken.json()["error"]) == (409, "number_taken")
    assert NUMBER in taken.json()["detail"]
    again = operator("POST", "/plans", {"name": "premium"})
    assert (again.status_code, again.json()["error"]) == (409, "already_exists")


async def test_no_limit_is_null_and_infinity_is_no_json(admin_service: Service) -> None:
    operator = Caller(admin_service)
    made = operator("POST", "/plans", {"name": "free", "calls_per_month_hard": None})
    assert made.json()["calls_per_month_hard"] is None
    assert made.json()["max_calls_per_second"] is None
    for body in (b'{"name":"x","max_calls_per_second":Infinity}', b'{"name":"x","frame_ms":NaN}'):
        refused = operator("POST", "/plans", content=body, headers=JSON)
        assert refused.status_code == 400
    limited = operator("PATCH", "/plans/free", {"calls_per_month_hard": 5}, "*")
    assert limited.json()["calls_per_month_hard"] == 5
    assert operator("PATCH", "/plans/free", {"calls_per_month_hard": "inf"}, "*").json() == {
        **limited.json(),
        "calls_per_month_hard": None,
        "version": 3,
    }


async def test_a_saved_plan_holds_for_the_next_call(admin_service: Service) -> None:
    operator = Caller(admin_service)
    edited = operator("PATCH", "/businesses/business-2", {"busy_message": "Full, sorry."}, "*")
    assert edited.status_code == 200
    assert operator("PATCH", "/plans/tiny", {"calls_per_month_hard": 1}, "*").status_code == 200
    first = await post(admin_service, "/twilio-voice", a_call("+15005550002"))
    assert "<Stream" in first.text

    async def next_call_is_refused() -> bool:
        answer = await post(admin_service, "/twilio-voice", a_call("+15005550002"))
        return "Full, sorry." in answer.text

    await until(next_call_is_refused)


async def test_lists_are_read_page_by_page(admin_service: Service) -> None:
    operator = Caller(admin_service)
    whole = [one["id"] for one in operator("GET", "/businesses?limit=200").json()["items"]]
    found: list[str] = []
    after = ""
    while after is not None:
        answer = operator("GET", f"/businesses?limit=3&after={after}").json()
        assert len(answer["items"]) <= 3
        found += [one["id"] for one in answer["items"]]
        after = answer["next"]
    assert found == whole == sorted(whole)
    assert len(whole) > 6
    assert operator("GET", "/plans?after=zzz").json() == {"items": [], "next": None}
    assert set(operator("GET", "/plans?limit=0").json()["fields"]) == {"limit"}


# ----------------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[]",
        b'"text"',
        b"null",
        b'{"name": "x"',
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        b"[" * 50_000,
        b'{"a":' * 10_000,
        b'{"name": 1e999}',
        b" " * 70_000,
    ],
    ids=lambda body: body[:12].decode("latin-1"),
)
async def test_a_body_that_is_no_json_object_is_refused(
    admin_service: Service, body: bytes
) -> None:
    answer = Caller(admin_service)("POST", "/plans", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (400, "malformed_request")
    assert "Traceback" not in admin_service.logged()


async def test_a_body_is_json_by_its_type_too(admin_service: Service) -> None:
    # A browser sends other types to other sites without asking first.
    body = {"content": b'{"name": "typed"}'}
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = Caller(admin_service)("POST", "/plans", headers={"Content-Type": kind}, **body)
        assert answer.status_code == 400
    answer = Caller(admin_service)(
        "POST", "/plans", headers={"Content-Type": "Application/JSON; charset=utf-8"}, **body
    )
    assert answer.status_code == 201


@pytest.mark.parametrize("path", ["%00", "%ff", "%2e%2e", "a%7Db", "x" * 4000, "%E2%80%AE"])
async def test_an_id_that_nothing_has_is_not_there(admin_service: Service, path: str) -> None:
    operator = Caller(admin_service)
    for place in (f"/plans/{path}", f"/businesses/{path}", f"/businesses/{path}/keys"):
        answer = operator("GET", place)
        assert answer.status_code == 404, place
        assert set(answer.json()) == {"error", "detail"}


# --------------------------------------------------------- an admin's, by a browser


async def signed_in(service: Service, key: dict[str, str], business_id: str) -> SignedIn:
    """Begin a session as the page does, with this key."""
    secret = secrets.token_urlsafe(32)
    access = RedisAccess.from_url(service.redis_url, WAIT_SECONDS)
    session = Session(digest_of(secret), f"key:{key['id']}", business_id, key["id"])
    await access.begin_session(session, 60.0)
    await access.close()
    return SignedIn(Principal(session.actor, Role.ADMIN, business_id), secret)


async def test_a_cookie_reads_and_changes_nothing_without_the_forms_token(
    admin_service: Service,
) -> None:
    operator = Caller(admin_service)
    key = operator.new_key("business-1")
    session = await signed_in(admin_service, key, "business-1")
    browser = Caller(admin_service, {"Cookie": f"media-bridge={session.secret}"})
    me = browser("GET", "/me").json()
    assert (me["role"], me["business_id"]) == ("admin", "business-1")
    good = {"X-CSRF-Token": csrf_token(session)}
    ours = {**good, "Origin": admin_service.url, "Sec-Fetch-Site": "same-origin"}
    refused = (
        {},
        {"X-CSRF-Token": "wrong"},
        {**good, "Origin": "https://evil.example.com"},
        {**good, "Origin": "null"},
        {**good, "Sec-Fetch-Site": "cross-site"},
        {**good, "Sec-Fetch-Site": "same-site"},
    )
    path, change = "/businesses/business-1", {"greeting": "By browser."}
    for headers in refused:
        answer = browser("PATCH", path, change, "*", headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (403, "form_expired"), headers
    for headers in (good, ours):
        assert browser("PATCH", path, change, "*", headers=headers).status_code == 200
    assert operator("DELETE", f"/businesses/business-1/keys/{key['id']}").status_code == 204
    assert browser("GET", "/me").status_code == 401
