"""The list of causes, which documents and programs link to."""

import re
import string
from pathlib import Path

import pytest

from app.diagnosis.causes import CAUSES, CHECKS
from app.diagnosis.findings import Cause, Finding, Level, skipped, well, worst

EACH = pytest.mark.parametrize("cause", CAUSES.values(), ids=lambda cause: cause.id)


@EACH
def test_a_cause_is_one_word_found_by_a_check_that_there_is(cause: Cause) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", cause.id)
    assert cause.check in CHECKS
    assert cause.level in (Level.WARNING, Level.FAILED)


@EACH
def test_a_cause_says_why_it_matters_and_how_to_mend_it(cause: Cause) -> None:
    for words in (cause.why, cause.fix):
        assert words[0].isupper() or words.startswith(("{", "media-bridge "))
        assert len(words) > 20


def test_every_check_finds_something() -> None:
    assert {cause.check for cause in CAUSES.values()} == set(CHECKS)


def test_a_finding_has_the_names_it_was_made_with() -> None:
    cause = Cause("odd", "dns", Level.WARNING, "{host} is odd.", "Set {host} right.")
    assert cause.finding("It is odd.", host="x.example") == Finding(
        "dns", Level.WARNING, "It is odd.", "odd", "x.example is odd.", "Set x.example right."
    )
    assert cause.finding("It is odd.", level=Level.FAILED, host="x").level is Level.FAILED


@EACH
def test_the_braces_of_a_cause_are_names(cause: Cause) -> None:
    for words in (cause.why, cause.fix):
        names = [name for _, name, _, _ in string.Formatter().parse(words) if name is not None]
        assert all(name.isidentifier() for name in names)


@pytest.mark.parametrize(
    ("levels", "is_worst"),
    [
        ((), Level.OK),
        ((Level.OK, Level.SKIPPED), Level.OK),
        ((Level.SKIPPED, Level.WARNING), Level.WARNING),
        ((Level.WARNING, Level.FAILED, Level.OK), Level.FAILED),
    ],
)
def test_the_worst_of_several_counts(levels: tuple[Level, ...], is_worst: Level) -> None:
    assert worst(Finding("dns", level, "so it is") for level in levels) is is_worst


def test_what_is_well_or_skipped_has_no_cause() -> None:
    assert well("dns", "It is there.").cause == skipped("dns", "It is not looked at.").cause == ""


def test_every_cause_is_staged_by_a_test() -> None:
    here = Path(__file__)
    rooms = (here.parent, here.parent.parent / "doctor")
    tests = [path for room in rooms for path in room.glob("test_*.py") if path != here]
    written = "".join(path.read_text(encoding="utf-8") for path in tests)
    # What Twilio noted is told by its codes.
    named = {cause for cause in CAUSES if not cause.startswith("alert_")}
    assert {cause for cause in named if f'"{cause}"' not in written} == set()
