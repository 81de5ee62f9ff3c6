"""The API of whoever administers: who is admitted, how it refuses, what it answers."""

from collections.abc import Iterator

import httpx
import pytest

from tests.service import Service, http_client
from tests.web.admins import OPERATOR, TOKEN, administered


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
