"""What peers send in live calls, in Redis, for a minute.

What is a stream's lies in its slot:

    held:{captures}           zset    `BUSINESS CALLSID`, each or `*` → until when asked, Unix ms
    held:{captures}:begun     zset    STREAM → when it began, Unix ms
    capture:{STREAM}:opening  string  whose stream it is, and how it began (msgpack)
    capture:{STREAM}          stream  field `batch`: messages in order (msgpack)
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from app.store.captures import (
    ASK_SECONDS,
    KEEP_SECONDS,
    MAX_ASKED,
    MAX_BATCHES,
    MAX_BEGUN,
    Asked,
    Batch,
    Captured,
    Opening,
    capture_keys,
)
from app.store.reach import RedisReach, in_ms, text
from app.store.scripts import (
    ASK_TO_CAPTURE,
    ASKED_TO_CAPTURE,
    BEGIN_CAPTURE,
    BEGUN_AFTER,
    NOTE_BEGUN,
    PUT_CAPTURED,
    READ_CAPTURED,
)

_ASKED: Final = "held:{captures}"
_BEGUN: Final = "held:{captures}:begun"
_encode = msgspec.msgpack.Encoder().encode
_decode_opening = msgspec.msgpack.Decoder(Opening).decode
_decode_batch = msgspec.msgpack.Decoder(Batch).decode


class RedisCaptures(RedisReach):
    """Bring recorders and holders together in Redis."""

    async def ask(self, asked: Asked) -> None:
        """Ask for calls' messages for a while more."""
        member = f"{asked.business_id} {asked.call_sid}"
        lasting = in_ms(ASK_SECONDS)
        await self._ask("EVAL", ASK_TO_CAPTURE, 1, _ASKED, lasting, MAX_ASKED, member)

    async def asked(self) -> Collection[Asked]:
        """Tell a holder what is asked for."""
        found = await self._ask("EVAL", ASKED_TO_CAPTURE, 1, _ASKED)
        pairs = (text(one).partition(" ") for one in found)
        return [Asked(business_id, call_sid) for business_id, _, call_sid in pairs]

    async def begin(self, opening: Opening) -> bool:
        """Begin to put a stream's messages there, unless another business's are there."""
        keys = capture_keys(opening.stream_sid)
        said = opening.business_id, in_ms(KEEP_SECONDS), _encode(opening)
        if not await self._ask("EVAL", BEGIN_CAPTURE, len(keys), *keys, *said):
            return False
        kept = in_ms(KEEP_SECONDS), MAX_BEGUN, opening.stream_sid
        await self._ask("EVAL", NOTE_BEGUN, 1, _BEGUN, *kept)
        return True

    async def put(self, captured: Captured, batch: Batch) -> bool:
        """Put messages of a stream there, unless they are gone."""
        keys = capture_keys(captured.stream_sid)
        kept = captured.business_id, in_ms(KEEP_SECONDS), MAX_BATCHES
        done = await self._ask("EVAL", PUT_CAPTURED, len(keys), *keys, *kept, _encode(batch))
        return bool(done)

    async def begun(self, after: int | None) -> tuple[int, list[str]]:
        """Give Redis' time, and the streams that have begun after such a time."""
        since = "+inf" if after is None else str(after)
        now, found = await self._ask("EVAL", BEGUN_AFTER, 1, _BEGUN, since)
        return int(now), [text(one) for one in found]

    async def opening(self, stream_sid: str) -> Opening | None:
        """Tell how a stream's capture began."""
        found = await self._ask("GET", capture_keys(stream_sid)[1])
        try:
            return None if found is None else _decode_opening(found)
        except msgspec.MsgspecError:
            return None  # of another version: its holder is about to be replaced

    async def batches(
        self, captured: Captured, after: str, count: int
    ) -> Sequence[tuple[str, Batch]]:
        """Give batches that follow an id."""
        ms, _, number = after.partition("-")
        since = f"{ms}-{int(number) + 1}" if after else "-"
        keys = capture_keys(captured.stream_sid)
        said = captured.business_id, since, count
        found = await self._ask("EVAL", READ_CAPTURED, len(keys), *keys, *said)
        # An entry has one field; a script gives names and values in turn.
        return [(text(one), _decode_batch(value)) for one, (_, value) in found]
