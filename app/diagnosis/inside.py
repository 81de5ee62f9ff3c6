"""All that is looked at from inside, by connections of its own."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from app.diagnosis.business_checks import BusinessChecks
from app.diagnosis.deployment import Deployment
from app.diagnosis.redis_checks import Configured, RedisChecks
from app.diagnosis.steps import Step
from app.diagnosis.twilio_checks import TwilioChecks
from app.store.redis import RedisStore
from app.store.redis_examination import RedisExamination
from app.twilio_api import Credentials
from app.twilio_api.account import TwilioAccount

REDIS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Inside:
    """The checks of Redis and of Twilio; `configured` is None without a Redis."""

    redis: Sequence[Step]
    twilio: Sequence[Step]
    configured: Configured | None


@asynccontextmanager
async def inside(deployment: Deployment, client: httpx.AsyncClient) -> AsyncIterator[Inside]:
    """Make the checks that the deployment allows; `client` is for Twilio's REST API.

    Connections to Redis are closed when the block ends; the client is not.
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
            redis = [
                *RedisChecks(examination, store, time.time).steps(),
                *BusinessChecks(store, deployment.exotel_digests).steps(),
            ]
        twilio: Sequence[Step] = ()
        if deployment.account_sid and deployment.auth_token:
            twilio = _twilio(deployment, client, configured)
        yield Inside(redis, twilio, configured)


def _twilio(
    deployment: Deployment, client: httpx.AsyncClient, configured: Configured | None
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

    account = TwilioAccount(
        client,
        deployment.twilio_api_url,
        deployment.twilio_monitor_url,
        Credentials(deployment.account_sid, deployment.auth_token),
    )
    checks = TwilioChecks(
        account, deployment.twilio_api_url, deployment.public_url, numbers, time.time
    )
    return checks.steps()
