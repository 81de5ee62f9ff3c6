"""One consultation: from inside what the environment allows, from outside what Twilio sees."""

import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from app import twilio_api
from app.archive.redis import RedisArchive
from app.diagnosis.deployment import Deployment
from app.diagnosis.findings import Finding
from app.diagnosis.inside import Inside, inside
from app.diagnosis.steps import WHOLE_SECONDS, Step, examine
from app.tools.doctor import Visitor, outside_steps
from app.tools.doctor.address import Address
from app.tools.doctor.asking import Asker, client
from app.tools.doctor.witness import ApiWitness, NoWitness, RedisWitness, Witness


@dataclass(frozen=True, slots=True)
class Consultation:
    """What is to be looked at.

    `seen` was found already, by the URL's form and the settings. `admin_token` is an
    operator's, in plain, or empty; `business_id` may be empty.
    """

    address: Address | None
    deployment: Deployment
    seen: Sequence[Finding]
    context: ssl.SSLContext
    admin_token: str = field(default="", repr=False)
    business_id: str = ""
    places_call: bool = True
    exotel_wanted: bool = False


async def consult(
    asked: Consultation, tell: Callable[[Finding], None], whole_seconds: float = WHOLE_SECONDS
) -> list[Finding]:
    """Look at everything, causes before what follows from them; `tell` hears each at once."""
    for finding in asked.seen:
        tell(finding)
    async with (
        twilio_api.client() as twilio,
        inside(asked.deployment, twilio) as within,
        _outside(asked, within) as without,
    ):
        steps = [*within.redis, *without, *within.twilio]
        found = await examine(steps, tell, time.monotonic, whole_seconds=whole_seconds)
    return [*asked.seen, *found]


@asynccontextmanager
async def _outside(asked: Consultation, within: Inside) -> AsyncIterator[Sequence[Step]]:
    address, deployment = asked.address, asked.deployment
    if address is None:
        yield ()
        return
    async with client(asked.context) as web, _witness(asked, within, address) as witness:
        visitor = Visitor(
            Asker(web, address.origin, deployment.auth_token),
            asked.context,
            time.time,
            witness,
            deployment.exotel_pair,
            asked.exotel_wanted or deployment.exotel_wanted,
            asked.business_id,
        )
        steps = outside_steps(address, visitor)
        call = ("twiml", "test_call")
        yield [step for step in steps if asked.places_call or step.check not in call]


@asynccontextmanager
async def _witness(asked: Consultation, within: Inside, address: Address) -> AsyncIterator[Witness]:
    if within.configured is not None:
        archive = RedisArchive(asked.deployment.redis_url)
        try:
            yield RedisWitness(within.configured, archive.record)
        finally:
            await archive.close()
    elif asked.admin_token:
        async with client(asked.context) as web:
            yield ApiWitness(Asker(web, address.origin, ""), asked.admin_token)
    else:
        yield NoWitness()
