"""An administration in memory, with two businesses and somebody of each kind who asks."""

from dataclasses import dataclass

import pytest

from app.administration import Administration
from app.administration.principal import THE_OPERATOR, Principal
from app.credentials.sealing import Sealing
from app.plans import Business, Directory, Plan
from app.store.memory import MemoryStore
from app.store.memory_access import MemoryAccess

OPERATOR = THE_OPERATOR
ADMIN = Principal("key:k1", "shop")
NOW = 1_790_000_000.0
SHOP = Business("shop", "The Shop", "premium", ("+12763659195",), "+15005550099")
BANK = Business("bank", "The Bank", "tiny", ("+442079460000",), exotel_pairs=("0" * 64,))
DIRECTORY = Directory(
    (Plan("premium", max_concurrent_calls=7), Plan("tiny"), Plan("spare")), (SHOP, BANK)
)


@dataclass
class Office:
    """An administration, and the stores behind it."""

    desk: Administration
    store: MemoryStore
    access: MemoryAccess
    sealing: Sealing

    async def actions(self, business_id: str | None = None) -> list[str]:
        """Name what the audit log has, the oldest first."""
        found = await self.access.audit_log(business_id)
        return [entry.action for entry in reversed(found)]


@pytest.fixture
async def office() -> Office:
    store, access = MemoryStore(lambda: NOW), MemoryAccess(lambda: NOW)
    await store.load_if_empty(DIRECTORY)
    sealing = Sealing("k" * 32)
    return Office(Administration.of(store, access, sealing, lambda: NOW), store, access, sealing)
