"""A caller in a process of its own, so that it can vanish.

`python -m tests.chaos.vanishing_caller URL` calls the service at URL, prints its
stream's SID, and speaks until it is stopped.
"""

import asyncio
import sys

from app.tools.caller import Carrier, new_call
from tests.chaos.load import FRAME_SECONDS, NUMBER, Caller, open_stream
from tests.service import TOKEN, http_client


async def main(url: str) -> None:
    """Place one call and speak."""
    call = new_call(NUMBER)
    async with http_client() as client:
        target = await Carrier(url, TOKEN).ring(client, call)
    socket = await open_stream(call, target)
    sys.stdout.write(f"{call.stream_sid}\n")
    sys.stdout.flush()
    caller = Caller(0, 0, call, target.tracks, socket)
    loop = asyncio.get_running_loop()
    await caller.speak(loop.time() + FRAME_SECONDS, asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
