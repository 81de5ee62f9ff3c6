"""What a process holds open, counted."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from app.metrics import Metrics
from app.vitals import note_vitals, open_files


def test_a_file_counts_for_as_long_as_it_is_open(tmp_path: Path) -> None:
    before = open_files()
    with (tmp_path / "one").open("w"), (tmp_path / "two").open("w"):
        assert open_files() == before + 2
    assert open_files() == before


def test_what_is_looked_through_to_count_does_not_count() -> None:
    def is_open(descriptor: int) -> bool:
        with suppress(OSError):
            os.fstat(descriptor)
            return True
        return False

    assert open_files() == sum(map(is_open, range(4096)))


async def test_tasks_and_files_are_shown_to_who_scrapes() -> None:
    metrics = Metrics()
    waiting = [asyncio.create_task(asyncio.Event().wait()) for _ in range(3)]
    noting = asyncio.create_task(note_vitals(metrics))
    await asyncio.sleep(0)
    shown = {
        line.partition(" ")[0]: float(line.partition(" ")[2])
        for line in metrics.exposition().decode().splitlines()
        if line[0] != "#" and "{" not in line
    }
    # This test, the three, and who counts.
    assert shown["bridge_tasks"] == 5
    assert shown["bridge_open_files"] == open_files()
    for task in (*waiting, noting):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
