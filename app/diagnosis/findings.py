"""What a check found."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. `skipped`: not looked at, and `found` says why."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: sentences of what there is, why it matters, and how to mend it.

    `cause` is an id of CAUSES. It, `why` and `fix` are empty where nothing is wrong.
    No sentence holds a secret. One may name a business's own number: findings are for
    operators, and go into no log.
    """

    check: str
    level: Level
    found: str
    cause: str = ""
    why: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that can be wrong: which check finds it, how bad it is, why, and how to mend it.

    `id` is one word for programs and for links. Braces in a text stand for what the
    check found: a URL, a variable, a number.
    """

    id: str
    check: str
    level: Level
    why: str
    fix: str

    def finding(self, found: str, *, level: Level | None = None, **names: object) -> Finding:
        """Make the finding of this cause; `names` fill the braces of its texts."""
        why, fix = self.why.format(**names), self.fix.format(**names)
        return Finding(self.check, level or self.level, found, self.id, why, fix)


def well(check: str, found: str) -> Finding:
    """Say that all is as it should be."""
    return Finding(check, Level.OK, found)


def skipped(check: str, why: str) -> Finding:
    """Say that nothing was looked at."""
    return Finding(check, Level.SKIPPED, why)


def worst(findings: Iterable[Finding]) -> Level:
    """Give the worst level there is; what was skipped is no worse than what is well."""
    levels = {finding.level for finding in findings}
    return next((one for one in (Level.FAILED, Level.WARNING) if one in levels), Level.OK)
