"""Calls of made-up callers on a service that runs: speech in real time, as Twilio sends it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.errors import BridgeError, CallRefused
from app.tools.caller import FRAME_MS, Carrier, new_call, speech_frames

RING_SECONDS = 15.0
# Between one caller's ring and the next one's.
RING_EVERY_SECONDS = 0.1
# A number that is nobody's (twilio.com/docs/iam/test-credentials), for a call by business id.
NOBODYS_NUMBER = "+15005550006"


@dataclass(frozen=True, slots=True)
class Callers:
    """Who calls: how many at a time, for how long, and whom.

    `business_id` or `to_number` may be empty, not both.
    """

    calls: int
    seconds: float
    business_id: str = ""
    to_number: str = ""


async def simulate(url: str, auth_token: str, callers: Callers, say: Callable[[str], None]) -> int:
    """Place the calls on the service at `url`; give 0 only when each was heard to its end.

    `url` is its PUBLIC_URL: what is signed, by `auth_token` where there is one.
    """
    carrier = Carrier(url.rstrip("/"), auth_token)
    async with httpx.AsyncClient(timeout=RING_SECONDS) as client, asyncio.TaskGroup() as tasks:
        placed = [
            tasks.create_task(_call(carrier, client, callers, place, say))
            for place in range(callers.calls)
        ]
    heard = sum(task.result() for task in placed)
    say(f"{heard} of {callers.calls} calls were heard to their end")
    return 0 if heard == callers.calls else 1


async def _call(
    carrier: Carrier,
    client: httpx.AsyncClient,
    callers: Callers,
    place: int,
    say: Callable[[str], None],
) -> bool:
    """Place one call; tell whether it was heard to its end."""
    await asyncio.sleep(place * RING_EVERY_SECONDS)
    call = new_call(callers.to_number or NOBODYS_NUMBER)
    frames = list(islice(cycle(speech_frames()), int(callers.seconds * 1000 / FRAME_MS)))
    try:
        target = await carrier.ring(client, call, callers.business_id)
        say(f"{call.call_sid} speaks for {callers.seconds:g} s to {target.url}")
        await carrier.stream(call, target, frames)
    except CallRefused as error:
        say(f"{call.call_sid} was turned away: {error}")
    except ConnectionClosed as closed:
        why = closed.rcvd.reason if closed.rcvd else ""
        say(f"{call.call_sid} was ended by the service: {why or 'the connection was lost'}")
    except (InvalidStatus, httpx.HTTPError, OSError, BridgeError) as error:
        say(f"{call.call_sid} did not reach the service: {error or type(error).__name__}")
    else:
        say(f"{call.call_sid} was heard to its end")
        return True
    return False
