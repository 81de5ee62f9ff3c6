"""All that is looked at from inside, by connections of its own."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from app import twilio_api
from app.diagnosis.deployment import Deployment
from app.diagnosis.redis_checks import Configured, RedisChecks
from app.diagnosis.steps import Step
from app.diagnosis.twilio_checks import TwilioChecks
from app.store.redis import RedisStore
from app.store.redis_examination import RedisExamination
from app.twilio_api.account import TwilioAccount

REDIS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Inside:
    """The checks of Redis and of Twilio; `configured` is None without a Redis."""

    redis: Sequence[Step]
    twilio: Sequence[Step]
    configured: Configured | None


@asynccontextmanager
async def inside(deployment: Deployment, mask: Callable[[str], str]) -> AsyncIterator[Inside]:
    """Make the checks that the deployment allows; `mask` hides numbers where they are not shown.

    Connections are closed when the block ends.
    """
    async with AsyncExitStack() as stack:
        configured: Configured | None = None
        redis: Sequence[Step] = ()
        if deployment.redis_url:
            examination = RedisExamination.from_url(deployment.redis_url, REDIS_SECONDS)
            stack.push_async_callback(examination.close)
            store = RedisStore.from_url(deployment.redis_url, REDIS_SECONDS)
            stack.push_async_callback(store.close)
            configured = store
            redis = RedisChecks(examination, store, time.time).steps()
        twilio: Sequence[Step] = ()
        if deployment.account_sid and deployment.auth_token:
            client = await stack.enter_async_context(twilio_api.client())
            twilio = _twilio(deployment, TwilioAccount(
                client,
                deployment.twilio_api_url,
                deployment.twilio_monitor_url,
                twilio_api.Credentials(deployment.account_sid, deployment.auth_token),
            ), configured, mask)  # fmt: skip
        yield Inside(redis, twilio, configured)


def _twilio(
    deployment: Deployment,
    account: TwilioAccount,
    configured: Configured | None,
    mask: Callable[[str], str],
) -> Sequence[Step]:
    async def numbers() -> list[str]:
        """Name the numbers of this account: another account's are not to be seen here."""
        stored = await configured.stored_businesses() if configured else []
        own = ("", deployment.account_sid)
        return [
            number
            for one in stored
            if one.record.twilio_account_sid in own
            for number in one.record.numbers
        ]

    checks = TwilioChecks(
        account, deployment.twilio_api_url, deployment.public_url, numbers, mask, time.time
    )
    return checks.steps()
