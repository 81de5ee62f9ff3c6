"""Calls: listed, looked at and erased."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Query

from app.admin.audit_log import AuditLog
from app.admin.principal import Principal
from app.admin.roles import Permission
from app.archive.base import MAX_PAGE, CallFilter, Erased
from app.archive.calls import Call, CallState
from app.archive.library import MAX_BUCKETS, Library
from app.errors import AmbiguousCall, ArchiveBusy, CallIsLive, NotThere
from app.web.api.call_models import CallItem, CallPage, Event, Events, Picture, Proof, Whole
from app.web.api.route import Asking, answers, api_router, secured
from app.web.documented import ID_PATTERN

LATEST_MS = 10**15

CallSid = Annotated[str, Path(pattern=ID_PATTERN, description="The call's id.")]
OfBusiness = Annotated[
    str | None,
    Query(
        alias="business",
        pattern=ID_PATTERN,
        description="Whose call it is; an operator's search through all otherwise, which is "
        "answered 409 where several businesses have a call of the id.",
    ),
]
OfStream = Annotated[
    str,
    Query(
        alias="stream",
        pattern="^[A-Za-z0-9_.-]{0,128}$",
        description="Which of the call's streams; the latest whose audio is kept otherwise.",
    ),
]
Moment = Annotated[int | None, Query(ge=0, le=LATEST_MS)]
Number = Annotated[str, Query(max_length=64)]


@dataclass(frozen=True, slots=True)
class CallDesk:
    """Find whose call it is, for who asks."""

    library: Library
    audit: AuditLog

    async def owner(
        self, who: Principal, permission: Permission, business: str | None, call_sid: str
    ) -> str:
        """Name the business whose call is meant.

        Raises:
            NotThere: there is no such call, or it is another business's.
            AmbiguousCall: an operator does not say which of several businesses' calls.
            Forbidden: they may not do this.
        """
        scope = who.scope(permission, business)
        return scope if scope is not None else await self.library.owner_of(call_sid)

    async def call(self, who: Principal, business_id: str, call_sid: str) -> Call:
        """Return a business's call, and record that it was looked at; or raise NotThere."""
        found = await self.library.call(business_id, call_sid)
        await self.audit.note_read(who, "call.viewed", call_sid, business_id)
        return found

    async def erase(self, who: Principal, business_id: str, call_sid: str) -> Erased:
        """Erase a call, and write down in the audit log what was erased."""

        async def witness(erased: Erased) -> None:
            counts = {f"{kind}_count": count for kind, count in erased.counts.items()}
            sizes = {f"{kind}_bytes": size for kind, size in erased.bytes.items()}
            await self.audit.note(who, "call.erased", call_sid, business_id, counts | sizes)

        return await self.library.erase(business_id, call_sid, witness)


def calls_router(desk: CallDesk) -> APIRouter:
    """Make the routes under `/calls` that answer JSON."""
    router = api_router("calls")
    library = desk.library

    @router.get(
        "/calls",
        operation_id="calls",
        response_description="The latest first.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def calls(
        who: Asking,
        business: OfBusiness = None,
        state: CallState | None = None,
        from_number: Annotated[Number, Query(alias="from")] = "",
        to_number: Annotated[Number, Query(alias="to")] = "",
        after: Moment = None,
        before: Moment = None,
        cursor: Annotated[str, Query(max_length=512)] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    ) -> CallPage:
        """List calls, live and ended: all that began from `after` (Unix ms) to before `before`.

        `from` and `to` are any part of the number. A page may have fewer than `limit` calls
        and still a page after it.
        """
        scope = who.scope(Permission.READ_CALLS, business)
        wanted = CallFilter(state, from_number.strip(), to_number.strip(), after, before)
        page = await library.calls(scope, wanted, cursor, limit)
        return CallPage(items=[CallItem.of(call) for call in page.calls], next=page.next)

    @router.get(
        "/calls/{call_sid}",
        operation_id="call",
        response_description="The call.",
        responses=answers(NotThere, AmbiguousCall),
        openapi_extra=secured(),
    )
    async def call(who: Asking, call_sid: CallSid, business: OfBusiness = None) -> Whole:
        """Give one call, with each stream's receipt."""
        owner = await desk.owner(who, Permission.READ_CALLS, business, call_sid)
        return Whole.of_call(await desk.call(who, owner, call_sid))

    @router.get(
        "/calls/{call_sid}/events",
        operation_id="call_events",
        response_description="What happened, in order.",
        responses=answers(NotThere, AmbiguousCall),
        openapi_extra=secured(),
    )
    async def events(who: Asking, call_sid: CallSid, business: OfBusiness = None) -> Events:
        """List what happened in a call."""
        owner = await desk.owner(who, Permission.READ_CALLS, business, call_sid)
        found = await desk.call(who, owner, call_sid)
        return Events(items=[Event.of(event) for event in found.events])

    @router.get(
        "/calls/{call_sid}/waveform",
        operation_id="call_waveform",
        response_description="Peaks and gaps.",
        responses=answers(NotThere, AmbiguousCall, ArchiveBusy),
        openapi_extra=secured(),
    )
    async def waveform(
        who: Asking,
        call_sid: CallSid,
        business: OfBusiness = None,
        stream: OfStream = "",
        buckets: Annotated[int, Query(ge=1, le=MAX_BUCKETS)] = 800,
    ) -> Picture:
        """Give how loud each track was over a call's time, and where audio is missing."""
        owner = await desk.owner(who, Permission.READ_CALLS, business, call_sid)
        return Picture.of(
            await library.waveform(
                owner,
                call_sid,
                stream_sid=stream,
                buckets=buckets,
                asker=who.business_id or None,
            )
        )

    @router.delete(
        "/calls/{call_sid}",
        operation_id="erase_call",
        response_description="What was erased.",
        responses=answers(NotThere, AmbiguousCall, CallIsLive),
        openapi_extra=secured(),
    )
    async def erase(who: Asking, call_sid: CallSid, business: OfBusiness = None) -> Proof:
        """Erase all that is kept of a call that is over, for good; its usage still counts."""
        owner = await desk.owner(who, Permission.ERASE_CALLS, business, call_sid)
        erased = await desk.erase(who, owner, call_sid)
        return Proof.of(call_sid, owner, erased)

    return router
