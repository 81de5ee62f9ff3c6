"""What whoever administers can do, by the API or in a browser: who they are, and what they may."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from app.admin.audit_log import AuditLog
from app.admin.operators import Operators
from app.admin.sessions import Sessions
from app.administration.businesses import Businesses
from app.administration.exotel_pairs import ExotelPairs
from app.administration.keys import Keys
from app.administration.plans import Plans
from app.administration.secret_fields import Sealer, Secrets
from app.store.access import Access
from app.store.configuration import Configuration


@dataclass(frozen=True, slots=True)
class Administration:
    """All that can be administered: what the API and the pages both call."""

    plans: Plans
    businesses: Businesses
    keys: Keys
    secrets: Secrets
    exotel_pairs: ExotelPairs
    audit: AuditLog
    sessions: Sessions

    @classmethod
    def of(
        cls,
        configuration: Configuration,
        access: Access,
        sealer: Sealer,
        operators: Operators,
        audit: AuditLog,
        wall_clock: Callable[[], float],
        shared_digests: Collection[str] = (),
    ) -> "Administration":
        """Make it from what it stands on. `wall_clock` gives Unix seconds.

        `shared_digests` are of the service's own Exotel pairs.
        """
        businesses = Businesses(configuration, audit)
        return cls(
            Plans(configuration, audit),
            businesses,
            Keys(access, businesses, audit, wall_clock),
            Secrets(configuration, businesses, sealer, audit, wall_clock, shared_digests),
            ExotelPairs(configuration, businesses, audit, wall_clock),
            audit,
            Sessions(access, operators, audit, wall_clock),
        )
