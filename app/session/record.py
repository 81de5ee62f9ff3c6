"""What is said of a stream when it begins."""

from app.events import StreamPolicy, StreamRecord, StreamStarted
from app.session.reception import Admitted


def record_of(start: StreamStarted, admitted: Admitted, started_ms: int) -> StreamRecord:
    """Describe an admitted stream, as `stream:{STREAM}` will say it."""
    # A ticket is spent, and still nobody else's business.
    params = {name: value for name, value in start.params.items() if name != "ticket"}
    plan = admitted.plan
    return StreamRecord(
        call=admitted.call,
        from_number=admitted.from_number,
        to_number=admitted.to_number,
        params=params,
        published=plan.published_format,
        carried=start.format,
        tracks=tuple(track for track in start.tracks if track in plan.published_tracks),
        started_at=started_ms,
        policy=policy_of(admitted),
        peer_stream_sid=start.stream_sid,
    )


def policy_of(admitted: Admitted) -> StreamPolicy:
    """Return what workers may know of the stream's business and plan."""
    plan = admitted.plan
    return StreamPolicy(
        business_name=admitted.business_name,
        country=admitted.country,
        forwarded=admitted.forwarded,
        return_audio=plan.return_audio,
        max_call_seconds=plan.max_call_seconds,
        max_concurrent_calls=plan.max_concurrent_calls,
        frame_ms=plan.frame_ms,
        retention_seconds=plan.retention_seconds,
    )


def described(record: StreamRecord) -> dict[str, object]:
    """Give what a worker must know to read a stream it has just heard of."""
    return {
        "encoding": record.published.encoding,
        "sampleRate": record.published.sample_rate,
        "channels": record.published.channels,
        "tracks": list(record.tracks),
        "from": record.from_number,
        "to": record.to_number,
        "startedAt": record.started_at,
        "peerStreamSid": record.peer_stream_sid,
    }
