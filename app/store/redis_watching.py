"""Figures of live calls in Redis, for as long as somebody watches.

All in one hash tag, so that one command asks for all there is to do:

    held:{streams}:watched            zset  BUSINESS, or `*` → until when it is watched, Unix ms
    held:{streams}:figures:BUSINESS   hash  HOLDER → when, Unix ms, and its streams as JSON
    held:{streams}:ending             zset  `BUSINESS CALLSID` → until when that is asked, Unix ms
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from app.store.reach import RedisReach, in_ms, text
from app.store.scripts import ASK_TO_END, PUBLISH_FIGURES, WANTED, WATCH
from app.store.watching import (
    END_SECONDS,
    FRESH_SECONDS,
    MAX_ENDING,
    WATCH_SECONDS,
    StreamFigures,
    Wanted,
)

_WATCHED: Final = "held:{streams}:watched"
_ENDING: Final = "held:{streams}:ending"
_DECODER: Final = msgspec.json.Decoder(list[StreamFigures])


class RedisWatching(RedisReach):
    """Bring watchers and holders together in Redis."""

    async def watch(self, whom: Collection[str]) -> dict[str, list[StreamFigures]]:
        """Watch these for a while more, and give their figures."""
        names = list(whom)
        if not names:
            return {}
        keys = [_WATCHED, *map(_figures_key, names)]
        times = in_ms(WATCH_SECONDS), in_ms(FRESH_SECONDS)
        found = await self._ask("EVAL", WATCH, len(keys), *keys, *times, *names)
        return {
            name: [one for part in parts for one in _read(part) if one.is_for(name)]
            for name, parts in zip(names, found, strict=True)
        }

    async def wanted(self) -> Wanted:
        """Tell a holder what it is asked for."""
        watched, ending = await self._ask("EVAL", WANTED, 2, _WATCHED, _ENDING)
        pairs = (text(one).partition(" ") for one in ending)
        return Wanted(
            frozenset(map(text, watched)),
            frozenset((business_id, call_sid) for business_id, _, call_sid in pairs),
        )

    async def publish_figures(
        self, holder: str, figures: Mapping[str, Sequence[StreamFigures]]
    ) -> None:
        """Replace a holder's figures for those who watch."""
        if figures:
            keys = list(map(_figures_key, figures))
            said = list(map(msgspec.json.encode, figures.values()))
            kept = in_ms(WATCH_SECONDS)
            await self._ask("EVAL", PUBLISH_FIGURES, len(keys), *keys, kept, holder, *said)

    async def ask_to_end(self, business_id: str, call_sid: str) -> None:
        """Ask whoever holds a stream of this call to end it."""
        asked = in_ms(END_SECONDS), MAX_ENDING, f"{business_id} {call_sid}"
        await self._ask("EVAL", ASK_TO_END, 1, _ENDING, *asked)


def _figures_key(business_id: str) -> str:
    return f"held:{{streams}}:figures:{business_id}"


def _read(part: str | bytes) -> list[StreamFigures]:
    try:
        return _DECODER.decode(part)
    except msgspec.MsgspecError:
        return []  # of another version: its holder is about to be replaced
