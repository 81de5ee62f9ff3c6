"""Secrets from files: `NAME_FILE` names a file that holds the value of `NAME`.

Docker, Kubernetes and systemd hand secrets over as files, which, unlike variables,
do not show up in process listings, crash reports or child processes.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from app.errors import SettingsError

SUFFIX: Final = "_FILE"
MOST_BYTES: Final = 64 * 1024


def with_files(environ: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the environment with the content of each `NAME_FILE` under `NAME`.

    Line breaks at the end of a file are left out.

    Raises:
        SettingsError: NAME is set as well, or the file cannot be used; names the
            variable and the path, and nothing of the content.
    """
    found = dict(environ)
    for name in names:
        path = found.pop(name + SUFFIX, "")
        if not path:
            continue
        if found.get(name):
            raise _unusable(name, f"is set beside {name}: remove one of the two")
        found[name] = _read(name, path)
    return found


def readable_by_others(environ: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Return the paths of secrets' files that every user of this machine may read."""
    paths = (environ.get(name + SUFFIX, "") for name in names)
    return [_printable(path) for path in paths if path and others_may_read(Path(path))]


def others_may_read(path: Path) -> bool:
    """Return whether every user of this machine may read a file, by its own mode."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _read(name: str, path: str) -> str:
    shown = _printable(path)
    try:
        with open(path, "rb", opener=_open) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _unusable(name, f"names {shown}, which is not a regular file")
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = (error.strerror if isinstance(error, OSError) else None) or "not a path"
        raise _unusable(name, f"names {shown}, which cannot be read: {problem}") from None
    if len(content) > MOST_BYTES:
        raise _unusable(name, f"names {shown}, which is larger than {MOST_BYTES} bytes")
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise _unusable(name, f"names {shown}, which is not UTF-8 text") from None
    if not text:
        raise _unusable(name, f"names {shown}, which is empty")
    return text


def _open(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a FIFO waits for somebody who writes.
    return os.open(path, flags | os.O_NONBLOCK)


def _printable(path: str) -> str:
    return path if path.isprintable() else ascii(path)


def _unusable(name: str, problem: str) -> SettingsError:
    return SettingsError(name + SUFFIX, problem, f"/run/secrets/{name.lower()}")
