"""Whether Redis would have what is configured after a restart."""

from collections.abc import Mapping
from typing import Any, Final

from redis.exceptions import NoPermissionError

from app.errors import StoreUnavailable
from app.store.reach import RedisReach, text
from app.topology import ClusterClient

LOSES_ALL: Final = (
    "Redis keeps nothing on disk (no append-only file, no snapshots): what is configured, and all "
    "that is kept of calls, is lost when it restarts. Set appendonly yes, or save, in its "
    "configuration"
)


class RedisDurability(RedisReach):
    """Look how Redis keeps its data."""

    _may_ask_config = True

    async def durability_warnings(self) -> list[str]:
        """Say what a restart of Redis would lose; nothing where that cannot be told."""
        if isinstance(self._client, ClusterClient):
            return []  # each node is configured by itself
        try:
            persistence = await self._ask("INFO", "persistence")
            if value_of(persistence, "aof_enabled") != "0":
                return []
            if not self._may_ask_config:
                return []
            snapshots = value_of(await self._ask("CONFIG", "GET", "save"), "save")
        except StoreUnavailable as error:
            # Hosted servers forbid CONFIG, and so do our own ACL users: CONFIG GET shows
            # passwords. Each refusal is an entry in ACL LOG, so Redis is asked once.
            if isinstance(error.__cause__, NoPermissionError):
                self._may_ask_config = False
            return []
        return [LOSES_ALL] if snapshots == "" else []


def value_of(answer: Any, name: str) -> str | None:
    """Read one value of INFO, or of CONFIG GET, as any client gives them."""
    if isinstance(answer, str | bytes):
        answer = dict(line.partition(":")[::2] for line in text(answer).splitlines())
    elif isinstance(answer, list):
        answer = dict(zip(map(text, answer[::2]), answer[1::2], strict=False))
    if not isinstance(answer, Mapping):
        return None
    for key, value in answer.items():
        if text(key) == name:
            return text(value) if isinstance(value, str | bytes) else str(value)
    return None
