"""What tells businesses of limits they have reached."""

import random
import time

from app.credentials.sealing import Sealing
from app.errors import SecretUnreadable
from app.metrics import Metrics
from app.notices import Endpoint, Notices, client, notice_of
from app.registry.metering import OnCrossed
from app.settings import Settings
from app.store.base import Store
from app.store.usage import Crossing, MonthOfUse

WEBHOOK_SECRET = "usage_webhook_secret"


def make_notices(
    settings: Settings, store: Store, sealing: Sealing | None, metrics: Metrics
) -> Notices:
    """Make what posts notices to the businesses' own URLs."""

    async def endpoint_of(business_id: str) -> Endpoint | None:
        business = await store.business(business_id)
        if business is None or not business.usage_webhook_url:
            return None
        sealed = (await store.secrets_of(business_id)).get(WEBHOOK_SECRET, "")
        if not sealed:
            return Endpoint(business.usage_webhook_url)
        if sealing is None:
            # Unsigned, the receiver would take it for a stranger's.
            raise SecretUnreadable(f"SECRET_KEY is not set: {WEBHOOK_SECRET} is of no use")
        secret = sealing.unseal(business_id, WEBHOOK_SECRET, sealed)
        return Endpoint(business.usage_webhook_url, secret)

    return Notices(
        endpoint_of,
        client(),
        metrics,
        allow_private=settings.allow_private_webhooks,
        wall_clock=time.time,
        jitter=random.random,
    )


def told_by(notices: Notices) -> OnCrossed:
    """Give what puts a notice for each limit that is reached."""

    def on_crossed(business_id: str, use: MonthOfUse, crossing: Crossing) -> None:
        limit = crossing.limit
        notices.put(
            notice_of(
                business_id,
                use.month,
                limit,
                crossing.allowed,
                use.used(limit),
                crossing.at,
                is_hard=limit.is_hard,
            )
        )

    return on_crossed
