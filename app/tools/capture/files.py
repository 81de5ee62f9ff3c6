"""A capture while it is written: its lines, and beside them what is known of its call."""

from contextlib import ExitStack
from pathlib import Path

import msgspec

from app.tools.capture.load import object_in
from app.tools.new_file import NewFile
from app.wire.capture import CaptureFacts, capture_line, facts_path, write_facts


class CaptureFile:
    """Write a capture; both files are there when it is kept, or neither.

    Raises in every method:
        CommandFailed: a file may not be written, or the disk is full.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._lines_written = 0
        self._bad_lines: list[int] = []
        self._arrivals_ms: list[int] = []
        with ExitStack() as stack:
            self._lines = stack.enter_context(NewFile(path, force=force))
            self._facts = stack.enter_context(NewFile(facts_path(path), force=force))
            self._open = stack.pop_all()

    @property
    def count(self) -> int:
        """Count the messages it holds."""
        return self._lines_written

    def add(self, message: str | bytes, at_ms: int | None = None) -> None:
        """Write a message, which came `at_ms` after the capture began."""
        self._lines_written += 1
        self._lines.write(capture_line(message).encode() + b"\n")
        if isinstance(message, str) and object_in(message) is None:
            self._bad_lines.append(self._lines_written)
        if at_ms is not None:
            self._arrivals_ms.append(at_ms)

    def keep(self, facts: CaptureFacts) -> None:
        """Put both files in their places; what was counted is added to `facts`."""
        arrivals = self._arrivals_ms if len(self._arrivals_ms) == self._lines_written else None
        whole = msgspec.structs.replace(facts, arrivals_ms=arrivals, bad_lines=self._bad_lines)
        self._facts.write(write_facts(whole))
        self._facts.keep()
        self._lines.keep()

    def discard(self) -> None:
        """Leave nothing behind; no effect on what was kept."""
        self._open.close()
