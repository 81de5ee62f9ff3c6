"""A placed call's receipt, from whoever keeps it: the service's API, or its Redis."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import httpx
import msgspec

from app.archive.base import Archive
from app.errors import CommandFailed, NotThere, StoreUnavailable
from app.tools.service import words_of

WAIT_SECONDS = 20.0
LOOK_SECONDS = 0.2

Receipt = Mapping[str, Any]


class Receipts(Protocol):
    """Know the receipts of calls."""

    async def of(self, call_sid: str) -> Receipt | None:
        """Give the receipt of a call's last stream; None while there is none."""


class ApiReceipts:
    """Ask the service at `base` as an operator, by ADMIN_TOKEN."""

    def __init__(self, client: httpx.AsyncClient, base: str, admin_token: str) -> None:
        self._client = client
        self._base = base
        self._headers = {"Authorization": f"Bearer {admin_token}"}

    async def of(self, call_sid: str) -> Receipt | None:
        """Give the receipt of a call's last stream; see `Receipts`."""
        url = f"{self._base}/api/v1/calls/{call_sid}"
        try:
            answer = await self._client.get(url, headers=self._headers)
        except httpx.HTTPError as error:
            raise CommandFailed(f"no receipt from {self._base}: {error or 'no answer'}") from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code != httpx.codes.OK:
            raise CommandFailed(f"no receipt from {self._base}: it answered {words_of(answer)}")
        streams = msgspec.json.decode(answer.content).get("streams", [])
        found: Receipt | None = streams[-1]["receipt"] if streams else None
        return found


class ArchiveReceipts:
    """Look into the Redis that the service publishes to."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._owners: dict[str, str] = {}

    async def of(self, call_sid: str) -> Receipt | None:
        """Give the receipt of a call's last stream; see `Receipts`."""
        try:
            owner = self._owners.get(call_sid) or await self._archive.owner_of(call_sid)
            if owner is None:
                return None
            self._owners[call_sid] = owner
            streams = (await self._archive.call(owner, call_sid)).summary.streams
        except NotThere:
            return None
        except StoreUnavailable as error:
            raise CommandFailed(f"no receipt from REDIS_URL: {error}") from error
        return streams[-1].receipt if streams else None


async def receipt_of(receipts: Receipts, call_sid: str) -> Receipt | None:
    """Wait for a call's receipt; None when it does not come in time."""
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    while True:
        found = await receipts.of(call_sid)
        if found or asyncio.get_running_loop().time() >= deadline:
            return found
        await asyncio.sleep(LOOK_SECONDS)
