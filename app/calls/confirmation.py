"""The configuration, confirmed every two seconds; and calls that were decided without it."""

import asyncio
import logging
from typing import Final, Protocol

from app.auth import TICKET_LIFE_SECONDS
from app.errors import ConfigurationError, StoreUnavailable
from app.events import EndReason
from app.metrics import Metrics
from app.session.hangups import Hangups
from app.session.unconfirmed import UnconfirmedCall, UnconfirmedCalls
from app.store.base import Store

log = logging.getLogger(__name__)

# An edit that no replica sees before the store goes away is as old as this at most.
CONFIRM_SECONDS: Final = 2.0
# While an edit is under way nothing is confirmed.
RETRY_SECONDS: Final = 0.2


class CallsToEnd(Protocol):
    """Know this process's live calls; `Registry` does."""

    def end_call(self, business_id: str, call_sid: str, reason: EndReason) -> None:
        """End this call's streams that are live here."""

    async def release(self, business_id: str, call_sid: str) -> None:
        """Free a call's slot, unless a stream of it is live here."""


class Confirmation:
    """Confirm what is remembered of the configuration, and end what it decided wrongly.

    Calls that were decided while the store was away are compared with it when it is back.
    One that is another business's by then is ended here and at all replicas.
    """

    def __init__(
        self,
        store: Store,
        unconfirmed: UnconfirmedCalls,
        calls: CallsToEnd,
        hangups: Hangups,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._unconfirmed = unconfirmed
        self._calls = calls
        self._hangups = hangups
        self._metrics = metrics

    async def run(self) -> None:
        """Confirm until cancelled."""
        while True:
            is_confirmed = False
            try:
                is_confirmed = await self.confirm()
            except StoreUnavailable:
                self._metrics.store_errors.inc()
            await asyncio.sleep(CONFIRM_SECONDS if is_confirmed else RETRY_SECONDS)

    async def confirm(self) -> bool:
        """Confirm the configuration once; return False while an edit is under way.

        Raises:
            StoreUnavailable: what is left is done another time.
        """
        version = await self._store.confirm_configuration()
        if version is None:
            return False
        while (call := self._unconfirmed.next()) is not None:
            # A store that has lost everything says nothing about whose a call is.
            try:
                if version and await self._is_anothers(call):
                    await self._end(call)
            except ConfigurationError as error:
                log.error("[server] Call %s goes on as it was decided: %s", call.call_sid, error)
            self._unconfirmed.done(call)
        return True

    async def _is_anothers(self, call: UnconfirmedCall) -> bool:
        found = await self._store.business(call.business_id)
        if found is not None and call.number:
            owner = await self._store.business_of_number(call.number)
            if owner is not None or call.number_is_owned:
                found = owner
        if found is not None and found.id == call.business_id and call.pair:
            found = await self._store.business_of_pair(call.pair)
        if self._store.answers_from_memory:
            raise StoreUnavailable("the store went away again")
        return found is None or found.id != call.business_id

    async def _end(self, call: UnconfirmedCall) -> None:
        log.warning(
            "[server] ⚠️ Call %s was taken for business %s while Redis was away, and is not this "
            "business's: it is ended",
            *(call.call_sid, call.business_id),
        )
        if call.ticket:  # no stream begins by it now
            await self._store.spend_ticket(call.ticket, TICKET_LIFE_SECONDS)
        self._calls.end_call(call.business_id, call.call_sid, EndReason.BUSINESS_MISMATCH)
        if call.forwarded is not None:
            self._hangups.end(call.forwarded)
        await self._store.ask_to_end(call.business_id, call.call_sid)
        await self._calls.release(call.business_id, call.call_sid)
