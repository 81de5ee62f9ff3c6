"""A file that is there whole, or not at all."""

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from app.errors import CommandFailed


class NewFile:
    """Write a file beside its place, and put it there when it is whole.

    One that is there already is refused without `force`. Leaving the block without
    `keep` leaves nothing behind.

    Raises in every method:
        CommandFailed: it may not be written, or the disk is full; says which and why.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._beside = path.with_name(f"{path.name}.part")
        self._force = force
        self._refuse_existing()
        try:
            self._file = self._beside.open("wb")
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
            self._refuse_existing()
            self._beside.replace(self.path)
        except OSError as error:
            raise self._failed(error) from error

    def discard(self) -> None:
        """Leave nothing behind; no effect on one that was kept."""
        with suppress(OSError):  # what it still held finds no room either
            self._file.close()
        self._beside.unlink(missing_ok=True)

    def _refuse_existing(self) -> None:
        if not self._force and self.path.exists():
            raise CommandFailed(f"{self.path} is there already; --force writes over it")

    def _failed(self, error: OSError) -> CommandFailed:
        return CommandFailed(f"{self.path} cannot be written: {error.strerror}")
