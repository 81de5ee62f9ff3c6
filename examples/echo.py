"""Say back to each caller what they said, when they pause; fall silent when they speak.

    REDIS_URL=redis://localhost:6379/0 python examples/echo.py

The business's plan needs `return_audio`.
"""

import asyncio
import os

from app.consumer import Call, CommandRefused, Frame, Played, Said, Track, work

LOUD_DB = -40  # what is louder is speech
PAUSE_MS = 400
LONGEST_MS = 20_000


async def echo(call: Call) -> None:
    """Listen to one caller, and answer."""
    speech, quiet_ms = bytearray(), 0.0
    answer: Said[Played] | None = None
    async for item in call:
        if not isinstance(item, Frame) or item.track is not Track.INBOUND:
            continue
        if answer and answer.is_answered:
            say(call, f"heard it all: {await answer.heard()}")
            answer = None
        if item.level > LOUD_DB:
            quiet_ms = 0
            if answer:
                await call.clear()
        elif not speech:
            continue
        speech += item.pcm16
        quiet_ms += item.duration_ms
        spoken_ms = len(speech) / 2 * 1000 / call.format.sample_rate
        if quiet_ms > PAUSE_MS or spoken_ms > LONGEST_MS:
            say(call, f"hears {spoken_ms / 1000:.1f} s back")
            answer = await call.play(bytes(speech), sample_rate=call.format.sample_rate)
            speech.clear()


async def serve(call: Call) -> None:
    """Echo until the call ends."""
    try:
        await echo(call)
    except CommandRefused as refused:
        say(call, f"cannot be spoken to: {refused}")


def say(call: Call, words: str) -> None:
    """Print a line about a call."""
    print(call.call_sid, words, flush=True)


if __name__ == "__main__":
    asyncio.run(work(os.environ["REDIS_URL"], serve, group="echo"))
