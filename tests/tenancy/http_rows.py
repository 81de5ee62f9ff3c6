"""What each route of the API may be asked for, by whom, and what in it names something.

A row says which of its parameters name a thing of a business, which roles of that
business it serves, and how an allowed request is recognised. `test_http_matrix`
compares the rows with the routes: a route, or a parameter, without a row fails.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.web.admin.forms import new_plan_inputs
from tests.tenancy.world import Tenant, World

VIEWER = frozenset({"viewer", "agent", "admin"})
AGENT = frozenset({"agent", "admin"})
ADMIN = frozenset({"admin"})
NOBODY = frozenset[str]()

# What a parameter's value is, for a business.
Value = Callable[[World, Tenant], str]


def business(world: World, tenant: Tenant) -> str:
    return tenant.id


def plan(world: World, tenant: Tenant) -> str:
    return tenant.plan


def ended(world: World, tenant: Tenant) -> str:
    return tenant.ended.call_sid


def ended_stream(world: World, tenant: Tenant) -> str:
    return tenant.ended.stream


def live(world: World, tenant: Tenant) -> str:
    return tenant.live.call_sid


def live_stream(world: World, tenant: Tenant) -> str:
    return tenant.live.stream


def number(world: World, tenant: Tenant) -> str:
    return tenant.number


def pair(world: World, tenant: Tenant) -> str:
    return tenant.pair


def key(world: World, tenant: Tenant) -> str:
    return tenant.key_ids["viewer"]


# What an allowed request uses up is made anew for each; another's is never touched.


def _fresh(make: Value, another: Value) -> Value:
    return lambda world, tenant: (
        make(world, tenant) if tenant is world.ours else another(world, tenant)
    )


fresh_ended = _fresh(
    lambda world, tenant: world.end(world.twilio_call(tenant, frames=2)).call_sid, ended
)
fresh_live = _fresh(lambda world, tenant: world.twilio_call(tenant).call_sid, live)
fresh_session = _fresh(
    lambda world, tenant: world.new_session(tenant), lambda world, tenant: tenant.session_id
)
fresh_pair = _fresh(
    lambda world, tenant: world.new_pair(tenant), lambda world, tenant: tenant.pair_id
)
fresh_key = _fresh(lambda world, tenant: world.new_key(tenant, "viewer")[1], key)


def _new_plan(world: World, tenant: Tenant) -> str:
    name = f"plan-{secrets.token_hex(4)}"
    world.operator("POST", "/plans", json={"name": name})
    return name


def _new_business(world: World, tenant: Tenant) -> str:
    name = f"business-{secrets.token_hex(4)}"
    world.operator("POST", "/businesses", json={"id": name, "name": name, "plan": tenant.plan})
    return name


fresh_plan = _fresh(_new_plan, plan)
fresh_business = _fresh(_new_business, business)


@dataclass(frozen=True)
class Row:
    """One route: whom it serves, and what names something in it.

    `path_names`, `query_names` and `body_names` map parameters to values. A body name is
    sent only with another business's value. `statuses` are those of an allowed request. `refused`
    are the statuses of a request that names another business's thing.
    """

    method: str
    path: str
    roles: frozenset[str]
    path_names: Mapping[str, Value] = field(default_factory=dict)
    query_names: Mapping[str, Value] = field(default_factory=dict)
    body_names: Mapping[str, Value] = field(default_factory=dict)
    # What the route needs beside: the query, the body, headers.
    query: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[World, Mapping[str, str]], Any] | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    statuses: frozenset[int] = frozenset({200})
    refused: frozenset[int] = frozenset({403, 404})
    # An answer that goes on for ever is read no further than its head.
    streams: bool = False
    ends_session: bool = False
    # Whether the operator may ask for this business's too; their own sessions are elsewhere.
    operator: bool = True
    # The roles that may when no query name is given, where they are others.
    unnamed: frozenset[str] | None = None

    @property
    def id(self) -> str:
        return f"{self.method} {self.path}"

    def may(self, role: str, with_query: bool) -> bool:
        """Return whether a role may ask for its own business's, with or without query names."""
        return role in (self.roles if with_query or self.unnamed is None else self.unnamed)

    @property
    def is_page(self) -> bool:
        """Return whether this is a page, which a session reaches and no key."""
        return self.path.startswith("/admin")

    @property
    def names(self) -> Mapping[str, Value]:
        """Return every parameter that names something of a business."""
        return {**self.path_names, **self.query_names, **self.body_names}


ANY_VERSION = {"If-Match": "*"}
_OF_BUSINESS = {"business_id": business}
_OF_CALL = {"call_sid": ended}

API_ROWS = (
    Row("GET", "/me", VIEWER),
    Row("GET", "/audit", ADMIN, query_names={"business": business}),
    Row("GET", "/audit/export.jsonl", ADMIN, query_names={"business": business}),
    Row("GET", "/plans", ADMIN),
    Row(
        *("POST", "/plans", NOBODY),
        body=lambda world, names: {"name": "another-plan"},
        statuses=frozenset({201, 409}),
    ),
    Row("GET", "/plans/{name}", ADMIN, {"name": plan}),
    Row(
        *("PATCH", "/plans/{name}", NOBODY, {"name": plan}),
        body=lambda world, names: {"max_concurrent_calls": 61},
        headers=ANY_VERSION,
    ),
    Row(
        *("DELETE", "/plans/{name}", NOBODY, {"name": fresh_plan}),
        headers=ANY_VERSION,
        statuses=frozenset({204}),
    ),
    Row("GET", "/businesses", ADMIN),
    Row(
        *("POST", "/businesses", NOBODY),
        body_names={"id": business, "plan": plan, "numbers": number},
        body=lambda world, names: {"id": "another", "name": "Another", "plan": world.ours.plan},
        statuses=frozenset({201, 409}),
    ),
    Row("GET", "/businesses/{business_id}", ADMIN, _OF_BUSINESS),
    Row(
        *("PATCH", "/businesses/{business_id}", ADMIN, _OF_BUSINESS),
        body_names={"plan": plan, "numbers": number},
        body=lambda world, names: {"greeting": "Hello"},
        headers=ANY_VERSION,
    ),
    Row(
        *("DELETE", "/businesses/{business_id}", NOBODY, {"business_id": fresh_business}),
        headers=ANY_VERSION,
        statuses=frozenset({200, 204}),
    ),
    Row("GET", "/businesses/{business_id}/numbers", ADMIN, _OF_BUSINESS),
    Row(
        *("PUT", "/businesses/{business_id}/numbers", NOBODY, _OF_BUSINESS),
        body_names={"numbers": number},
        body=lambda world, names: {"numbers": [world.ours.number]},
        headers=ANY_VERSION,
    ),
    Row("GET", "/businesses/{business_id}/export.jsonl", ADMIN, _OF_BUSINESS),
    Row("GET", "/businesses/{business_id}/export.zip", ADMIN, _OF_BUSINESS),
    Row("GET", "/businesses/{business_id}/keys", ADMIN, _OF_BUSINESS),
    Row(
        *("POST", "/businesses/{business_id}/keys", NOBODY, _OF_BUSINESS),
        body=lambda world, names: {"label": "one more", "role": "viewer"},
        statuses=frozenset({201}),
    ),
    Row(
        *("DELETE", "/businesses/{business_id}/keys/{key_id}", ADMIN),
        {"business_id": business, "key_id": fresh_key},
        statuses=frozenset({204}),
    ),
    Row("GET", "/businesses/{business_id}/secrets", ADMIN, _OF_BUSINESS),
    Row(
        *("PATCH", "/businesses/{business_id}/secrets", ADMIN, _OF_BUSINESS),
        body_names={"exotel_pairs": pair},
        body=lambda world, names: {"twilio_auth_tokens": [world.ours.twilio_token]},
    ),
    Row("GET", "/businesses/{business_id}/exotel-pairs", ADMIN, _OF_BUSINESS),
    Row(
        *("POST", "/businesses/{business_id}/exotel-pairs", ADMIN, _OF_BUSINESS),
        body=lambda world, names: {"label": "one more"},
        statuses=frozenset({201}),
    ),
    Row(
        *("DELETE", "/businesses/{business_id}/exotel-pairs/{pair_id}", ADMIN),
        {"business_id": business, "pair_id": fresh_pair},
        statuses=frozenset({204}),
    ),
    # A number is looked for among the calls of one's own business.
    Row(
        *("POST", "/persons/find", ADMIN),
        body_names={"business": business},
        body=lambda world, names: {"number": "+12763659195"},
    ),
    Row(
        *("POST", "/persons/erase", ADMIN),
        body_names={"business": business},
        body=lambda world, names: {"number": f"+1415555{secrets.randbelow(10_000):04}"},
    ),
    Row("GET", "/sessions", VIEWER, query_names={"business": business}),
    Row(
        *("DELETE", "/sessions/{session_id}", ADMIN, {"session_id": fresh_session}),
        {"business": business},
        statuses=frozenset({204}),
    ),
    # Without a business it signs out the one who asks.
    Row(
        *("DELETE", "/sessions", ADMIN),
        query_names={"business": business},
        unnamed=VIEWER,
        ends_session=True,
    ),
    Row("GET", "/businesses/{business_id}/usage", VIEWER, _OF_BUSINESS),
    Row("GET", "/businesses/{business_id}/usage.csv", VIEWER, _OF_BUSINESS),
    Row("GET", "/live", VIEWER, query_names={"business": business}),
    Row("GET", "/live/events", VIEWER, query_names={"business": business}, streams=True),
    Row(
        *("POST", "/calls/{call_sid}/end", AGENT, {"call_sid": fresh_live}),
        {"business": business},
        statuses=frozenset({202}),
    ),
    Row(
        *("POST", "/calls/{call_sid}/play", AGENT, {"call_sid": live}),
        {"business": business},
        content=bytes(320),
        headers={"Content-Type": "application/octet-stream"},
        statuses=frozenset({202}),
    ),
    Row(
        *("POST", "/calls/{call_sid}/clear", AGENT, {"call_sid": live}),
        {"business": business},
        statuses=frozenset({202}),
    ),
    Row("GET", "/calls", VIEWER, query_names={"business": business}),
    Row("GET", "/calls/{call_sid}", VIEWER, _OF_CALL, {"business": business}),
    Row("GET", "/calls/{call_sid}/events", VIEWER, _OF_CALL, {"business": business}),
    Row(
        *("GET", "/calls/{call_sid}/waveform", VIEWER, _OF_CALL),
        {"business": business, "stream": ended_stream},
    ),
    Row(
        *("DELETE", "/calls/{call_sid}", ADMIN, {"call_sid": fresh_ended}),
        {"business": business},
    ),
    Row(
        *("GET", "/calls/{call_sid}/audio.wav", VIEWER, _OF_CALL),
        {"business": business, "stream": ended_stream},
    ),
    Row(
        *("GET", "/calls/{call_sid}/live.pcm", VIEWER, {"call_sid": live}),
        {"business": business, "stream": live_stream},
        streams=True,
    ),
)

# Routes of the API and the pages that are for everybody.
PUBLIC = frozenset({"GET /admin/static/{name}", "GET /admin/sign-in", "POST /admin/sign-in"})

# Routes outside the API and the pages that answer everybody alike, or a token of their own.
PUBLIC_PATHS = frozenset(
    {
        *("/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"),
        *("/health", "/health/ready", "/metrics", "/docs/static/{name}"),
        # Plain requests to the media sockets: 426.
        *("/twilio-media", "/twilio-media/{business_id}", "/v1/ingest"),
    }
)

# Parameters that name nothing of a business.
FREE = frozenset(
    {
        *("after", "before", "cursor", "limit", "months", "state", "from", "to", "buckets"),
        *("more", "sample_rate", "label", "path"),
        # Settings of a plan and a business, each its own.
        *("calls_per_month_hard", "calls_per_month_soft", "encoding", "frame_ms"),
        *("max_call_seconds", "max_calls_per_second", "max_concurrent_calls"),
        *("minutes_per_month_hard", "minutes_per_month_soft", "retention_seconds"),
        *("return_audio", "tracks", "after_stream", "busy_message", "capture_calls"),
        *("consent_notice", "country", "forward_to", "greeting", "not_answered"),
        *("usage_webhook_url", "usage_webhook_secret", "allowed_destinations"),
        # A business's own words for itself, and the account that its own token must fit.
        *("name", "twilio_account_sid", "twilio_auth_tokens", "expires_at", "role", "number"),
    }
)


def _any_name() -> str:
    return f"new-{secrets.token_hex(4)}"


def _new_plan_form() -> dict[str, str]:
    shown = {one.name: one.value for one in new_plan_inputs()}
    return {**shown, "name": _any_name()}


def _current(world: World) -> dict[str, str]:
    found = world.operator("GET", f"/businesses/{world.ours.id}").json()
    return {"version": str(found["version"])}


# The version that an edit on a page is of; a stale one is answered 412, by who may edit.
_VERSION = {"version": "1"}
_PERSON = {"number": "+14155550123", "confirm": "erase"}
_SEEN = frozenset({200})
_DONE = frozenset({303})
_EDITED = frozenset({303, 409, 412})
# A page that a business's people have no use for sends them to one that they have.
_OF_ID = {"id": business}
_OF_SID = {"sid": ended}


def _page(method: str, path: str, roles: frozenset[str], *names: Any, **more: Any) -> Row:
    more.setdefault("statuses", _SEEN if method == "GET" else _DONE)
    return Row(method, f"/admin{path}", roles, *names, **more)


PAGE_ROWS = (
    _page("POST", "/sign-out", VIEWER, ends_session=True),
    _page("GET", "", VIEWER),
    _page("GET", "/live", VIEWER),
    _page("GET", "/calls", VIEWER, {}, {"business": business}),
    _page("GET", "/calls/{sid}", VIEWER, _OF_SID, {"business": business}),
    _page(
        *("POST", "/calls/{sid}/erase", ADMIN, {"sid": fresh_ended}, {"business": business}),
        body=lambda world, names: {"last4": names["sid"][-4:]},
    ),
    _page("POST", "/calls/{sid}/end", AGENT, {"sid": fresh_live}, {"business": business}),
    _page("GET", "/businesses/{id}/usage", VIEWER, _OF_ID),
    _page("GET", "/plans", ADMIN, statuses=_SEEN | _DONE),
    _page("GET", "/new-plan", NOBODY),
    _page("POST", "/new-plan", NOBODY, body=lambda world, names: _new_plan_form()),
    _page("GET", "/plans/{name}", ADMIN, {"name": plan}),
    _page(
        "POST",
        "/plans/{name}",
        NOBODY,
        {"name": plan},
        body=lambda world, names: _VERSION,
        statuses=_EDITED,
    ),
    _page(
        "POST",
        "/plans/{name}/delete",
        NOBODY,
        {"name": fresh_plan},
        body=lambda world, names: _VERSION,
        statuses=_EDITED,
    ),
    # Sends the people of a business to the page of theirs.
    _page("GET", "/businesses", VIEWER, statuses=_SEEN | _DONE),
    _page("GET", "/persons", ADMIN),
    _page("POST", "/persons", ADMIN, body=lambda world, names: _PERSON, statuses=_SEEN),
    _page("POST", "/persons/erase", ADMIN, body=lambda world, names: _PERSON, statuses=_SEEN),
    _page("GET", "/sessions", VIEWER),
    _page("POST", "/sessions/{session}/end", ADMIN, {"session": fresh_session}, operator=False),
    _page("POST", "/sessions/end-own", VIEWER, ends_session=True),
    _page("GET", "/businesses/{id}/sessions", ADMIN, _OF_ID),
    _page(
        *("POST", "/businesses/{id}/sessions/{session}/end", ADMIN),
        {"id": business, "session": fresh_session},
    ),
    _page("POST", "/businesses/{id}/sessions/end-all", ADMIN, _OF_ID, ends_session=True),
    _page("GET", "/new-business", NOBODY),
    _page(
        *("POST", "/new-business", NOBODY),
        body=lambda world, names: {"id": _any_name(), "name": "New", "plan": world.ours.plan},
    ),
    _page("GET", "/businesses/{id}", ADMIN, _OF_ID),
    _page(
        "POST",
        "/businesses/{id}",
        ADMIN,
        _OF_ID,
        body=lambda world, names: _VERSION,
        statuses=_EDITED,
    ),
    _page(
        "POST",
        "/businesses/{id}/delete",
        NOBODY,
        {"id": fresh_business},
        body=lambda world, names: {**_VERSION, "confirm": names["id"]},
        statuses=_EDITED,
    ),
    _page("GET", "/businesses/{id}/numbers", ADMIN, _OF_ID),
    _page("GET", "/businesses/{id}/secrets", ADMIN, _OF_ID),
    _page(
        *("POST", "/businesses/{id}/numbers", NOBODY, _OF_ID),
        body=lambda world, names: {**_current(world), "number": "+15005550999"},
        statuses=_EDITED,
    ),
    _page(
        *("POST", "/businesses/{id}/numbers/remove", NOBODY, _OF_ID),
        body=lambda world, names: {"number": world.new_number(world.ours), **_current(world)},
        statuses=_EDITED,
    ),
    _page(
        *("POST", "/businesses/{id}/secrets", ADMIN, _OF_ID),
        body=lambda world, names: {"twilio_auth_tokens": world.ours.twilio_token},
    ),
    _page(
        *("POST", "/businesses/{id}/secrets/exotel-pairs", ADMIN, _OF_ID),
        body=lambda world, names: {"label": "one more"},
        statuses=_SEEN,
    ),
    _page(
        *("POST", "/businesses/{id}/secrets/exotel-pairs/{pair}/revoke", ADMIN),
        {"id": business, "pair": fresh_pair},
    ),
    _page("GET", "/businesses/{id}/keys", ADMIN, _OF_ID),
    _page(
        *("POST", "/businesses/{id}/keys", NOBODY, _OF_ID),
        body=lambda world, names: {"label": "one more", "role": "viewer"},
        statuses=_SEEN,
    ),
    _page(
        *("POST", "/businesses/{id}/keys/{key}/revoke", ADMIN),
        {"id": business, "key": fresh_key},
    ),
    _page("GET", "/audit", ADMIN),
    _page("GET", "/health", NOBODY),
    _page("POST", "/health", NOBODY, statuses=_SEEN),
    _page("GET", "/{path:path}", NOBODY, statuses=frozenset({404})),
)
