"""What the OpenAPI document says of the routes: who may ask, with what form, and the answers.

It describes and checks nothing: the routes do that. A test compares the two.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter, FastAPI
from fastapi.responses import Response
from pydantic import BaseModel

from app.errors import BridgeError, FieldsInvalid

Answers = dict[int | str, dict[str, Any]]
FORM_TYPE = "application/x-www-form-urlencoded"
JSON_TYPE = "application/json"

DESCRIPTION = """\
The bridge between phone calls and the programs that listen to them.

Audio comes over WebSockets, which this document cannot show: `/twilio-media` (Twilio's Media
Streams, signed like a webhook) and `/v1/ingest` (Exotel, and own clients with a token).

Every refusal is `{"error": REASON, "detail": SENTENCE}`. A call that is turned away is no error
to Twilio: it is answered with TwiML, which the caller hears.
"""
TAGS = [
    {"name": "twilio", "description": "Twilio's webhooks and callbacks, signed by it."},
    {"name": "ingest", "description": "Exotel asks where a call's audio goes."},
    {"name": "health", "description": "What platforms and Prometheus ask."},
    {"name": "plans", "description": "What businesses may use."},
    {"name": "businesses", "description": "Who owns calls, by which numbers; what callers hear."},
    {"name": "calls", "description": "Calls: what happened in them, their audio, their erasure."},
    {"name": "exports", "description": "Downloads of a business's data, and of the audit log."},
    {"name": "persons", "description": "A person, found and erased by their number."},
    {"name": "usage", "description": "What businesses have used of their months."},
    {"name": "live", "description": "Live calls: watched as they go on, and ended."},
    {"name": "access", "description": "Who asks, which keys there are, and what was done."},
]

# Names of the schemes below, as an operation's `security`: any one of them admits.
TWILIO = [{"TwilioSignature": list[str]()}]
INGEST = [{"ExotelPair": list[str]()}, {"ClientToken": list[str]()}, {}]
METRICS = [{"MetricsToken": list[str]()}, {}]
ADMIN = [{"AdminKey": list[str]()}, {"AdminSession": list[str]()}]
_SCHEMES = {
    "TwilioSignature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Twilio-Signature",
        "description": "Over PUBLIC_URL, path, query and form, by the account's auth token. "
        "With ALLOW_UNSIGNED it may be missing, and must not be wrong.",
    },
    "ExotelPair": {
        "type": "http",
        "scheme": "basic",
        "description": "A pair of EXOTEL_API_KEY and EXOTEL_API_TOKEN, or a business's own. "
        "From an address in EXOTEL_ALLOWED_IPS none is needed.",
    },
    "ClientToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token with `exp` and `tenant_id`, the business's id.",
    },
    "MetricsToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "METRICS_TOKEN, where it is set.",
    },
    "AdminKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "ADMIN_TOKEN, an operator's, or the access key of a business, `mbk_…`.",
    },
    "AdminSession": {
        "type": "apiKey",
        "in": "cookie",
        "name": "media-bridge",
        "description": "The cookie of whoever signed in at `/admin`; on https its name begins with "
        "`__Host-`. What is not a GET needs X-CSRF-Token as well.",
    },
}

ID_PATTERN = "^[A-Za-z0-9_.-]{1,128}$"
BUSINESS_ID = {
    "name": "businessId",
    "in": "query",
    "description": "Whose call it is, where the dialled number does not tell.",
    "schema": {"type": "string"},
}


class Refusal(BaseModel):
    """Why a request was not served: one word for programs, and a sentence for people."""

    error: str
    detail: str


class FieldsRefusal(Refusal):
    """Why fields were not taken: for each, what is wrong with it and what would do."""

    fields: dict[str, str] = {}


class Health(BaseModel):
    """That the process serves."""

    status: Literal["healthy"]
    version: str
    liveStreams: int


class Readiness(BaseModel):
    """Whether a new call would be served, and what each condition says: `ok`, or why not."""

    status: Literal["ready", "unready"]
    checks: dict[str, str]
    warnings: list[str]


class StreamUrl(BaseModel):
    """Where a call's audio goes."""

    url: str


def complete(app: FastAPI) -> None:
    """Add to the app's document how a request proves who sends it."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        document.setdefault("components", {})["securitySchemes"] = _SCHEMES
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def refusals(*kinds: type[BridgeError]) -> Answers:
    """Describe the answers that these errors make, one for each status."""
    by_status: dict[int, list[type[BridgeError]]] = {}
    for kind in kinds:
        by_status.setdefault(kind.http_status, []).append(kind)
    return {status: _refusal(by_status[status]) for status in sorted(by_status)}


def _refusal(kinds: Sequence[type[BridgeError]]) -> dict[str, Any]:
    told = (f"- `{kind.reason}`: {_when(kind)}" for kind in kinds)
    model = FieldsRefusal if FieldsInvalid in kinds else Refusal
    answer: dict[str, Any] = {"description": "\n".join(told), "model": model}
    if any(kind.retryable for kind in kinds):
        text = "Seconds after which to try again."
        answer["headers"] = {"Retry-After": {"description": text, "schema": {"type": "integer"}}}
    return answer


def _when(kind: type[BridgeError]) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0].removeprefix("Raised ")


def form_route(
    router: APIRouter,
    path: str,
    name: str,
    fields: Mapping[str, str],
    *,
    security: Sequence[Mapping[str, Any]],
    needed: Sequence[str] = (),
    types: Sequence[str] = (FORM_TYPE,),
    **about: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Serve what a form asks: by POST, and by GET with the form's fields in the URL.

    `fields` are the names of those that are read, each with what it says; others
    may come. `needed` must be there, and are ids. `types` are the media types that
    a body may have.
    """
    schemas = {
        field: {"type": "string"} | ({"pattern": ID_PATTERN} if field in needed else {})
        for field in fields
    }
    described = {
        field: schema | {"description": fields[field]} for field, schema in schemas.items()
    }
    form = {"type": "object", "properties": described, "required": list(needed)}
    body = {"content": {one: {"schema": form} for one in types}, "required": bool(needed)}
    in_url = [
        {
            "name": field,
            "in": "query",
            "required": field in needed,
            "description": fields[field],
            "schema": schema,
        }
        for field, schema in schemas.items()
    ]
    extras: dict[str, dict[str, Any]] = {
        "POST": {"parameters": [BUSINESS_ID], "requestBody": body},
        "GET": {"parameters": [BUSINESS_ID, *in_url]},
    }

    def register(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        for method, extra in extras.items():
            router.add_api_route(
                path,
                endpoint,
                methods=[method],
                name=name,
                operation_id=f"{name.replace(' ', '-')}-{method.lower()}",
                response_class=Response,
                openapi_extra={**extra, "security": security},
                **about,
            )
        return endpoint

    return register
