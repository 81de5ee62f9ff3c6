"""Twilio's `start`: what it says of a stream, and why a stream cannot be made of it.

Source: twilio.com/docs/voice/media-streams/websocket-messages, "Start message".
"""

from collections.abc import Mapping
from typing import Any, Final

from app.errors import InvalidIdentifier, MalformedRequest, UnsupportedFormat
from app.events import StreamStarted
from app.media import Encoding, MediaFormat, Track
from app.wire.base import int_of, is_identifier
from app.wire.params import params_of

SAMPLE_RATES: Final = frozenset({8000, 16000, 24000, 48000})

# The linear names are not documented for Media Streams, but twilio-python offers
# `audio_format` and `sample_rate`, so that a `start` may one day declare them.
_ENCODINGS: Final[Mapping[str, Encoding]] = {
    "audio/x-mulaw": Encoding.MULAW,
    "audio/x-l16": Encoding.PCM16,
    "audio/l16": Encoding.PCM16,
    "audio/x-raw": Encoding.PCM16,
}
# `media.track` says inbound where `dtmf.track` says inbound_track.
_TRACKS: Final[Mapping[str, Track]] = {
    "inbound": Track.INBOUND,
    "inbound_track": Track.INBOUND,
    "outbound": Track.OUTBOUND,
    "outbound_track": Track.OUTBOUND,
}


def read_start(fields: Mapping[str, Any], seq: int | None) -> StreamStarted:
    """Read the fields of a `start` message.

    The format is taken from `mediaFormat` and never assumed. Unknown tracks are left
    out, and no known one means inbound. Custom parameters become text; one that is too
    long or not flat is left out, as are those beyond 64, and the call goes on without.

    Raises:
        MalformedRequest: there is no `start` object, stream SID or call SID.
        InvalidIdentifier: the stream SID or the call SID is no id.
        UnsupportedFormat: the format is missing or cannot be read.
    """
    start = fields.get("start")
    if not isinstance(start, dict):
        raise MalformedRequest("start: no `start` object")
    account_sid = start.get("accountSid")
    return StreamStarted(
        stream_sid=_identifier("streamSid", start.get("streamSid", fields.get("streamSid"))),
        call_sid=_identifier("callSid", start.get("callSid")),
        format=_format_of(start.get("mediaFormat")),
        tracks=_tracks_of(start.get("tracks")),
        params=params_of(start.get("customParameters")),
        account_sid=account_sid if is_identifier(account_sid) else "",
        seq=seq,
    )


def track_of(name: object) -> Track | None:
    """Read a track's name in either of Twilio's spellings, or give None."""
    return _TRACKS.get(name) if isinstance(name, str) else None


def _tracks_of(names: object) -> tuple[Track, ...]:
    known = [track_of(name) for name in names] if isinstance(names, list) else []
    return tuple(track for track in Track if track in known) or (Track.INBOUND,)


def _identifier(name: str, value: object) -> str:
    if value is None or value == "":
        raise MalformedRequest(f"start: no {name}")
    if not is_identifier(value):
        raise InvalidIdentifier(f"start: {name} is not of the form [A-Za-z0-9_.-]{{1,128}}")
    return value


def _format_of(declared: object) -> MediaFormat:
    if not isinstance(declared, dict):
        raise UnsupportedFormat("start: no mediaFormat")
    name = declared.get("encoding")
    encoding = _ENCODINGS.get(name.strip().lower()) if isinstance(name, str) else None
    if encoding is None:
        raise UnsupportedFormat("start: mediaFormat.encoding is none of " + ", ".join(_ENCODINGS))
    rate = int_of(declared.get("sampleRate"))
    if rate not in SAMPLE_RATES:
        raise UnsupportedFormat("start: mediaFormat.sampleRate is not 8000, 16000, 24000 or 48000")
    if int_of(declared.get("channels", 1)) != 1:
        raise UnsupportedFormat("start: mediaFormat.channels is not 1")
    return MediaFormat(encoding, rate)
