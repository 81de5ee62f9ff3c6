"""What a process holds open, for who watches over it."""

import asyncio
import os

from app.metrics import Metrics

NOTE_SECONDS = 5.0


async def note_vitals(metrics: Metrics) -> None:
    """Show the process's tasks and open files, every few seconds, until cancelled.

    With as many live calls, both stay as they are: what grows was not let go of.
    """
    while True:
        metrics.tasks.set(len(asyncio.all_tasks()))
        metrics.open_files.set(open_files())
        await asyncio.sleep(NOTE_SECONDS)


def open_files() -> int:
    """Count the files, sockets and pipes that this process has open."""
    return len(os.listdir("/dev/fd")) - 1  # the directory itself is open meanwhile
