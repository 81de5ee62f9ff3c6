"""The scenarios of `make chaos` by name. A module in `scenarios/` adds its own:

    @scenario("name")
    async def name(context: Context) -> Sequence[Row]: ...

It is played in a loop of its own, or, where it is not async, as it is.
"""

import importlib
import pkgutil
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import scenarios


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was done, what is to hold, and what came out."""

    what: str
    held: str
    measured: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Context:
    """What a scenario is given: how much to do, and where.

    `seeds` are for all that is left to chance; where a scenario can be repeated,
    once for each. `say` tells a person how far it is.
    """

    seeds: Sequence[int]
    calls: int
    directory: Path
    say: Callable[[str], None]

    def rng(self, seed: int, name: str) -> random.Random:
        """Make the source of chance of one run."""
        return random.Random(f"{seed}/{name}")


Scenario = Callable[[Context], Sequence[Row] | Coroutine[Any, Any, Sequence[Row]]]

_KNOWN: dict[str, Scenario] = {}


def scenario(name: str) -> Callable[[Scenario], Scenario]:
    """Add a function, async or not, to what `make chaos` runs."""

    def add(run: Scenario) -> Scenario:
        assert name not in _KNOWN
        _KNOWN[name] = run
        return run

    return add


def known() -> Mapping[str, Scenario]:
    """Give every scenario by its name, modules in the order of their names."""
    for found in sorted(module.name for module in pkgutil.iter_modules(scenarios.__path__)):
        importlib.import_module(f"{scenarios.__name__}.{found}")
    return _KNOWN
