"""How many requests of one business a process answers at once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
from fastapi import FastAPI, Request

from app.admin.principal import Principal
from app.admin.roles import Role
from app.businesses.shares import Shares
from app.errors import BridgeError, TooManyRequests
from app.web.api.route import Asking, api_router, use_visitors
from app.web.errors import install_error_handlers
from app.web.visitors import REQUESTS
from tests.waiting import until


@dataclass
class KnownVisitors:
    """Know everybody by the business that a header names; an operator names none."""

    requests: Shares = field(
        default_factory=lambda: Shares("requests at once", REQUESTS, TooManyRequests)
    )
    refusals: list[BridgeError] = field(default_factory=list)

    async def principal(self, request: Request) -> Principal:
        business = request.headers.get("x-business", "")
        role = Role.ADMIN if business else Role.OPERATOR
        return Principal("key:1", role, business)

    async def note_refusal(self, who: Principal, what: str, error: BridgeError) -> None:
        self.refusals.append(error)


@dataclass
class Slow:
    """An API whose only answer waits until it is released."""

    client: httpx.AsyncClient
    visitors: KnownVisitors
    release: asyncio.Event
    begun: int = 0

    async def ask(self, business: str = "") -> int:
        headers = {"x-business": business} if business else {}
        return (await self.client.get("/api/v1/slow", headers=headers)).status_code

    async def wait_for(self, count: int) -> None:
        await until(lambda: self.begun >= count)


@pytest.fixture
async def slow() -> AsyncIterator[Slow]:
    app = FastAPI()
    install_error_handlers(app)
    visitors = KnownVisitors()
    use_visitors(app, visitors)  # type: ignore[arg-type]
    router = api_router("slow")

    @router.get("/slow")
    async def answer(who: Asking) -> dict[str, str]:
        made.begun += 1
        await made.release.wait()
        return {}

    app.include_router(router)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        made = Slow(client, visitors, asyncio.Event())
        yield made


async def test_one_business_has_a_share_and_others_are_served(slow: Slow) -> None:
    share = REQUESTS.of_business
    first = [asyncio.create_task(slow.ask("shop")) for _ in range(share)]
    await slow.wait_for(share)
    refused = await slow.client.get("/api/v1/slow", headers={"x-business": "shop"})
    assert (refused.status_code, refused.json()["error"]) == (429, "too_many_requests")
    assert refused.headers["retry-after"] == "1"
    others = [asyncio.create_task(slow.ask(name)) for name in ("rival", "")]
    await slow.wait_for(share + 2)
    slow.release.set()
    assert {await task for task in (*first, *others)} == {200}
    # What was under way is over: there is room again.
    assert await slow.ask("shop") == 200
    # Nor does a flood of refusals fill the audit log.
    assert slow.visitors.refusals == []


async def test_operators_have_a_reserve(slow: Slow) -> None:
    count, share = REQUESTS.of_businesses, REQUESTS.of_business
    names = [f"business-{number // share}" for number in range(count)]
    tasks = [asyncio.create_task(slow.ask(name)) for name in names]
    await slow.wait_for(count)
    assert await slow.ask("one-more") == 429
    tasks.append(asyncio.create_task(slow.ask()))
    await slow.wait_for(count + 1)
    slow.release.set()
    assert {await task for task in tasks} == {200}
