"""For which business each call was answered: callbacks are its, whoever has the number then."""

from collections import OrderedDict
from typing import Final

from app.store.base import ANSWERED_SECONDS, Store

# Of this process, for while the store is away; the oldest are forgotten.
MAX_ANSWERED_HERE: Final = 10_000


class AnsweredCalls:
    """Know the business of calls of the service's own account, by CallSid alone.

    The first business that a call was answered for keeps it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._here: OrderedDict[str, str] = OrderedDict()

    async def note(self, call_sid: str, business_id: str) -> bool:
        """Note that a call was answered; return whether it was the first time.

        Raises:
            StoreUnavailable: only this process knows it.
        """
        self._here.setdefault(call_sid, business_id)
        if len(self._here) > MAX_ANSWERED_HERE:
            self._here.popitem(last=False)
        return await self._store.note_answered(call_sid, business_id, ANSWERED_SECONDS)

    async def business_of(self, call_sid: str) -> str:
        """Return the business that a call was answered for; empty where it was not answered.

        Raises:
            StoreUnavailable: it was not answered here, and cannot be looked up.
        """
        here = self._here.get(call_sid)
        return here if here is not None else await self._store.answered_by(call_sid) or ""
