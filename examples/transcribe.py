"""Write down what is said in each call, sentence by sentence.

    REDIS_URL=redis://localhost:6379/0 python examples/transcribe.py

The engine is a plug (engines.py). A sentence is acknowledged when it is written: where
a worker dies, another one of the group hears from the first sentence that is not.
"""

import asyncio
import os
from functools import partial

from engines import Engine, engine_here

from app.consumer import Call, Frame, Track, work

QUIET_DB, PAUSE_MS, LONGEST_MS = -45.0, 500, 15_000


class Sentence:
    """What one track has said since its last pause."""

    def __init__(self, first: Frame) -> None:
        self.audio = bytearray()
        self.begins_at = self.spoken_until = first.ts
        self.rate = first.format.sample_rate

    def takes(self, frame: Frame) -> bool:
        """Add a frame; False where the sentence is over with it."""
        self.audio += frame.pcm16
        if frame.level > QUIET_DB:
            self.spoken_until = frame.ts
        is_paused = frame.ts - self.spoken_until >= PAUSE_MS
        return not is_paused and frame.ts - self.begins_at < LONGEST_MS


async def write(call: Call, track: Track, sentence: Sentence, engine: Engine) -> None:
    """Print a sentence, without holding up other calls."""
    text = await asyncio.to_thread(engine.transcribe, bytes(sentence.audio), sentence.rate)
    print(f"{call.call_sid} {track} {sentence.begins_at / 1000:.1f} s: {text}", flush=True)


async def transcribe(call: Call, engine: Engine) -> None:
    """Transcribe one call."""
    sentences: dict[Track, Sentence] = {}
    async for item in call:
        if not isinstance(item, Frame):
            continue
        if item.track not in sentences and item.level > QUIET_DB:
            sentences[item.track] = Sentence(item)
        if item.track in sentences and not sentences[item.track].takes(item):
            await write(call, item.track, sentences.pop(item.track), engine)
            if not sentences:
                await call.ack(item)
    for track, sentence in sentences.items():
        await write(call, track, sentence, engine)
    print(f"{call.call_sid} ended: {call.end and call.end.reason}", flush=True)


if __name__ == "__main__":
    engine = engine_here()
    print(f"engine: {type(engine).__name__}", flush=True)
    handle = partial(transcribe, engine=engine)
    asyncio.run(work(os.environ["REDIS_URL"], handle, group="transcribe", auto_ack=False))
