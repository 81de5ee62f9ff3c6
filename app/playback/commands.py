"""What a worker may ask of a live stream, as it stands in `control:{STREAM}`.

Written as fields, read once into one of the types below, or into why not.
Source: docs/redis-contract.md, "control:{STREAM}", version 1.
"""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final
from xml.etree import ElementTree

import msgspec

from app.media import Encoding, MediaFormat
from app.plans.checks import E164

MAX_PLAY_BYTES: Final = 1024 * 1024
MAX_MARK_CHARACTERS: Final = 128
# "Twiml ... up to 4000 characters long" (twilio.com/docs/voice/api/call-resource).
MAX_TWIML_CHARACTERS: Final = 4000
SAMPLE_RATES: Final = frozenset({8000, 16000, 24000, 48000})
MULAW_SAMPLE_RATE: Final = 8000

# What is longer is none of the texts below, in whatever letters.
_LONGEST_TEXT: Final = 4 * MAX_TWIML_CHARACTERS + 4
_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

Value = str | int | bytes


class Reason(StrEnum):
    """Why a command was not done; the labels of a metric."""

    NOT_ALLOWED = "not_allowed"
    DESTINATION_NOT_ALLOWED = "destination_not_allowed"
    ONE_WAY = "one_way"
    NOT_SUPPORTED = "not_supported"
    UNKNOWN_COMMAND = "unknown_command"
    BAD_FIELD = "bad_field"
    BAD_FORMAT = "bad_format"
    BAD_AUDIO = "bad_audio"
    TOO_LARGE = "too_large"
    QUEUE_FULL = "queue_full"
    TOO_MANY = "too_many"
    NO_CREDENTIALS = "no_credentials"
    CARRIER_REFUSED = "carrier_refused"
    CARRIER_UNREACHABLE = "carrier_unreachable"
    STREAM_ENDED = "stream_ended"


class Play(msgspec.Struct, frozen=True, tag="play"):
    """Play this audio; with a mark, or an id of its own, it is answered by itself."""

    id: str
    audio: bytes
    format: MediaFormat
    mark: str = ""
    is_named: bool = False


class Mark(msgspec.Struct, frozen=True, tag="mark"):
    """Tell when the audio before has been heard."""

    id: str
    name: str


class Clear(msgspec.Struct, frozen=True, tag="clear"):
    """End all audio that was asked for before."""

    id: str


class HangUp(msgspec.Struct, frozen=True, tag="hangup"):
    """End the call."""

    id: str


class Transfer(msgspec.Struct, frozen=True, tag="transfer"):
    """Give the call to a number (E.164), or to TwiML; one of the two is empty."""

    id: str
    to: str = ""
    twiml: str = ""


class Dtmf(msgspec.Struct, frozen=True, tag="dtmf"):
    """Press keys."""

    id: str


Command = Play | Mark | Clear | HangUp | Transfer | Dtmf


class Refused(msgspec.Struct, frozen=True):
    """A command that is not done: which, why, and in what respect.

    `command` is one of the known names, or empty; `detail` a sentence that repeats
    nothing of what was sent.
    """

    id: str
    command: str
    reason: Reason
    detail: str = ""


def name_of(command: Command) -> str:
    """Give a command's name."""
    return str(command.__struct_config__.tag)


def command_fields(command: Command) -> dict[str, Value]:
    """Write a command's fields; the inverse of `parse_command`.

    An empty id is left out; a play's is written when it is named.
    """
    fields: dict[str, Value] = {"command": name_of(command)}
    if command.id and not (isinstance(command, Play) and not command.is_named):
        fields["id"] = command.id
    match command:
        case Play():
            fields |= {
                "encoding": command.format.encoding.value,
                "sampleRate": command.format.sample_rate,
                "audio": command.audio,
            }
            if command.mark:
                fields["mark"] = command.mark
        case Mark():
            fields["mark"] = command.name
        case Transfer():
            fields |= {"to": command.to} if command.to else {"twiml": command.twiml}
    return fields


def parse_command(entry_id: str, fields: Mapping[str, Value]) -> Command | Refused:
    """Read an entry of `control:{STREAM}`, or say why it cannot be done.

    `entry_id` is the entry's own, by which a command without an id goes.
    """
    said = _text(fields.get("command"))
    parse = _PARSERS.get(said)
    given = _text(fields.get("id"))
    command_id = given if _ID.fullmatch(given) else entry_id
    if parse is None:
        return Refused(command_id, "", Reason.UNKNOWN_COMMAND)
    if given and command_id != given:
        problem = "id is not of the form [A-Za-z0-9_.:-]{1,128}"
        return Refused(command_id, said, Reason.BAD_FIELD, problem)
    found = parse(command_id, fields)
    return Refused(command_id, said, *found) if isinstance(found, tuple) else found


_Problem = tuple[Reason, str]


def _play(command_id: str, fields: Mapping[str, Value]) -> Command | _Problem:
    audio = fields.get("audio", b"")
    if isinstance(audio, str):
        audio = audio.encode()
    if not isinstance(audio, bytes) or not audio:
        return Reason.BAD_AUDIO, "there is no audio"
    if len(audio) > MAX_PLAY_BYTES:
        return Reason.TOO_LARGE, f"audio has more than {MAX_PLAY_BYTES} bytes; send it in pieces"
    mark = _mark_name(fields) if fields.get("mark") else ""
    if mark is None:
        return _BAD_MARK
    name = _text(fields.get("encoding")) or Encoding.PCM16
    if name not in list(Encoding):
        return Reason.BAD_FORMAT, "encoding is neither pcm16 nor mulaw"
    encoding = Encoding(name)
    rate = _text(fields.get("sampleRate")) or str(MULAW_SAMPLE_RATE)
    if rate not in map(str, SAMPLE_RATES):
        return Reason.BAD_FORMAT, "sampleRate is not 8000, 16000, 24000 or 48000"
    if encoding is Encoding.MULAW and int(rate) != MULAW_SAMPLE_RATE:
        return Reason.BAD_FORMAT, "sampleRate of mulaw is not 8000"
    if len(audio) % encoding.bytes_per_sample:
        return Reason.BAD_AUDIO, "the last sample is not whole"
    return Play(
        command_id, audio, MediaFormat(encoding, int(rate)), mark, bool(_text(fields.get("id")))
    )


_BAD_MARK: Final = (
    Reason.BAD_FIELD,
    f"mark is not a name of 1 to {MAX_MARK_CHARACTERS} printable characters",
)


def _mark(command_id: str, fields: Mapping[str, Value]) -> Command | _Problem:
    name = _mark_name(fields)
    return _BAD_MARK if name is None else Mark(command_id, name)


def _mark_name(fields: Mapping[str, Value]) -> str | None:
    name = _text(fields.get("mark"))
    return name if 0 < len(name) <= MAX_MARK_CHARACTERS and name.isprintable() else None


def _transfer(command_id: str, fields: Mapping[str, Value]) -> Command | _Problem:
    to, twiml = _text(fields.get("to")), _text(fields.get("twiml"))
    if bool(to) == bool(twiml):
        return Reason.BAD_FIELD, "either to or twiml is needed, and not both"
    if to:
        problem = "" if E164.fullmatch(to) else "to is not a number in E.164 form"
    else:
        problem = _problem_of_twiml(twiml)
    return (Reason.BAD_FIELD, problem) if problem else Transfer(command_id, to, twiml)


def _problem_of_twiml(twiml: str) -> str:
    if len(twiml) > MAX_TWIML_CHARACTERS:
        return f"twiml has more than {MAX_TWIML_CHARACTERS} characters"
    # A document type may define entities that grow without bound when they are read.
    if "<!DOCTYPE" in twiml:
        return "twiml has a document type"
    try:
        root = ElementTree.fromstring(twiml)
    except (ElementTree.ParseError, ValueError):
        return "twiml is not well-formed XML"
    return "" if root.tag == "Response" else "twiml is no <Response>"


_PARSERS: Final[Mapping[str, Callable[[str, Mapping[str, Value]], Command | _Problem]]] = {
    "play": _play,
    "mark": _mark,
    "clear": lambda command_id, fields: Clear(command_id),
    "hangup": lambda command_id, fields: HangUp(command_id),
    "transfer": _transfer,
    "dtmf": lambda command_id, fields: Dtmf(command_id),
}


def _text(value: Value | None) -> str:
    """Read a field as text, as far as any text of ours goes."""
    if isinstance(value, bytes):
        return value[:_LONGEST_TEXT].decode("utf-8", "replace")
    return "" if value is None else str(value)
