"""Finding and erasing a person in everything that is kept, with a report."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from app.admin.audit_log import AuditLog
from app.admin.principal import Principal
from app.admin.roles import Permission
from app.archive.base import MAX_PAGE, CallFilter, Erased
from app.archive.calls import Call
from app.archive.library import Library
from app.businesses.shares import PoolLimits, Shares
from app.errors import ArchiveBusy, CallIsLive, FieldsInvalid, NotThere
from app.plans import Business
from app.records.kept_data import KeptData, texts_in
from app.records.phone_match import Person, region_of
from app.store.access import Access
from app.store.base import Store
from app.store.configuration import Configuration

# Settings that may name a person; they are reported, and changed by who they belong to.
_SETTINGS: Final = ("forward_to", "numbers", "name", "greeting", "consent_notice", "busy_message",
                    "not_answered", "after_stream")  # fmt: skip
MOST_LISTED: Final = 1000
# A search looks through all that is kept: one of a business at a time, and one place for operators.
MAX_SEARCHES: Final = PoolLimits(total=4, of_business=1, of_businesses=3)


@dataclass(frozen=True, slots=True)
class FoundCall:
    """A call that names the person; one that `is_live` cannot be erased yet."""

    business_id: str
    call_sid: str
    is_live: bool


@dataclass(frozen=True, slots=True)
class PersonReport:
    """What was found of a person, and what of it was erased.

    `counts` has how many of each kind: `calls`, `streams` whose call's log is gone, `events`
    elsewhere, and `audit_values`. `live` calls stay until they are over. `settings` name the
    business and field in which the person stands: these are not erased.
    """

    calls: tuple[FoundCall, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    settings: tuple[tuple[str, str], ...] = ()
    erased: Erased | None = None

    @property
    def live(self) -> tuple[FoundCall, ...]:
        """Return the calls that are live."""
        return tuple(call for call in self.calls if call.is_live)

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was found that could be erased."""
        return not self.calls and not any(self.counts.values())


@dataclass(slots=True)
class _Found:
    """What a search has found so far."""

    calls: list[FoundCall] = field(default_factory=list)
    streams: list[tuple[str, str, str]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)


class Persons:
    """Find and erase persons. `digest` gives a keyed digest of who somebody is, or nothing."""

    def __init__(
        self,
        configuration: Configuration,
        access: Access,
        library: Library,
        kept: KeptData,
        store: Store,
        audit: AuditLog,
        digest: Callable[[str], str],
    ) -> None:
        self._configuration = configuration
        self._access = access
        self._library = library
        self._kept = kept
        self._store = store
        self._audit = audit
        self._digest = digest
        self._pool = Shares("too many searches for persons", MAX_SEARCHES, ArchiveBusy)

    async def find(self, who: Principal, number: str, business: str | None = None) -> PersonReport:
        """Report where a person is named: of one business, or for an operator of all.

        Raises:
            FieldsInvalid: `number` is no international number and no address.
            NotThere: another business is asked for.
            Forbidden: their role does not permit it.
            ArchiveBusy: a search of this business is under way, or too many are.
        """
        person, scope = Person(number), who.scope(Permission.FIND_PERSONS, business)
        with self._pool.use(scope):
            report = await self._report(person, scope, await self._search(person, scope))
        await self._note(who, "person.searched", person, scope, report.counts)
        return report

    async def erase(self, who: Principal, number: str, business: str | None = None) -> PersonReport:
        """Erase a person wherever they are named but in live calls and settings; as `find`.

        Raises:
            FieldsInvalid: also where the number is one that a business receives calls on.
        """
        person, scope = Person(number), who.scope(Permission.ERASE_PERSONS, business)
        await self._refuse_own_number(person, scope)
        with self._pool.use(scope):
            found = await self._search(person, scope)
            report = await self._report(person, scope, found)
            erased, done = Erased(), False
            try:
                report = await self._erase(who, person, scope, found, report, erased)
                done = True
            finally:
                # Also where it breaks off: what is gone is gone, and the log has how much.
                data = {f"{kind}_count": count for kind, count in erased.counts.items() if count}
                data["live_calls_left"] = sum(call.is_live for call in report.calls)
                if not done:
                    data["broke_off"] = 1
                await asyncio.shield(self._note(who, "person.erased", person, scope, data))
        return report

    async def _erase(
        self,
        who: Principal,
        person: Person,
        scope: str | None,
        found: _Found,
        report: PersonReport,
        erased: Erased,
    ) -> PersonReport:
        """Erase what was found; `erased` counts it as it goes."""
        still_live: set[tuple[str, str]] = set()
        for call in report.calls:
            if not call.is_live and not await self._erase_call(who, call, erased):
                still_live.add((call.business_id, call.call_sid))
        for business_id, call_sid, stream_sid in found.streams:
            erased.add_all(await self._library.erase_stream(business_id, call_sid, stream_sid))
        erased.add("events", await self._kept.remove_announced(found.events), 0)
        redacted = await self._audit.store.redact(person.is_in, scope)
        erased.add("audit_values", redacted, 0)
        calls = tuple(
            replace(call, is_live=call.is_live or (call.business_id, call.call_sid) in still_live)
            for call in report.calls
        )
        return replace(report, calls=calls, erased=erased)

    async def _refuse_own_number(self, person: Person, scope: str | None) -> None:
        """Raise FieldsInvalid for a business's own number: every call of it names that.

        Another business's number is a caller's like any other's, and is not told apart.
        """
        for stored in await self._configuration.stored_businesses():
            if scope in (None, stored.record.id) and any(map(person.is_in, stored.record.numbers)):
                problem = "is a number that a business receives calls on: all its calls name it"
                raise FieldsInvalid({"number": f"{problem}; erase its calls, or the business"})

    async def _erase_call(self, who: Principal, call: FoundCall, erased: Erased) -> bool:
        """Erase a call; return whether it was not live after all."""

        async def witness(part: Erased) -> None:
            counts = {f"{kind}_count": count for kind, count in part.counts.items()}
            await self._audit.note(who, "call.erased", call.call_sid, call.business_id, counts)

        try:
            erased.add_all(await self._library.erase(call.business_id, call.call_sid, witness))
        except CallIsLive:
            return False
        except NotThere:
            return True  # somebody else has erased it
        erased.add("calls", 1, 0)
        return True

    async def _search(self, person: Person, scope: str | None) -> _Found:
        """Look through calls, records without a call, and events without a call."""
        regions = await self._regions()
        live = {(held.call.business_id, held.call.call_sid)
                for held in await self._store.held_streams()}  # fmt: skip
        found, seen = _Found(), set[tuple[str, str]]()
        async for call in self._calls(scope, seen):
            summary = call.summary
            of_call = summary.business_id, summary.call_sid
            known = regions.get(summary.business_id, set())
            other = {region_of(summary.from_number), region_of(summary.to_number)} - {""}
            if any(person.is_in(text, known | other) for text in _texts(call)):
                is_live = of_call in live or not summary.is_over
                found.calls.append(FoundCall(*of_call, is_live))
        async for stream in self._kept.streams():
            of_call = stream.business_id, stream.call_sid
            if of_call in seen or of_call in live or scope not in (None, stream.business_id):
                continue
            known = regions.get(stream.business_id, set())
            other = {region_of(text) for text in stream.texts} - {""}
            texts = [one for text in stream.texts for one in texts_in(text) or [text]]
            if any(person.is_in(text, known | other) for text in (*texts, *stream.texts)):
                found.streams.append((*of_call, stream.stream_sid))
        kept = {(call.business_id, call.call_sid) for call in found.calls}
        async for event in self._kept.announced():
            of_call = event.business_id, event.call_sid
            if of_call in kept or scope not in (None, event.business_id):
                continue
            texts = texts_in(event.data)
            other = {region_of(text) for text in texts} - {""}
            known = regions.get(event.business_id, set())
            if any(person.is_in(text, known | other) for text in texts) and of_call not in live:
                found.events.append(event.id)
        return found

    async def _calls(self, scope: str | None, seen: set[tuple[str, str]]) -> AsyncIterator[Call]:
        """Return every call that is kept of a business, or with None of all; note each as seen."""
        for business_id in [scope] if scope is not None else await self._owners():
            cursor = ""
            while True:
                page = await self._library.calls(business_id, CallFilter(), cursor, MAX_PAGE)
                for summary in page.calls:
                    of_call = summary.business_id, summary.call_sid
                    if of_call in seen:
                        continue
                    seen.add(of_call)
                    try:
                        yield await self._library.call(summary.business_id, summary.call_sid)
                    except NotThere:
                        continue
                if page.next is None:
                    break
                cursor = page.next

    async def _owners(self) -> list[str | None]:
        """Return every business, and None for the list of all calls, which may know of others."""
        stored = await self._configuration.stored_businesses()
        return [*(one.record.id for one in stored), None]

    async def _regions(self) -> dict[str, set[str]]:
        """Return the countries in which each business's numbers are."""
        stored = await self._configuration.stored_businesses()
        return {one.record.id: _regions_of(one.record) for one in stored}

    async def _report(self, person: Person, scope: str | None, found: _Found) -> PersonReport:
        settings = []
        for stored in await self._configuration.stored_businesses():
            business = stored.record
            if scope not in (None, business.id):
                continue
            for name in _SETTINGS:
                value = getattr(business, name)
                texts = value if isinstance(value, tuple) else (str(value),)
                if any(person.is_in(text, _regions_of(business)) for text in texts):
                    settings.append((business.id, name))
            for key in await self._access.keys_of(business.id):
                if person.is_in(key.label, _regions_of(business)):
                    settings.append((business.id, f"label of the access key {key.id}"))
        counts = {
            "calls": len(found.calls),
            "streams": len(found.streams),
            "events": len(found.events),
            "audit_values": await self._audit.store.count_personal(person.is_in, scope),
        }
        return PersonReport(tuple(found.calls), counts, tuple(settings))

    async def _note(
        self, who: Principal, action: str, person: Person, scope: str | None, data: dict[str, int]
    ) -> None:
        target = self._digest(person.identity) or "a person"
        await self._audit.note(who, action, target, scope or "", data)


def _regions_of(business: Business) -> set[str]:
    own = {region_of(number) for number in business.numbers} - {""}
    return own | ({business.country} if business.country else set())


def _texts(call: Call) -> Iterable[str]:
    """Return every text of a call that may name a person."""
    summary = call.summary
    yield from (summary.from_number, summary.to_number)
    for record in call.records.values():
        yield from (record.stream.from_number, record.stream.to_number)
        yield from record.stream.params.values()
    for event in call.events:
        yield from _values(event.data)


def _values(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _values(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _values(one)
