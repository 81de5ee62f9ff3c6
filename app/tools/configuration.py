"""Plans and businesses as a file: exported, compared with what is stored, and imported.

The file is the businesses file, with every field. Secrets are in none: an export leaves
them out, an import leaves them alone. Of Exotel pairs there are only digests.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import tomli_w

from app.businesses.exotel_pairs import PART_MIN_CHARS, short_pairs
from app.businesses.warnings import forwarding_problem
from app.errors import ConfigurationError
from app.plans import BUSINESS_FIELDS, PLAN_FIELDS, Business, Directory, Plan, as_text
from app.plans.file import check_references, parse_tables
from app.store.configuration import Configuration, Stored, was_deleted

_T = TypeVar("_T", Plan, Business)
# A field's value is shown up to here.
SHOWN_CHARS: Final = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """One record that is not the same: `before` or `after` is None where it is not there."""

    before: Stored[Plan] | Stored[Business] | None
    after: Plan | Business | None

    def __str__(self) -> str:
        record = self.after or (self.before.record if self.before else None)
        if isinstance(record, Plan):
            name = f"plan {record.name}"
        else:
            name = f"business {record.id}" if record else ""
        if self.before is None or self.after is None:
            return f"{'+' if self.after else '-'} {name}"
        now, then = self.after.as_fields(), self.before.record.as_fields()
        changed = [
            f"{field} {_shown(then[field])} → {_shown(now[field])}"
            for field in now
            if now[field] != then[field]
        ]
        return f"~ {name}: {', '.join(changed)}"


class Differences(tuple[Difference, ...]):
    """What differs, in the order in which it may be written: nothing is in use when it goes."""


async def exported(configuration: Configuration) -> str:
    """Give all that is stored as TOML."""
    plans = [stored.record for stored in await configuration.stored_plans()]
    businesses = [stored.record for stored in await configuration.stored_businesses()]
    document = {
        "plans": {plan.name: _table(plan, PLAN_FIELDS) for plan in plans},
        "businesses": {one.id: _table(one, BUSINESS_FIELDS) for one in businesses},
    }
    return tomli_w.dumps(document)


async def differences(
    configuration: Configuration, toml_text: str, source: str, *, delete_missing: bool
) -> Differences:
    """Tell what would be other than it is stored if the file held.

    What the file does not name stays, unless `delete_missing`.

    Raises:
        ConfigurationError: the file is unusable, or would be beside what stays.
    """
    wanted = parse_tables(toml_text, source)
    for business in wanted.businesses:
        if await configuration.deletion_of(business.id):
            raise ConfigurationError(f"{source}: {was_deleted(business.id)}")
    plans = {stored.record.name: stored for stored in await configuration.stored_plans()}
    businesses = {stored.record.id: stored for stored in await configuration.stored_businesses()}
    plans_after = {plan.name: plan for plan in wanted.plans}
    businesses_after = {business.id: business for business in wanted.businesses}
    if not delete_missing:
        plans_after = {name: one.record for name, one in plans.items()} | plans_after
        businesses_after = {id_: one.record for id_, one in businesses.items()} | businesses_after
    check_references(
        Directory(tuple(plans_after.values()), tuple(businesses_after.values())), source
    )
    of_plans = list(_compared(plans, plans_after))
    of_businesses = list(_compared(businesses, businesses_after))
    gone = [one for one in of_businesses if one.after is None]
    stay = [one for one in of_businesses if one.after is not None]
    return Differences(
        [
            *gone,
            *(one for one in of_plans if one.after is not None),
            *stay,
            *(one for one in of_plans if one.after is None),
        ]
    )


async def check_rules(
    configuration: Configuration,
    found: Differences,
    toml_text: str,
    shared_digests: Collection[str],
) -> None:
    """Check what is to be stored of businesses by the rules that the API has for operators.

    Each forwards where its plan allows, and no new Exotel pair is short, or the service's
    own. `toml_text` is the file that the differences are of.

    Raises:
        ConfigurationError: names each business that breaks a rule, and why.
    """
    short = short_pairs(toml_text)
    plans = {stored.record.name: stored.record for stored in await configuration.stored_plans()}
    plans |= {one.after.name: one.after for one in found if isinstance(one.after, Plan)}
    problems = [
        f"[businesses.{one.after.id}] {problem}"
        for one in found
        if isinstance(one.after, Business)
        and (problem := forwarding_problem(one.after, plans.get(one.after.plan)))
    ]
    for one in found:
        if not isinstance(one.after, Business):
            continue
        before = one.before.record if one.before else None
        had = before.exotel_pairs if isinstance(before, Business) else ()
        new = set(one.after.exotel_pairs) - set(had)
        if new & set(short.get(one.after.id, ())):
            problems.append(
                f"[businesses.{one.after.id}] exotel_pairs: must have at least {PART_MIN_CHARS} "
                "characters before and behind the colon"
            )
        if new & set(shared_digests):
            problems.append(
                f"[businesses.{one.after.id}] exotel_pairs: one is the service's own pair"
            )
    if problems:
        raise ConfigurationError("; ".join(problems))


async def apply(
    configuration: Configuration,
    found: Differences,
    written: Callable[[Difference], Awaitable[None]],
    delete_business: Callable[[Stored[Business]], Awaitable[object]],
) -> None:
    """Write what differs; `written` is called after each record, and `delete_business` to delete
    one with all its data.

    Raises:
        EditedMeanwhile: somebody has saved since the differences were found.
        BusinessHasCalls: one that is to be deleted has live calls.
    """
    given_up: dict[str, int] = {}
    for one in found:
        if isinstance(one.after, Plan):
            await _put_plan(configuration, one.before, one.after)
        elif isinstance(one.after, Business):
            if not given_up:
                given_up = await _give_up_what_moves(configuration, found)
            before = one.before.version if one.before else None
            version = given_up.get(one.after.id, before)
            if one.before is None:
                await configuration.add_business(one.after)
            else:
                await configuration.save_business(one.after, version)
        elif one.before is not None:
            if isinstance(one.before.record, Plan):
                await configuration.delete_plan(one.before.record.name, one.before.version)
            else:
                await delete_business(Stored(one.before.record, one.before.version))
        await written(one)


async def _give_up_what_moves(configuration: Configuration, found: Differences) -> dict[str, int]:
    """Take from businesses the numbers and pairs they lose, so that others can have them.

    Gives the versions that then stand.
    """
    versions = {"": 0}
    for one in found:
        if not isinstance(one.after, Business) or one.before is None:
            continue
        if not isinstance(before := one.before.record, Business):
            continue
        poorer = replace(
            before,
            numbers=tuple(n for n in before.numbers if n in one.after.numbers),
            exotel_pairs=tuple(p for p in before.exotel_pairs if p in one.after.exotel_pairs),
            country=before.country if before.country == one.after.country else "",
        )
        # Its new plan is there by now, and its old one still.
        if poorer != before:
            saved = await configuration.save_business(poorer, one.before.version)
            versions[before.id] = saved.version
    return versions


async def _put_plan(
    configuration: Configuration, before: Stored[Plan] | Stored[Business] | None, plan: Plan
) -> None:
    if before is None:
        await configuration.add_plan(plan)
    else:
        await configuration.save_plan(plan, before.version)


def _compared(before: dict[str, Stored[_T]], after: dict[str, _T]) -> Iterator[Difference]:
    for name in sorted(before.keys() | after.keys()):
        stored, wanted = before.get(name), after.get(name)
        if stored is None or stored.record != wanted:
            yield Difference(stored, wanted)


def _table(record: Plan | Business, fields: Iterable[str]) -> dict[str, object]:
    return {name: _value(name, getattr(record, name)) for name in fields}


def _value(name: str, value: object) -> object:
    if isinstance(value, tuple):
        # A digest must not be read as a pair.
        prefix = "sha256-" if name == "exotel_pairs" else ""
        return [prefix + item for item in value]
    return value if isinstance(value, bool | int | float) else as_text(value)


def _shown(text: str) -> str:
    cut = text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"
    return cut if cut and cut.isprintable() and " " not in cut else repr(cut)
