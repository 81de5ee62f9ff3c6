"""Lifecycle events on their way: their data is bounded."""

from typing import Any

import msgspec
import pytest

from app.events import CallIdentity, LifecycleEvent
from app.session.herald import MAX_DATA_BYTES, Herald

SHORT = {"from": "+12763659195", "seq": 7, "tracks": ["inbound"]}


def announced(data: dict[str, Any]) -> dict[str, Any]:
    events: list[LifecycleEvent] = []
    Herald(events.append, lambda: 1.5, lambda: "id").tell("stream.error", CallIdentity(), data)
    (event,) = events
    assert len(msgspec.json.encode(event.data)) <= MAX_DATA_BYTES
    return dict(event.data)


def test_announces_data_within_the_bound_as_it_is() -> None:
    assert announced(SHORT) == SHORT
    most = {"error": "x" * (MAX_DATA_BYTES - len('{"error":""}'))}
    assert announced(most) == most


@pytest.mark.parametrize(
    ("data", "bounded"),
    [
        ({**SHORT, "error": "x" * 60_000}, {**SHORT, "omitted": ["error"]}),
        ({**SHORT, "error": "ä" * 2048}, {**SHORT, "omitted": ["error"]}),
        (
            {**SHORT, "error": "x" * 5000, "detail": {"a": "y" * 6000}},
            {**SHORT, "omitted": ["detail", "error"]},
        ),
        ({"x" * 5000: 1}, {"omitted": True}),
    ],
)
def test_leaves_out_the_longest_fields_and_names_them(
    data: dict[str, Any], bounded: dict[str, Any]
) -> None:
    assert announced(data) == bounded
