"""A group in Redis, shared by workers wherever they run."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.consumer.scripts import BEGIN, CLAIM, ENLIST, FINISH, HOLD, RELEASE
from app.consumer.sharing import (
    DONE_SECONDS,
    FAILED_SECONDS,
    GROUP_SECONDS,
    LEASE_SECONDS,
    Claim,
    StreamName,
)
from app.redis_url import parse_redis_url
from app.store.reach import RedisReach, in_ms, text
from app.topology import connect

# Who shares calls may wait a little; no call does.
TIMEOUT_SECONDS: Final = 3.0
MAX_CONNECTIONS: Final = 33
# A script keeps everyone waiting: at most so many streams a call.
STREAMS_PER_CALL: Final = 200


class RedisSharing(RedisReach):
    """Share streams among the workers of `group`; this instance is one of them."""

    def __init__(self, url: str, group: str, lease_seconds: float = LEASE_SECONDS) -> None:
        client = connect(
            parse_redis_url(url), connect_seconds=TIMEOUT_SECONDS, max_connections=MAX_CONNECTIONS
        )
        super().__init__(client, own_client=True, timeout_seconds=TIMEOUT_SECONDS)
        self._worker = secrets.token_hex(8)
        self._lease = in_ms(lease_seconds)
        key = f"consumer:{{{group}}}"
        more = ("calls", "at", "by", "failed", "done", "lost")
        self._keys = (key, *(f"{key}:{name}" for name in more))

    async def cursor(self) -> str | None:
        """See `Sharing.cursor`."""
        found = await self._ask("HGET", self._keys[0], "cursor")
        return text(found) if found else None

    async def begin(self, cursor: str, names: Sequence[StreamName]) -> str:
        """See `Sharing.begin`."""
        return text(await self._run(BEGIN, cursor, *map(str, names)))

    async def enlist(
        self, after: str, upto: str, names: Sequence[StreamName], lives: Sequence[str]
    ) -> str:
        """See `Sharing.enlist`."""
        listed = [*map(str, names), *lives]
        return text(await self._run(ENLIST, after, upto, len(names), *listed))

    async def claim(self, count: int) -> list[Claim]:
        """See `Sharing.claim`."""
        answer = iter(await self._run(CLAIM, self._lease, self._worker, count))
        return [
            Claim(StreamName.parse(text(name)), text(position))
            for name, position in zip(answer, answer, strict=True)
        ]

    async def hold(self, positions: Mapping[StreamName, str]) -> frozenset[StreamName]:
        """See `Sharing.hold`."""
        others: set[StreamName] = set()
        waiting = list(positions.items())
        # Without any, too: it shows that workers reach Redis.
        for first in range(0, max(1, len(waiting)), STREAMS_PER_CALL):
            some = waiting[first : first + STREAMS_PER_CALL]
            said = [part for name, position in some for part in (str(name), position)]
            answer = await self._run(HOLD, self._lease, self._worker, *said)
            others.update(StreamName.parse(text(name)) for name in answer)
        return frozenset(others)

    async def finish(self, name: StreamName, position: str, *, is_lost: bool = False) -> None:
        """See `Sharing.finish`."""
        lost = name.stream_sid if is_lost else ""
        await self._run(FINISH, self._worker, str(name), position, lost)

    async def release(self, name: StreamName, position: str, *, has_failed: bool = False) -> bool:
        """See `Sharing.release`."""
        pause = in_ms(FAILED_SECONDS) if has_failed else 0
        return bool(await self._run(RELEASE, self._worker, str(name), position, pause))

    async def _run(self, script: str, *said: str | int) -> Any:
        kept = in_ms(GROUP_SECONDS), in_ms(DONE_SECONDS)
        return await self._ask("EVAL", script, len(self._keys), *self._keys, *kept, *said)
