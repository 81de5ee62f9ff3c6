"""The media socket as a FastAPI tutorial would have it: one awaited XADD a frame."""

import base64
import json
import os
from array import array

import redis.asyncio as redis
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

MAX_ENTRIES = 3000  # a minute

app = FastAPI()
# Each call that waits has a connection, and redis-py's own limit is 100.
client = redis.from_url(os.environ["REDIS_URL"], max_connections=2000)


def linear(code: int) -> int:
    """Decode one G.711 mu-law code to a 16-bit sample."""
    code = ~code & 0xFF
    sample = (((code & 15) << 3) + 132 << (code >> 4 & 7)) - 132
    return -sample if code & 0x80 else sample


PCM16 = [linear(code) for code in range(256)]


@app.websocket("/twilio-media")
async def media(websocket: WebSocket) -> None:
    """Publish each frame of one call."""
    await websocket.accept()
    key = ""
    try:
        while True:
            message = json.loads(await websocket.receive_text())
            if message["event"] == "media":
                payload = base64.b64decode(message["media"]["payload"])
                await client.xadd(
                    key,
                    {
                        "seq": message["sequenceNumber"],
                        "ts": message["media"]["timestamp"],
                        "track": message["media"]["track"],
                        "audio": array("h", [PCM16[code] for code in payload]).tobytes(),
                    },
                    maxlen=MAX_ENTRIES,
                )
            elif message["event"] == "start":
                key = "audio:{" + message["start"]["streamSid"] + "}"
            elif message["event"] == "stop":
                break
        await websocket.close()
    except WebSocketDisconnect:
        pass
