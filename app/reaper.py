"""Streams whose replica died: found by their leases, and ended for it."""

import asyncio
import logging
from collections.abc import Callable

from app.errors import BrokerError, StoreUnavailable
from app.events import HeldStream
from app.metrics import Metrics
from app.pubsub.base import PubSub
from app.store.base import LIVE_SECONDS, Store

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
# A reaper that dies with a claim holds up the rest of it for so long.
CLAIM_SECONDS = 5.0
CLAIM_STREAMS = 100


class Reaper:
    """End the streams of dead replicas: each once, and announced at least once.

    A stream is lost when its lease has run out, and the store says that the
    replicas could have renewed it. Any replica may end it. `is_ours` tells
    whether this process holds a stream: one that was held up for longer than a
    lease finds its own among the lost.
    """

    def __init__(
        self,
        store: Store,
        pubsub: PubSub,
        metrics: Metrics,
        *,
        is_ours: Callable[[HeldStream], bool],
        lease_seconds: float = LIVE_SECONDS,
    ) -> None:
        self._store = store
        self._pubsub = pubsub
        self._metrics = metrics
        self._is_ours = is_ours
        self._lease_seconds = lease_seconds

    async def run(self) -> None:
        """Look for lost streams until cancelled."""
        while True:
            try:
                await self.sweep()
            except StoreUnavailable:
                self._metrics.store_errors.inc()
            except BrokerError as error:
                self._metrics.broker_errors.labels(error.kind).inc()
            await asyncio.sleep(POLL_SECONDS)

    async def sweep(self) -> None:
        """End all streams that are lost now.

        Raises:
            StoreUnavailable, BrokerError: what is left is claimed again, by anyone.
        """
        while True:
            lost = await self._store.claim_lost_streams(
                CLAIM_STREAMS, self._lease_seconds, CLAIM_SECONDS
            )
            for held in lost:
                if self._is_ours(held):
                    await self._store.hold_streams([held], self._lease_seconds)
                else:
                    await self._end(held)
            if len(lost) < CLAIM_STREAMS:
                return

    async def _end(self, held: HeldStream) -> None:
        call = held.call
        if await self._pubsub.end_lost(held):
            if await self._store.live_stream(call.business_id, call.call_sid) is None:
                # Reserved for a minute at the webhook, it may have long to run.
                await self._store.free_slot(call.business_id, call.call_sid)
            self._metrics.reaped.inc()
            log.warning(
                "[Reaper] Stream %s ended for a replica that died - CallSid: %s, business: %s",
                *(call.stream_sid, call.call_sid, call.business_id),
            )
        await self._store.let_go([held])
