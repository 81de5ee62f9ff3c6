"""Deployments that are broken, each in one way, and the cause that the doctor names first."""

import asyncio
import datetime
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.diagnosis.findings import Level, worst
from app.tools.doctor.report import lines_of
from tests.certificates import DAY, Holder
from tests.doctor.deployed import Deployed, deployed, first_cause
from tests.proxy import Message, Rules, answer
from tests.waiting import WAIT_SECONDS

HTML = "<!doctype html><title>Welcome</title>"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Give a service that is well; what stands before it is not."""
    with deployed(tmp_path_factory.mktemp("deployed")) as running:
        yield running


def at(path: str, change: Callable[[Message], Message]) -> Callable[[Message], Message]:
    """Change requests to a path, and let the others pass."""
    return lambda request: change(request) if request.path.startswith(path) else request


def on(path: str, change: Callable[[Message], Message]) -> Callable[[Message, str], Message]:
    """Change answers of a path."""
    return lambda response, asked: change(response) if asked.startswith(path) else response


def moved(to: str) -> Callable[[Message], Message]:
    return lambda request: answer(301, Location=to)


def always(message: Message) -> Callable[[Message], Message]:
    return lambda request: message


def without_query(request: Message) -> Message:
    method, target, version = request.first.split(" ")
    return replace(request, first=f"{method} {target.partition('?')[0]} {version}")


def rewritten(old: str, new: str) -> Callable[[Message], Message]:
    def change(response: Message) -> Message:
        body = response.body.replace(old.encode(), new.encode())
        return replace(response, body=body).having("Content-Length", str(len(body)))

    return change


def typed(kind: str) -> Callable[[Message], Message]:
    return lambda response: response.having("Content-Type", kind)


# What stands between Twilio and the service, and is wrong. Those of the three guides in
# which this product began are marked: (1) "WebSocket not connecting", (2) "Exotel
# connection debugging", (3) "Fix Exotel's WebSocket".
PROXIES = {
    # (1) "Railway edge/proxy not forwarding WebSocket upgrades", "HTTP/2 vs HTTP/1.1"
    "upgrade_stripped": Rules(lambda request: request.without("upgrade", "connection")),
    # (1) "Railway's edge layer might be blocking", "500/502/503 errors"
    "service_down": Rules(always(answer(502, "Bad Gateway"))),
    # (1) "The WebSocket route might not be properly registered"; (2) "wrong path"
    "socket_wrong_path": Rules(at("/twilio-media", always(answer(404, HTML)))),
    "socket_refused": Rules(at("/twilio-media", always(answer(403, "denied by a rule")))),
    # (1) "Railway might be rewriting it", of the stream's URL
    "twiml_elsewhere": Rules(
        response=on("/twilio-voice", rewritten("wss://127.0.0.1", "wss://localhost"))
    ),
    # (1) "Has all query parameters": the guide is wrong, and Twilio strips them
    "twiml_query": Rules(
        response=on("/twilio-voice", rewritten('/twilio-media"', '/twilio-media?callSid=1"'))
    ),
    # (2) "Service is running": another one is
    "other_site": Rules(always(answer(200, HTML, Content_Type="text/html"))),
    # (2) "typos (http vs https)", "no trailing slash"
    "redirects": Rules(
        lambda request: answer(301, Location=f"https://www.x.example{request.path}")
    ),
    "redirects_path": Rules(
        lambda request: (
            request if request.path.endswith("/") else answer(308, Location=f"{request.path}/")
        )
    ),
    "socket_redirects": Rules(at("/twilio-media", moved("/twilio-media/"))),
    "query_stripped": Rules(without_query),
    "signature_stripped": Rules(lambda request: request.without("x-twilio-signature")),
    "webhook_not_found": Rules(at("/twilio-voice", always(answer(404, HTML)))),
    "webhook_unreachable": Rules(at("/twilio-voice", always(answer(403, "a firewall's page")))),
    "socket_holds_messages": Rules(holds="/twilio-media"),
    "socket_garbled": Rules(
        response=on("/twilio-media", lambda answer: answer.having("Sec-WebSocket-Accept", "x"))
    ),
    "ingest_upgrade_failed": Rules(at("/v1/ingest", lambda request: request.without("upgrade"))),
    "twiml_unreadable": Rules(response=on("/twilio-voice", rewritten("<?xml", "<!-- ad --><?xml"))),
    "twiml_content_type": Rules(response=on("/twilio-voice", typed("text/html"))),
    "twiml_not_wss": Rules(response=on("/twilio-voice", rewritten("wss://", "ws://"))),
}


# What the three guides name as causes, and the pages of Twilio's errors: in their words, and
# by what the doctor calls each. What is wrong in a guide has the cause that is right.
NAMED = (
    ("WebSocket not connecting", "Railway edge/proxy not forwarding upgrades", "upgrade_stripped"),
    ("WebSocket not connecting", "HTTP/2 vs HTTP/1.1 issues", "upgrade_stripped"),
    ("WebSocket not connecting", "The Stream URL might be malformed", "public_url_path"),
    ("WebSocket not connecting", "starts with wss:// (not ws://)", "twiml_not_wss"),
    ("WebSocket not connecting", "Railway might be rewriting it", "twiml_elsewhere"),
    ("WebSocket not connecting", "has all query parameters", "twiml_query"),
    ("WebSocket not connecting", "edge layer might be blocking", "socket_refused"),
    ("WebSocket not connecting", "the route might not be registered", "socket_wrong_path"),
    ("WebSocket not connecting", "connection timeouts", "tcp_no_answer"),
    ("WebSocket not connecting", "500/502/503 errors", "service_down"),
    ("WebSocket not connecting", "PUBLIC_URL: no trailing slash", "public_url_slash"),
    ("WebSocket not connecting", "PUBLIC_URL: must be https://", "public_url_http"),
    ("Exotel debugging", "typos (http vs https, wrong path)", "redirects"),
    ("Exotel debugging", "SUPPORT_EXOTEL not set: 401", "ingest_exotel_off"),
    ("Exotel debugging", "REDIS_URL is configured", "redis_unreachable"),
    ("Exotel debugging", "firewall, connection timeout", "tcp_no_answer"),
    ("Exotel debugging", "verify service is running", "tcp_refused"),
    ("Fix Exotel", "401 Unauthorized", "ingest_credentials"),
    ("Fix Exotel", "Connection refused", "tcp_refused"),
    ("Fix Exotel", "WebSocket upgrade failed", "ingest_upgrade_failed"),
    ("31901", "no reply", "no_http_answer"),
    ("31902", "connection refused", "tcp_refused"),
    ("31903", "server restart, proxy idle time-out mid-stream", "call_cut"),
    ("31910", "not TLS", "tls_not_spoken"),
    ("31910", "bad certificate", "certificate_chain_incomplete"),
    ("31920", "server rejected", "public_url_differs"),
    ("31920", "a redirect", "socket_redirects"),
    ("31922", "not wss", "public_url_http"),
)


@pytest.mark.parametrize(("guide", "words", "cause"), NAMED)
def test_what_a_guide_names_is_staged_here(guide: str, words: str, cause: str) -> None:
    staged = Path(__file__).read_text(encoding="utf-8").partition("NAMED = (")
    assert f'"{cause}"' in staged[0] + staged[2].partition("\n)\n")[2], (guide, words)


def unready(**checks: str) -> Callable[[Message], Message]:
    """Answer readiness as the service does while these conditions do not hold."""
    all_of_them = {"accepting": "ok", "broker": "ok", "store": "ok", "businesses": "ok", **checks}
    said = {"status": "unready", "checks": all_of_them, "warnings": []}
    return at("/health/ready", always(answer(503, json.dumps(said))))


def damaged(data: bytes) -> bytes:
    """Change one byte in about half of what is as long as a frame; `start` is longer.

    Which half, the mask tells, which is random (RFC 6455, 5.3).
    """
    if not 300 < len(data) < 420 or data[4] & 1:
        return data
    return data[:200] + bytes([data[200] ^ 1]) + data[201:]


PROXIES |= {
    "broker_away": Rules(unready(broker="broker_unavailable: failing")),
    "businesses_not_loaded": Rules(unready(businesses="store_unavailable: not in the store yet")),
    "draining": Rules(unready(accepting="draining: this process takes no new calls")),
    "clock_skewed": Rules(
        response=on("/health", lambda m: m.having("Date", "Sat, 21 Nov 2020 12:00:00 GMT"))
    ),
    # (1) "connection timeouts": what cuts a connection is most often between
    "call_cut": Rules(passes=lambda data: None if len(data) > 300 else data),
    "frames_missing": Rules(passes=damaged),
}
WARNINGS = ("draining", "clock_skewed")
IN_THE_CALL = ("twiml", "call_cut", "frames_missing")


@pytest.mark.parametrize("cause", PROXIES)
async def test_what_stands_between_is_named_first(place: Deployed, cause: str) -> None:
    findings = await place.examined(PROXIES[cause], places_call=cause.startswith(IN_THE_CALL))
    if cause in WARNINGS:
        assert first_cause(findings) == "", findings
        assert cause in {finding.cause for finding in findings}
    else:
        assert first_cause(findings) == cause, findings


def briefly(place: Deployed) -> dict[str, Any]:
    """Look from outside alone, and not for long: what is looked at never answers."""
    return {"whole_seconds": 3, "deployment": replace(place.deployment, redis_url="")}


async def test_a_service_that_says_nothing_is_given_up(place: Deployed) -> None:
    findings = await place.examined(Rules(is_silent=True), **briefly(place))
    assert first_cause(findings) == "no_http_answer", findings


async def test_a_call_that_hears_an_apology_is_told_so(place: Deployed) -> None:
    findings = await place.examined(business_id="nobody")
    assert first_cause(findings) == "call_turned_away", findings


async def test_a_deployment_that_is_well_is_found_well(place: Deployed) -> None:
    findings = await place.examined()
    assert first_cause(findings) == "", findings
    found = {finding.check: finding for finding in findings}
    assert {check for check, one in found.items() if one.level is Level.OK} >= {
        *("redis", "redis_eviction", "redis_clock", "tcp", "tls", "redirect", "health", "ready"),
        *("clock", "signature", "twilio_socket", "ingest_socket", "twiml", "test_call"),
    }
    assert found["test_call"].found == "A test call: 50 of 50 frames published."


async def test_forwarded_scheme_and_host_do_not_matter_to_what_is_signed(place: Deployed) -> None:
    def forwarding(request: Message) -> Message:
        changed = request.having("Host", "inner:8000").having("X-Forwarded-Proto", "http")
        return changed.having("X-Forwarded-Host", "another.example")

    findings = await place.examined(Rules(forwarding), places_call=False)
    assert first_cause(findings) == "", findings


ESCAPE = "\x1b]0;owned\x07\x1b[2J"
BOMB = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;">]><Response><Say>&c;</Say></Response>"""
STRANGERS = {
    "a list for an object": Rules(always(answer(200, "[" * 60_000))),
    "wrong types": Rules(
        at("/health/ready", always(answer(200, '{"checks": {"broker": {"a": [1]}}}')))
    ),
    "checks that are none": Rules(at("/health/ready", always(answer(200, '{"checks": 7}')))),
    "a Location that is no URL": Rules(always(answer(302, Location="http://[::1"))),
    "a Location of another scheme": Rules(always(answer(302, Location="javascript:alert(1)"))),
    "a Date that is none": Rules(response=on("/health", lambda m: m.having("Date", "noon"))),
    "a Date of another age": Rules(
        response=on("/health", lambda m: m.having("Date", "Sat, 99 Nov 99999 12:00:00 GMT"))
    ),
    "entities": Rules(
        response=on("/twilio-voice", rewritten("<?xml", BOMB)),
    ),
    "a stream that is no URL": Rules(
        response=on("/twilio-voice", rewritten("wss://127", "wss://["))
    ),
    "an endless body": Rules(always(answer(200, "x" * 10_000_000))),
    "words that move the cursor": Rules(
        at("/twilio-voice", always(answer(403, json.dumps({"error": "x", "detail": ESCAPE}))))
    ),
    "a socket's words": Rules(
        at("/twilio-media", always(answer(403, json.dumps({"error": "x", "detail": ESCAPE}))))
    ),
}


IN_A_CALL = ("entities", "a stream that is no URL")


@pytest.mark.parametrize("answered", STRANGERS)
async def test_whatever_a_stranger_answers_ends_in_findings(place: Deployed, answered: str) -> None:
    findings = await place.examined(STRANGERS[answered], places_call=answered in IN_A_CALL)
    assert {finding.check for finding in findings} >= {"health", "twilio_socket", "ingest_socket"}
    shown = "".join(line for finding in findings for line in lines_of(finding))
    assert "\x1b" not in shown


# ------------------------------------------------------------------ the certificate


def certificate(kind: str, root: Holder) -> Holder:
    match kind:
        case "certificate_expired":
            return root.server(begins=-2 * DAY, ends=-DAY)
        case "certificate_not_yet_valid":
            return root.server(begins=DAY, ends=2 * DAY)
        case "certificate_wrong_name":
            return root.server(("bridge.example.com",))
        case "certificate_self_signed":
            return Holder.root()
        case "certificate_chain_incomplete":
            return root.authority().server()
    return root.server(ends=datetime.timedelta(days=3))


@pytest.mark.parametrize(
    "cause",
    [
        "certificate_expired",
        "certificate_not_yet_valid",
        "certificate_wrong_name",
        "certificate_self_signed",
        "certificate_chain_incomplete",
    ],
)
async def test_a_certificate_that_twilio_refuses_is_named(place: Deployed, cause: str) -> None:
    shown = place.context(certificate(cause, place.root))
    assert first_cause(await place.examined(context=shown, places_call=False)) == cause


async def test_a_certificate_that_ends_soon_is_a_warning(place: Deployed) -> None:
    shown = place.context(certificate("", place.root))
    findings = await place.examined(context=shown, places_call=False)
    [tls] = [finding for finding in findings if finding.check == "tls"]
    assert (tls.level, tls.cause) == (Level.WARNING, "certificate_ends_soon")


async def test_a_port_without_tls_is_named(place: Deployed) -> None:
    url = f"https://127.0.0.1:{place.inner_port}"
    assert first_cause(await place.examined_alone(url=url)) == "tls_not_spoken"


# ------------------------------------------------------------------ nobody there


async def test_a_port_at_which_nobody_listens_is_named(place: Deployed) -> None:
    assert first_cause(await place.examined_alone()) == "tcp_refused"


async def test_a_host_that_nobody_knows_is_named(place: Deployed) -> None:
    findings = await place.examined_alone(url="https://nothing.invalid")
    assert first_cause(findings) == "dns_no_such_host"


async def test_a_port_that_drops_what_comes_is_named(place: Deployed) -> None:
    """(2) "Firewall/Network Issue": "Connection timeout"."""
    # When its queue is full, Linux drops what comes to a listening socket (listen(2)).
    with socket.create_server(("127.0.0.1", place.port), backlog=0), ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", place.port))
        findings = await place.examined_alone(**briefly(place))
    assert first_cause(findings) == "tcp_no_answer", findings


async def test_a_name_that_leads_into_a_private_network_is_named(
    place: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **how: inner)
    outside = replace(place.deployment, redis_url="")
    findings = await place.examined_alone(url="https://bridge.example.com", deployment=outside)
    assert first_cause(findings) == "dns_private", findings


async def test_a_server_that_never_shakes_hands_is_given_up(place: Deployed) -> None:
    with socket.create_server(("127.0.0.1", place.port)):
        async with asyncio.timeout(WAIT_SECONDS):
            findings = await place.examined_alone(**briefly(place))
    assert first_cause(findings) == "tls_failed"


# ------------------------------------------------------------------ what is set wrong


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("", "public_url_missing"),
        ("127.0.0.1:8000", "public_url_scheme_missing"),
        ("https:///twilio-voice", "public_url_unreadable"),
        ("https://[::1", "public_url_unreadable"),
        ("ftp://bridge.invalid", "public_url_unreadable"),
        ("not a url", "public_url_unreadable"),
        # (1) "Starts with wss:// (not ws://)", "must be https://"
        ("http://bridge.example.invalid", "public_url_http"),
        # (1) "No trailing slash"
        ("https://nothing.invalid/", "public_url_slash"),
        ("https://nothing.invalid/twilio-voice", "public_url_path"),
        ("https://user:secret@nothing.invalid", "public_url_user"),
    ],
)
async def test_a_public_url_of_the_wrong_form_is_named(
    place: Deployed, url: str, cause: str
) -> None:
    findings = await place.examined_alone(url=url or " ")
    assert first_cause(findings) == cause, findings
    assert "secret" not in str(findings)


async def test_a_public_url_that_differs_is_named_with_both(place: Deployed) -> None:
    """(1) "Verify PUBLIC_URL": the service is called by another name than it signs by."""
    findings = await place.examined(url=f"https://localhost:{place.port}")
    assert first_cause(findings) == "public_url_differs", findings
    [found] = [finding for finding in findings if finding.cause == "public_url_differs"]
    assert f"PUBLIC_URL=https://localhost:{place.port}" in found.fix
    assert place.url in found.why


async def test_another_accounts_token_is_named(place: Deployed) -> None:
    wrong = replace(place.deployment, auth_token="another account's")
    findings = await place.examined(deployment=wrong, places_call=False)
    assert first_cause(findings) == "auth_token_differs", findings
    assert "another account's" not in str(findings)


async def test_exotels_wrong_credentials_are_named(place: Deployed) -> None:
    """(3) "401 Unauthorized - Authentication still failing"."""
    wrong = replace(place.deployment, exotel_pair="key:of another")
    findings = await place.examined(deployment=wrong, places_call=False)
    assert first_cause(findings) == "ingest_credentials", findings


async def test_a_redis_that_is_not_the_services_has_no_receipt(
    place: Deployed, redis_url: str
) -> None:
    other = replace(place.deployment, redis_url=redis_url)
    findings = await place.examined(deployment=other, business_id="business-1")
    assert first_cause(findings) == "receipt_missing", findings


async def test_a_redis_that_is_not_there_is_named_before_all_that_follows(place: Deployed) -> None:
    away = replace(place.deployment, redis_url="redis://127.0.0.1:1/0")
    findings = await place.examined(deployment=away)
    assert first_cause(findings) == "redis_unreachable", findings


async def test_from_outside_alone_a_service_is_judged_as_far_as_can_be_seen(
    place: Deployed,
) -> None:
    outside = replace(place.deployment, auth_token="", redis_url="", exotel_pair="")
    findings = await place.examined(deployment=outside)
    assert worst(findings) is Level.WARNING  # it is on loopback
    found = {finding.check: finding.level for finding in findings}
    assert found["twilio_socket"] is found["ingest_socket"] is found["signature"] is Level.OK
    assert found["twiml"] is Level.SKIPPED


# ------------------------------------------------------------------ the service itself


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Give a service that does not serve Exotel, as in the third guide."""
    with deployed(tmp_path_factory.mktemp("bare"), SUPPORT_EXOTEL="false") as running:
        yield running


async def test_exotel_without_support_exotel_is_named(bare: Deployed) -> None:
    """(2) "SUPPORT_EXOTEL not set"; (3) "supportExotel: false"."""
    findings = await bare.examined(exotel_wanted=True, places_call=False)
    assert first_cause(findings) == "ingest_exotel_off", findings


async def test_a_service_without_its_twilio_routes_is_named(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("ingest-alone")
    with deployed(directory, TWILIO_AUTH_TOKEN="") as alone:
        findings = await alone.examined()
    assert first_cause(findings) == "twilio_routes_off", findings
    [found] = [finding for finding in findings if finding.cause == "twilio_routes_off"]
    assert "Set TWILIO_AUTH_TOKEN" in found.fix


async def test_whoever_does_not_want_exotel_is_not_told_of_it(bare: Deployed) -> None:
    twilio_only = replace(bare.deployment, exotel_pair="")
    assert first_cause(await bare.examined(deployment=twilio_only, places_call=False)) == ""


async def test_a_test_call_takes_one_slot_and_gives_it_back(place: Deployed) -> None:
    for _ in range(2):  # business-2 has one slot
        findings = await place.examined(business_id="business-2")
        assert first_cause(findings) == "", findings


async def test_a_test_call_that_never_streams_gives_its_slot_back_too(place: Deployed) -> None:
    for _ in range(2):
        findings = await place.examined(PROXIES["twiml_content_type"], business_id="business-2")
        assert first_cause(findings) == "twiml_content_type", findings
