"""The HTTP API is what its OpenAPI document says, whatever is asked of it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from requests.auth import AuthBase, HTTPBasicAuth
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from app.tools.embedded import EmbeddedRedis
from tests.examples import examples
from tests.service import (
    NUMBER,
    WAIT_SECONDS,
    Service,
    a_call,
    running_service,
    service_alone,
    signature,
)

METRICS_TOKEN = "a-token-for-metrics"
# Asked for anything in `test_api_v1`.
ADMIN = "/api/v1"
AS_DOCUMENTED = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


class SignedByTwilio(AuthBase):
    """Sign a request as Twilio does, whatever is in it."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body if isinstance(request.body, bytes | str) else b""
        text = body if isinstance(body, str) else body.decode("latin-1")
        is_form = "urlencoded" in request.headers.get("Content-Type", "")
        form = dict(parse_qsl(text, keep_blank_values=True)) if is_form else {}
        request.headers["X-Twilio-Signature"] = signature(request.url or "", form)
        return request


class WithMetricsToken(AuthBase):
    """Show METRICS_TOKEN."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {METRICS_TOKEN}"
        return request


CREDENTIALS = {
    "/twilio": SignedByTwilio(),
    "/exotel": HTTPBasicAuth("key", "token"),
    "/metrics": WithMetricsToken(),
}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give an instance that demands every proof there is."""
    secrets = {
        "SUPPORT_EXOTEL": "true",
        "EXOTEL_API_KEY": "key",
        "EXOTEL_API_TOKEN": "token",
        "METRICS_TOKEN": METRICS_TOKEN,
    }
    with service_alone(tmp_path_factory.mktemp("closed"), **secrets) as service:
        yield service


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give an instance that demands none."""
    with service_alone(
        tmp_path_factory.mktemp("opened"),
        ALLOW_UNSIGNED="true",
        SUPPORT_EXOTEL="true",
    ) as service:
        yield service


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give an instance whose Redis is gone."""
    directory = tmp_path_factory.mktemp("away")
    with ExitStack() as redis_lives:
        redis = redis_lives.enter_context(EmbeddedRedis(directory / "redis", persistent=False))
        with running_service(
            directory, redis.url, ALLOW_UNSIGNED="true", SUPPORT_EXOTEL="true"
        ) as service:
            redis_lives.close()
            yield service
            # Else it would wait for its Redis to take the last events.
            service.process.kill()


def ask_anything(
    service: Service, credentials: Mapping[str, AuthBase], few: int = 15
) -> dict[str, int]:
    """Ask every operation of the document for anything; give how often each one served."""
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    with requests.Session() as session:
        return {
            operation.label: _ask(
                operation,
                session,
                _credentials_for(operation.path, credentials),
                few,
            )
            for found in schema.get_all_operations()
            for operation in [found.ok()]  # type: ignore[union-attr]
            if not operation.path.startswith(ADMIN)
        }


def _credentials_for(path: str, credentials: Mapping[str, AuthBase]) -> AuthBase | None:
    return next((auth for start, auth in credentials.items() if path.startswith(start)), None)


def _ask(operation: Any, session: requests.Session, auth: AuthBase | None, few: int) -> int:
    served = 0
    modes = [operation.as_strategy(generation_mode=GenerationMode.POSITIVE)]
    if operation.query or operation.body:
        modes.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

    @example(case=_good_request(operation), is_known=True)
    @given(case=st.one_of(modes), is_known=st.booleans())
    @settings(max_examples=examples(few, many=500), suppress_health_check=list(HealthCheck))
    def ask(case: Any, is_known: bool) -> None:
        nonlocal served
        for fields in (case.body, case.query):
            if is_known and isinstance(fields, dict):
                fields["To"] = fields["CallTo"] = NUMBER
                fields["CallSid"] = "CA1"
        answer = case.call(session=session, auth=auth)
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        case.validate_response(answer, checks=AS_DOCUMENTED)
        served += answer.status_code < 300

    ask()
    return served


def _good_request(operation: Any) -> Any:
    """Make a request that is served; whether chance makes one, nobody knows."""
    form = {"CallSid": "CA1", "From": "anonymous", "To": NUMBER, "CallTo": NUMBER}
    if operation.body:
        return operation.Case(body=form, media_type="application/x-www-form-urlencoded")
    return operation.Case(query=form if operation.query else {})


def test_every_answer_is_documented_where_all_must_be_proved(closed: Service) -> None:
    served = ask_anything(closed, CREDENTIALS)
    assert min(served.values()) > 0, served
    assert "Traceback" not in closed.logged()


def test_every_answer_is_documented_where_nothing_is_shown(closed: Service) -> None:
    served = ask_anything(closed, {}, few=5)
    assert {name for name, count in served.items() if count} == {"GET /health", "GET /health/ready"}


def test_every_answer_is_documented_where_nothing_must_be_proved(opened: Service) -> None:
    served = ask_anything(opened, {})
    assert min(served.values()) > 0, served
    assert "Traceback" not in opened.logged()


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        # A call hears a polite word; whoever asks for a URL is told to come again.
        ("post", "/twilio-voice", 200, "text/xml"),
        ("post", "/exotel-stream-url", 503, "application/json"),
        ("get", "/health/ready", 503, "application/json"),
        ("get", "/health", 200, "application/json"),
    ],
)
def test_what_is_answered_while_redis_is_away_is_documented(
    away: Service, method: str, path: str, status: int, kind: str
) -> None:
    data = a_call() if method == "post" else None
    answer = httpx.request(method, away.url + path, data=data, timeout=WAIT_SECONDS)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (status, kind)
    document = httpx.get(f"{away.url}/openapi.json").json()
    documented = document["paths"][path][method]["responses"][str(status)]
    assert kind in documented["content"]
    assert ("retry-after" in answer.headers) == ("headers" in documented)


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/twilio-voice", 405, "method_not_allowed"),
        ("DELETE", "/health", 405, "method_not_allowed"),
    ],
)
def test_what_the_router_refuses_is_answered_like_any_refusal(
    opened: Service, method: str, path: str, status: int, error: str
) -> None:
    answer = httpx.request(method, opened.url + path)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert set(answer.json()) == {"error", "detail"}
    assert ("allow" in answer.headers) == (status == 405)


def test_the_document_reads_well(opened: Service) -> None:
    document = httpx.get(f"{opened.url}/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    for operation in operations:
        assert operation["description"].endswith(".")
        for answer in operation["responses"].values():
            assert answer["description"] != "Successful Response"
    schemes = {name for one in operations for way in one.get("security", ()) for name in way}
    assert schemes == set(document["components"]["securitySchemes"])
    assert opened.logged().count("Duplicate Operation ID") == 0
