"""A file is there whole, or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.errors import CommandFailed
from app.tools.new_file import NewFile

FULL = """
import resource, sys
from pathlib import Path
from app.errors import CommandFailed
from app.tools.new_file import NewFile

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
size = int(sys.argv[2])
try:
    with NewFile(Path(sys.argv[1])) as file:
        for _ in range(size // 500):
            file.write(b"a" * 500)
        file.keep()
except CommandFailed as error:
    sys.exit(str(error))
"""


def test_what_is_kept_is_there_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with NewFile(path) as file:
        file.write(b"a")
        assert not path.exists()
        file.write(b"b")
        file.keep()
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"ab")]


def test_what_is_not_kept_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with NewFile(tmp_path / "file") as file:
            file.write(b"a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_file_that_is_there_is_kept(tmp_path: Path, when: str) -> None:
    path = tmp_path / "file"

    def write() -> None:
        with NewFile(path) as file:
            path.write_bytes(b"mine")
            file.write(b"a")
            file.keep()

    if when == "before":
        path.write_bytes(b"mine")
    with pytest.raises(CommandFailed, match="is there already; --force"):
        write()
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"mine")]
    with NewFile(path, force=True) as file:
        file.write(b"new")
        file.keep()
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("size", [1500, 200_000])
def test_a_full_disk_gives_a_sentence_and_nothing_half_written(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(size)], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (1, f"{path} cannot be written: File too large\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["not/there", "file/below"])
def test_a_place_that_is_none_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CommandFailed, match=f"{place} cannot be written"):
        NewFile(tmp_path / place)
