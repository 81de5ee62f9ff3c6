"""The audit log: who did what, to what, and which fields changed."""

import logging
import re
from collections.abc import Callable, Mapping

from app.admin.principal import Principal
from app.admin.roles import Permission
from app.errors import FieldsInvalid, StoreUnavailable
from app.store.access import Access, AuditEntry

log = logging.getLogger(__name__)

ENTRY_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,10}")
MOST_ON_A_PAGE = 200


class AuditLog:
    """Write down what is done, and show it. `wall_clock` gives Unix seconds."""

    def __init__(self, access: Access, wall_clock: Callable[[], float]) -> None:
        self._access = access
        self._wall_clock = wall_clock

    async def note(
        self,
        who: Principal,
        action: str,
        target: str,
        business_id: str = "",
        data: Mapping[str, str | int] | None = None,
    ) -> None:
        """Write down what was done; never a secret, nor what a person wrote or said.

        It was done, so nothing is raised when it cannot be written down: the
        process's own log has it in any case.
        """
        at = int(self._wall_clock() * 1000)
        entry = AuditEntry(at, who.actor, action, target, business_id, dict(data or {}))
        log.info("[admin] %s: %s %s", who.actor, action, target)
        try:
            await self._access.record(entry)
        except StoreUnavailable as error:
            log.error("[admin] The audit log lacks this: %s", error)

    async def page(
        self, who: Principal, business_id: str | None = None, before: str = "", limit: int = 50
    ) -> list[AuditEntry]:
        """Give what was done, the latest first: to all, or to one business.

        `before` is the id of the last entry of the page before; `limit` is 1 to 200.

        Raises:
            FieldsInvalid: `before` is no entry's id, or `limit` is out of range.
            NotThere: it is another business's.
        """
        if before and not ENTRY_ID.fullmatch(before):
            raise FieldsInvalid({"before": "must be the `next` of the page before"})
        if not 1 <= limit <= MOST_ON_A_PAGE:
            raise FieldsInvalid({"limit": f"must be 1 to {MOST_ON_A_PAGE}"})
        scope = who.scope(Permission.READ_AUDIT, business_id)
        return await self._access.audit_log(scope, before, limit)
