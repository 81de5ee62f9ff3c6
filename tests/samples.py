"""Made-up calls and streams, the same in every test."""

from app.carriers.authorization import Authorization, Proof, Purpose
from app.events import AudioReceipt, CallIdentity, EndReason, LifecycleEvent, StreamRecord
from app.media import Encoding, MediaFormat, Track

MULAW_8K = MediaFormat(Encoding.MULAW, 8000)
PCM16_8K = MediaFormat(Encoding.PCM16, 8000)
CALL = CallIdentity("CA1", "MZ1", "business-1", "premium", "twilio")
OPENED = Authorization(Proof.TWILIO_SERVICE, Purpose.OPEN_STREAM, "business-1", "CA1")


def a_record(started_at: int = 1_700_000_000_000) -> StreamRecord:
    """Describe a stream that sends mu-law and is published as PCM16."""
    return StreamRecord(
        CALL,
        "+15005550009",
        "+15005550006",
        {"a": "b"},
        PCM16_8K,
        MULAW_8K,
        (Track.INBOUND,),
        started_at,
    )


def a_receipt(published: int = 1) -> AudioReceipt:
    """Draw up a receipt in which everything was published."""
    return AudioReceipt(
        published, published, {}, {}, 0, 0, 0, 0, 160, 20, 21, 2, 2, 3, EndReason.STOP
    )


def an_event(event_id: str, name: str = "call.incoming") -> LifecycleEvent:
    """Make a lifecycle event about `CALL`."""
    return LifecycleEvent(name, event_id, 1_700_000_000_000, CALL, {"from": "+15005550009"})
