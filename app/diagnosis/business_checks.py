"""Whether what is stored of businesses works: where calls are forwarded, and Exotel pairs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from app.businesses.warnings import forwarding_problem
from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import Finding, well
from app.diagnosis.redis_checks import Configured
from app.diagnosis.steps import Step

# So many businesses are named; the finding counts the others.
NAMED = 5


@dataclass(frozen=True, slots=True)
class BusinessChecks:
    """The checks of stored businesses. `shared_digests` are of the service's Exotel pairs."""

    configured: Configured
    shared_digests: Collection[str]

    def steps(self) -> list[Step]:
        """Return the checks in their order."""
        late = CAUSES["redis_unreachable"].finding("Redis does not answer in time.")
        return [
            Step("forwarding", self._forwarding, late, ("redis",)),
            Step("exotel_pairs", self._pairs, late, ("redis",)),
        ]

    async def _forwarding(self) -> Sequence[Finding]:
        plans = {one.record.name: one.record for one in await self.configured.stored_plans()}
        refused = []
        for one in await self.configured.stored_businesses():
            business = one.record
            if problem := forwarding_problem(business, plans.get(business.plan)):
                refused.append(f"{business.id} (plan {business.plan}): {problem}")
        if not refused:
            return [well("forwarding", "Every forward_to is where its plan allows.")]
        return [CAUSES["forwarding_not_allowed"].finding(_listed("Not forwarded: ", refused))]

    async def _pairs(self) -> Sequence[Finding]:
        shared = [
            one.record.id
            for one in await self.configured.stored_businesses()
            if any(digest in self.shared_digests for digest in one.record.exotel_pairs)
        ]
        if not shared:
            return [well("exotel_pairs", "No business has the service's own Exotel pair.")]
        said = _listed("Businesses with the service's own pair: ", shared)
        return [CAUSES["exotel_pair_shared"].finding(said)]


def _listed(beginning: str, items: Sequence[str]) -> str:
    more = len(items) - NAMED
    return beginning + "; ".join(items[:NAMED]) + (f"; and {more} more." if more > 0 else ".")
