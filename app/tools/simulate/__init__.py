"""Calls of made-up callers on a service that runs: speech in real time, as carriers send it."""

import asyncio
from collections.abc import Callable

import httpx

from app.errors import CommandFailed
from app.tools.caller import new_call
from app.tools.receipts import Receipts
from app.tools.service import NOBODYS_NUMBER, Credentials
from app.tools.simulate.asked import Asked, callers_of
from app.tools.simulate.lines import Line, Service, line_of
from app.tools.simulate.placing import Outcome, Placed, place
from app.tools.simulate.receipts import receipts_of
from app.tools.simulate.report import Board, lateness, rows_of, table, troubles
from app.tools.simulate.script import rehearse

SHOW_SECONDS = 0.25
# So many calls are named before they ring.
FEW = 10
UNKNOWN = (
    "whether all that was sent was received is not known: set ADMIN_TOKEN, or the service's "
    "REDIS_URL, and the receipts are read"
)

Say = Callable[[str], None]


async def simulate(
    asked: Asked,
    service: Service,
    credentials: Credentials,
    client: httpx.AsyncClient,
    receipts: Receipts | None,
    *,
    tell: Say,
    result: Say,
) -> int:
    """Place the calls; give 0 only when each good one was heard, and arrived, to its end.

    `tell` hears words on the way, `result` the table and the last sentence.

    Raises:
        CommandFailed: nothing was reached at all, or the receipts cannot be read.
    """
    placed = [
        Placed(caller, new_call(asked.to_number or NOBODYS_NUMBER, caller.from_number))
        for caller in callers_of(asked)
    ]
    tell(f"seed {asked.seed}: the same callers come again by --seed {asked.seed}")
    for one in placed if len(placed) <= FEW else ():
        tell(f"{one.call.call_sid} speaks for {one.caller.seconds:.0f} s")
    rehearse(asked.carrier)
    own_lag = await _place_all(line_of(asked, service, credentials, client), asked, placed)
    for line in troubles(placed):
        tell(line)
    _tell_of_what_was_left_out(placed, asked, service, tell)
    if late := lateness(placed, own_lag):
        tell(late)
    if all(one.outcome is Outcome.UNREACHED for one in placed):
        raise CommandFailed(f"nothing answers at {service.base}: {placed[0].why}")
    return await _conclude(placed, receipts, tell, result)


async def _place_all(line: Line, asked: Asked, placed: list[Placed]) -> float:
    """Place all calls; give by how much (seconds) this process lagged at the most."""
    clock = asyncio.get_running_loop().time
    began = clock()
    board = Board(len(placed))

    async def call(one: Placed) -> None:
        await asyncio.sleep(max(0.0, began + one.caller.starts_at - clock()))
        await place(line, one, asked.jitter, board.live)
        board.over(one)

    async with asyncio.TaskGroup() as calls:
        tasks = [calls.create_task(call(one)) for one in placed]
        own_lag = 0.0
        while not all(task.done() for task in tasks):
            woken_at = clock() + SHOW_SECONDS
            await asyncio.wait(tasks, timeout=SHOW_SECONDS)
            own_lag = max(own_lag, clock() - woken_at)
            board.show()
    board.clear()
    return own_lag


def _tell_of_what_was_left_out(
    placed: list[Placed], asked: Asked, service: Service, tell: Say
) -> None:
    one_way = sum(one.is_one_way for one in placed)
    if asked.digits and one_way:
        tell(f"{one_way} calls pressed no keys: of a one-way stream Twilio tells none")
    refused = sum(one.end_was_told is False for one in placed)
    if refused:
        tell(f"{refused} status callbacks were not taken at {service.status_url}")
    if asked.carrier == "twilio" and not service.status_url:
        tell("nobody was told that calls ended: of this URL alone no status callback is known")


async def _conclude(placed: list[Placed], receipts: Receipts | None, tell: Say, result: Say) -> int:
    found = None
    if receipts is not None:
        streamed = [one for one in placed if one.has_streamed]
        needed = [one.call.call_sid for one in streamed if one.caller.fault is None]
        others = [one.call.call_sid for one in streamed if one.caller.fault is not None]
        try:
            found = await receipts_of(receipts, needed, others)
        except CommandFailed:
            result(table(rows_of(placed, None)))
            raise
    rows = rows_of(placed, found)
    result(table(rows))
    is_whole = all(row.is_whole for row in rows)
    if found is None:
        tell(UNKNOWN)
    elif not is_whole:
        tell("not all that was sent was received and published, or a receipt is missing")
    good = [one for one in placed if one.caller.fault is None]
    well = sum(one.is_as_it_should for one in good)
    result(f"{well} of {len(good)} calls went as they should" + _whether_whole(found, is_whole))
    return 0 if well == len(good) and is_whole else 1


def _whether_whole(found: object, is_whole: bool) -> str:
    if found is None:
        return ""
    return "; sent and received are the same" if is_whole else "; frames are missing"
