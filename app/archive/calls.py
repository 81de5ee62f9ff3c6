"""A call as its log tells it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from app.events import LifecycleEvent
from app.pubsub.records import StoredRecord

# A call that is announced and never streams is not heard of again: nothing says that it
# has ended, since TwiML cannot ask for a status. Its ticket lives a minute.
INCOMING_MS: Final = 120_000
# No plan allows longer. One that says nothing for so long has ended, and nobody said so.
LONGEST_CALL_MS: Final = 25 * 3600 * 1000
# Twilio, "Call resource", "Call status values".
FINAL_STATUSES: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})


class CallState(StrEnum):
    """How far a call has come. `lost`: its last stream's replica died."""

    INCOMING = "incoming"
    LIVE = "live"
    ENDED = "ended"
    REJECTED = "rejected"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class CallStream:
    """One stream of a call; times are Unix ms, `receipt` as published, None while live.

    `provisional`: another replica ended it, and its receipt counts nothing.
    `peer_stream_sid` is the name that the peer uses for it, empty where not known.
    """

    stream_sid: str
    started_at: int
    tracks: tuple[str, ...]
    encoding: str
    sample_rate: int
    ended_at: int | None = None
    receipt: Mapping[str, Any] | None = None
    provisional: bool = False
    peer_stream_sid: str = ""


@dataclass(frozen=True, slots=True)
class CallSummary:
    """A call in short. `refused` is why it was rejected; `dtmf` counts keys pressed."""

    call_sid: str
    business_id: str
    state: CallState
    plan: str
    carrier: str
    from_number: str
    to_number: str
    first_at: int
    ended_at: int | None
    streams: tuple[CallStream, ...]
    refused: str = ""
    dtmf: int = 0

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more is to come of it."""
        return self.state not in (CallState.INCOMING, CallState.LIVE)


@dataclass(frozen=True, slots=True)
class Call:
    """All that is kept of a call but its audio: each event once, in order.

    `records` describes the streams, by id, whose audio is still there.
    """

    summary: CallSummary
    events: tuple[LifecycleEvent, ...]
    records: Mapping[str, StoredRecord]


def summarize(events: Sequence[LifecycleEvent], now_ms: int) -> CallSummary:
    """Sum up a call's events, of which there is at least one, in order."""
    first = events[0]
    streams: dict[str, CallStream] = {}
    earlier: list[CallStream] = []
    numbers = {"from": "", "to": ""}
    refused, final_at, plan = "", None, ""
    dtmf = 0
    for event in events:
        data = event.data
        plan = plan or event.call.plan
        for name in numbers:
            numbers[name] = numbers[name] or str(data.get(name, ""))
        match event.name:
            case "call.rejected":
                refused = refused or str(data.get("reason", ""))
            case "call.status" if final_at is None and data.get("status") in FINAL_STATUSES:
                final_at = event.at
            case "stream.started":
                sid = event.call.stream_sid
                if sid in streams:  # the id is used again
                    earlier.append(streams[sid])
                streams[sid] = _begun(event)
            # Without an id it never opened: its id was another stream's.
            case "stream.stopped" if event.call.stream_sid:
                _end(streams, event)
            case "stream.dtmf":
                dtmf += 1
    found = tuple(sorted([*earlier, *streams.values()], key=lambda stream: stream.started_at))
    state = _state(found, events, refused, final_at, now_ms)
    over = state not in (CallState.INCOMING, CallState.LIVE)
    ends = [stream.ended_at for stream in found if stream.ended_at is not None]
    return CallSummary(
        call_sid=first.call.call_sid,
        business_id=first.call.business_id,
        state=state,
        plan=plan,
        carrier=first.call.carrier,
        from_number=numbers["from"],
        to_number=numbers["to"],
        first_at=first.at,
        ended_at=max([*ends, final_at or 0, first.at]) if over else None,
        streams=found,
        refused=refused if state is CallState.REJECTED else "",
        dtmf=dtmf,
    )


def _begun(event: LifecycleEvent) -> CallStream:
    data = event.data
    tracks = data.get("tracks")
    return CallStream(
        event.call.stream_sid,
        int(data.get("startedAt", event.at)),
        tuple(tracks) if isinstance(tracks, list) else (),
        str(data.get("encoding", "")),
        int(data.get("sampleRate", 0)),
        peer_stream_sid=str(data.get("peerStreamSid", "")),
    )


def _end(streams: dict[str, CallStream], event: LifecycleEvent) -> None:
    """Note a stream's end; its holder's own replaces one that another wrote, in any order."""
    sid = event.call.stream_sid
    begun = streams.get(sid) or CallStream(sid, event.at, (), "", 0)
    provisional = bool(event.data.get("provisional"))
    if begun.receipt is not None and provisional:
        return
    receipt = event.data.get("receipt")
    streams[sid] = replace(
        begun,
        ended_at=event.at,
        receipt=receipt if isinstance(receipt, Mapping) else {},
        provisional=provisional,
    )


def _state(
    streams: Sequence[CallStream],
    events: Sequence[LifecycleEvent],
    refused: str,
    final_at: int | None,
    now_ms: int,
) -> CallState:
    if any(
        stream.ended_at is None and now_ms - stream.started_at < LONGEST_CALL_MS
        for stream in streams
    ):
        return CallState.LIVE
    if streams:
        return CallState.LOST if streams[-1].provisional else CallState.ENDED
    incoming = any(event.name == "call.incoming" for event in events)
    if refused and not incoming:
        return CallState.REJECTED
    is_fresh = now_ms - events[-1].at < INCOMING_MS
    return CallState.INCOMING if final_at is None and is_fresh else CallState.ENDED
