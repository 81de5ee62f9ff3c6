"""Greet each caller, answer the keys they press, and fall silent when they speak.

    REDIS_URL=redis://localhost:6379/0 python examples/talker.py

It speaks by espeak-ng (espeak.py). The business's plan needs `return_audio`.
"""

import asyncio
import os
import sys
from datetime import datetime

from espeak import MISSING, RATE, spoken

from app.consumer import Call, CommandRefused, Frame, Played, Said, work

GREETING = "Hello. Press 1 for the time, 2 to hear this again, or 0 to end the call."
LOUD_DB = -40  # what is louder is speech


class Talk:
    """One call, and what is being said in it."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.said: Said[Played] | None = None

    async def say(self, words: str) -> None:
        """Say something, in place of what is being said."""
        await self.fall_silent()
        self.said = await self.call.play(await asyncio.to_thread(spoken, words), sample_rate=RATE)

    async def fall_silent(self) -> None:
        """Stop speaking."""
        if self.said and not self.said.is_answered:
            await self.call.clear()

    async def listen(self) -> None:
        """Let the caller speak, up to the end of the call."""
        async for item in self.call:
            if isinstance(item, Frame) and item.level > LOUD_DB:
                await self.fall_silent()
            if self.said and self.said.is_answered:
                print(self.call.call_sid, "heard it all:", await self.said.heard(), flush=True)
                self.said = None

    async def answer(self) -> None:
        """Greet the caller, and answer the keys that are pressed."""
        await self.say(GREETING)
        async for digit in self.call.digits():
            if digit == "0":
                await self.say("Goodbye.")
                await self.call.hang_up()
            else:
                await self.say(f"It is {datetime.now():%H:%M}." if digit == "1" else GREETING)


async def talk(call: Call) -> None:
    """Talk until the call ends."""
    one = Talk(call)
    answering = asyncio.create_task(one.answer())
    try:
        await one.listen()
    except CommandRefused as refused:
        print(call.call_sid, "cannot be spoken to:", refused, flush=True)
    answering.cancel()


if __name__ == "__main__":
    sys.exit(MISSING) if MISSING else asyncio.run(work(os.environ["REDIS_URL"], talk))
