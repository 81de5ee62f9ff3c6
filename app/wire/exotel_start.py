"""Exotel's `start`: what it says of a stream, and what is assumed where it is silent.

Source: developer.exotel.com/docs/agentstream/websocket-protocol and its sibling pages,
which contradict each other: keys come as `stream_sid` or `streamSid`, numbers as text or
not, bodies nested or flat, and a format under half a dozen names. All are read.
"""

import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final

from app.errors import InvalidIdentifier, UnsupportedFormat
from app.events import StreamStarted
from app.media import Encoding, MediaFormat, Track
from app.wire.base import int_of, is_identifier
from app.wire.params import params_of, text_of
from app.wire.twilio_start import track_of

SAMPLE_RATES: Final = frozenset({8000, 16000, 24000})
# "raw/slin (16-bit, 8kHz, mono PCM little-endian)" where nothing else is said.
DEFAULT_SAMPLE_RATE: Final = 8000
# "Up to 3 key-value pairs appended to the URL"
MAX_URL_PARAMS: Final = 3
MAX_NUMBER_CHARACTERS: Final = 128

# What the URL says to this service, and not to its readers.
_OWN_URL_NAMES: Final = frozenset(
    {
        *("sample-rate", "sample_rate", "ticket", "businessId", "callSid", "from", "to", "plan"),
        "applet",
    }
)
# "base64" says how the payload is written, and stands where the encoding should.
_PCM16_NAMES: Final = (
    *("", "raw", "audio/x-raw", "raw/slin", "slin", "base64", "pcm", "pcm16", "audio/pcm"),
    *("l16", "linear16", "audio/l16", "audio/x-l16"),
)
_MULAW_NAMES: Final = ("mulaw", "audio/x-mulaw", "audio/mulaw", "ulaw", "pcmu", "audio/pcmu")
_ENCODINGS: Final[Mapping[str, Encoding]] = {
    **dict.fromkeys(_PCM16_NAMES, Encoding.PCM16),
    **dict.fromkeys(_MULAW_NAMES, Encoding.MULAW),
}
_RATE = re.compile(r"([0-9]{1,6})\s*(k?)(?:hz)?", re.IGNORECASE)
_RATE_OPTION = re.compile(r"\brate\s*=\s*([^;\s]+)", re.IGNORECASE)


def value_of(fields: Mapping[str, Any], *names: str) -> Any:
    """Give the first of these fields that is there and not null, or None."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def read_start(
    fields: Mapping[str, Any],
    seq: int | None,
    *,
    url: Mapping[str, str],
    greeting: Mapping[str, str],
    new_id: Callable[[], str],
) -> StreamStarted:
    """Read the fields of a `start` message, nested or flat.

    `url` holds the URL's query, `greeting` the custom parameters that `connected`
    brought. What `start` says wins over both. A stream without an id gets
    `exotel-` and a new one; a call without an id has the URL's `callSid`, else the
    stream's.

    Raises:
        InvalidIdentifier: the stream or the call is named by what is no id.
        UnsupportedFormat: the format cannot be read.
    """
    body = _body_of(fields)
    stream_sid = _identifier(
        "stream_sid", value_of(body, "stream_sid", "streamSid") or _generated(new_id)
    )
    call_sid = value_of(body, "call_sid", "callSid") or url.get("callSid") or stream_sid
    account_sid = value_of(body, "account_sid", "accountSid")
    own_params = params_of(value_of(body, "custom_parameters", "customParameters"))
    return StreamStarted(
        stream_sid=stream_sid,
        call_sid=_identifier("call_sid", call_sid),
        format=_format_of(body, url),
        tracks=_tracks_of(body.get("tracks")),
        params={**_url_params(url), **greeting, **own_params},
        account_sid=account_sid if is_identifier(account_sid) else "",
        seq=seq,
        from_number=_number_of(body.get("from")),
        to_number=_number_of(body.get("to")),
    )


def assumed_start(
    url: Mapping[str, str], default_sample_rate: int, new_id: Callable[[], str]
) -> StreamStarted:
    """Make the start of a stream whose peer sends audio and nothing else.

    It is PCM16 at the URL's rate, else at `default_sample_rate` (Hz).

    Raises:
        InvalidIdentifier: the URL's `callSid` is no id.
        UnsupportedFormat: the URL's rate is none of 8000, 16000 and 24000.
    """
    stream_sid = _generated(new_id)
    return StreamStarted(
        stream_sid=stream_sid,
        call_sid=_identifier("callSid", url.get("callSid") or stream_sid),
        format=MediaFormat(Encoding.PCM16, _rate_of(_url_rate(url) or default_sample_rate)),
        params=_url_params(url),
    )


def _body_of(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    start = fields.get("start")
    return {**fields, **start} if isinstance(start, dict) else fields


def _generated(new_id: Callable[[], str]) -> str:
    return f"exotel-{new_id()}"


def _identifier(name: str, value: object) -> str:
    text = text_of(value)
    if not is_identifier(text):
        raise InvalidIdentifier(f"start: {name} is not of the form [A-Za-z0-9_.-]{{1,128}}")
    return text


def _number_of(value: object) -> str:
    text = text_of(value) or ""
    return text if len(text) <= MAX_NUMBER_CHARACTERS else ""


def _tracks_of(names: object) -> tuple[Track, ...]:
    known = [track_of(name) for name in names] if isinstance(names, list) else []
    return tuple(track for track in Track if track in known) or (Track.INBOUND,)


def _url_params(url: Mapping[str, str]) -> dict[str, str]:
    own = params_of({name: text for name, text in url.items() if name not in _OWN_URL_NAMES})
    return dict(islice(own.items(), MAX_URL_PARAMS))


def _url_rate(url: Mapping[str, str]) -> str | None:
    # The pages write it with a dash, one example of theirs with an underscore.
    return url.get("sample-rate") or url.get("sample_rate")


def _format_of(body: Mapping[str, Any], url: Mapping[str, str]) -> MediaFormat:
    # `bit_rate` is not read: it comes as 16, 128 and "128kbps" for the same audio.
    declared = value_of(body, "media_format", "mediaFormat")
    if isinstance(declared, str):
        declared = {"encoding": declared}
    elif not isinstance(declared, dict):
        declared = body
    name = declared.get("encoding") or ""
    if not isinstance(name, str):
        raise UnsupportedFormat("start: media_format.encoding is not text")
    encoding = _ENCODINGS.get(name.partition(";")[0].strip().lower())
    if encoding is None:
        raise UnsupportedFormat("start: media_format.encoding is neither linear PCM nor mu-law")
    if int_of(declared.get("channels", 1)) != 1:
        raise UnsupportedFormat("start: media_format.channels is not 1")
    option = _RATE_OPTION.search(name)
    said = (
        value_of(declared, "sample_rate", "sampleRate"),
        option and option[1],
        _url_rate(url),
        DEFAULT_SAMPLE_RATE,
    )
    return MediaFormat(encoding, _rate_of(next(rate for rate in said if rate not in (None, ""))))


def _rate_of(value: object) -> int:
    """Read a rate in Hz: 8000, "8000", "8000Hz", "16kHz"."""
    rate = int_of(value)
    if rate is None and isinstance(value, str) and (read := _RATE.fullmatch(value.strip())):
        rate = int(read[1]) * (1000 if read[2] else 1)
    if rate not in SAMPLE_RATES:
        raise UnsupportedFormat("the sample rate is not 8000, 16000 or 24000")
    return rate
