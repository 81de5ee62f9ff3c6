"""What every JSON protocol here does with a message: read it, and judge its audio."""

from typing import Any, Final

import msgspec

from app.events import Ignored, MediaReceived, MediaRejected, Unreadable
from app.media import Track

# UnicodeError is for lone surrogates, RecursionError for deep nesting.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
_decode = msgspec.json.Decoder().decode


def object_of(message: str | bytes) -> dict[str, Any] | Ignored | Unreadable:
    """Read a message as a JSON object, or give the event that says why it is none."""
    if isinstance(message, str) and (not message or message.isspace()):
        return Ignored("empty_message")
    try:
        fields = _decode(message)
    except UNDECODABLE:
        return Unreadable("broken_json")
    return fields if isinstance(fields, dict) else Unreadable("not_an_object")


def media_of(
    payload: object, track: Track | None, sample_bytes: int, seq: int | None, ts: int | None
) -> MediaReceived | MediaRejected:
    """Make a frame of a base64 payload, or say why it is none; `track` None is no track."""
    if track is None:
        return MediaRejected("bad_track", None, seq)
    if not isinstance(payload, str):
        return MediaRejected("bad_media", track, seq)
    try:
        audio = msgspec.convert(payload, bytes)
    except msgspec.ValidationError:
        return MediaRejected("bad_base64", track, seq)
    return frame_of(audio, track, sample_bytes, seq, ts)


def frame_of(
    audio: bytes,
    track: Track,
    sample_bytes: int,
    seq: int | None = None,
    ts: int | None = None,
) -> MediaReceived | MediaRejected:
    """Make a frame of audio that is some whole samples of `sample_bytes`."""
    if not audio:
        return MediaRejected("empty_payload", track, seq)
    if len(audio) % sample_bytes:
        return MediaRejected("odd_length", track, seq)
    return MediaReceived(audio, track, seq, ts)
