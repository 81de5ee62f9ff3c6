"""What workers import: calls as they happen, their audio, and who works on which.

    async for call in calls(redis_url, group="transcribe"):
        async for item in call:
            if isinstance(item, Frame):
                ...item.pcm16

`calls` gives one call after the other; `work` handles many at a time. The workers of a
group share calls, each to one of them; where one dies, another goes on behind the last
entry that was acknowledged. So every item is given at least once.

Where the plan has `return_audio`, a worker speaks into the call, and is told what was heard:

    said = await call.play(pcm16, sample_rate=16000)
    if await said.heard():
        await call.hang_up()
"""

from app.consumer.call import Call
from app.consumer.calls import Calls, Choice, Start, calls
from app.consumer.items import End, Frame, Gap, Item
from app.consumer.speaking import Said, Stopped
from app.consumer.work import work
from app.errors import CallTakenOver, CommandRefused, StoreUnavailable
from app.events import StreamPolicy
from app.media import Encoding, MediaFormat, Track
from app.playback.answers import Cleared, Played, Reached

__all__ = [
    "Call",
    "CallTakenOver",
    "Calls",
    "Choice",
    "Cleared",
    "CommandRefused",
    "Encoding",
    "End",
    "Frame",
    "Gap",
    "Item",
    "MediaFormat",
    "Played",
    "Reached",
    "Said",
    "Start",
    "Stopped",
    "StoreUnavailable",
    "StreamPolicy",
    "Track",
    "calls",
    "work",
]
