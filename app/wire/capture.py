"""Capture files: one wire message a line, as the peer sent it, good or bad.

Tests, `replay` and `simulate` share the format, so that a failing call becomes a test
by copying a file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.errors import CaptureError
from app.wire.base import MAX_MESSAGE_BYTES


@dataclass(frozen=True, slots=True)
class CaptureMessage:
    """One message and the line it stands on, counted from 1."""

    line_number: int
    text: str


def read_capture(path: Path) -> Iterator[CaptureMessage]:
    """Read a capture line by line; blank lines are skipped.

    The file is opened when the first message is asked for, and closed after the last.

    Raises:
        CaptureError: the file cannot be read, or a line is not UTF-8 or is longer than
            64 KiB. Names the file and the line.
    """
    number = 0
    try:
        with path.open("rb") as lines:
            # One byte over the limit, and two for a line's end.
            while line := lines.readline(MAX_MESSAGE_BYTES + 3):
                number += 1
                message = line.rstrip(b"\r\n")
                if len(message) > MAX_MESSAGE_BYTES:
                    raise CaptureError(f"{path}, line {number}: longer than 64 KiB")
                if message.strip():
                    yield CaptureMessage(number, message.decode())
    except UnicodeDecodeError as error:
        raise CaptureError(f"{path}, line {number}: not UTF-8") from error
    except OSError as error:
        raise CaptureError(f"{path}, after line {number}: {error.strerror}") from error
