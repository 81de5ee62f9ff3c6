"""A file is there whole, or not at all."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import CommandFailed
from app.tools.new_file import NewFile, create_private, replace_private

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


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    path.write_bytes(b"mine")
    path.chmod(0o640)
    return path


def test_only_its_owner_may_read_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o644)
    umask = os.umask(0)
    try:
        with NewFile(path, force=True) as file:
            file.write(b"new")
            beside = next(one for one in tmp_path.iterdir() if one != path)
            assert stat.S_IMODE(beside.stat().st_mode) == 0o600
            file.keep()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["file", "file.part"])
def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path, mine: Path, name: str) -> None:
    path = tmp_path / "file"
    (tmp_path / name).symlink_to(mine)
    with NewFile(path, force=True) as file:
        file.write(b"new")
        file.keep()
    assert (path.read_bytes(), path.is_symlink()) == (b"new", False)
    assert mine.read_bytes() == b"mine"
    assert stat.S_IMODE(mine.stat().st_mode) == 0o640


def test_a_link_to_nowhere_counts_as_a_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(CommandFailed, match="is there already"):
        NewFile(path)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_part_left_by_a_killed_command_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"half")
    with NewFile(tmp_path / "file") as file:
        file.write(b"whole")
        file.keep()
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"whole")]


@pytest.mark.parametrize("made", ["fifo", "directory"])
def test_what_is_not_a_file_is_never_replaced(tmp_path: Path, made: str) -> None:
    path = tmp_path / made
    os.mkfifo(path) if made == "fifo" else path.mkdir()
    with pytest.raises(CommandFailed, match="is not a file; choose another path"):
        NewFile(path, force=True)
    assert [one.name for one in tmp_path.iterdir()] == [made]


@pytest.mark.parametrize("replace", [create_private, replace_private])
def test_a_private_file_is_its_owners_alone(tmp_path: Path, replace: Callable[[Path], int]) -> None:
    os.close(replace(tmp_path / "file"))
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_private_file_is_not_created_over_anything(tmp_path: Path, mine: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(mine)
    for path in (link, mine):
        with pytest.raises(FileExistsError):
            create_private(path)
    os.close(replace_private(link))
    assert (link.read_bytes(), mine.read_bytes()) == (b"", b"mine")


def test_a_device_is_written_to_as_it_is() -> None:
    os.close(replace_private(Path("/dev/null")))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
