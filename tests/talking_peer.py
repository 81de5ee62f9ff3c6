"""A peer in a process of its own, so that it can be frozen: it talks until it is killed.

`python -m tests.talking_peer URL HEADERS PROTOCOL SOCKETS`, where HEADERS is a JSON
object and PROTOCOL `twilio` or `client`. It prints each stream's id once it is begun.
"""

import asyncio
import itertools
import json
import secrets
import sys

from websockets.asyncio.client import ClientConnection, connect

from app.carriers.stream_ids import stream_id
from app.wire import twilio

FRAME_SECONDS = 0.02


def tell(stream: str) -> None:
    sys.stdout.write(f"{stream}\n")
    sys.stdout.flush()


async def talk_as_twilio(socket: ClientConnection, stream_sid: str) -> None:
    stream_sid = "MZ" + stream_sid
    await socket.send(twilio.connected_message())
    await socket.send(
        twilio.start_message(stream_sid, "CA" + stream_sid, params={"businessId": "business-1"})
    )
    tell(stream_sid)
    for seq in itertools.count(2):
        await socket.send(
            twilio.media_message(
                stream_sid, b"\xff" * 160, seq=seq, chunk=seq - 1, timestamp=(seq - 2) * 20
            )
        )
        await asyncio.sleep(FRAME_SECONDS)


async def talk_as_client(socket: ClientConnection, interaction: str) -> None:
    start = {"event": "start", "interaction_id": interaction, "tenant_id": "business-1"}
    await socket.send(json.dumps({**start, "sample_rate": 8000, "encoding": "pcm16"}))
    tell(stream_id("client", "business-1", interaction))
    while True:
        await socket.send(b"\x00\x01" * 160)
        await asyncio.sleep(FRAME_SECONDS)


async def talk(url: str, headers: dict[str, str], protocol: str) -> None:
    async with connect(url, additional_headers=headers, compression=None) as socket:
        name = secrets.token_hex(8)
        await (talk_as_twilio if protocol == "twilio" else talk_as_client)(socket, name)


async def main(url: str, headers: str, protocol: str, sockets: str) -> None:
    shown = json.loads(headers)
    await asyncio.gather(*[talk(url, shown, protocol) for _ in range(int(sockets))])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
