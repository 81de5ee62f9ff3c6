"""`/live`: live calls as they go on; and the end of one."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from app.admin.roles import Permission
from app.administration.live import LiveCalls, LiveStream
from app.errors import AmbiguousCall, NotThere, TooManyWatchers
from app.media import Track
from app.watchers import Watchers
from app.web.api.calls import CallSid, OfBusiness
from app.web.api.lasting import still_permitted
from app.web.api.route import Asking, answers, api_router, secured
from app.web.api.sse import DESCRIBED, event_stream


class Figures(BaseModel):
    """How a stream gets on.

    `missing` frames never came from the carrier, `dropped` ones were given up here;
    `lag_ms` is how long the oldest frame not yet published has waited; `levels` has the
    newest audio's level of each track in dBFS, -96 for silence, null where none came lately.
    """

    duration_ms: int
    received: int
    published: int
    lag_ms: int
    missing: int
    dropped: int
    from_number: str
    to_number: str
    levels: dict[Track, float | None]


class Live(BaseModel):
    """A live stream. `figures` is null until its process was asked for them: ask again."""

    stream_sid: str
    call_sid: str
    business_id: str
    plan: str
    carrier: str
    started_at: int
    figures: Figures | None

    @classmethod
    def of(cls, live: LiveStream) -> "Live":
        """Give a live stream as it is answered."""
        call, figures = live.held.call, live.figures
        return cls(
            stream_sid=call.stream_sid,
            call_sid=call.call_sid,
            business_id=call.business_id,
            plan=call.plan,
            carrier=call.carrier,
            started_at=live.held.started_at,
            figures=Figures(
                duration_ms=figures.duration_ms,
                received=figures.received,
                published=figures.published,
                lag_ms=figures.lag_ms,
                missing=figures.missing,
                dropped=figures.dropped,
                from_number=figures.from_number,
                to_number=figures.to_number,
                levels=dict(figures.levels),
            )
            if figures
            else None,
        )


class LiveList(BaseModel):
    """All live streams, the newest first."""

    items: list[Live]
    next: None = None


class Ending(BaseModel):
    """A call that is being ended."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"call_sid": "CA" + "0" * 32, "status": "ending"}}
    )
    call_sid: str
    status: str = "ending"


def live_router(calls: LiveCalls, watchers: Watchers) -> APIRouter:
    """Make the routes of live calls."""
    router = api_router("live")

    @router.get(
        "/live",
        operation_id="live",
        response_description="The newest first.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def live(who: Asking, business: OfBusiness = None) -> LiveList:
        """List live calls; an admin sees those of their business alone."""
        return LiveList(items=[Live.of(one) for one in await calls.all(who, business)])

    @router.get(
        "/live/events",
        operation_id="live-events",
        response_class=Response,
        responses={**answers(NotThere, TooManyWatchers), **DESCRIBED},
        openapi_extra=secured(),
    )
    async def live_events(request: Request, who: Asking, business: OfBusiness = None) -> Response:
        """Watch live calls: `figures` has those of all streams, four times a second.

        Its data is `{"items": [...]}`, each with all that `/live` has of a stream and its
        figures, on one level. Nothing is repeated while no call is live. `call` is one thing
        that has happened in a call, as `/calls/{call_sid}/events` has it, with whose it is; its
        id tells a repetition. It ends when the process drains, and within 5 s when the key or
        session it was asked with has ended; then ask again.
        """
        scope = await calls.watched_by(who, business)
        check = still_permitted(request, Permission.READ_CALLS, scope)
        return event_stream(watchers, scope, check, asker=who.business_id or None)

    @router.post(
        "/calls/{call_sid}/end",
        operation_id="end-call",
        status_code=202,
        response_description="It ends within a second.",
        responses=answers(NotThere, AmbiguousCall),
        openapi_extra=secured(),
    )
    async def end(who: Asking, call_sid: CallSid, business: OfBusiness = None) -> Ending:
        """End a live call: its stream, with a true receipt, and the call itself.

        The call is ended at Twilio where there are credentials of its account; else it goes
        on in its TwiML, which ends it.
        """
        await calls.end(who, call_sid, business)
        return Ending(call_sid=call_sid)

    return router
