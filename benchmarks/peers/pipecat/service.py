"""Pipecat's FastAPI transport and Twilio serializer; a processor publishes the audio."""

import os

import redis.asyncio as redis
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.frames.frames import Frame, InputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import (
    FastAPIWebsocketParams,
    FastAPIWebsocketTransport,
)
from pipecat.workers.runner import WorkerRunner

MAX_ENTRIES = 3000  # a minute

logger.remove()
app = FastAPI()
# Each call that waits has a connection, and redis-py's own limit is 100.
client = redis.from_url(os.environ["REDIS_URL"], max_connections=2000)


class Publisher(FrameProcessor):
    """Publish each frame of audio."""

    def __init__(self, stream_sid: str) -> None:
        super().__init__()
        self._key = "audio:{" + stream_sid + "}"

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Publish audio, and pass every frame on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            await client.xadd(self._key, {"audio": frame.audio}, maxlen=MAX_ENTRIES)
        await self.push_frame(frame, direction)


@app.websocket("/twilio-media")
async def media(websocket: WebSocket) -> None:
    """Run one call's pipeline."""
    await websocket.accept()
    _, call = await parse_telephony_websocket(websocket)
    serializer = TwilioFrameSerializer(
        stream_sid=call["stream_id"],
        call_sid=call["call_id"],
        params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
    )
    transport = FastAPIWebsocketTransport(
        websocket, FastAPIWebsocketParams(audio_in_enabled=True, serializer=serializer)
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), Publisher(call["stream_id"])]),
        params=PipelineParams(audio_in_sample_rate=8000, audio_out_sample_rate=8000),
    )

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(_: object, __: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
