"""How far a command has come, on a terminal."""

import sys

from app.tools.terminal import write_control

BAR_WIDTH = 40


class ProgressBar:
    """Draw on stderr how much of `total` is done; nothing where it is no terminal."""

    def __init__(self, total: int, what: str) -> None:
        self._total = max(1, total)
        self._what = what
        self._done = 0
        self._drawn_percent = -1
        self._is_terminal = sys.stderr.isatty()

    def advance(self) -> None:
        """Count one more as done."""
        self.show(self._done + 1)

    def show(self, done: int) -> None:
        """Show that `done` of them are."""
        self._done = done
        percent = min(100, 100 * done // self._total)
        if self._is_terminal and percent != self._drawn_percent:
            self._drawn_percent = percent
            bar = ("#" * (percent * BAR_WIDTH // 100)).ljust(BAR_WIDTH, ".")
            write_control(sys.stderr, "\r")
            sys.stderr.write(f"{self._what:<8} [{bar}] {percent:3}%")
            sys.stderr.flush()

    def finish(self) -> None:
        """Leave the line."""
        if self._is_terminal:
            sys.stderr.write("\n")
