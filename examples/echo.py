"""Say back to each caller what they say, a fifth of a second later.

    REDIS_URL=redis://localhost:6379/0 python examples/echo.py

The business's plan must have `return_audio`.
"""

import asyncio
import os

from app.consumer import Call, CommandRefused, Frame, Track, work

PIECE_MS = 100  # ten commands a second, of the fifty that a call may have


async def echo(call: Call) -> None:
    """Echo one call."""
    said, said_ms = bytearray(), 0.0
    async for item in call:
        if not isinstance(item, Frame) or item.track is not Track.INBOUND:
            continue
        said += item.pcm16
        said_ms += item.duration_ms
        if said_ms >= PIECE_MS:
            try:
                await call.play(bytes(said), sample_rate=item.format.sample_rate, more=True)
            except CommandRefused:
                continue  # the caller has hung up; the end of what they said is to come
            said, said_ms = bytearray(), 0.0
    print(f"{call.call_sid} ended: {call.end and call.end.reason}", flush=True)


if __name__ == "__main__":
    asyncio.run(work(os.environ["REDIS_URL"], echo, group="echo"))
