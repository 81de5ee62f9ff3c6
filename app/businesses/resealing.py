"""Rotation of SECRET_KEY: stored secrets move to the first key, one at a time.

Each secret is replaced only where it still is what was read, so that an edit that comes in
between is not lost: it is read anew, and moved if it needs to be.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from app.errors import SecretUnreadable, StoreUnavailable

# Names of what is not sealed have one: when a secret was set, and how many it holds.
BESIDE: Final = ":"
# An edit between reading and writing is rare; so many in a row are not edits.
TRIES: Final = 5


class SealedSecrets(Protocol):
    """Where businesses' secrets are stored, each sealed."""

    async def business_ids(self) -> list[str]:
        """Return the id of every business, also of one that cannot be read."""

    async def sealed_secrets(self, business_id: str) -> Mapping[str, str]:
        """Return what is stored of a business's secrets, by name."""

    async def replace_secret(self, business_id: str, name: str, before: str, after: str) -> bool:
        """Replace a secret; return False where it is not `before` any more."""


class Resealer(Protocol):
    """What opens a secret with any key, and seals it with the first."""

    def resealed(self, business_id: str, name: str, sealed: str) -> str:
        """Return the secret under the first key; unchanged where it is already."""


@dataclass(slots=True)
class ResealReport:
    """How many secrets of each business were moved, how many were not in need of it, and which
    could not be opened: a sentence each.
    """

    moved: Counter[str] = field(default_factory=Counter)
    current: int = 0
    unreadable: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Return whether every secret can be opened with the first key alone."""
        return not self.unreadable


async def reseal(store: SealedSecrets, sealing: Resealer, *, dry_run: bool = False) -> ResealReport:
    """Seal every business's secrets with the first key; with `dry_run` only count them.

    Raises:
        StoreUnavailable: the store cannot be reached, or a secret keeps changing. Secrets
            that were moved before stay moved; running it again does the rest.
    """
    report = ResealReport()
    for business_id in await store.business_ids():
        for name, sealed in (await store.sealed_secrets(business_id)).items():
            if BESIDE not in name:
                await _move(store, sealing, report, business_id, name, sealed, dry_run)
    return report


async def _move(
    store: SealedSecrets,
    sealing: Resealer,
    report: ResealReport,
    business_id: str,
    name: str,
    sealed: str,
    dry_run: bool,
) -> None:
    for _ in range(TRIES):
        if not sealed:
            return  # removed meanwhile
        try:
            after = sealing.resealed(business_id, name, sealed)
        except SecretUnreadable as error:
            report.unreadable.append(str(error))
            return
        if after == sealed:
            report.current += 1
            return
        if dry_run or await store.replace_secret(business_id, name, sealed, after):
            report.moved[business_id] += 1
            return
        sealed = (await store.sealed_secrets(business_id)).get(name, "")
    raise StoreUnavailable(f"{name} of {business_id} changes all the time; try again")
