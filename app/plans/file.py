"""The businesses file: TOML, read whole or refused with the place of its fault."""

import tomllib
from collections.abc import Collection, Mapping
from typing import Any

from app.errors import ConfigurationError
from app.plans.fields import meant
from app.plans.model import Business, Directory, Plan, read_business, read_plan

_KINDS = ("plans", "businesses")


def parse_directory(toml_text: str, source: str) -> Directory:
    """Read the businesses file, in which each business's plan must stand too.

    Raises:
        ConfigurationError: as `parse_tables` and `check_references`.
    """
    directory = parse_tables(toml_text, source)
    check_references(directory, source)
    return directory


def parse_tables(toml_text: str, source: str) -> Directory:
    """Read `[plans.NAME]` and `[businesses.ID]` tables, each by itself.

    `source` is the file's name, for the message.

    Raises:
        ConfigurationError: names the file, the table, the field and the problem.
    """
    try:
        document = tomllib.loads(toml_text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{source}: is not TOML: {error}") from error
    try:
        for name in document:
            if name not in _KINDS:
                raise ConfigurationError(f"{name}: is unknown{meant(name, _KINDS)}")
        plans = tuple(read_plan(*table) for table in _tables(document, "plans"))
        businesses = tuple(read_business(*table) for table in _tables(document, "businesses"))
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from error
    return Directory(plans, businesses)


def _tables(document: Mapping[str, Any], kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    tables = document.get(kind, {})
    if not isinstance(tables, dict):
        raise ConfigurationError(f"{kind}: must be tables, written [{kind}.NAME]")
    for key, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigurationError(f"[{kind}] {key}: must be a table, written [{kind}.{key}]")
    return list(tables.items())


def check_references(directory: Directory, source: str) -> None:
    """See that each plan that is named is there, and nothing belongs to two businesses.

    Raises:
        ConfigurationError: names the source, the business, the field and the problem.
    """
    try:
        _check_references(directory.plans, directory.businesses)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from error


def _check_references(plans: Collection[Plan], businesses: Collection[Business]) -> None:
    names = {plan.name for plan in plans}
    owners: dict[str, str] = {}
    for business in businesses:
        place = f"[businesses.{business.id}]"
        if business.plan not in names:
            hint = meant(business.plan, names)
            raise ConfigurationError(f"{place} plan: there is no plan {business.plan!r}{hint}")
        for number in business.dialled_forms:
            if (owner := owners.setdefault(number, business.id)) != business.id:
                raise ConfigurationError(f"{place} numbers: {number} belongs to {owner!r} already")
        for pair in business.exotel_pairs:
            if (owner := owners.setdefault(pair, business.id)) != business.id:
                raise ConfigurationError(f"{place} exotel_pairs: one belongs to {owner!r} already")
