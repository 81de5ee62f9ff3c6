"""Pipecat's serializers as a reader of messages to carriers: lines in, one verdict out.

Each line of stdin is JSON: `carrier`, `rate` (Hz), `stream` (its id) and `message`. A message is
taken when the serializer reads audio out of it, or itself writes the same: the same
fields for audio, the same text for `clear`. It knows no marks: such a message is taken
when it is read without a complaint.
"""

import asyncio
import json
import sys
from collections import Counter
from types import SimpleNamespace

from loguru import logger
from pipecat.frames.frames import InputAudioRawFrame, InterruptionFrame, OutputAudioRawFrame
from pipecat.serializers.exotel import ExotelFrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer


def shape(message):
    """Name a message's fields, all the way down, and its texts that are no audio."""
    return {
        name: shape(value) if isinstance(value, dict) else value if name != "payload" else "audio"
        for name, value in message.items()
    }


def serializer_of(line):
    if line["carrier"] == "twilio":
        params = TwilioFrameSerializer.InputParams(auto_hang_up=False)
        return TwilioFrameSerializer(stream_sid=line["stream"], call_sid="CA1", params=params)
    params = ExotelFrameSerializer.InputParams(exotel_sample_rate=line["rate"])
    return ExotelFrameSerializer(stream_sid=line["stream"], call_sid="c1", params=params)


async def takes(line) -> bool:
    serializer = serializer_of(line)
    await serializer.setup(SimpleNamespace(audio_in_sample_rate=line["rate"]))
    text = line["message"]
    message = json.loads(text)
    read = await serializer.deserialize(text)
    if message["event"] == "clear":
        return json.loads(await serializer.serialize(InterruptionFrame())) == message
    if message["event"] == "mark":
        return read is None
    if not isinstance(read, InputAudioRawFrame) or not read.audio:
        return False
    audio = OutputAudioRawFrame(b"\x01\x00" * 1600, line["rate"], 1)
    return shape(json.loads(await serializer.serialize(audio))) == shape(message)


async def main() -> None:
    logger.remove()
    complaints = []
    logger.add(complaints.append, level="WARNING")
    found = Counter()
    for line in map(json.loads, sys.stdin):
        event = json.loads(line["message"])["event"]
        found[event if await takes(line) else f"{event} refused"] += 1
    sys.stdout.write(json.dumps({**found, "complaints": len(complaints)}))


if __name__ == "__main__":
    asyncio.run(main())
