"""Where a business may forward its calls: set by operators, checked when it is saved."""

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.service import WAIT_SECONDS, Service, lines_with
from tests.web.admins import Caller, administered, bearer

# The businesses' own numbers are of the United States.
HOME, ABROAD, PREMIUM = "+14155550199", "+18765550199", "+19005551234"


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with administered(tmp_path_factory.mktemp("destinations")) as running:
        yield running


@pytest.fixture(scope="module")
def key(bridge: Service) -> str:
    return str(Caller(bridge).new_key("business-2")["key"])


@pytest.mark.parametrize("is_operator", [True, False])
@pytest.mark.parametrize(
    ("forward_to", "problem"),
    [
        (HOME, ""),
        ("sip:desk@example.com", ""),
        ("", ""),
        (ABROAD, "is in JM; the plan allows US, SIP addresses"),
        (PREMIUM, "is a premium-rate number, which is never called"),
        ("+881612345678", "is of +881, an international network, which is never called"),
        ("sip:+19005551234@pbx.example.com", "is a premium-rate number, which is never called"),
        ("client:agent", "must be a number such as +15005550006, or sip:name@host"),
    ],
)
def test_refuses_a_forward_to_that_the_plan_does_not_allow(
    bridge: Service, key: str, is_operator: bool, forward_to: str, problem: str
) -> None:
    caller = Caller(bridge) if is_operator else Caller(bridge, bearer(key))
    path = "/businesses/business-2"
    before = caller("GET", path).json()
    answer = caller("PATCH", path, {"forward_to": forward_to}, "*")
    if not problem:
        assert (answer.status_code, answer.json()["forward_to"]) == (200, forward_to)
        return
    assert (answer.status_code, answer.json()["error"]) == (422, "fields_invalid")
    assert answer.json()["fields"] == {"forward_to": problem}
    assert caller("GET", path).json() == before


def test_only_an_operator_widens_a_plan(bridge: Service, key: str) -> None:
    admin, operator = Caller(bridge, bearer(key)), Caller(bridge)
    assert admin("PATCH", "/plans/tiny", {"allowed_destinations": ["any"]}, "*").status_code == 403
    assert admin("PATCH", "/businesses/business-2", {"country": "JM"}, "*").status_code == 403
    assert admin("PATCH", "/businesses/business-2", {"plan": "premium"}, "*").status_code == 403
    assert operator("GET", "/plans/tiny").json()["allowed_destinations"] == ["own", "sip"]

    bad = operator("PATCH", "/plans/tiny", {"allowed_destinations": ["+1"]}, "*")
    assert (bad.status_code, set(bad.json()["fields"])) == (422, {"allowed_destinations"})
    widened = operator("PATCH", "/plans/tiny", {"allowed_destinations": ["own", "JM"]}, "*")
    assert widened.json()["allowed_destinations"] == ["own", "JM"]
    saved = admin("PATCH", "/businesses/business-2", {"forward_to": ABROAD}, "*")
    assert (saved.status_code, saved.json()["forward_to"]) == (200, ABROAD)

    # Narrowed again, what is stored stays, and other fields can be edited beside it.
    narrowed = operator("PATCH", "/plans/tiny", {"allowed_destinations": ["own"]}, "*")
    assert narrowed.status_code == 200
    assert lines_with(bridge.logged(), "[admin] ⚠️ business business-2: its calls cannot be")
    greeted = admin("PATCH", "/businesses/business-2", {"greeting": "Hello"}, "*")
    assert (greeted.status_code, greeted.json()["forward_to"]) == (200, ABROAD)
    assert admin("PATCH", "/businesses/business-2", {"forward_to": ""}, "*").status_code == 200


def test_a_plan_or_number_that_would_forbid_forwarding_is_refused(bridge: Service) -> None:
    operator = Caller(bridge)
    made = operator(
        *("POST", "/businesses"),
        {"id": "dutch", "name": "D", "plan": "premium", "numbers": ["+31201234567"]},
    )
    assert made.status_code == 201
    path, dutch = "/businesses/dutch", {"forward_to": "+31207654321"}
    assert operator("PATCH", path, dutch, "*").status_code == 200
    moved = operator("PATCH", path, {"numbers": ["+15005550077"]}, "*")
    assert moved.json()["fields"] == {"forward_to": "is in NL; the plan allows US, SIP addresses"}
    refused = operator("POST", "/businesses", {"id": "x", "name": "X", "plan": "premium", **dutch})
    assert set(refused.json()["fields"]) == {"forward_to"}
    assert operator("GET", "/businesses/x").status_code == 404


def test_the_page_shows_what_is_wrong_at_the_field(bridge: Service, key: str) -> None:
    with httpx.Client(verify=False, timeout=WAIT_SECONDS, base_url=bridge.url) as client:
        assert client.post("/admin/sign-in", data={"key": key}).status_code == 303
        page = "/admin/businesses/business-2"
        hidden = dict(re.findall(r'name="(csrf|version)" value="([^"]*)"', client.get(page).text))
        sent = {**hidden, "forward_to": ABROAD, "was-forward_to": ""}
        answer = client.post(page, data={**sent, "name": "business-2", "was-name": "business-2"})
        plan = client.get("/admin/plans/tiny").text
    assert answer.status_code == 422
    assert "is in JM; the plan allows US" in answer.text
    assert "Allowed destinations" in plan
