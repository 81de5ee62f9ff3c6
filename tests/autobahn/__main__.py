"""Print how the service's WebSocket layer does: `python -m tests.autobahn`."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.autobahn.cases import load_cases
from tests.autobahn.driver import OK, VERDICTS, Outcome, play
from tests.autobahn.echo import echo_server
from tests.autobahn.known import unexpected

PATIENCE = 3.0


def main() -> int:
    """Play all cases; give 1 when one fails that is not known to."""
    began = time.monotonic()
    with echo_server("ours") as port:
        outcomes = asyncio.run(play(load_cases(), port, patience=PATIENCE))
    _print(outcomes, time.monotonic() - began)
    return 1 if unexpected(outcomes) else 0


def _print(outcomes: Sequence[Outcome], seconds: float) -> None:
    counts = Counter(outcome.verdict for outcome in outcomes)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    print(f"Autobahn: {len(outcomes)} cases in {seconds:.1f} s: {told}")
    for verdict in VERDICTS[VERDICTS.index(OK) + 1 :]:
        names = [outcome.case_id for outcome in outcomes if outcome.verdict == verdict]
        print(f"  {verdict:<14}{' '.join(names) or 'none'}")
    for outcome in unexpected(outcomes):
        print(f"  not expected: {outcome.case_id} {outcome.verdict}: {outcome.told}")


if __name__ == "__main__":
    sys.exit(main())
