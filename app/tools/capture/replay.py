"""A captured call placed again, on any service, as often as is asked for."""

import asyncio
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from app.errors import CallRefused, CommandFailed
from app.tools.capture.fresh import FreshCall, fresh_call, fresh_messages
from app.tools.capture.load import Capture
from app.tools.capture.routes import Route, Router
from app.tools.receipts import Receipt, Receipts, receipt_of
from app.tools.service import said_in

CONNECT_SECONDS: Final = 15.0
ANSWER_SECONDS: Final = 15.0
# Between one call's beginning and the next one's.
RING_EVERY_SECONDS: Final = 0.05
NORMAL_CLOSURE: Final = 1000


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast messages go: `speed` 1 is as they came, 20 twenty times as fast."""

    speed: float = 1.0

    def at(self, due: float) -> float:
        """Give when a message goes that was due then, in seconds after the first."""
        return due / self.speed


BURST: Final = Pace(math.inf)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call; `failed` says why it was not heard to its end.

    `was_let_in` tells that its stream reached the service at all.
    """

    call_sid: str
    failed: str = ""
    was_let_in: bool = True
    receipt: Receipt | None = None

    def is_whole(self, capture: Capture) -> bool:
        """Tell whether every good frame of the capture was published."""
        if self.receipt is None:
            return False
        good = self.receipt["published"] + self.receipt["duplicates"]
        received = self.receipt["received"]
        return bool(good == capture.good and received == capture.good + capture.bad)


async def replay(
    capture: Capture,
    router: Router,
    receipts: Receipts | None,
    *,
    calls: int,
    pace: Pace,
    on_sent: Callable[[], None],
) -> list[Outcome]:
    """Place a capture's call, so many times at once; `on_sent` hears of each message.

    Raises:
        CommandFailed: the receipts cannot be asked for.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            placed = [
                tasks.create_task(_place(capture, router, receipts, place, pace, on_sent))
                for place in range(calls)
            ]
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return [task.result() for task in placed]


async def _place(
    capture: Capture,
    router: Router,
    receipts: Receipts | None,
    place: int,
    pace: Pace,
    on_sent: Callable[[], None],
) -> Outcome:
    await asyncio.sleep(place * RING_EVERY_SECONDS)
    call = router.new_call(fresh_call(capture))
    try:
        route = await router.route(call)
        failed = await _send(capture, call, route, pace, on_sent)
    except (CallRefused, CommandFailed) as error:
        return Outcome(call.call_sid, str(error), was_let_in=False)
    except InvalidStatus as refused:
        answer = refused.response
        why = f"the handshake was answered {answer.status_code}{said_in(answer.body)}"
        return Outcome(call.call_sid, why, was_let_in=False)
    except (InvalidHandshake, OSError, TimeoutError) as error:
        why = f"no service answers at {_shown(route.url)}: {error or type(error).__name__}"
        return Outcome(call.call_sid, why, was_let_in=False)
    receipt = await receipt_of(receipts, call.call_sid) if receipts else None
    return Outcome(call.call_sid, failed, receipt is not None or not failed, receipt)


async def _send(
    capture: Capture, call: FreshCall, route: Route, pace: Pace, on_sent: Callable[[], None]
) -> str:
    """Send the capture's messages when they are due; say why the peer ended it, if it did."""
    clock = asyncio.get_running_loop().time
    async with connect(
        route.url,
        additional_headers=route.headers,
        compression=None,
        open_timeout=CONNECT_SECONDS,
        ping_interval=None,
    ) as socket:
        hearing = asyncio.create_task(_hear(socket))
        began = clock()
        try:
            messages = fresh_messages(capture, call, route.start)
            for message, due in zip(messages, capture.due, strict=True):
                ahead = began + pace.at(due) - clock()
                if ahead > 0:
                    await asyncio.sleep(ahead)
                await socket.send(message)
                on_sent()
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS if capture.stops else 0):
                    await asyncio.shield(hearing)
        except ConnectionClosed:
            pass  # what it said stands in the close code, below
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
    return _why_closed(socket)


async def _hear(socket: ClientConnection) -> None:
    """Take what the service answers, so that it is not kept waiting, to its end."""
    with suppress(ConnectionClosed):
        async for _ in socket:
            pass


def _why_closed(socket: ClientConnection) -> str:
    said = socket.close_reason or ""
    if socket.close_code == NORMAL_CLOSURE and said in ("", "stop", "closed"):
        return ""
    return f"the service ended it: {said or f'close code {socket.close_code}'}"


def _shown(url: str) -> str:
    return url.partition("?")[0]


def report(
    capture: Capture,
    outcomes: list[Outcome],
    show: Callable[[str], None],
    say: Callable[[str], None],
) -> int:
    """Show each call's receipt, say what else became of it; give the exit status.

    0 where every frame of every call is known to have arrived, 2 where no call was let in.
    """
    for one in outcomes:
        if one.receipt is not None:
            show(json.dumps({"callSid": one.call_sid, **one.receipt}))
        if one.failed:
            say(f"{one.call_sid}: {one.failed}")
    whole = sum(one.is_whole(capture) and not one.failed for one in outcomes)
    if whole == len(outcomes):
        bad = f"; bad as they came: {capture.bad}" if capture.bad else ""
        say(f"{whole} of {whole} calls arrived whole; frames of each: {capture.good:,}{bad}")
        return 0
    if not any(one.was_let_in for one in outcomes):
        return 2
    known = sum(one.receipt is not None for one in outcomes)
    say(f"{whole} of {len(outcomes)} calls are known to have arrived whole ({known} receipts)")
    return 1
