"""Who can say what became of a test call: the service's own API, or its Redis."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol
from urllib.parse import quote

import httpx

from app.diagnosis.redis_checks import Configured
from app.pubsub.records import StoredRecord
from app.tools.doctor.asking import Asker

Receipt = Mapping[str, Any]


class Witness(Protocol):
    """Knows the businesses, and as a rule the receipts of their calls."""

    @property
    def knows_receipts(self) -> bool:
        """Tell whether a call that was heard must have a receipt here."""

    async def first_business(self) -> str:
        """Give the id of a business that may be called, or nothing."""

    async def receipt(self, business_id: str, call_sid: str, stream_sid: str) -> Receipt | None:
        """Give a stream's receipt, None while there is none."""


@dataclass(frozen=True, slots=True)
class RedisWitness:
    """Read what the service has written; raises StoreUnavailable."""

    knows_receipts: ClassVar[bool] = True
    configured: Configured
    record: Callable[[str], Awaitable[StoredRecord | None]]

    async def first_business(self) -> str:
        """Give the first business by its id."""
        return min((one.record.id for one in await self.configured.stored_businesses()), default="")

    async def receipt(self, business_id: str, call_sid: str, stream_sid: str) -> Receipt | None:
        """Read it from the stream's record."""
        found = await self.record(stream_sid)
        return found.receipt if found else None


@dataclass(frozen=True, slots=True)
class ApiWitness:
    """Ask the service by its API, as an operator; what is not answered is not known."""

    knows_receipts: ClassVar[bool] = True
    asker: Asker
    admin_token: str = field(repr=False)

    async def first_business(self) -> str:
        """Give the first business that is listed."""
        items = (await self._get("/api/v1/businesses")).get("items")
        ids = [str(one.get("id", "")) for one in items or () if isinstance(one, dict)]
        return min(filter(None, ids), default="")

    async def receipt(self, business_id: str, call_sid: str, stream_sid: str) -> Receipt | None:
        """Give what the call's page has."""
        path = f"/api/v1/calls/{quote(call_sid, safe='')}?business={quote(business_id, safe='')}"
        for stream in (await self._get(path)).get("streams") or ():
            if isinstance(stream, dict) and stream.get("stream_sid") == stream_sid:
                receipt = stream.get("receipt")
                return receipt if isinstance(receipt, dict) else None
        return None

    async def _get(self, path: str) -> dict[str, Any]:
        try:
            answer = await self.asker.get(path, {"Authorization": f"Bearer {self.admin_token}"})
        except httpx.HTTPError:
            return {}
        return answer.body()


class NoWitness:
    """Knows nothing: only the URL was given."""

    knows_receipts: ClassVar[bool] = False

    async def first_business(self) -> str:
        """Know none."""
        return ""

    async def receipt(self, business_id: str, call_sid: str, stream_sid: str) -> Receipt | None:
        """Know none."""
        return None
