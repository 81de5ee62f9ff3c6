"""What a Redis server says of itself, for whoever looks whether it serves."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from app.errors import StoreUnavailable
from app.store.reach import text
from app.store.redis_durability import RedisDurability, value_of
from app.topology import ClusterClient, listening_client


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """One server's own account of itself; of a Cluster, one node's.

    `now` is its clock, in Unix seconds. `limit_bytes` is what it may use (its
    `maxmemory`, else the machine's memory), 0 where it does not say.
    """

    version: str
    now: float
    policy: str
    used_bytes: int
    limit_bytes: int
    is_of_cluster: bool


class RedisExamination(RedisDurability):
    """Ask a Redis server about itself; raises StoreUnavailable where it does not answer."""

    async def facts(self) -> RedisFacts:
        """Ask for what INFO and TIME tell."""
        is_of_cluster = isinstance(self._client, ClusterClient)
        async with self._reaching():
            node = await listening_client(self._client)
            server: Any = await node.execute_command("INFO", "server")  # type: ignore[no-untyped-call]
            memory: Any = await node.execute_command("INFO", "memory")  # type: ignore[no-untyped-call]
            now: Any = await node.execute_command("TIME")  # type: ignore[no-untyped-call]
        limit = _number(memory, "maxmemory") or _number(memory, "total_system_memory")
        return RedisFacts(
            value_of(server, "valkey_version") or value_of(server, "redis_version") or "",
            int(now[0]) + int(now[1]) / 1e6,
            value_of(memory, "maxmemory_policy") or "",
            _number(memory, "used_memory"),
            limit,
            is_of_cluster,
        )

    async def user(self) -> str:
        """Return the ACL user of our connections; empty where the server does not say."""
        with suppress(StoreUnavailable):
            async with self._reaching():
                node = await listening_client(self._client)
                return text(await node.execute_command("ACL", "WHOAMI"))  # type: ignore[no-untyped-call]
        return ""

    async def refusals(self, commands: Sequence[Sequence[str]]) -> list[str]:
        """Return for each command Redis' words if our user lacks a permission, else nothing.

        The commands are queued in a transaction that is discarded, so that none of them runs.
        """
        async with self._reaching():
            node = await listening_client(self._client)
            pool = node.connection_pool
            link: Any = await pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                await link.send_command("MULTI")
                try:
                    await link.read_response()
                except NoPermissionError as error:
                    # Outside of a transaction the commands would run.
                    return [str(error)] * len(commands)
                await link.send_packed_command(link.pack_commands(commands))
                found = [await _refusal(link) for _ in commands]
                await link.send_command("DISCARD")
                await _refusal(link)
                return found
            finally:
                # It takes with it a transaction that could not be discarded.
                await link.disconnect()
                await pool.release(link)


async def _refusal(link: Any) -> str:
    """Read one reply; return the words of a missing permission."""
    try:
        await link.read_response()
    except NoPermissionError as error:
        return str(error)
    except ResponseError:
        pass  # of another kind, such as a key of another node's slot
    return ""


def _number(answer: str | bytes | Mapping[Any, Any], name: str) -> int:
    value = value_of(answer, name) or ""
    return int(value) if value.isdecimal() else 0
