"""The receipts of many calls, from whoever keeps them."""

import asyncio
from collections.abc import Collection
from typing import Final

from app.tools.receipts import Receipt, Receipts

WAIT_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.5
AT_A_TIME: Final = 8


async def receipts_of(
    receipts: Receipts, needed: Collection[str], others: Collection[str]
) -> dict[str, Receipt]:
    """Give the receipts of calls, by their CallSid; wait a while for those that are needed.

    Raises:
        CommandFailed: they cannot be asked for.
    """
    found: dict[str, Receipt] = {}
    turns = asyncio.Semaphore(AT_A_TIME)

    async def look(call_sid: str) -> None:
        async with turns:
            receipt = await receipts.of(call_sid)
        if receipt is not None:
            found[call_sid] = receipt

    clock = asyncio.get_running_loop().time
    deadline = clock() + WAIT_SECONDS
    wanted = {*needed, *others}
    while wanted:
        await asyncio.gather(*map(look, wanted))
        wanted = set(needed) - found.keys()
        if not wanted or clock() >= deadline:
            break
        await asyncio.sleep(LOOK_SECONDS)
    return found
