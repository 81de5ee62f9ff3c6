"""Live calls, for whoever may watch them, or end one."""

from dataclasses import dataclass

from app.admin.audit_log import AuditLog
from app.admin.principal import Principal
from app.admin.roles import Permission
from app.errors import AmbiguousCall, NotThere
from app.events import HeldStream
from app.store.base import Store
from app.store.watching import EVERYBODY, StreamFigures


@dataclass(frozen=True, slots=True)
class LiveStream:
    """A live stream, and how it gets on; None before its holder has been asked."""

    held: HeldStream
    figures: StreamFigures | None


class LiveCalls:
    """Show live calls, and end them."""

    def __init__(self, store: Store, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit

    async def all(self, who: Principal, business_id: str | None = None) -> list[LiveStream]:
        """Give every live stream, or those of one business, the newest first.

        It also asks for their figures: those that are not there yet are a second later.

        Raises:
            NotThere: another business's are asked for.
        """
        scope = await self.watched_by(who, business_id)
        streams = await self._held(scope)
        name = scope or EVERYBODY
        found = (await self._store.watch([name]))[name]
        figures = {(one.business_id, one.stream_sid): one for one in found}
        streams.sort(key=lambda held: (-held.started_at, held.call.stream_sid))
        return [LiveStream(held, figures.get(_name(held))) for held in streams]

    async def watched_by(self, who: Principal, business_id: str | None) -> str | None:
        """Return whose live calls these are, None for everybody's, and record who looks at them.

        Raises:
            NotThere: another business's are asked for.
        """
        scope = who.scope(Permission.READ_CALLS, business_id)
        await self._audit.note_read(who, "live.watched", scope or "all calls", scope or "")
        return scope

    async def end(self, who: Principal, call_sid: str, business_id: str | None = None) -> None:
        """Ask for the end of a live call: its holder ends it within a second.

        Raises:
            NotThere: there is no such live call, or it is another business's.
            AmbiguousCall: live calls of several businesses have this id.
        """
        scope = who.scope(Permission.END_CALLS, business_id)
        streams = [held for held in await self._held(scope) if held.call.call_sid == call_sid]
        if not streams:
            raise NotThere("there is no live call of this id; it may have ended already")
        owners = {held.call.business_id for held in streams}
        if len(owners) > 1:
            raise AmbiguousCall(owners)
        [owner] = owners
        await self._store.ask_to_end(owner, call_sid)
        await self._audit.note(who, "call.ended", call_sid, owner)

    async def _held(self, business_id: str | None) -> list[HeldStream]:
        return [
            held
            for held in await self._store.held_streams()
            if business_id in (None, held.call.business_id)
        ]


def _name(held: HeldStream) -> tuple[str, str]:
    return held.call.business_id, held.call.stream_sid
