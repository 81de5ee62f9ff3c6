"""A call's log as pages tell it: a row of a list, a timeline, facts, a receipt in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.archive import library
from app.archive.calls import Call, CallState, CallStream, CallSummary
from app.archive.words import REASONS, in_words
from app.events import LifecycleEvent
from app.web.admin.views import CallRow, Step
from app.web.admin.waveform import gap_words
from app.web.admin.words import clock, count, plural

# A timeline is for people: what is more is in the waveform.
MOST_GAPS = 30


def row_of(call: CallSummary, business: str, now_ms: int) -> CallRow:
    """Show a call in short."""
    return CallRow(
        call.call_sid,
        call.business_id,
        business,
        call.state,
        call.from_number,
        call.to_number,
        call.first_at,
        sum(_seconds(stream, call, now_ms) for stream in call.streams),
        lost_of(call),
        words_of(call.refused),
    )


def lost_of(call: CallSummary) -> int | None:
    """Count the frames that never reached a reader; None while no receipt says."""
    receipts = [stream.receipt for stream in call.streams if stream.receipt]
    return sum(map(_lost, receipts)) if receipts else None


def facts_of(call: CallSummary) -> list[tuple[str, str]]:
    """Name what else is known of a call."""
    facts = [("Plan", call.plan), ("Carrier", call.carrier)]
    if call.streams:
        last = call.streams[-1]
        tracks = " and ".join(last.tracks)
        form = f"{last.encoding}, {count(last.sample_rate)} Hz"
        facts.append(("Audio", f"{tracks}, {form}" if tracks else form))
    facts.append(("Keys pressed", count(call.dtmf)))
    return [(name, value) for name, value in facts if value]


def receipts_of(call: CallSummary) -> list[str]:
    """Say what became of the audio of each of a call's streams that have ended."""
    return [in_words(stream.receipt) for stream in call.streams if stream.receipt is not None]


def is_whole(call: CallSummary) -> bool:
    """Tell whether every frame that was sent was delivered."""
    return not any(stream.provisional for stream in call.streams) and not lost_of(call)


def steps_of(call: Call, gaps: Sequence[library.WaveformGap], stream_sid: str) -> list[Step]:
    """Tell a call's story: its events in order, keys without the digits, and its gaps."""
    steps = [step for step in map(_step, call.events) if step is not None]
    started = {one.stream_sid: one.started_at for one in call.summary.streams}
    if stream_sid in started:
        steps += [_gap(gap, started[stream_sid]) for gap in gaps[:MOST_GAPS]]
    steps.sort(key=lambda step: step.at)
    return _keys_joined(steps)


def words_of(reason: str) -> str:
    """Say a reason's name in words."""
    return REASONS.get(reason, reason.replace("_", " "))


def _seconds(stream: CallStream, call: CallSummary, now_ms: int) -> float:
    until = stream.ended_at or (now_ms if call.state is CallState.LIVE else stream.started_at)
    return max(0, until - stream.started_at) / 1000


def _lost(receipt: Mapping[str, Any]) -> int:
    dropped = receipt.get("dropped")
    given_up = sum(dropped.values()) if isinstance(dropped, Mapping) else 0
    return int(given_up) + int(receipt.get("carrier_gaps") or 0)


_KEY = "Key pressed"


def _step(event: LifecycleEvent) -> Step | None:
    data = event.data
    match event.name:
        case "call.incoming":
            return Step(event.at, "Call came in", f"plan {event.call.plan}")
        case "call.rejected":
            return Step(event.at, "Turned away", words_of(str(data.get("reason", ""))), "bad")
        case "call.status":
            told = data.get("status") or data.get("dialStatus") or ""
            return Step(event.at, "Carrier's status", words_of(str(told)))
        case "stream.started":
            tracks = data.get("tracks")
            heard = " and ".join(map(str, tracks)) if isinstance(tracks, list) else ""
            return Step(event.at, "Stream started", heard, "good")
        case "stream.dtmf":
            return Step(event.at, _KEY)
        case "stream.mark":
            return Step(event.at, "Mark", str(data.get("name", "")))
        case "stream.played":
            return _played(event)
        case "stream.cleared":
            return Step(event.at, "Silenced")
        case "stream.error" if "reason" in data:
            what = f"{data.get('command') or 'command'}: {words_of(str(data['reason']))}"
            return Step(event.at, "Refused to a worker", what, "warn")
        case "stream.error":
            return Step(event.at, "Carrier's error", str(data.get("error", "")), "bad")
        case "stream.stopped":
            receipt = data.get("receipt")
            ended = receipt if isinstance(receipt, Mapping) else {}
            words = words_of(str(ended.get("end_reason", "")))
            return Step(event.at, "Stream ended", words, "warn" if _lost(ended) else "good")
        case _:
            return None


def _played(event: LifecycleEvent) -> Step:
    """Say how much of what was said into the call its caller heard."""
    length = clock(int(event.data.get("durationMs", 0)) / 1000)
    heard = event.data.get("heard")
    outcome = "perhaps heard" if heard is None else "heard" if heard else "cut short"
    return Step(event.at, "Spoken into", f"{length}, {outcome}")


def _gap(gap: library.WaveformGap, started_at: int) -> Step:
    where = f"at {clock(gap.from_ms / 1000)}, {gap.track or 'either'} track"
    return Step(started_at + gap.from_ms, "Gap", f"{gap_words(gap)}, {where}", "warn")


def _keys_joined(steps: Sequence[Step]) -> list[Step]:
    """Make one step of keys that were pressed one after the other."""
    joined: list[Step] = []
    pressed = 0
    for step in steps:
        pressed = pressed + 1 if step.what == _KEY else 0
        if pressed > 1:
            joined[-1] = Step(joined[-1].at, _KEY, plural(pressed, "time"))
        else:
            joined.append(step)
    return joined
