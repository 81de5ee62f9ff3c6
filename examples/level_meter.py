"""Show how loud each live call is: a line a second for each track.

    REDIS_URL=redis://localhost:6379/0 python examples/level_meter.py

Without a group, each meter that runs is given every call.
"""

import asyncio
import os
from collections import defaultdict

from app.consumer import Call, Gap, Track, work

BAR_DB = 60  # what is quieter shows no bar


async def meter(call: Call) -> None:
    """Measure one call."""
    loudest: dict[Track, float] = defaultdict(lambda: -96.0)
    shown_at = 0
    async for item in call:
        if isinstance(item, Gap):
            say(call, f"{item.frames} frames are missing: {item.reason}")
            continue
        loudest[item.track] = max(loudest[item.track], item.level)
        if item.ts >= shown_at + 1000:
            for track, level in loudest.items():
                bar = "#" * max(0, round((level + BAR_DB) / 2))
                say(call, f"{track:8} {item.ts / 1000:6.1f} s {level:6.1f} dB {bar}")
            loudest.clear()
            shown_at = item.ts
    if call.end:
        say(call, f"ended: {call.end.reason}")


def say(call: Call, words: str) -> None:
    """Print a line about a call."""
    print(call.call_sid, words, flush=True)


if __name__ == "__main__":
    asyncio.run(work(os.environ["REDIS_URL"], meter))
