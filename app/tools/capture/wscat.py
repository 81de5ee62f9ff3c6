"""The command line by which wscat places a captured call.

Source: websockets/wscat, README and bin/wscat (6.1.0): one line of stdin is one text
frame. What it reads before its socket is open is lost, and it ends with its stdin: hence
the pauses before and after. It sends no binary frame.
"""

import shlex
from typing import Final

from app.errors import CaptureError
from app.tools.capture.load import Capture
from app.tools.capture.routes import Route
from app.wire.capture import capture_line

WSCAT: Final = "npx --yes wscat@6"
AFTER_SECONDS: Final = 2
# No argument of a command may be longer on Linux (execve(2)).
MAX_ARGUMENT_BYTES: Final = 128 * 1024 - 1


def wscat_command(capture: Capture, route: Route, *, lead_seconds: int, in_real_time: bool) -> str:
    """Write the line that sends the capture's messages along a route.

    In real time they go evenly over the capture's time: a shell knows no better. The
    file stands in the line as it is; its `start` alone is replaced, by sed.

    Raises:
        CaptureError: it holds what wscat cannot send; names the line.
    """
    for one in capture.messages:
        if isinstance(one.message, bytes) or capture_line(one.message) != one.message:
            kind = "a binary frame" if isinstance(one.message, bytes) else "not one line of text"
            raise CaptureError(
                f"{capture.path}, line {one.line_number}: {kind}, which wscat cannot send; "
                "media-bridge replay can"
            )
    lines = _lines(capture, route)
    if in_real_time and capture.seconds:
        every = capture.seconds / len(capture.messages)
        lines += f" | while IFS= read -r line; do printf '%s\\n' \"$line\"; sleep {every:.4f}; done"
    shown = [WSCAT]
    if route.signature:
        shown += ["-H", shlex.quote(f"X-Twilio-Signature: {route.signature}")]
    if route.basic:
        shown += ["--auth", shlex.quote(route.basic)]
    shown += ["-c", shlex.quote(route.url)]
    return f"(sleep {lead_seconds}; {lines}; sleep {AFTER_SECONDS}) | {' '.join(shown)}"


def _lines(capture: Capture, route: Route) -> str:
    """Write what gives the capture's lines, with a start of its own."""
    file = shlex.quote(str(capture.path.absolute()))
    if route.start is None or capture.start is None:
        return f"cat {file}"
    number = capture.messages[capture.start].line_number
    script = f"{number}s|.*|{_replacement(route.start)}|"
    if len(script.encode()) > MAX_ARGUMENT_BYTES:
        raise CaptureError(f"{capture.path}, line {number}: too long a `start` for a command line")
    return f"sed -e {shlex.quote(script)} {file}"


def _replacement(text: str) -> str:
    """Write a text as sed puts it in a line's place (POSIX, sed, "s" function)."""
    for character in ("\\", "&", "|"):
        text = text.replace(character, f"\\{character}")
    return text
