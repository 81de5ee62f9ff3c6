"""The contenders on the same work in turns, and what they cost beside each other."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

import uvloop
from redis.exceptions import RedisError

from app.errors import BridgeError
from benchmarks.contenders import Contender
from benchmarks.frames import FramesLoad, load_frames
from benchmarks.host import Cores
from benchmarks.idle import idle_socket_bytes

WARM_UP_SECONDS = 3.0
# The memory of a live call is read when it has lasted so long, in the first round.
HOLD_SECONDS = 20.0
FRAMES_A_SECOND = 50
# Below this share of what was sent, a contender did not keep up.
KEPT_UP = 0.98

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Work:
    """What everybody is given to do."""

    calls: Sequence[int]
    seconds: float
    rounds: int


@dataclass(slots=True)
class Measured:
    """One contender at one number of calls: a load for each round.

    `socket_bytes` is the memory of an idle socket, None where it was not read.
    """

    contender: Contender
    calls: int
    loads: list[FramesLoad] = field(default_factory=list)
    socket_bytes: float | None = None

    def cpu(self) -> list[float]:
        """Give the µs of CPU a frame in each round, of all the contender's processes."""
        return [load.counted.service_micros for load in self.loads]

    def redis_cpu(self) -> list[float]:
        """Give Redis' µs of CPU a frame in each round, while nobody read."""
        return [load.quiet.redis_micros for load in self.loads]

    def kept_up(self) -> float:
        """Give the share of the frames that it took while they were sent, in its worst round."""
        return min(load.counted.frames / max(1, load.offered) for load in self.loads)

    @property
    def call_bytes(self) -> float | None:
        """Give the memory of a live call, where an idle socket's was read too."""
        return None if self.socket_bytes is None else self.loads[0].call_bytes


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows of the table, and who is missing from it: a sentence each."""

    rows: list[Measured]
    missing: list[str]

    def find(self, name: str, calls: int) -> Measured | None:
        """Look up a row."""
        for row in self.rows:
            if row.contender.name == name and row.calls == calls:
                return row
        return None

    def ratio(self, row: Measured, name: str) -> float:
        """Give a row's CPU a frame over that of another contender with as many calls."""
        other = self.find(name, row.calls)
        return median(row.cpu()) / median(other.cpu()) if other else math.nan


def compare(cores: Cores, asked: Sequence[Contender], work: Work, say: Say) -> Comparison:
    """Measure all contenders in turns, round after round.

    Each load has a fresh process and a fresh Redis, so that none bears another's
    traces. Who cannot be started is missing, and the others are measured.
    """
    missing: list[str] = []
    able: list[Contender] = []
    for contender in asked:
        if wrong := contender.prepare():
            missing.append(f"{contender.name}: {wrong}")
        else:
            able.append(contender)
    rows = [Measured(contender, calls) for contender, calls in order(able, work.calls)]
    going = list(rows)
    for number in range(work.rounds):
        for row in list(going):
            say(f"round {number + 1}: {row.contender.name}, {row.calls} calls ...")
            try:
                _take_turn(cores, row, rows, work)
            except (BridgeError, RedisError, OSError) as error:
                missing.append(f"{row.contender.name}, {row.calls} calls: {error}")
                going.remove(row)
    return Comparison([row for row in rows if row.loads], missing)


def order(asked: Sequence[Contender], loads: Sequence[int]) -> Iterator[tuple[Contender, int]]:
    """Give the turns of a round: who, and with how many calls."""
    for place, calls in enumerate(loads):
        for contender in asked:
            most = contender.most_calls
            if most is None or calls <= most:
                yield contender, calls * contender.times
            elif place == 0:
                # Once, at what it can carry.
                yield contender, most


def _take_turn(cores: Cores, row: Measured, rows: Sequence[Measured], work: Work) -> None:
    contender = row.contender
    first = not row.loads and row is next(r for r in rows if r.contender is contender)
    with contender.start(cores) as service:
        row.loads.append(
            uvloop.run(
                load_frames(
                    service,
                    calls=row.calls,
                    seconds=work.seconds,
                    warm_up=WARM_UP_SECONDS,
                    hold=HOLD_SECONDS if first else 0.0,
                    publishes=contender.publishes,
                )
            )
        )
    if first:
        with contender.start(cores) as service:
            row.socket_bytes = uvloop.run(idle_socket_bytes(service))
