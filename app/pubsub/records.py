"""What `stream:{STREAM}` says of a stream, read back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from app.events import CallIdentity, StreamPolicy, StreamRecord
from app.media import Encoding, MediaFormat, Track
from app.pubsub.base import Field


@dataclass(frozen=True, slots=True)
class KeptStream:
    """A stream whose audio is read: its id, whose it is, and when it began (its START_MS).

    By the time of a later read its id may be another stream's, which it must not give.
    """

    stream_sid: str
    business_id: str
    started_at: int


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A stream's record as it stands; `ended_at` (Unix ms) and `receipt` after its end."""

    stream: StreamRecord
    ended_at: int | None = None
    receipt: Mapping[str, Any] | None = None

    @property
    def kept(self) -> KeptStream:
        """Return the stream that it describes."""
        call = self.stream.call
        return KeptStream(call.stream_sid, call.business_id, self.stream.started_at)

    def is_of(self, business_id: str, call_sid: str) -> bool:
        """Tell whether it is a stream of this call: ids are used again, also by others."""
        call = self.stream.call
        return (call.business_id, call.call_sid) == (business_id, call_sid)


def parse_record(stream_sid: str, fields: Mapping[str, Field]) -> StoredRecord | None:
    """Read a record's published fields, the values as text or numbers; None where it is gone."""
    if "startedAt" not in fields:
        return None
    ended_at, receipt = fields.get("endedAt"), fields.get("receipt")
    policy = fields.get("policy")
    record = StreamRecord(
        call=CallIdentity(
            *(str(fields["callSid"]), stream_sid),
            *(str(fields[name]) for name in ("businessId", "plan", "carrier")),
        ),
        from_number=str(fields["from"]),
        to_number=str(fields["to"]),
        params=msgspec.json.decode(str(fields["params"]), type=dict[str, str]),
        published=MediaFormat(
            Encoding(str(fields["encoding"])), int(fields["sampleRate"]), int(fields["channels"])
        ),
        carried=MediaFormat(
            Encoding(str(fields["carrierEncoding"])), int(fields["carrierSampleRate"])
        ),
        tracks=tuple(Track(name) for name in str(fields["tracks"]).split(",") if name),
        started_at=int(fields["startedAt"]),
        policy=None if policy is None else msgspec.json.decode(str(policy), type=StreamPolicy),
        peer_stream_sid=str(fields.get("peerStreamSid", "")),
    )
    return StoredRecord(
        record,
        None if ended_at is None else int(ended_at),
        None if receipt is None else msgspec.json.decode(str(receipt)),
    )
