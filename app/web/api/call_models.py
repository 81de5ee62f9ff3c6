"""What the API answers of calls, and how it is made of what is kept."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.archive.base import Erased
from app.archive.calls import Call, CallState, CallStream, CallSummary
from app.archive.library import Waveform
from app.archive.words import in_words
from app.events import LifecycleEvent


class Stream(BaseModel):
    """One stream of a call; times are Unix ms.

    `receipt` is what became of its audio, null while it is live, `words` the same in a
    sentence. `provisional`: its replica died, and another ended it. `peer_stream_sid` is
    the name that the carrier or client uses for the stream, empty where not known.
    """

    stream_sid: str
    peer_stream_sid: str
    started_at: int
    ended_at: int | None
    tracks: list[str]
    encoding: str
    sample_rate: int
    receipt: dict[str, Any] | None
    provisional: bool
    words: str

    @classmethod
    def of(cls, stream: CallStream) -> "Stream":
        """Give a stream as it is answered."""
        return cls(
            stream_sid=stream.stream_sid,
            peer_stream_sid=stream.peer_stream_sid,
            started_at=stream.started_at,
            ended_at=stream.ended_at,
            tracks=list(stream.tracks),
            encoding=stream.encoding,
            sample_rate=stream.sample_rate,
            receipt=None if stream.receipt is None else dict(stream.receipt),
            provisional=stream.provisional,
            words=in_words(stream.receipt),
        )


_CALL_EXAMPLE: JsonDict = {
    "call_sid": "CA00000000000000000000000000000001",
    "business_id": "business-1",
    "state": "ended",
    "plan": "premium",
    "carrier": "twilio",
    "from": "+15005550009",
    "to": "+15005550006",
    "first_at": 1800000000000,
    "ended_at": 1800000060000,
    "refused": "",
    "dtmf": 2,
    "streams": [
        {
            "stream_sid": "MZ00000000000000000000000000000001",
            "peer_stream_sid": "MZ00000000000000000000000000000001",
            "started_at": 1800000000900,
            "ended_at": 1800000060000,
            "tracks": ["inbound", "outbound"],
            "encoding": "pcm16",
            "sample_rate": 8000,
            "receipt": {"received": 3004, "published": 3004, "end_reason": "stop"},
            "provisional": False,
            "words": "3,004 of 3,004 frames delivered; the carrier ended it.",
        }
    ],
}


class CallItem(BaseModel):
    """A call. `refused` is why it was rejected, `dtmf` how many keys were pressed."""

    model_config = ConfigDict(populate_by_name=True, json_schema_extra={"example": _CALL_EXAMPLE})
    call_sid: str
    business_id: str
    state: CallState
    plan: str
    carrier: str
    from_number: str = Field(serialization_alias="from")
    to_number: str = Field(serialization_alias="to")
    first_at: int
    ended_at: int | None
    refused: str
    dtmf: int
    streams: list[Stream]

    @classmethod
    def of(cls, call: CallSummary) -> "CallItem":
        """Give a call as it is answered."""
        return cls(**_item(call))


class CallPage(BaseModel):
    """A page of calls, the latest first; `next` is the `cursor` of the page after it."""

    items: list[CallItem]
    next: str | None


class Whole(CallItem):
    """One call, with the streams whose audio is kept and the parameters they came with."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **_CALL_EXAMPLE,
                "kept_streams": ["MZ00000000000000000000000000000001"],
                "parameters": {"MZ00000000000000000000000000000001": {"customer": "4711"}},
            }
        }
    )
    kept_streams: list[str]
    parameters: dict[str, dict[str, str]]

    @classmethod
    def of_call(cls, call: Call) -> "Whole":
        """Give a call as it is answered."""
        parameters = {sid: dict(kept.stream.params) for sid, kept in call.records.items()}
        return cls(**_item(call.summary), kept_streams=list(parameters), parameters=parameters)


def _item(call: CallSummary) -> Mapping[str, Any]:
    return {
        "call_sid": call.call_sid,
        "business_id": call.business_id,
        "state": call.state,
        "plan": call.plan,
        "carrier": call.carrier,
        "from_number": call.from_number,
        "to_number": call.to_number,
        "first_at": call.first_at,
        "ended_at": call.ended_at,
        "refused": call.refused,
        "dtmf": call.dtmf,
        "streams": [Stream.of(stream) for stream in call.streams],
    }


class Event(BaseModel):
    """One thing that happened in a call; `data` as in the stream `calls`, without digits."""

    event: str
    event_id: str
    at: int
    stream_sid: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: LifecycleEvent) -> "Event":
        """Give an event as it is answered."""
        return cls(
            event=event.name,
            event_id=event.event_id,
            at=event.at,
            stream_sid=event.call.stream_sid,
            data=dict(event.data),
        )


class Events(BaseModel):
    """All that happened in a call, in order; there is no page after it."""

    items: list[Event]
    next: None = None


class Track(BaseModel):
    """One track's peaks, 0 to 32767, at equal steps over the whole."""

    track: str
    peaks: list[int]


class Gap(BaseModel):
    """Audio that is missing, in ms from the beginning; `track` is empty where it is either's."""

    track: str
    from_ms: int
    to_ms: int
    frames: int
    reason: str


class Picture(BaseModel):
    """A stream's audio to look at.

    `begins_at_ms` is the media time of its beginning; with `trimmed`, what was before
    it is not kept any more. `more_gaps` are not listed.
    """

    stream_sid: str
    live: bool
    sample_rate: int
    duration_ms: int
    begins_at_ms: int
    trimmed: bool
    tracks: list[Track]
    gaps: list[Gap]
    more_gaps: int

    @classmethod
    def of(cls, waveform: Waveform) -> "Picture":
        """Give a waveform as it is answered."""
        return cls(
            stream_sid=waveform.stream_sid,
            live=waveform.live,
            sample_rate=waveform.sample_rate,
            duration_ms=waveform.duration_ms,
            begins_at_ms=waveform.begins_at_ms,
            trimmed=waveform.trimmed,
            tracks=[Track(track=one.track, peaks=one.peaks) for one in waveform.tracks],
            gaps=[
                Gap(
                    track=gap.track,
                    from_ms=gap.from_ms,
                    to_ms=gap.to_ms,
                    frames=gap.frames,
                    reason=gap.reason,
                )
                for gap in waveform.gaps
            ],
            more_gaps=waveform.more_gaps,
        )


class Part(BaseModel):
    """How many of a kind were erased, and their bytes in what kept them; 0 where not known."""

    count: int
    bytes: int


class Proof(BaseModel):
    """What was erased of a call; the audit log says the same."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "call_sid": "CA00000000000000000000000000000001",
                "business_id": "business-1",
                "erased": {
                    "audio": {"count": 3005, "bytes": 1201200},
                    "events": {"count": 3, "bytes": 1260},
                },
            }
        }
    )
    call_sid: str
    business_id: str
    erased: dict[str, Part]

    @classmethod
    def of(cls, call_sid: str, business_id: str, erased: Erased) -> "Proof":
        """Give what was erased as it is answered."""
        parts = {
            kind: Part(count=count, bytes=erased.bytes.get(kind, 0))
            for kind, count in erased.counts.items()
        }
        return cls(call_sid=call_sid, business_id=business_id, erased=parts)
