"""Every route of `/api/v1` there is: documented as it is, and closed to whom it does not concern.

The routes are read from the OpenAPI document, so that one added later is walked too.
"""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.examples import examples
from tests.service import WAIT_SECONDS, Service, a_call, post
from tests.waiting import wait_until
from tests.web.admins import API, OPERATOR, Caller, administered, bearer
from tests.web.test_api_document import AS_DOCUMENTED

OWN, OTHER = "business-1", "indian"
OTHERS_NUMBER, OTHERS_CALLER = "+918047112345", "+919812345678"
OTHERS_CALL = "CA" + "07" * 16
# What only the other business has: no answer to anybody else may hold it.
OTHERS_TRACES = (OTHER, OTHERS_NUMBER[3:], OTHERS_CALLER[3:], OTHERS_CALL)
NEVER_ENDING = {"text/event-stream", "audio/l16"}


@dataclass(frozen=True)
class House:
    """An instance, a key of each of two businesses, and one that is revoked."""

    service: Service
    own_key: str
    other_key: dict[str, Any]
    revoked_key: str


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with administered(tmp_path_factory.mktemp("walk")) as service:
        operator = Caller(service)
        own, other, gone = (operator.new_key(one) for one in (OWN, OTHER, OWN))
        revoked = operator("DELETE", f"/businesses/{OWN}/keys/{gone['id']}")
        assert revoked.status_code == 204
        call = {**a_call(OTHERS_NUMBER), "CallSid": OTHERS_CALL, "From": OTHERS_CALLER}
        assert "<Stream" in asyncio.run(post(service, "/twilio-voice", call)).text
        wait_until(lambda: OTHERS_CALL in operator("GET", "/calls").text)
        yield House(service, own["key"], other, gone["key"])


def operations(service: Service) -> list[tuple[str, str, dict[str, Any]]]:
    """Name every method and path of the API, with what the document says of it."""
    paths = httpx.get(f"{service.url}/openapi.json").json()["paths"]
    found = [
        (method.upper(), path, operation)
        for path, of_path in paths.items()
        if path.startswith(API)
        for method, operation in of_path.items()
    ]
    assert len(found) > 15
    return found


def filled(path: str, house: House, business: str) -> str:
    """Fill in a path: with what is the business's where it is known."""
    known = {
        "business_id": business,
        "name": "premium",
        "key_id": house.other_key["id"],
        "call_sid": OTHERS_CALL,
    }
    for part in path.split("/"):
        if part.startswith("{"):
            path = path.replace(part, known.get(part[1:-1].partition(":")[0], "CA" + "0" * 32))
    return path


def ask(
    house: House, method: str, path: str, headers: dict[str, str], query: dict[str, str]
) -> httpx.Response:
    """Ask with a body that would do, but wait for no stream to end."""
    client = httpx.Client(timeout=WAIT_SECONDS, verify=False)
    body = {"json": {"label": "x"}} if method in ("POST", "PUT", "PATCH") else {}
    with (
        client,
        client.stream(
            *(method, house.service.url + path),
            headers={"If-Match": "*", **headers},
            params=query,
            **body,  # type: ignore[arg-type]
        ) as answer,
    ):
        if answer.status_code >= 400:
            answer.read()
        return answer


# ---------------------------------------------------------------- the walk


@pytest.mark.parametrize("who", ["nobody", "wrong", "revoked", "cookie"])
def test_whoever_shows_nothing_good_gets_nothing_of_any_route(house: House, who: str) -> None:
    headers = {
        "nobody": {},
        "wrong": {**bearer("mbk_" + "0" * 12 + "_" + "x" * 43)},
        "revoked": bearer(house.revoked_key),
        "cookie": {"Cookie": f"media-bridge={house.own_key}"},
    }[who]
    for number, (method, path, _) in enumerate(operations(house.service)):
        # Each from an address of its own, which has not guessed before.
        shown = {**headers, "X-Forwarded-For": f"198.51.{'nwrc'.index(who[0])}.{number}"}
        answer = ask(house, method, filled(path, house, OTHER), shown, {})
        assert answer.status_code == 401, (method, path, answer.text)
        assert set(answer.json()) == {"error", "detail"}
        assert not any(trace in answer.text for trace in OTHERS_TRACES)


def test_nobody_is_shown_anything_of_another_business(house: House) -> None:
    headers = bearer(house.own_key)
    for method, path, operation in operations(house.service):
        names = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
        query = {"business": OTHER} if "business" in names else {}
        for asked in ({}, query) if "{call_sid}" in path else (query,):
            if not asked and "{business_id}" not in path and "{call_sid}" not in path:
                continue
            answer = ask(house, method, filled(path, house, OTHER), headers, asked)
            assert answer.status_code in (403, 404), (method, path, answer.status_code)
            # What was asked for is known to whoever asked.
            told = answer.text.replace(f"{OTHER!r}", "").replace(OTHERS_CALL, "")
            assert not any(trace in told for trace in OTHERS_TRACES), (method, path, told)


def test_what_a_business_is_shown_without_naming_one_is_its_own(house: House) -> None:
    own = Caller(house.service, bearer(house.own_key))
    for method, path, operation in operations(house.service):
        if method != "GET" or "{" in path or _never_ends(operation):
            continue
        answer = own("GET", path.removeprefix(API))
        assert answer.status_code in (200, 403), (path, answer.text)
        # The audit log has what its own people asked for in vain, in their words.
        told = re.sub(r'"asked_for":"[^"]*"', "", answer.text)
        assert not any(trace in told for trace in OTHERS_TRACES), path


def test_another_business_s_key_cannot_be_revoked_under_one_s_own_name(house: House) -> None:
    own = Caller(house.service, bearer(house.own_key))
    operator = Caller(house.service)
    path = f"/businesses/{OWN}/keys/{house.other_key['id']}"
    assert own("DELETE", path).status_code == 404
    assert operator("DELETE", path).status_code == 404
    other = Caller(house.service, bearer(house.other_key["key"]))
    assert other("GET", "/me").json()["business_id"] == OTHER


def _never_ends(operation: dict[str, Any]) -> bool:
    return bool(NEVER_ENDING & operation["responses"].get("200", {}).get("content", {}).keys())


# ------------------------------------------------------------- the document


# What is deleted is asked for by no other operation.
KNOWN = {"business_id": OWN, "name": "premium"}
DOOMED = {"business_id": "wide", "name": "slow"}
# Asking for anything finds what is there, and what a body's example makes.
SERVED = {
    "get_/me",
    "get_/audit",
    "get_/plans",
    "post_/plans",
    "get_/plans/{name}",
    "patch_/plans/{name}",
    "get_/businesses",
    "post_/businesses",
    "get_/businesses/{business_id}",
    "patch_/businesses/{business_id}",
    "delete_/businesses/{business_id}",
    "get_/businesses/{business_id}/numbers",
    "put_/businesses/{business_id}/numbers",
    "get_/businesses/{business_id}/keys",
    "post_/businesses/{business_id}/keys",
    "get_/businesses/{business_id}/secrets",
    "get_/businesses/{business_id}/usage",
    "get_/businesses/{business_id}/usage.csv",
    "get_/live",
    "patch_/businesses/{business_id}/secrets",
}


def test_every_answer_of_the_api_is_documented(tmp_path_factory: pytest.TempPathFactory) -> None:
    with administered(tmp_path_factory.mktemp("document")) as service:
        schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
        served: dict[str, int] = {}
        with requests.Session() as session:
            session.headers.update(OPERATOR)
            for found in schema.get_all_operations():
                operation: Any = found.ok()  # type: ignore[union-attr]
                if operation.path.startswith(API) and not _never_ends(operation.definition.raw):
                    name = f"{operation.method}_{operation.path.removeprefix(API)}"
                    served[name] = _asked(operation, session)
        assert {name for name in SERVED if not served.get(name)} == set()
        assert "Traceback" not in service.logged()


def _asked(operation: Any, session: requests.Session) -> int:
    served = 0
    known = DOOMED if operation.method == "delete" else KNOWN
    modes = [operation.as_strategy(generation_mode=GenerationMode.POSITIVE)]
    if operation.query or operation.body or operation.path_parameters:
        modes.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

    @example(case=_good_request(operation), is_known=True)
    @given(case=st.one_of(modes), is_known=st.booleans())
    @settings(max_examples=examples(12, many=500), suppress_health_check=list(HealthCheck))
    def ask_it(case: Any, is_known: bool) -> None:
        nonlocal served
        if is_known:
            case.path_parameters = {
                name: known.get(name, "0" * 12) for name in case.path_parameters or ()
            }
            case.headers = {**(case.headers or {}), "If-Match": "*"}
        answer = case.call(session=session)
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, checks=AS_DOCUMENTED)
        served += answer.status_code < 300

    ask_it()
    return served


def _good_request(operation: Any) -> Any:
    """Make a request that is served: with the document's own example for a body."""
    raw = operation.definition.raw
    made = {}
    if "requestBody" in raw:
        [(made["media_type"], content)] = raw["requestBody"]["content"].items()
        # What is no JSON is audio.
        made["body"] = content["schema"].get("example", bytes(320))
    names = [one["name"] for one in raw.get("parameters", ()) if one["in"] == "path"]
    return operation.Case(path_parameters=dict.fromkeys(names, "0"), **made)
