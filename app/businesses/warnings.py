"""What is stored of businesses and would not be accepted today: it goes on, with a warning."""

from collections.abc import Collection, Iterator
from typing import Final

from app.businesses.destinations import check_forwarding
from app.errors import DestinationNotAllowed
from app.plans import Business, Directory, Plan

# So many warnings at once; more would hide what else a log says.
MOST: Final = 20


def warnings_of(directory: Directory, shared_digests: Collection[str]) -> list[str]:
    """Return warnings about forwarding and Exotel pairs, each of which names the business.

    `shared_digests` are those of the service's own Exotel pairs.
    """
    plans = {plan.name: plan for plan in directory.plans}
    found = [
        warning
        for business in directory.businesses
        for warning in _warnings(business, plans.get(business.plan), shared_digests)
    ]
    more = len(found) - MOST
    return found[:MOST] + ([f"and {more} more warnings of this kind"] if more > 0 else [])


def forwarding_problem(business: Business, plan: Plan | None) -> str:
    """Return why calls of a business cannot be forwarded; empty where they can, or need not."""
    try:
        if plan is not None:
            check_forwarding(plan, business)
    except DestinationNotAllowed as error:
        return str(error)
    return ""


def _warnings(
    business: Business, plan: Plan | None, shared_digests: Collection[str]
) -> Iterator[str]:
    if problem := forwarding_problem(business, plan):
        yield (
            f"business {business.id}: its calls cannot be forwarded: {problem}; change forward_to, "
            f"or allowed_destinations of the plan {business.plan}"
        )
    if any(digest in shared_digests for digest in business.exotel_pairs):
        yield (
            f"business {business.id}: one of its exotel_pairs is the service's own; calls that "
            "show it are not this business's; remove it, and generate a pair"
        )
