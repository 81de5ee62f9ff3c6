"""What the kernel tells of a process and its descendants: time and memory."""

import platform
from contextlib import suppress
from pathlib import Path


def family(pid: int) -> list[int]:
    """List a process and all that descend from it.

    Source: proc(5), /proc/PID/task/TID/children.
    """
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, children.read_text(encoding="ascii").split())
    return found


def cpu_seconds(pid: int) -> float | None:
    """Give the CPU time of a process and its descendants, all their threads, in ns' precision.

    Threads that have ended are not in it. Source: the kernel's
    Documentation/scheduler/sched-stats.rst, /proc/PID/task/TID/schedstat.
    """
    try:
        return (
            sum(
                int(thread.read_text(encoding="ascii").split()[0])
                for one in family(pid)
                for thread in Path(f"/proc/{one}/task").glob("*/schedstat")
            )
            / 1e9
        )
    except OSError:
        return None


def memory_bytes(pid: int) -> int | None:
    """Give the memory of a process and its descendants: shared pages in proportion (PSS).

    Source: proc(5), /proc/PID/smaps_rollup.
    """
    total = 0
    try:
        for one in family(pid):
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii")
            line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
            total += int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return None
    return total


def queued_seconds(pid: int) -> float | None:
    """Give for how long a process's first thread was runnable and did not run.

    Source: the kernel's Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat.
    """
    try:
        schedstat = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii")
    except OSError:
        return None
    return int(schedstat.split()[1]) / 1e9


def cpu_model() -> str:
    """Name the CPU."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
