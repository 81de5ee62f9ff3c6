"""What pages say, and how forms are merged: what needs no browser."""

from dataclasses import replace

import pytest

from app.archive.calls import Call, CallState, CallSummary
from app.archive.library import TrackPeaks, Waveform, WaveformGap
from app.events import CallIdentity, LifecycleEvent
from app.plans import PLAN_FIELDS, Plan
from app.web.admin import telling, words
from app.web.admin.forms import changes, edited_meanwhile, plan_inputs, refused
from app.web.admin.submitted import Submitted
from app.web.admin.waveform import outline, picture

AT = 1_795_273_562_000


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0:00"), (-3, "0:00"), (42.9, "0:42"), (60, "1:00"), (3_723, "1:02:03")],
)
def test_a_length_is_said_as_by_a_clock(seconds: float, said: str) -> None:
    assert words.clock(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 calls"), (1, "1 call"), (2, "2 calls"), (3004, "3,004 calls")]
)
def test_a_count_has_its_noun(number: int, said: str) -> None:
    assert words.plural(number, "call") == said


def test_a_moment_that_never_was_is_a_dash() -> None:
    assert words.moment(0) == words.day(0) == "–"
    assert 'datetime="2026-11-21T15:06:02Z"' in words.moment(AT)


def test_an_outline_is_closed_and_stays_within_its_picture() -> None:
    assert outline([]) == ""
    assert outline([0, 0.5, 2]) == "M0 31.5 L1 16.0 L2 0.0 L2 64.0 L1 48.0 L0 32.5Z"


def waveform(*gaps: WaveformGap, duration_ms: int = 1_000) -> Waveform:
    tracks = [TrackPeaks(name, [0] * 100) for name in ("inbound", "outbound")]
    return Waveform("MZ1", False, 8000, duration_ms, 0, False, tracks, list(gaps), 0)


def test_a_gap_is_drawn_where_it_is_on_the_track_that_has_it() -> None:
    drawn = picture(waveform(WaveformGap("inbound", 500, 700, 10, "carrier")))
    assert drawn is not None
    inbound, outbound = drawn.tracks
    [mark] = inbound.gaps
    assert (mark.x, mark.width) == (50, 20)
    assert "10 frames" in mark.words
    assert not outbound.gaps


def test_a_gap_of_either_track_is_drawn_on_both_and_is_seen_however_short() -> None:
    drawn = picture(waveform(WaveformGap("", 500, 500, 1, "unreadable")))
    assert drawn is not None
    assert [len(track.gaps) for track in drawn.tracks] == [1, 1]
    assert drawn.tracks[0].gaps[0].width > 0


def test_a_call_without_audio_has_no_picture() -> None:
    assert picture(waveform(duration_ms=0)) is None


def story(*names: str, **data: object) -> list[tuple[str, str]]:
    who = CallIdentity("CA1", "MZ1", "business-1", "premium", "twilio")
    events = tuple(
        LifecycleEvent(name, f"e{n}", AT + n, who, {"digit": "7", **data})
        for n, name in enumerate(names)
    )
    summary = CallSummary(
        *("CA1", "business-1", CallState.ENDED, "premium", "twilio", "", "", AT, AT, ())
    )
    steps = telling.steps_of(Call(summary, events, {}), (), "")
    return [(step.what, step.detail) for step in steps]


def test_keys_pressed_in_a_row_are_counted_and_never_named() -> None:
    told = story("stream.dtmf", "stream.dtmf", "stream.mark", "stream.dtmf", "unheard.of")
    assert told == [("Key pressed", "2 times"), ("Mark", ""), ("Key pressed", "")]


@pytest.mark.parametrize(
    ("heard", "detail"),
    [(True, "0:03, heard"), (False, "0:03, cut short"), (None, "0:03, perhaps heard")],
)
def test_what_was_said_into_a_call_is_told(heard: bool | None, detail: str) -> None:
    told = story("stream.played", "stream.cleared", durationMs=3000, heard=heard)
    assert told == [("Spoken into", detail), ("Silenced", "")]


def test_a_worker_that_was_refused_is_told_from_an_error_of_the_carrier() -> None:
    refused = story("stream.error", command="play", reason="not_allowed")
    assert refused == [("Refused to a worker", "play: not allowed")]
    assert story("stream.error", error="31921 closed") == [("Carrier's error", "31921 closed")]


# -------------------------------------------------------------------------- forms

WAS = Plan("p", max_concurrent_calls=3, max_call_seconds=60)


def sent(plan: Plan, was: Plan = WAS) -> Submitted:
    """Make what a browser sends of a plan's form that was filled from `was`."""
    values = [(one.name, one.value) for one in plan_inputs(plan) if one.value != "false"]
    return Submitted((*values, *((f"was-{one.name}", one.value) for one in plan_inputs(was))))


def test_a_form_changes_what_was_changed_in_it_and_nothing_else() -> None:
    mine = replace(WAS, max_concurrent_calls=5, return_audio=True)
    changed = changes(plan_inputs(WAS), sent(mine), PLAN_FIELDS)
    assert changed == {"max_concurrent_calls": 5, "return_audio": True}


def test_who_may_not_change_a_field_sends_it_in_vain() -> None:
    mine = sent(replace(WAS, max_concurrent_calls=5))
    assert changes(plan_inputs(WAS, fixed=True), mine, PLAN_FIELDS) == {}


@pytest.mark.parametrize(
    ("mine", "theirs", "value", "shown"),
    [
        (3, 3, "3", None),
        (5, 3, "5", None),
        (3, 9, "9", None),
        (9, 9, "9", None),
        (5, 9, "5", "9"),
    ],
)
def test_each_field_keeps_who_changed_it(
    mine: int, theirs: int, value: str, shown: str | None
) -> None:
    stands = plan_inputs(replace(WAS, max_concurrent_calls=theirs))
    form = edited_meanwhile(stands, sent(replace(WAS, max_concurrent_calls=mine)), 2)
    one = form.inputs[0]
    assert (one.name, one.value, one.theirs) == ("max_concurrent_calls", value, shown)
    # From here on an edit is of what stands now.
    assert one.was == str(theirs)
    assert [(was.was, was.theirs) for was in form.meanwhile] == (
        [("3", str(theirs))] if theirs != 3 else []
    )


def test_a_form_that_is_refused_keeps_what_was_typed_and_what_it_was_filled_from() -> None:
    typed = Submitted((("max_concurrent_calls", "many"), ("was-max_concurrent_calls", "3")))
    form = refused(plan_inputs(WAS), typed, {"max_concurrent_calls": "must be a number"}, 1)
    assert [(one.value, one.was) for one in form.problems] == [("many", "3")]
