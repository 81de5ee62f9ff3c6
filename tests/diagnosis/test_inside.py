"""What is looked at from inside, over real connections."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app import twilio_api
from app.diagnosis.checkup import Checkup
from app.diagnosis.deployment import Deployment
from app.diagnosis.inside import inside
from app.plans import Business, Directory, Plan
from app.store.redis import RedisStore
from app.tools.embedded import EmbeddedRedis
from tests.twilio_account import SID, TOKEN, a_number, an_account

URL = "https://bridge.example.com"
OURS, SAID, THEIRS = "+15005550006", "+15005550007", "+15005550008"
ONE = Business("one", "One", "plan", (OURS,))
HERE = {"voice_url": f"{URL}/twilio-voice", "status_callback": f"{URL}/twilio-status"}


@pytest.fixture
def empty_redis_url(tmp_path: Path) -> Iterator[str]:
    with EmbeddedRedis(tmp_path, persistent=False) as redis:
        yield redis.url


async def test_numbers_of_another_account_are_not_asked_of_this_one(empty_redis_url: str) -> None:
    store = RedisStore.from_url(empty_redis_url)
    own = replace(ONE, id="own", numbers=(SAID,), twilio_account_sid=SID)
    other = replace(ONE, id="other", numbers=(THEIRS,), twilio_account_sid="AC" + "f" * 32)
    await store.load_if_empty(Directory((Plan("plan"),), (ONE, own, other)))
    await store.close()
    async with an_account(numbers=[a_number(OURS, **HERE), a_number(SAID, **HERE)]) as account:
        deployment = Deployment(
            public_url=URL,
            account_sid=SID,
            auth_token=TOKEN,
            redis_url=empty_redis_url,
            twilio_api_url=account.url,
            twilio_monitor_url=account.url,
        )
        checkup = Checkup(deployment, time.monotonic)
        found = await checkup.run()
        await checkup.close()
    causes = {finding.check: finding.cause for finding in found}
    assert causes["twilio_account"] == causes["twilio_numbers"] == ""
    asked = " ".join(account.asked)
    assert OURS[1:] in asked
    assert SAID[1:] in asked
    assert THEIRS[1:] not in asked


async def test_without_credentials_and_without_redis_nothing_is_asked() -> None:
    async with (
        twilio_api.client() as client,
        inside(Deployment(account_sid=SID), client) as within,
    ):
        assert (within.redis, within.twilio, within.configured) == ((), (), None)
