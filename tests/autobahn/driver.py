"""Play every case against an echo server, and give a verdict on each."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.autobahn.peer import Peer

OK, NON_STRICT, INFORMATIONAL, FAILED = "OK", "NON-STRICT", "INFORMATIONAL", "FAILED"
VERDICTS = (OK, NON_STRICT, INFORMATIONAL, FAILED)
# Megabytes in each case of this category, or a thousand messages: a few at a time.
HEAVY = "9."
LIGHT_AT_ONCE = 40
HEAVY_AT_ONCE = 2
LONGEST_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one case went: Autobahn's own words for what was seen, and for the close."""

    case_id: str
    behavior: str
    behavior_close: str
    told: str

    @property
    def verdict(self) -> str:
        """Give the behaviour's verdict; a close that is not right is a failure too."""
        if self.behavior in VERDICTS and self.behavior_close in (OK, INFORMATIONAL):
            return self.behavior
        return FAILED


async def play(cases: Mapping[str, type[Any]], port: int, *, patience: float) -> list[Outcome]:
    """Play the cases against the server on this port of this machine.

    `patience` is as for `Peer`: 1 is what the cases say, more is for a busy machine.
    """
    light = {name: case for name, case in cases.items() if not name.startswith(HEAVY)}
    heavy = {name: case for name, case in cases.items() if name.startswith(HEAVY)}
    return [
        *await _play_all(light, port, patience, LIGHT_AT_ONCE),
        *await _play_all(heavy, port, patience, HEAVY_AT_ONCE),
    ]


async def _play_all(
    cases: Mapping[str, type[Any]], port: int, patience: float, at_once: int
) -> list[Outcome]:
    turn = asyncio.Semaphore(at_once)

    async def one(name: str, case: type[Any]) -> Outcome:
        async with turn:
            return await _play(name, case, port, patience)

    return list(await asyncio.gather(*(one(name, case) for name, case in cases.items())))


async def _play(name: str, case: type[Any], port: int, patience: float) -> Outcome:
    loop = asyncio.get_running_loop()
    transport, peer = await loop.create_connection(lambda: Peer(case, patience), "127.0.0.1", port)
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            await peer.done
    except TimeoutError:
        return Outcome(name, FAILED, FAILED, f"not done within {LONGEST_SECONDS:g} s")
    finally:
        transport.abort()
    played = peer.case
    told = f"{played.result} {played.resultClose} (code {peer.remoteCloseCode})"
    return Outcome(name, played.behavior, played.behaviorClose, told)
