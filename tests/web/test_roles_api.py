"""Every route of the API with a key of every role: what is permitted works, the rest is refused.

The routes are read from the OpenAPI document: one that is added later needs a row in ROUTES.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from redis import Redis

from app.admin.roles import KEY_ROLES, PERMISSIONS, Permission, Role
from tests.service import WAIT_SECONDS, Service
from tests.web.admins import API, OPERATOR, Caller, administered, bearer

BUSINESS = "business-1"
NOT_THERE = "CA" + "0" * 32


@dataclass(frozen=True)
class Row:
    """What a route takes: a permission, or None for everybody; and what is sent to it.

    `works` is how it answers those who have the permission. Where the table has to name
    something that is not there, such as a call, that is 404: the role was accepted.
    """

    permission: Permission | None
    works: int = 200
    body: Any = None


ROUTES: dict[str, Row] = {
    "GET /me": Row(None),
    "GET /sessions": Row(None),
    "DELETE /sessions": Row(None),
    "DELETE /sessions/{session_id}": Row(None, 404),
    "GET /audit": Row(Permission.READ_AUDIT),
    "GET /audit/export.jsonl": Row(Permission.READ_AUDIT),
    "GET /plans": Row(Permission.READ_PLANS),
    "POST /plans": Row(Permission.EDIT_PLANS, 201, {"name": "new"}),
    "GET /plans/{name}": Row(Permission.READ_PLANS),
    "PATCH /plans/{name}": Row(Permission.EDIT_PLANS, 200, {"frame_ms": 60}),
    "DELETE /plans/{name}": Row(Permission.EDIT_PLANS, 409),
    "GET /businesses": Row(Permission.READ_BUSINESS),
    "POST /businesses": Row(
        Permission.CREATE_BUSINESS, 201, {"id": "new", "name": "New", "plan": "premium"}
    ),
    "GET /businesses/{business_id}": Row(Permission.READ_BUSINESS),
    "PATCH /businesses/{business_id}": Row(Permission.EDIT_BUSINESS, 200, {"greeting": "Hi."}),
    "DELETE /businesses/{business_id}": Row(Permission.DELETE_BUSINESS),
    "GET /businesses/{business_id}/numbers": Row(Permission.READ_BUSINESS),
    "PUT /businesses/{business_id}/numbers": Row(
        Permission.EDIT_EVERY_FIELD, 200, {"numbers": ["+15005550006"]}
    ),
    "GET /businesses/{business_id}/keys": Row(Permission.READ_KEYS),
    "POST /businesses/{business_id}/keys": Row(Permission.ISSUE_KEYS, 201, {"label": "x"}),
    "DELETE /businesses/{business_id}/keys/{key_id}": Row(Permission.REVOKE_KEYS, 404),
    "GET /businesses/{business_id}/secrets": Row(Permission.EDIT_SECRETS),
    "PATCH /businesses/{business_id}/secrets": Row(
        Permission.EDIT_SECRETS, 200, {"usage_webhook_secret": "s" * 32}
    ),
    "GET /businesses/{business_id}/exotel-pairs": Row(Permission.EDIT_SECRETS),
    "POST /businesses/{business_id}/exotel-pairs": Row(
        Permission.EDIT_SECRETS, 201, {"label": "x"}
    ),
    "DELETE /businesses/{business_id}/exotel-pairs/{pair_id}": Row(Permission.EDIT_SECRETS, 404),
    "GET /businesses/{business_id}/usage": Row(Permission.READ_USAGE),
    "GET /businesses/{business_id}/usage.csv": Row(Permission.READ_USAGE),
    "GET /businesses/{business_id}/export.jsonl": Row(Permission.EXPORT),
    "GET /businesses/{business_id}/export.zip": Row(Permission.EXPORT),
    "POST /persons/find": Row(Permission.FIND_PERSONS, 200, {"number": "+12763659195"}),
    "POST /persons/erase": Row(Permission.ERASE_PERSONS, 200, {"number": "+12763659195"}),
    "GET /live": Row(Permission.READ_CALLS),
    "GET /live/events": Row(Permission.READ_CALLS),
    "GET /calls": Row(Permission.READ_CALLS),
    "GET /calls/{call_sid}": Row(Permission.READ_CALLS, 404),
    "GET /calls/{call_sid}/events": Row(Permission.READ_CALLS, 404),
    "GET /calls/{call_sid}/waveform": Row(Permission.READ_CALLS, 404),
    "GET /calls/{call_sid}/audio.wav": Row(Permission.READ_CALLS, 404),
    "GET /calls/{call_sid}/live.pcm": Row(Permission.READ_CALLS, 404),
    "POST /calls/{call_sid}/end": Row(Permission.END_CALLS, 404),
    "POST /calls/{call_sid}/play": Row(Permission.SPEAK, 404, b"\0\0" * 160),
    "POST /calls/{call_sid}/clear": Row(Permission.SPEAK, 404),
    "DELETE /calls/{call_sid}": Row(Permission.ERASE_CALLS, 404),
}
# What a request writes down of itself, whatever comes of it.
NOTES = ("audit", "{audit}", "attempts:", "session:", "sessions:", "held:", "store:")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("roles")
    with administered(directory, ADMIN_MAY_SPEAK="true", SECRET_KEY="k" * 40) as service:
        yield service


@pytest.fixture(scope="module")
def keys(house: Service) -> dict[Role, str]:
    """Issue a key of each role."""
    operator = Caller(house)
    made = {}
    for role in KEY_ROLES:
        body = {"label": f"a {role}", "role": role}
        answer = operator("POST", f"/businesses/{BUSINESS}/keys", body)
        assert answer.status_code == 201, answer.text
        assert answer.json()["role"] == role
        made[role] = answer.json()["key"]
    return made


def ask(house: Service, route: str, headers: dict[str, str]) -> httpx.Response:
    """Send what a route's row says; of an answer without an end only its head is read."""
    method, _, path = route.partition(" ")
    row = ROUTES[route]
    known = {"business_id": BUSINESS, "name": "premium", "call_sid": NOT_THERE}
    for name, value in {**known, "key_id": "0" * 12, "session_id": "0" * 16}.items():
        path = path.replace(f"{{{name}}}", value)
    path = path.replace("{pair_id}", "0" * 12)
    content = {"content": row.body} if isinstance(row.body, bytes) else {"json": row.body}
    with (
        httpx.Client(timeout=WAIT_SECONDS, verify=False) as client,
        client.stream(
            *(method, house.url + API + path),
            headers={"If-Match": "*", **headers},
            **(content if row.body is not None else {}),  # type: ignore[arg-type]
        ) as answer,
    ):
        if "event-stream" not in answer.headers.get("content-type", ""):
            answer.read()
        return answer


def stored(house: Service) -> dict[bytes, Any]:
    """Return what is stored, without what a request writes down of itself."""
    found: dict[bytes, Any] = {}
    with Redis.from_url(house.redis_url) as redis:
        for name in redis.scan_iter():
            if name.decode().startswith(NOTES):
                continue
            value = redis.hgetall(name) if redis.type(name) == b"hash" else redis.dump(name)
            if isinstance(value, dict):
                value = {key: one for key, one in value.items() if not key.endswith(b":used")}
            found[name] = value
    return found


def test_every_route_has_a_row(house: Service) -> None:
    paths = httpx.get(f"{house.url}/openapi.json").json()["paths"]
    routes = {
        f"{method.upper()} {path.removeprefix(API)}"
        for path, of_path in paths.items()
        if path.startswith(API)
        for method in of_path
    }
    assert routes == set(ROUTES)


@pytest.mark.parametrize("role", KEY_ROLES)
def test_role_is_refused_what_it_does_not_permit_and_nothing_changes(
    house: Service, keys: dict[Role, str], role: Role
) -> None:
    refused = [
        route for route, row in ROUTES.items() if row.permission not in (None, *PERMISSIONS[role])
    ]
    assert len(refused) >= 6
    before = stored(house)
    for route in refused:
        answer = ask(house, route, bearer(keys[role]))
        assert answer.status_code == 403, (route, answer.status_code, answer.text)
        assert answer.json()["error"] == "forbidden", route
        assert f"{role} key" in answer.json()["detail"], route
    assert stored(house) == before


@pytest.mark.parametrize("role", KEY_ROLES)
def test_role_permits_what_the_table_says(
    house: Service, keys: dict[Role, str], role: Role
) -> None:
    for route, row in ROUTES.items():
        if row.permission in (None, *PERMISSIONS[role]):
            answer = ask(house, route, bearer(keys[role]))
            assert answer.status_code == row.works, (route, answer.status_code)


def test_operator_may_use_every_route(house: Service) -> None:
    last = "DELETE /businesses/{business_id}"
    for route in [*(one for one in ROUTES if one != last), last]:
        answer = ask(house, route, OPERATOR)
        assert answer.status_code < 400 or answer.status_code in (404, 409), (
            route,
            answer.status_code,
        )


# ---------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({"label": "x", "role": "operator"}, {"role"}),
        ({"label": "x", "role": "Admin"}, {"role"}),
        ({"label": "x", "role": ["viewer"]}, {"role"}),
        ({"label": "x", "role": None}, {"role"}),
        ({"label": "x", "expires_at": 1}, {"expires_at"}),
        ({"label": "x", "expires_at": 10**15}, {"expires_at"}),
        ({"label": "x", "expires_at": "tomorrow"}, {"expires_at"}),
        ({"label": "x", "expires_at": True}, {"expires_at"}),
        ({"label": "x", "expires_at": 1.5e12}, {"expires_at"}),
        ({"role": "viewer", "expires": 1}, {"label", "expires"}),
    ],
)
def test_key_with_unusable_fields_is_not_issued(
    house: Service, body: dict[str, Any], problems: set[str]
) -> None:
    before = stored(house)
    answer = Caller(house)("POST", "/businesses/indian/keys", body)
    assert answer.status_code == 422, answer.text
    assert set(answer.json()["fields"]) == problems
    assert stored(house) == before


def test_key_without_a_role_is_an_admin_s_and_never_expires(house: Service) -> None:
    operator = Caller(house)
    made = operator.new_key("indian")
    assert (made["role"], made["expires_at"], made["is_expired"]) == ("admin", None, False)
    listed = operator("GET", "/businesses/indian/keys").json()["items"]
    assert [one["role"] for one in listed if one["id"] == made["id"]] == ["admin"]
