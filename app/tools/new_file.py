"""Files that only their owner may read, and that are there whole or not at all."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from app.errors import CommandFailed


def create_private(path: Path) -> int:
    """Create a file that only its owner may read; return its descriptor, open for writing.

    Raises:
        OSError: something is at that path already, also a symbolic link to nowhere.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def replace_private(path: Path) -> int:
    """Create a file as `create_private` does, in place of a file or link that is there.

    A device or a pipe stays, and is opened as it is.

    Raises:
        OSError: it cannot be created or opened.
    """
    if is_replaceable(path):
        path.unlink(missing_ok=True)
        return create_private(path)
    return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def is_replaceable(path: Path) -> bool:
    """Return whether nothing is there, or a file or a link."""
    if not os.path.lexists(path):
        return True
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


class NewFile:
    """Write a file beside its place, and put it there when it is whole.

    Only its owner may read it. One that is there already is refused without `force`.
    Leaving the block without `keep` leaves nothing behind.

    Raises in every method:
        CommandFailed: it may not be written, or the disk is full; says which and why.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._beside = path.with_name(f"{path.name}.part")
        self._force = force
        self._check_place()
        try:
            # What is beside it was left by a command that was killed, or planted.
            self._file = os.fdopen(replace_private(self._beside), "wb")
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def write(self, data: bytes) -> None:
        """Write more of it."""
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failed(error) from error

    def keep(self) -> None:
        """Put it in its place, whole."""
        try:
            self._file.close()
            self._check_place()
            self._beside.replace(self.path)
        except OSError as error:
            raise self._failed(error) from error

    def discard(self) -> None:
        """Leave nothing behind; no effect on one that was kept."""
        with suppress(OSError):  # what it still held finds no room either
            self._file.close()
        self._beside.unlink(missing_ok=True)

    def _check_place(self) -> None:
        if os.path.lexists(self.path) and not self._force:
            raise CommandFailed(f"{self.path} is there already; --force replaces it")
        if not is_replaceable(self.path):
            raise CommandFailed(f"{self.path} is not a file; choose another path")

    def _failed(self, error: OSError) -> CommandFailed:
        return CommandFailed(f"{self.path} cannot be written: {error.strerror}")
