"""Our WebSocket layer against Autobahn's cases; and proof that they can fail."""

import asyncio
from collections import Counter
from typing import Any

import pytest
import uvloop

from tests.autobahn.cases import CATEGORIES, load_cases
from tests.autobahn.driver import FAILED, HEAVY, OK, play
from tests.autobahn.echo import echo_server
from tests.autobahn.known import MAY_BE_NON_STRICT, MAY_FAIL, unexpected


@pytest.fixture(scope="module")
def cases() -> dict[str, type[Any]]:
    return load_cases()


def test_every_case_of_the_suite_is_found(cases: dict[str, type[Any]]) -> None:
    assert len(cases) == 301
    assert {name.partition(".")[0] for name in cases} == CATEGORIES
    assert set(cases) >= MAY_BE_NON_STRICT | MAY_FAIL


def test_the_websocket_layer_keeps_the_protocol(cases: dict[str, type[Any]]) -> None:
    # The loop of `make chaos`; the other test plays in asyncio's own.
    with echo_server("ours") as port:
        outcomes = uvloop.run(play(cases, port, patience=5.0))
    assert len(outcomes) == len(cases)
    assert unexpected(outcomes) == []


def test_a_server_that_trusts_its_peers_fails_in_every_category_of_rules(
    cases: dict[str, type[Any]],
) -> None:
    light = {name: case for name, case in cases.items() if not name.startswith(HEAVY)}
    with echo_server("naive") as port:
        outcomes = asyncio.run(play(light, port, patience=0.3))
    failed = {outcome.case_id for outcome in outcomes if outcome.verdict == FAILED}
    assert len(failed) >= 100
    # Reserved bits, opcodes, fragments, UTF-8, closes.
    assert {name.partition(".")[0] for name in failed} >= {"3", "4", "5", "6", "7"}
    # It does echo messages and answer pings, and the driver sees that.
    verdicts = Counter(one.verdict for one in outcomes if one.case_id.startswith(("1.", "2.")))
    assert verdicts.most_common(1)[0][0] == OK
