"""What the supervisor does for workers that behave, and for those that do not."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import WAIT_SECONDS, wait_until

# A supervisor in a process of its own, as it takes the process's signals; its
# workers run a small program instead of the service.
SUPERVISOR = """
import asyncio, logging, os, sys
from app.errors import StartRefused
from app.workers.supervisor import Patience, Supervisor
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
program, patience = sys.argv[1], eval(sys.argv[2])
supervisor = Supervisor(
    2,
    lambda slot, lifeline: [sys.executable, "-c", program, str(slot), str(lifeline)],
    os.environ,
    [],
    Patience(**patience),
    on_listening=lambda: print("all listen", flush=True) or open("all", "x"),
    on_end=lambda slot: print("slot", slot, "is empty", flush=True),
)
try:
    status = asyncio.run(supervisor.run())
except StartRefused as error:
    print("refused:", error, flush=True)
    status = 2
os.kill(os.getpid(), 15)  # one more, when all is over
sys.exit(status)
"""
WORKER = """
import os, signal, sys, time
from app.workers.lifeline import Lifeline
slot, lifeline = int(sys.argv[1]), Lifeline(int(sys.argv[2]))
first = not os.path.exists(f"{slot}.began")
open(f"{slot}.began", "a").write("x")
taken = []
def take(sig, frame):
    taken.append(sig)
    print("worker", slot, "took", signal.Signals(sig).name, flush=True)
for sig in (signal.SIGTERM, signal.SIGINT):
    signal.signal(sig, take)
"""
WAIT_FOR_ALL = """
lifeline.report_listening()
while not os.path.exists("all") and not taken:
    time.sleep(0.01)
"""
LISTEN = WORKER + WAIT_FOR_ALL
# It ends with its second signal.
OBEDIENT = LISTEN + "while len(taken) < 2: time.sleep(0.01)\n"
STUBBORN = LISTEN + "while True: time.sleep(1)\n"


class Running:
    """A supervisor that runs, and what it and its workers say."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    def said(self) -> str:
        return self._log.read_text()

    def hears(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self.said().count(text) >= times, self.said)

    def told(self, sig: int) -> None:
        self.process.send_signal(sig)

    def ended(self) -> int:
        return self.process.wait(WAIT_SECONDS)


@contextmanager
def supervised(directory: Path, program: str, **patience: float) -> Iterator[Running]:
    log = directory / "log.txt"
    options = repr({"stop": 30.0, "first_pause": 0.05, "pause": 0.2, **patience})
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, program, options],
            cwd=directory,
            env={"PYTHONPATH": os.getcwd()},
            stdout=output,
            stderr=output,
        )
    try:
        yield Running(process, log)
    finally:
        process.kill()
        process.wait()


def test_each_signal_is_passed_on_to_each_worker(tmp_path: Path) -> None:
    with supervised(tmp_path, OBEDIENT) as running:
        running.hears("all listen")
        running.told(signal.SIGINT)
        running.hears("took SIGINT", 2)
        running.told(signal.SIGTERM)
        running.hears("took SIGTERM", 2)
        # A last signal finds nothing to stop, and changes nothing.
        assert running.ended() == 0


def test_who_does_not_stop_is_killed_and_that_is_a_failure(tmp_path: Path) -> None:
    with supervised(tmp_path, STUBBORN, stop=0.5) as running:
        running.hears("all listen")
        running.told(signal.SIGTERM)
        assert running.ended() == 1
        assert running.said().count("is killed: it does not stop") == 2


def test_a_second_ctrl_c_shortens_the_patience(tmp_path: Path) -> None:
    with supervised(tmp_path, STUBBORN, stop=600, force=0.3) as running:
        running.hears("all listen")
        running.told(signal.SIGINT)
        running.hears("took SIGINT", 2)
        running.told(signal.SIGINT)
        assert running.ended() == 1


def test_a_worker_that_dies_again_and_again_is_replaced_ever_later(tmp_path: Path) -> None:
    dies = LISTEN + "while slot == 2 and not taken: time.sleep(0.01)\nsys.exit(3 * (slot == 1))\n"
    with supervised(tmp_path, dies) as running:
        running.hears("all listen")
        running.hears("the next starts in", 4)
        running.told(signal.SIGTERM)
        running.ended()
        pauses = re.findall(
            r"Worker 1 ended by itself: exit status 3; .* in ([\d.]+) s", running.said()
        )
        assert pauses[:4] == ["0.1", "0.1", "0.2", "0.2"]
        assert running.said().count("slot 1 is empty") >= 4
        assert (tmp_path / "2.began").read_text() == "x"


def test_a_stop_waits_for_no_pause(tmp_path: Path) -> None:
    dies = LISTEN + "while slot == 2 and not taken: time.sleep(0.01)\n"
    with supervised(tmp_path, dies, first_pause=600, pause=600) as running:
        running.hears("the next starts in 600.0 s")
        time.sleep(0.3)
        running.told(signal.SIGTERM)
        assert running.ended() == 0
        assert (tmp_path / "1.began").read_text() == "x"


def test_a_worker_that_lived_long_is_replaced_at_once(tmp_path: Path) -> None:
    dies = LISTEN + "while not taken and (slot == 2 or not first): time.sleep(0.01)\n"
    with supervised(tmp_path, dies, steady=0.0) as running:
        running.hears("Worker 1 ended by itself: exit status 0; the next starts in 0.0 s")
        running.hears("Worker 1 listens", 2)
        running.told(signal.SIGTERM)
        assert running.ended() == 0


def test_who_dies_in_a_stop_is_not_replaced_and_fails_it(tmp_path: Path) -> None:
    dies = LISTEN + "while not taken: time.sleep(0.01)\nsys.exit(3 * (slot == 1))\n"
    with supervised(tmp_path, dies) as running:
        running.hears("all listen")
        running.told(signal.SIGTERM)
        assert running.ended() == 1
        assert (tmp_path / "1.began").read_text() == "x"


def test_a_stop_before_all_listen_is_a_stop(tmp_path: Path) -> None:
    slow = "import time, sys\nif sys.argv[1] == '1': time.sleep(600)\n" + LISTEN
    slow += "while not taken: time.sleep(0.01)\n"
    with supervised(tmp_path, slow) as running:
        running.hears("Worker 2 listens")
        # Without a handler, Ctrl-C would be a traceback.
        running.told(signal.SIGINT)
        assert running.ended() == 0
        assert "Traceback" not in running.said()
        assert "all listen" not in running.said()


@pytest.mark.parametrize(
    ("fault", "said", "status"),
    [
        ("sys.exit(3)", "Worker 1 did not start: exit status 3", 1),
        ("os.kill(os.getpid(), 9)", "Worker 1 did not start: signal 9", 1),
        ("lifeline.report_unusable('PORT is\\nodd')", "refused: PORT is odd", 2),
    ],
)
def test_the_start_is_all_or_nothing(tmp_path: Path, fault: str, said: str, status: int) -> None:
    program = WORKER + f"if slot == 1:\n    {fault}\n    sys.exit(2)\n"
    program += WAIT_FOR_ALL
    with supervised(tmp_path, program) as running:
        assert running.ended() == status
        assert running.said().count(said) == 1
        assert "all listen" not in running.said()
        assert (tmp_path / "1.began").read_text() == "x"


def test_a_worker_that_does_not_come_to_listen_is_stopped_and_so_are_all(tmp_path: Path) -> None:
    program = WORKER + "if slot == 1:\n    time.sleep(600)\n" + WAIT_FOR_ALL
    with supervised(tmp_path, program, start=1.0) as running:
        assert running.ended() == 1
        assert running.said().count("Worker 1 is stopped: it does not come to listen") == 1
        assert "all listen" not in running.said()
    # On a slow machine it has not even begun.
    began = tmp_path / "1.began"
    assert not began.exists() or began.read_text() == "x"


def test_settings_that_turned_bad_later_stop_nothing(tmp_path: Path) -> None:
    program = (
        f"{WORKER}if slot == 1 and not first:\n    lifeline.report_unusable('now bad')\n"
        f"    sys.exit(2)\n{WAIT_FOR_ALL}while not taken and slot == 2: time.sleep(0.01)\n"
    )
    with supervised(tmp_path, program) as running:
        running.hears("Worker 1 ended by itself: now bad;", 2)
        assert running.process.poll() is None
        running.told(signal.SIGTERM)
        running.ended()
        assert "refused" not in running.said()


def test_workers_hear_of_the_supervisors_death(tmp_path: Path) -> None:
    program = LISTEN + "lifeline.watch()\nwhile not taken: time.sleep(0.01)\n"
    with supervised(tmp_path, program) as running:
        running.hears("all listen")
        running.told(signal.SIGKILL)
        running.hears("took SIGTERM", 2)
