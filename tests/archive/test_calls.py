"""A call's state and its parts, from whatever its log has."""

from typing import Any

import pytest

from app.archive.calls import INCOMING_MS, LONGEST_CALL_MS, CallState, summarize
from app.events import LifecycleEvent
from tests.samples import CALL

NOW = 1_800_000_000_000
RECEIPT = {"published": 3, "end_reason": "stop"}
LOST: dict[str, Any] = {"receipt": {"end_reason": "lost", "provisional": True}, "provisional": True}

Said = tuple[str, int, dict[str, Any]]
INCOMING: Said = ("call.incoming", 0, {"from": "+15005550009", "to": "+15005550006"})
STARTED: Said = ("stream.started", 10, {"startedAt": NOW + 10, "tracks": ["inbound"]})
STOPPED: Said = ("stream.stopped", 50, {"receipt": RECEIPT})
COMPLETED: Said = ("call.status", 60, {"status": "completed"})
REJECTED: Said = ("call.rejected", 0, {"reason": "plan_limit_reached", "from": "+15005550009"})


def events(said: list[Said]) -> list[LifecycleEvent]:
    return [
        LifecycleEvent(name, str(number), NOW + at, CALL, data)
        for number, (name, at, data) in enumerate(said)
    ]


@pytest.mark.parametrize(
    ("said", "after", "state", "ended_at"),
    [
        ([INCOMING], 100, CallState.INCOMING, None),
        ([INCOMING], INCOMING_MS - 1, CallState.INCOMING, None),
        ([INCOMING], INCOMING_MS, CallState.ENDED, 0),
        ([INCOMING, COMPLETED], 100, CallState.ENDED, 60),
        ([INCOMING, ("call.status", 5, {"status": "ringing"})], 100, CallState.INCOMING, None),
        ([INCOMING, STARTED], 100, CallState.LIVE, None),
        ([INCOMING, STARTED, COMPLETED], 100, CallState.LIVE, None),  # its stream goes on
        ([INCOMING, STARTED], LONGEST_CALL_MS + 11, CallState.ENDED, 0),
        ([INCOMING, STARTED, STOPPED], 100, CallState.ENDED, 50),
        ([INCOMING, STARTED, STOPPED, COMPLETED], 100, CallState.ENDED, 60),
        ([STOPPED], 100, CallState.ENDED, 50),
        ([REJECTED], 100, CallState.REJECTED, 0),
        ([INCOMING, ("call.rejected", 5, {"reason": "draining"})], 100, CallState.INCOMING, None),
        ([REJECTED, INCOMING, STARTED], 100, CallState.LIVE, None),
        ([STARTED, ("stream.stopped", 40, LOST)], 100, CallState.LOST, 40),
        ([STARTED, ("stream.stopped", 40, LOST), STOPPED], 100, CallState.ENDED, 50),
        ([STARTED, STOPPED, ("stream.stopped", 55, LOST)], 100, CallState.ENDED, 50),
        ([STARTED, ("stream.stopped", 40, LOST), STARTED], 100, CallState.LIVE, None),
        ([COMPLETED], 100, CallState.ENDED, 60),
    ],
)
def test_a_calls_state_is_told_by_its_events(
    said: list[Said], after: int, state: CallState, ended_at: int | None
) -> None:
    call = summarize(events(said), NOW + after)
    assert call.state is state
    assert call.ended_at == (None if ended_at is None else NOW + ended_at)
    assert call.is_over == (state not in (CallState.INCOMING, CallState.LIVE))


def test_a_call_has_its_numbers_plan_and_streams() -> None:
    keys: list[Said] = [("stream.dtmf", 20, {"seq": 3}), ("stream.dtmf", 21, {"seq": 4})]
    call = summarize(events([INCOMING, STARTED, *keys, STOPPED]), NOW)
    assert (call.call_sid, call.business_id, call.plan) == ("CA1", "business-1", "premium")
    assert (call.from_number, call.to_number) == ("+15005550009", "+15005550006")
    assert call.dtmf == 2
    [stream] = call.streams
    assert (stream.started_at, stream.ended_at) == (NOW + 10, NOW + 50)
    assert stream.receipt == RECEIPT
    assert not stream.provisional


def test_a_stream_id_that_is_used_again_is_another_stream() -> None:
    again: Said = ("stream.started", 70, {"startedAt": NOW + 70})
    call = summarize(events([STARTED, STOPPED, again]), NOW + 100)
    assert [stream.ended_at for stream in call.streams] == [NOW + 50, None]
    assert call.state is CallState.LIVE


@pytest.mark.parametrize(
    "data", [{}, {"tracks": 3, "startedAt": NOW}, {"tracks": [], "encoding": None}]
)
def test_events_of_another_version_are_read_as_far_as_they_go(data: dict[str, Any]) -> None:
    call = summarize(events([("stream.started", 0, data), ("stream.stopped", 5, {})]), NOW + 9)
    assert call.state is CallState.ENDED
    assert call.streams[0].tracks == ()
