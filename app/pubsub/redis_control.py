"""Commands into calls, from Redis: one blocking read for all streams of a process.

In a Cluster no command reads keys of several slots, and a connection for each call is
too many: there the streams are looked at in turn, all of a node's in one exchange.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import ResponseError

from app.errors import BrokerError
from app.pubsub.base import Field, control_key
from app.pubsub.cluster_link import ClusterLink
from app.pubsub.control import BEGINNING, READ_COUNT, ControlEntry
from app.pubsub.redis_errors import lost
from app.pubsub.redis_link import CONNECT_SECONDS, REPLY_SECONDS, Part, packed
from app.redis_url import parse_redis_url
from app.topology import CONNECTION_ERRORS, ClusterClient, close, connect

# How often the streams of a cluster are looked at.
LOOK_SECONDS: Final = 0.01
# Between two turns in which each stream is read alone.
EACH_SECONDS: Final = 0.1
# The bell of a process that was killed is gone after this.
BELL_SECONDS: Final = 3600
KEPT_SECONDS: Final = 86_400

# With `redis_pubsub` nobody else gives the stream a time.
_DROP: Final = """
local ms, n = string.match(ARGV[1], '^(%d+)-(%d+)$')
redis.call('XTRIM', KEYS[1], 'MINID', ms .. '-' .. string.format('%.0f', n + 1))
if redis.call('TTL', KEYS[1]) == -1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
"""
_RING: Final = """
redis.call('XADD', KEYS[1], 'MAXLEN', 1, '*', 'ring', '1')
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class RedisControl:
    """Read commands from Redis streams; see `ControlFeed`.

    Who waits in a blocking read is woken by an entry in a stream of its own.
    """

    def __init__(self, url: str) -> None:
        self._where = parse_redis_url(url)
        self._client = connect(self._where, connect_seconds=CONNECT_SECONDS, max_connections=4)
        slots = self._client.slots if isinstance(self._client, ClusterClient) else None
        self._nodes = ClusterLink(self._where, slots) if slots else None
        self._bell = f"held:{{control}}:{secrets.token_hex(8)}"
        self._heard = BEGINNING
        self._woken = asyncio.Event()
        self._ringing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect nothing; the first read does."""

    async def close(self) -> None:
        """Let go of every connection."""
        if self._ringing is not None:
            self._ringing.cancel()
            await asyncio.gather(self._ringing, return_exceptions=True)
        if self._nodes is not None:
            await self._nodes.close()
        with suppress(*CONNECTION_ERRORS):
            await close(self._client)

    async def read(self, positions: Mapping[str, str], seconds: float) -> Sequence[ControlEntry]:
        """Give what stands behind these places; see `ControlFeed.read`."""
        if self._nodes is not None:
            return await self._look(self._nodes, positions, seconds)
        keys = [self._bell, *map(control_key, positions)]
        places = [self._heard, *positions.values()]
        block = ("COUNT", READ_COUNT, "BLOCK", max(1, round(seconds * 1000)))
        try:
            answer = await self._ask(seconds, "XREAD", *block, "STREAMS", *keys, *places)
        except BrokerError as error:
            if not isinstance(error.__cause__, ResponseError):
                raise
            return await self._read_each(positions)
        streams = dict(zip(keys[1:], positions, strict=True))
        found: list[ControlEntry] = []
        for key, entries in answer or ():
            stream = streams.get(key.decode())
            if stream is None:
                self._heard = entries[-1][0].decode()
            else:
                found += _entries(stream, entries)
        return found

    async def _read_each(self, positions: Mapping[str, str]) -> Sequence[ControlEntry]:
        """Read what can be read: one key that is no stream must not silence all others."""
        await asyncio.sleep(EACH_SECONDS)
        found: list[ControlEntry] = []
        for stream, after in positions.items():
            key = control_key(stream)
            asked = ("XREAD", "COUNT", READ_COUNT, "STREAMS", key, after)
            try:
                answer = await self._ask(0, *asked)
            except BrokerError as error:
                if not isinstance(error.__cause__, ResponseError):
                    raise
            else:
                found += [one for _, entries in answer or () for one in _entries(stream, entries)]
        return found

    def wake(self) -> None:
        """End the waiting of `read`; see `ControlFeed.wake`."""
        self._woken.set()
        if self._nodes is None and (self._ringing is None or self._ringing.done()):
            self._ringing = asyncio.create_task(self._ring())

    async def drop(self, stream: str, entry_id: str) -> None:
        """Forget entries that were read; see `ControlFeed.drop`."""
        await self._ask(0, "EVAL", _DROP, 1, control_key(stream), entry_id, KEPT_SECONDS)

    async def _ring(self) -> None:
        while self._woken.is_set():
            self._woken.clear()
            with suppress(BrokerError):  # then reading fails as well, and begins anew
                await self._ask(0, "EVAL", _RING, 1, self._bell, BELL_SECONDS)

    async def _ask(self, seconds: float, *command: Any) -> Any:
        try:
            async with asyncio.timeout(seconds + REPLY_SECONDS):
                return await self._client.execute_command(*command)
        except CONNECTION_ERRORS as error:
            raise lost(error) from error

    # -------------------------------------------------------------------- clusters

    async def _look(
        self, nodes: ClusterLink, positions: Mapping[str, str], seconds: float
    ) -> Sequence[ControlEntry]:
        deadline = asyncio.get_running_loop().time() + seconds
        while not self._woken.is_set():
            found = await self._look_once(nodes, positions) if positions else []
            left = deadline - asyncio.get_running_loop().time()
            if found or left <= 0:
                return found
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_SECONDS if positions else left, left)):
                    await self._woken.wait()
        self._woken.clear()
        return []

    async def _look_once(
        self, nodes: ClusterLink, positions: Mapping[str, str]
    ) -> list[ControlEntry]:
        parts = [
            Part(key, packed("XREAD", "COUNT", READ_COUNT, "STREAMS", key, after))
            for key, after in zip(map(control_key, positions), positions.values(), strict=True)
        ]
        found: list[ControlEntry] = []
        for stream, reply in zip(positions, await nodes.transact(parts), strict=True):
            if isinstance(reply, BrokerError | ResponseError) or not reply:
                continue  # a node that is away; the others go on
            [(_, entries)] = reply
            found += _entries(stream, [(one, _paired(flat)) for one, flat in entries])
        return found


def _entries(
    stream: str, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]
) -> list[ControlEntry]:
    return [
        ControlEntry(stream, entry_id.decode(), _named(fields))
        for entry_id, fields in entries
        if fields is not None  # taken out by hand
    ]


def _named(fields: Mapping[bytes, bytes]) -> Mapping[str, Field]:
    return {name.decode("utf-8", "replace"): value for name, value in fields.items()}


def _paired(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
