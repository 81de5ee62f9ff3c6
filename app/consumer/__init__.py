"""What workers import: calls as they happen, their audio, and who works on which.

    async for call in calls(redis_url, group="transcribe"):
        async for item in call:
            if isinstance(item, Frame):
                ...item.pcm16

`calls` gives one call after the other; `work` handles many at a time. The workers of a
group share calls, each to one of them; where one dies, another goes on behind the last
entry that was acknowledged. So every item is given at least once.
"""

from app.consumer.call import Call
from app.consumer.calls import Calls, Choice, Start, calls
from app.consumer.items import End, Frame, Gap, Item
from app.consumer.work import work
from app.errors import CallTakenOver, StoreUnavailable
from app.media import Encoding, MediaFormat, Track

__all__ = [
    "Call",
    "CallTakenOver",
    "Calls",
    "Choice",
    "Encoding",
    "End",
    "Frame",
    "Gap",
    "Item",
    "MediaFormat",
    "Start",
    "StoreUnavailable",
    "Track",
    "calls",
    "work",
]
