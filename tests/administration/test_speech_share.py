"""Pieces of speech by the API: each business has a rate of its own in a process."""

from datetime import timedelta

import pytest

from app.admin.principal import Principal
from app.admin.roles import Role
from app.administration.speech import PIECES, LiveSpeech
from app.errors import NotThere, TooMuchSpeech
from app.store.memory import MemoryStore

A, B = (Principal(f"key:{one}", Role.AGENT, one) for one in ("business-1", "business-2"))
OPERATOR = Principal("operator", Role.OPERATOR)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def pieces(speech: LiveSpeech, who: Principal, count: int) -> int:
    """Send so many pieces to a call that is not there; return how many were taken."""
    taken = 0
    for _ in range(count):
        try:
            await speech.play(who, "CA1", None, bytes(320), 8000, more=False)
        except NotThere:
            taken += 1
        except TooMuchSpeech:
            return taken
    return taken


async def test_a_business_sends_pieces_at_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    speech = LiveSpeech(MemoryStore(clock), None, None, clock, is_on=True)  # type: ignore[arg-type]
    at_once = round(PIECES.at_once)
    assert await pieces(speech, A, at_once + 10) == at_once
    assert await pieces(speech, B, at_once) == at_once
    assert await pieces(speech, OPERATOR, at_once + 10) == at_once + 10
    clock.now += timedelta(seconds=1).total_seconds()
    assert await pieces(speech, A, at_once) == round(PIECES.a_second)


def test_says_when_to_try_again() -> None:
    refused = TooMuchSpeech("too much")
    assert (refused.http_status, refused.retryable, refused.retry_seconds) == (429, True, 1)
