"""Deleting a business: everything of it is erased, and what comes late is erased too."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from app.admin.audit_log import AuditLog
from app.admin.principal import Principal
from app.admin.roles import Permission, Role
from app.archive.base import MAX_PAGE, CallFilter, Erased
from app.archive.library import Library
from app.errors import NotThere, StoreUnavailable
from app.records.kept_data import KeptData
from app.store.access import Access
from app.store.base import Store
from app.store.configuration import Configuration

log = logging.getLogger(__name__)

# A replica that was cut off may come back for as long as the longest call lasts.
SWEPT_MS: Final = 48 * 3600 * 1000
SWEEP_SECONDS: Final = 30.0
_SERVICE: Final = Principal("service", Role.OPERATOR)


class BusinessErasure:
    """Delete businesses with all their data. `wall_clock` gives Unix seconds.

    First the business is marked as deleted, in the same step that looks for live calls: from
    then on it admits no call, and its id is never free again. Then its data is erased, each part
    as often as need be: a deletion that was interrupted is finished by the next one.
    """

    def __init__(
        self,
        configuration: Configuration,
        access: Access,
        library: Library,
        kept: KeptData,
        store: Store,
        audit: AuditLog,
        wall_clock: Callable[[], float],
    ) -> None:
        self._configuration = configuration
        self._access = access
        self._library = library
        self._kept = kept
        self._store = store
        self._audit = audit
        self._wall_clock = wall_clock
        self._swept_until = ""

    async def delete(self, who: Principal, business_id: str, version: int | None) -> Erased:
        """Delete a business and all its data; return what was erased.

        Raises:
            NotThere: there is no such business, and no deletion of it to finish.
            BusinessHasCalls: calls of it are live.
            EditedMeanwhile: another version is stored.
        """
        who.demand(Permission.DELETE_BUSINESS, business_id)
        stored = await self._configuration.stored_business(business_id)
        deletion = await self._configuration.deletion_of(business_id)
        if stored is None and (deletion is None or deletion.finished):
            raise NotThere(f"there is no business {business_id[:128]!r}")
        if stored is not None and version is None:
            version = stored.version
        await self._configuration.delete_business(business_id, version)
        erased = Erased()
        await self._forget_access(business_id, erased)
        await self._erase_data(business_id, erased)
        erased.add("audit_view", await self._audit.store.drop(business_id), 0)
        # Not in the business's own view, which is gone.
        counts = {f"{kind}_count": count for kind, count in erased.counts.items()}
        sizes = {f"{kind}_bytes": size for kind, size in erased.bytes.items() if size}
        await self._audit.note(who, "business.deleted", business_id, data=counts | sizes)
        await self._configuration.finish_deletion(business_id)
        return erased

    async def run(self) -> None:
        """Erase what comes late of deleted businesses, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self.sweep()
            except StoreUnavailable as error:
                log.warning("[admin] Deleted businesses were not looked after: %s", error)

    async def sweep(self) -> None:
        """End live calls of businesses deleted in the last two days, and erase what came since."""
        since = int(self._wall_clock() * 1000) - SWEPT_MS
        deleted = set(await self._configuration.deleted_since(since))
        if not deleted:
            return
        for one in deleted:
            await self._audit.store.forget_counts(one)
        for held in await self._store.held_streams():
            if held.call.business_id in deleted:
                await self._store.ask_to_end(held.call.business_id, held.call.call_sid)
        found = {
            one
            for one in deleted
            if await self._kept.has_remains(one) or await self._calls_of(one, 1)
        }
        async for event in self._kept.announced(self._swept_until):
            self._swept_until = event.id
            if event.business_id in deleted:
                found.add(event.business_id)
        for business_id in sorted(found):
            erased = Erased()
            await self._forget_access(business_id, erased)
            await self._erase_data(business_id, erased)
            erased.add("audit_view", await self._audit.store.drop(business_id), 0)
            counts = {f"{kind}_count": count for kind, count in erased.counts.items() if count}
            if counts:
                await self._audit.note(
                    _SERVICE, "business.remains_erased", business_id, data=counts
                )

    async def _forget_access(self, business_id: str, erased: Erased) -> None:
        """Revoke the keys of a deleted business, and end their sessions."""
        keys = len(await self._access.keys_of(business_id))
        await self._access.forget(business_id)
        erased.add("access_keys", keys, 0)

    async def _erase_data(self, business_id: str, erased: Erased) -> None:
        """Erase calls, streams, events and all other keys of a deleted business."""
        held = [one for one in await self._store.held_streams()
                if one.call.business_id == business_id]  # fmt: skip
        await self._store.let_go(held)
        while sids := await self._calls_of(business_id, MAX_PAGE):
            erased.add("calls", len(sids), 0)
            for sid in sids:
                erased.add_all(await self._library.erase(business_id, sid, _no_witness,
                                                         even_live=True))  # fmt: skip
        async for stream in self._kept.streams():
            if stream.business_id == business_id:
                part = await self._library.erase_stream(
                    business_id, stream.call_sid, stream.stream_sid
                )
                erased.add_all(part)
        ids = [one.id async for one in self._kept.announced() if one.business_id == business_id]
        erased.add("events", await self._kept.remove_announced(ids), 0)
        erased.add("other_keys", await self._kept.remove_keys(business_id), 0)

    async def _calls_of(self, business_id: str, limit: int) -> list[str]:
        page = await self._library.calls(business_id, CallFilter(), limit=limit)
        return [call.call_sid for call in page.calls]


async def _no_witness(erased: Erased) -> None:
    """Do nothing: the whole deletion is recorded, not each call."""
