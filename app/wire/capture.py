"""Capture files: one wire message a line, as the peer sent it, good or bad.

Tests, `record`, `export`, `replay` and `wscat` share the format, so that a failing call
becomes a test by copying a file. docs/captures.md describes it. What cannot stand in a
line as it came stands wrapped, in an object of one key:

    {"binary":"BASE64"}   a binary frame
    {"text":"TEXT"}       text with a line's end in it, blank text, text that begins so itself

When each message came, and what is known of its call, stands in a file beside it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from app.errors import CaptureError
from app.wire.base import MAX_MESSAGE_BYTES

VERSION: Final = 1
CarrierName = Literal["twilio", "exotel", "client"]
# JSON writes a control character in six bytes.
MAX_LINE_BYTES: Final = 6 * MAX_MESSAGE_BYTES + 32
_WRAPPED: Final = re.compile(rb'\{"(?:binary|text)":"')


class _Binary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    binary: bytes


class _Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str


_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class CaptureMessage:
    """One message, a binary frame as bytes, and the line it stands on, counted from 1."""

    line_number: int
    message: str | bytes


class CaptureFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside a capture: whose call it is, and when each message came.

    `query` is of the URL; `began_at` is Unix ms. `arrivals_ms` has for each
    message how long after `began_at` it came, None where that is not known. `bad_lines`
    came as they are, though they are no JSON. A capture that `begins_midway` has the
    `start` of its call, and then what came later. `left_out` messages were not taken
    in; one that has not `ended` stops before its stream did.
    """

    version: int = VERSION
    carrier: CarrierName
    business_id: str = ""
    call_sid: str = ""
    stream_sid: str = ""
    query: dict[str, str] = {}
    began_at: int = 0
    arrivals_ms: list[int] | None = None
    bad_lines: list[int] = []
    begins_midway: bool = False
    left_out: int = 0
    ended: bool = True


def capture_line(message: str | bytes) -> str:
    """Write a message as a line of a capture, without the line's end."""
    if isinstance(message, bytes):
        return _encode(_Binary(message)).decode()
    is_a_line = bool(message.strip()) and not message.endswith("\r") and "\n" not in message
    if is_a_line and not _WRAPPED.match(message.encode()):
        return message
    return _encode(_Text(message)).decode()


def read_capture(path: Path) -> Iterator[CaptureMessage]:
    """Read a capture line by line; blank lines are skipped.

    The file is opened when the first message is asked for, and closed after the last.

    Raises:
        CaptureError: the file cannot be read, or a line is not UTF-8, holds more than
            64 KiB, or is wrapped and broken. Names the file and the line.
    """
    number = 0
    try:
        with path.open("rb") as lines:
            # Two for a line's end, and one byte over the limit.
            while line := lines.readline(MAX_LINE_BYTES + 3):
                number += 1
                line = line.rstrip(b"\r\n")
                if line.strip():
                    message = _message_of(line)
                    if len(message if isinstance(message, bytes) else message.encode()) > (
                        MAX_MESSAGE_BYTES
                    ):
                        raise CaptureError(f"{path}, line {number}: longer than 64 KiB")
                    yield CaptureMessage(number, message)
    except msgspec.DecodeError as error:
        problem = f"begins as a wrapped message and is none: {error}"
        raise CaptureError(f"{path}, line {number}: {problem}") from error
    except UnicodeDecodeError as error:
        raise CaptureError(f"{path}, line {number}: not UTF-8") from error
    except OSError as error:
        where = f"{path}, after line {number}" if number else f"{path}"
        raise CaptureError(f"{where}: {error.strerror}") from error


def _message_of(line: bytes) -> str | bytes:
    wrapped = _WRAPPED.match(line)
    if wrapped is None:
        return line.decode()
    if wrapped[0].startswith(b'{"binary"'):
        return msgspec.json.decode(line, type=_Binary).binary
    return msgspec.json.decode(line, type=_Text).text


def facts_path(path: Path) -> Path:
    """Name the file that stands beside a capture: `call.meta.json` by `call.jsonl`."""
    return path.with_suffix(".meta.json")


def read_facts(path: Path) -> CaptureFacts | None:
    """Read what stands beside the capture at `path`; None where nothing does.

    Raises:
        CaptureError: it cannot be read, or a later version wrote it.
    """
    beside = facts_path(path)
    try:
        facts = msgspec.json.decode(beside.read_bytes(), type=CaptureFacts)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CaptureError(f"{beside} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CaptureError(f"{beside} cannot be read: {error}") from error
    if facts.version != VERSION:
        raise CaptureError(f"{beside} is of version {facts.version}; this program reads {VERSION}")
    return facts


def write_facts(facts: CaptureFacts) -> bytes:
    """Write what stands beside a capture."""
    return _encode(facts) + b"\n"
