"""What is asked of a simulation, and the callers that are drawn up for it."""

import random
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal

CarrierName = Literal["twilio", "exotel"]
VOICES: Final = 3
BEGINS_WITHIN_SECONDS: Final = 60
# Of a call's length: where one that is cut is cut.
CUT_BETWEEN: Final = (0.2, 0.8)


class Fault(StrEnum):
    """What a bad carrier does wrong.

    `broken-json`: every tenth frame is half a message. `gaps`: every tenth is never
    sent, `repeats`: is sent twice. `no-start`: audio without a `start`. `silent`: a
    `start`, and no audio. `huge`: one message over 64 KiB. `slow`: half as fast as
    time passes.
    """

    BROKEN_JSON = "broken-json"
    GAPS = "gaps"
    REPEATS = "repeats"
    NO_START = "no-start"
    SILENT = "silent"
    HUGE = "huge"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class Asked:
    """Who calls, and how.

    `seconds` is the shortest and the longest call, `rate` in calls a second, `jitter`
    the most that a frame is late (seconds), `drop` the share of calls that are cut
    mid-call. Each of `faults` is one more caller, who is bad. `business_id` and
    `to_number` may be empty.
    """

    seed: int
    calls: int = 1
    seconds: tuple[float, float] = (30.0, 30.0)
    business_id: str = ""
    to_number: str = ""
    carrier: CarrierName = "twilio"
    rate: float = 10.0
    digits: str = ""
    jitter: float = 0.0
    drop: float = 0.0
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller; times in seconds, `starts_at` after the simulation's beginning.

    `voice` and `other_voice` number the two who speak, `begins_at` is where in the
    recording they do. `cut_at` is None where the call has an end.
    """

    starts_at: float
    seconds: float
    voice: int
    other_voice: int
    begins_at: float
    from_number: str
    cut_at: float | None
    fault: Fault | None
    seed: int

    @property
    def kind(self) -> str:
        """Name what kind of caller it is, in the words of the closing table."""
        if self.fault is not None:
            return f"bad: {self.fault}"
        return "good" if self.cut_at is None else "cut mid-call"


def callers_of(asked: Asked) -> list[Caller]:
    """Draw up the callers, in the order in which they ring: the same for the same seed."""
    chance = random.Random(asked.seed)
    callers = [_caller(chance, asked, fault) for fault in (*(None,) * asked.calls, *asked.faults)]
    for place in chance.sample(range(asked.calls), round(asked.drop * asked.calls)):
        cut_at = callers[place].seconds * chance.uniform(*CUT_BETWEEN)
        callers[place] = replace(callers[place], cut_at=cut_at)
    chance.shuffle(callers)
    return [replace(one, starts_at=place / asked.rate) for place, one in enumerate(callers)]


def _caller(chance: random.Random, asked: Asked, fault: Fault | None) -> Caller:
    voice, other_voice = chance.sample(range(VOICES), 2)
    return Caller(
        starts_at=0,
        seconds=chance.uniform(*asked.seconds),
        voice=voice,
        other_voice=other_voice,
        begins_at=chance.uniform(0, BEGINS_WITHIN_SECONDS),
        # 555-0100 to 555-0199 are nobody's (NANPA).
        from_number=f"+1{chance.randint(201, 989)}55501{chance.randint(0, 99):02}",
        cut_at=None,
        fault=fault,
        seed=chance.getrandbits(32),
    )
