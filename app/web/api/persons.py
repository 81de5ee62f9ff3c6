"""`/persons`: a person found and erased by their number, which is in no URL and no log."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from app.admin.roles import Permission
from app.errors import ArchiveBusy, FieldsInvalid, NotThere, StoreUnavailable
from app.plans import IDENTIFIER
from app.records.persons import MOST_LISTED, PersonReport, Persons
from app.web.api.call_models import Part
from app.web.api.lasting import Check, LastingResponse, still_permitted
from app.web.api.models import body_of
from app.web.api.route import Asking, JsonObject, answers, api_router, secured

log = logging.getLogger(__name__)

# The server cuts an answer off that says nothing for much longer.
SILENT_SECONDS: Final = 5.0


class PersonQuery(BaseModel):
    """Whom to look for: an international number, or an address such as `client:alice`.

    `business` limits it to one business; an admin's is their own.
    """

    model_config = ConfigDict(json_schema_extra={"example": {"number": "+15005550006"}})
    number: str
    business: str | None = None


class NamedCall(BaseModel):
    """A call in which the person is named; one that is `live` is erased when it is over."""

    business_id: str
    call_sid: str
    live: bool


class NamedSetting(BaseModel):
    """A setting in which the person is named. It is not erased: change it there."""

    business_id: str
    field: str


class PersonFound(BaseModel):
    """Where a person is named.

    `found` counts calls, `streams` and `events` whose call's log is gone, and `audit_values`.
    `erased` has what was erased, null after a search. At most 1,000 calls are listed.
    """

    found: dict[str, int]
    calls: list[NamedCall]
    settings: list[NamedSetting]
    erased: dict[str, Part] | None

    @classmethod
    def of(cls, report: PersonReport) -> "PersonFound":
        """Return a report as it is answered."""
        erased = report.erased
        return cls(
            found=report.counts,
            calls=[
                NamedCall(business_id=one.business_id, call_sid=one.call_sid, live=one.is_live)
                for one in report.calls[:MOST_LISTED]
            ],
            settings=[NamedSetting(business_id=id_, field=name) for id_, name in report.settings],
            erased=None
            if erased is None
            else {
                kind: Part(count=count, bytes=erased.bytes.get(kind, 0))
                for kind, count in erased.counts.items()
            },
        )


def persons_router(persons: Persons) -> APIRouter:
    """Create the routes of persons."""
    router = api_router("persons")
    # The event loop keeps no task alive that nobody else holds.
    under_way: set[asyncio.Task[PersonReport]] = set()

    def begin(work: Coroutine[object, object, PersonReport]) -> asyncio.Task[PersonReport]:
        task = asyncio.create_task(work)
        under_way.add(task)
        task.add_done_callback(finished)
        return task

    def finished(task: asyncio.Task[PersonReport]) -> None:
        under_way.discard(task)
        if not task.cancelled() and isinstance(task.exception(), StoreUnavailable):
            log.warning("[admin] A person was not looked for everywhere: the store is away")

    @router.post(
        "/persons/find",
        operation_id="find-person",
        response_description="Where the person is named.",
        response_model=PersonFound,
        responses=answers(NotThere, ArchiveBusy),
        openapi_extra=secured(requestBody=body_of(PersonQuery)),
    )
    async def find(who: Asking, request: Request, body: JsonObject) -> Response:
        """Find a person in calls, recordings, events and the audit log, in every spelling.

        A search that takes long answers with spaces before its JSON; it ends with its peer. One
        of a business runs at a time in a process (503).
        """
        number, business = _asked(body)
        scope = business or who.business_id or None
        check = still_permitted(request, Permission.FIND_PERSONS, scope)
        return await _answer(begin(persons.find(who, number, business)), check, ends_with_peer=True)

    @router.post(
        "/persons/erase",
        operation_id="erase-person",
        response_description="What was found, and what of it was erased.",
        response_model=PersonFound,
        responses=answers(NotThere, ArchiveBusy),
        openapi_extra=secured(requestBody=body_of(PersonQuery)),
    )
    async def erase(who: Asking, request: Request, body: JsonObject) -> Response:
        """Erase a person from everything but live calls and settings.

        Each call in which they are named is erased as a whole. Send it again when live calls
        are over; a second time finds nothing else. An erasure goes on when its peer leaves;
        `person.erased` in the audit log has what was erased.
        """
        number, business = _asked(body)
        scope = business or who.business_id or None
        check = still_permitted(request, Permission.ERASE_PERSONS, scope)
        return await _answer(
            begin(persons.erase(who, number, business)), check, ends_with_peer=False
        )

    return router


async def _answer(
    task: "asyncio.Task[PersonReport]", check: Check, *, ends_with_peer: bool
) -> Response:
    """Answer with the report; where that takes long, send a space every few seconds before it.

    An error in the first seconds has its status; a later one cuts the connection.
    """
    await asyncio.wait({task}, timeout=SILENT_SECONDS)
    if task.done():
        return JSONResponse(PersonFound.of(task.result()).model_dump(mode="json"))

    async def parts() -> AsyncGenerator[bytes, None]:
        try:
            while not task.done():
                yield b" "
                await asyncio.wait({task}, timeout=SILENT_SECONDS)
            yield PersonFound.of(task.result()).model_dump_json().encode()
        finally:
            if ends_with_peer:
                task.cancel()

    headers = {"Cache-Control": "private, no-store"}
    return LastingResponse(
        parts(), check, headers=headers, media_type="application/json", has_end=True
    )


def _asked(body: dict[str, object]) -> tuple[str, str | None]:
    problems = {name: "is unknown" for name in body.keys() - {"number", "business"}}
    number, business = body.get("number"), body.get("business")
    if not isinstance(number, str) or len(number) > 256:
        problems["number"] = "must be an international number such as +15005550006"
    if business is not None and not (isinstance(business, str) and IDENTIFIER.fullmatch(business)):
        problems["business"] = "must be a business's id"
    if problems:
        raise FieldsInvalid(problems)
    return str(number), str(business) if business else None
