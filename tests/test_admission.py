"""Two replicas under more calls than they may take, with Redis there and with Redis hung."""

import random
from pathlib import Path

from tests.chaos.admission import storm, without_redis


async def test_two_replicas_under_three_times_the_limit_use_all_of_it_and_no_more(
    tmp_path: Path,
) -> None:
    met = await storm(random.Random(4), tmp_path, limit=10, seconds=1.5)
    assert (met.admitted, met.refused) == (10, 20)
    assert met.most_held == 10
    assert met.used_again == met.freed == 5
    assert met.beside_admitted == met.beside == 10
    assert not met.failures


async def test_while_redis_hangs_each_process_holds_to_the_limit_and_to_who_may_come_in(
    tmp_path: Path,
) -> None:
    met = await without_redis(random.Random(4), tmp_path, limit=5, seconds=1.0)
    assert met.admitted == [5, 5]
    assert met.counted
    assert not met.failures
    assert met.unsigned_status == 403
    assert (met.forged, met.spent) == ("ticket_invalid", "ticket_spent")
