"""The API and the pages: every route, every role, every parameter that names something."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from tests.tenancy.conftest import deployed
from tests.tenancy.http_rows import API_ROWS, FREE, PAGE_ROWS, PUBLIC, VIEWER, Row
from tests.tenancy.routes import http_routes, whole_service
from tests.tenancy.snapshot import changed, names_of, snapshot
from tests.tenancy.world import API, OPERATOR_TOKEN, ROLES, Tenant, World
from tests.waiting import wait_until


@pytest.fixture(scope="module", params=["two replicas"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Return two businesses, each with its calls on a replica of its own."""
    yield from deployed(request.param, tmp_path_factory.mktemp("tenancy"))


ROWS = {row.id: row for row in (*API_ROWS, *PAGE_ROWS)}
HEAD_BYTES = 4096


@dataclass(frozen=True)
class Answer:
    """What a request was answered; of an endless answer, its beginning."""

    status: int
    text: str


@dataclass(frozen=True)
class Way:
    """How a request proves who sends it."""

    name: str
    role: str
    headers: Mapping[str, str]
    csrf: str = ""


def ways(world: World, row: Row) -> Iterator[Way]:
    """Return every way in that a business's people have, for each role."""
    for role in ROLES:
        if not row.is_page:
            yield Way("key", role, {"Authorization": f"Bearer {world.ours.keys[role]}"})
        if row.ends_session:
            world.forget_sessions()
        cookie, csrf = world.session(role)
        yield Way("session", role, {"Cookie": cookie}, csrf)
    if row.ends_session:
        world.forget_sessions()


def values(row: Row, world: World, foreign: frozenset[str], tenant: Tenant) -> dict[str, str]:
    """Return each name's value: another business's for those in `foreign`."""
    return {
        name: value(world, world.theirs if name in foreign else tenant)
        for name, value in row.names.items()
    }


def send(
    world: World,
    row: Row,
    way: Way,
    named: Mapping[str, str],
    with_query: frozenset[str] = frozenset(),
    foreign: frozenset[str] = frozenset(),
) -> Answer:
    """Send a row's request with these names.

    Of its query names those in `with_query` are sent, of its body names those in `foreign`.
    """
    path = row.path.replace("{path:path}", "no-such-page").format(
        **{name: quote(named[name], safe="") for name in row.path_names}
    )
    query = {**row.query, **{name: named[name] for name in with_query}}
    headers = {**row.headers, **way.headers}
    more: dict[str, Any] = {}
    body = row.body(world, named) if row.body else None
    if body is not None:
        body |= {name: _listed(name, named[name]) for name in foreign & row.body_names.keys()}
    if row.is_page and row.method == "POST":
        more["data"] = {"csrf": way.csrf, **(body or {})}
    elif body is not None:
        more["json"] = body
    elif row.content is not None:
        more["content"] = row.content
    if way.csrf and not row.is_page:
        headers["X-CSRF-Token"] = way.csrf
    prefix = "" if row.is_page else API
    with world.http.stream(
        row.method, prefix + path, params=query, headers=headers, **more
    ) as answer:
        if not row.streams or answer.status_code >= 300:
            return Answer(answer.status_code, answer.read().decode("latin-1"))
        return Answer(answer.status_code, next(answer.iter_bytes(), b"").decode("latin-1"))


def _listed(name: str, value: str) -> str | list[str]:
    return [value] if name in ("numbers", "exotel_pairs") else value


def leaks(world: World, answer: Answer, named: Mapping[str, str]) -> list[str]:
    """Return what an answer says of the other business that the request did not."""
    asked = " ".join(named.values())
    return [name for name in names_of(world.theirs) if name in answer.text and name not in asked]


# ------------------------------------------------------------------- completeness


def test_every_route_has_a_row_and_every_parameter_is_known() -> None:
    routes = {
        route.id.replace(API, ""): route.parameters
        for route in http_routes(whole_service())
        if route.path.startswith((API, "/admin"))
    }
    assert routes.keys() - PUBLIC - ROWS.keys() == set(), "routes without a row"
    assert ROWS.keys() - routes.keys() == set(), "rows without a route"
    unknown = {
        name: sorted(parameters - ROWS[name].names.keys() - FREE)
        for name, parameters in routes.items()
        if name in ROWS and parameters - ROWS[name].names.keys() - FREE
    }
    assert unknown == {}, "parameters that no row has, and that FREE does not list"


def test_a_name_is_in_one_place_of_a_row() -> None:
    for row in ROWS.values():
        count = len(row.path_names) + len(row.query_names) + len(row.body_names)
        assert count == len(row.names), row.id


# --------------------------------------------------------------------- what is allowed


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_serves_the_roles_that_may(world: World, row: Row) -> None:
    for with_query in {frozenset[str](), frozenset(row.query_names)}:
        for way in ways(world, row):
            if not row.may(way.role, bool(with_query)):
                continue
            named = values(row, world, frozenset(), world.ours)
            answer = send(world, row, way, named, with_query)
            assert answer.status in row.statuses, (way, named, answer)
            assert leaks(world, answer, named) == [], way


@pytest.mark.parametrize(
    "row", [row for row in ROWS.values() if row.operator], ids=lambda row: row.id
)
def test_serves_an_operator(world: World, row: Row) -> None:
    if row.is_page:
        cookie, csrf = world.operator_session()
        way = Way("session", "operator", {"Cookie": cookie}, csrf)
    else:
        way = Way("token", "operator", {"Authorization": f"Bearer {OPERATOR_TOKEN}"})
    named = values(row, world, frozenset(), world.ours)
    answer = send(world, row, way, named, frozenset(row.query_names))
    assert answer.status in row.statuses, answer
    if row.ends_session:
        world.forget_sessions()


# --------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "row", [row for row in ROWS.values() if row.roles != VIEWER], ids=lambda row: row.id
)
def test_refuses_the_roles_that_may_not_and_changes_nothing(world: World, row: Row) -> None:
    with_query = frozenset(row.query_names)
    refused = [way for way in ways(world, row) if not row.may(way.role, True)]
    # What is refused is not used up: one target is enough.
    named = values(row, world, frozenset(), world.ours)
    if row.body:
        row.body(world, named)
    before = snapshot(world.redis, [world.theirs]), snapshot(world.redis, [world.ours])
    for way in refused:
        answer = send(world, row, way, named, with_query)
        assert answer.status in row.refused, (way, answer)
        assert leaks(world, answer, named) == [], way
    assert changed(before[0], snapshot(world.redis, [world.theirs])) == []
    # What other cases ended of ours may end a moment later.
    passing = (f"live:{{{world.ours.id}}}", "held:{streams}")
    mine = changed(before[1], snapshot(world.redis, [world.ours]))
    assert [one for one in mine if not one.startswith(passing)] == []


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.names], ids=lambda row: row.id)
def test_refuses_what_names_another_business_and_changes_nothing(world: World, row: Row) -> None:
    before = snapshot(world.redis, [world.theirs])
    for foreign in [frozenset({name}) for name in row.names] + [frozenset(row.names)]:
        named = values(row, world, foreign, world.ours)
        for way in ways(world, row):
            answer = send(world, row, way, named, foreign & row.query_names.keys(), foreign)
            assert answer.status in row.refused, (way, named, answer)
            assert leaks(world, answer, named) == [], (way, named)
    assert changed(before, snapshot(world.redis, [world.theirs])) == []


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer mbk_000000000000_" + "A" * 43},
        {"Cookie": "media-bridge=" + "A" * 43},
    ],
    ids=["nothing", "a forged key", "a forged session"],
)
def test_refuses_strangers_and_changes_nothing(
    world: World, row: Row, headers: Mapping[str, str]
) -> None:
    named = values(row, world, frozenset(row.names), world.ours)
    # An address of its own for each: failures are counted by address.
    address = f"198.51.100.{sum(map(ord, row.id)) % 250}"
    way = Way("stranger", "", {**headers, "X-Forwarded-For": address})
    before = snapshot(world.redis, [world.theirs])
    answer = send(world, row, way, named)
    # A page sends strangers to the sign-in form.
    assert answer.status in ({303} if row.is_page else {401, 429}), answer
    assert leaks(world, answer, named) == []
    assert changed(before, snapshot(world.redis, [world.theirs])) == []


# ------------------------------------------------------- what concerns both businesses


def test_erasing_a_caller_of_both_erases_the_calls_of_one(world: World) -> None:
    caller = "+12763650001"
    mine = world.end(world.twilio_call(world.ours, world.near, frames=2, caller=caller))
    other = world.end(world.twilio_call(world.theirs, world.far, frames=2, caller=caller))
    headers = {"Authorization": f"Bearer {world.ours.keys['admin']}"}

    def found() -> str:
        asked = {"number": caller}
        return world.http.post(f"{API}/persons/find", json=asked, headers=headers).text

    # A call that has just ended is not over at once.
    wait_until(lambda: '"live":true' not in found())
    before = snapshot(world.redis, [world.theirs])
    assert mine.call_sid in found()
    assert other.call_sid not in found()
    erased = world.http.post(f"{API}/persons/erase", json={"number": caller}, headers=headers)
    assert erased.status_code == 200, erased.text
    assert not world.redis.exists(f"audio:{{{mine.stream}}}"), erased.text
    assert world.redis.exists(f"audio:{{{other.stream}}}")
    assert changed(before, snapshot(world.redis, [world.theirs])) == []
    kept = world.operator("GET", f"/calls/{other.call_sid}").text
    assert caller in kept
