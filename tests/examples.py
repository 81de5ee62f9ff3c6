"""How many examples a property is tried with: few in an ordinary run, many when asked.

`pytest --hypothesis-profile=long` asks; `--hypothesis-seed=N` repeats a run.
"""

from hypothesis import settings

LONG = "long"
ORDINARY = "ordinary"


def examples(few: int, many: int = 10_000) -> int:
    """Give `few`, or `many` in the long form."""
    return many if settings.get_current_profile_name() == LONG else few
