"""What callers hear of what is said into their calls, and what follows from it."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from app.wire import twilio
from benchmarks.line import TEXT, Line, client_frame

MULAW_BYTES_A_SECOND = 8_000
# The lead is sent at once; pacing begins behind it.
LEAD_SECONDS = 0.3
# Mu-law's negative zero is decoded as zero, and comes back as the positive one.
NEGATIVE_ZERO, ZERO = b"\x7f", b"\xff"


class _Payload(msgspec.Struct):
    payload: bytes


class _Name(msgspec.Struct):
    name: str


class _Message(msgspec.Struct):
    event: str
    media: _Payload | None = None
    mark: _Name | None = None


_read = msgspec.json.Decoder(_Message).decode


@dataclass
class Ear:
    """What one caller hears: when, and what; marks are echoed at once."""

    line: Line
    stream_sid: str
    heard: list[tuple[float, bytes]] = field(default_factory=list)
    cleared: list[float] = field(default_factory=list)

    def take(self, text: bytes) -> None:
        """Take a message to the carrier."""
        now, message = time.monotonic(), _read(text)
        if message.media is not None:
            self.heard.append((now, message.media.payload))
        elif message.mark is not None:
            echo = twilio.mark_message(self.stream_sid, message.mark.name, seq=0)
            self.line.write(client_frame(TEXT, echo.encode()))
        else:
            self.cleared.append(now)


def first_after(times: Iterable[float], begun: float) -> float | None:
    """Give the first of these times that is later."""
    return next((at for at in times if at > begun), None)


def drift_of(heard: Sequence[tuple[float, bytes]]) -> float:
    """Tell by how many ms a minute messages come slower than what they hold.

    A message may be late, by the receiver's own fault too, and is never early: so the
    earliest of each second counts, and a line through them all.
    """
    begun, said = heard[0][0] if heard else 0.0, 0.0
    earliest: dict[int, float] = {}
    for at, payload in heard:
        if said > LEAD_SECONDS:
            second = int(said)
            earliest[second] = min(earliest.get(second, math.inf), at - begun - said)
        said += len(payload) / MULAW_BYTES_A_SECOND
    if len(earliest) < 2:
        return math.nan
    return float(np.polyfit(list(earliest), list(earliest.values()), 1)[0]) * 60_000


def round_trips(
    speech: Sequence[bytes],
    place: int,
    written: Sequence[float],
    heard: Sequence[tuple[float, bytes]],
) -> Iterator[float]:
    """Tell how long frames took to come back, those that no other frame sounds like.

    Frame n of a call is `speech[place + n]`, over and over, and was written at `written[n]`.
    """
    sounds = [payload.replace(NEGATIVE_ZERO, ZERO) for payload in speech]
    once = Counter(sounds)
    known = {sound: at for at, sound in enumerate(sounds) if once[sound] == 1}
    for at, payload in heard:
        if payload in known:
            first = (known[payload] - place) % len(speech)
            said = [written[n] for n in range(first, len(written), len(speech))]
            before = [then for then in said if then <= at]
            if before:
                yield at - before[-1]
