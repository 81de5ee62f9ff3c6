"""A worker as a process of its own: it notes what it has done in a file, and may be killed."""

import asyncio
import sys
from pathlib import Path

from app.consumer import Call, Frame, work

redis_url, group, notes = sys.argv[1], sys.argv[2], Path(sys.argv[3])


async def note(call: Call) -> None:
    async for item in call:
        if isinstance(item, Frame):
            file.write(f"{call.stream_sid} {item.id}\n")
            await call.ack(item)
    file.write(f"{call.stream_sid} {call.end and call.end.reason}\n")


file = notes.open("a", encoding="utf-8", buffering=1)
asyncio.run(work(redis_url, note, group=group, lease_seconds=1, auto_ack=False))
