"""`/persons`: a person found and erased by their number, which is in no URL and no log."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from app.errors import FieldsInvalid, NotThere
from app.plans import IDENTIFIER
from app.records.persons import MOST_LISTED, PersonReport, Persons
from app.web.api.call_models import Part
from app.web.api.models import body_of
from app.web.api.route import Asking, JsonObject, answers, api_router, secured


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

    @router.post(
        "/persons/find",
        operation_id="find-person",
        response_description="Where the person is named.",
        responses=answers(NotThere),
        openapi_extra=secured(requestBody=body_of(PersonQuery)),
    )
    async def find(who: Asking, body: JsonObject) -> PersonFound:
        """Find a person in calls, recordings, events and the audit log, in every spelling."""
        return PersonFound.of(await persons.find(who, *_asked(body)))

    @router.post(
        "/persons/erase",
        operation_id="erase-person",
        response_description="What was found, and what of it was erased.",
        responses=answers(NotThere),
        openapi_extra=secured(requestBody=body_of(PersonQuery)),
    )
    async def erase(who: Asking, body: JsonObject) -> PersonFound:
        """Erase a person from everything but live calls and settings.

        Each call in which they are named is erased as a whole. Send it again when live calls
        are over; a second time finds nothing else.
        """
        return PersonFound.of(await persons.erase(who, *_asked(body)))

    return router


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
