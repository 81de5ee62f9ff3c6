"""What platforms and Prometheus ask."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.admin.attempts import AttemptLimiter, WayIn
from app.auth import constant_time_equal
from app.credentials.addresses import ClientSource
from app.errors import BridgeError, BrokerError, TooManyAttempts
from app.metrics import Metrics
from app.web.documented import METRICS, Health, Readiness, Refusal, refusals

CHECK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing readiness depends on: `check` raises a BridgeError when it does not hold."""

    name: str
    check: Callable[[], Awaitable[None]]


def health_router(
    conditions: Sequence[Condition],
    metrics: Metrics,
    *,
    metrics_tokens: tuple[str, ...],
    attempts: AttemptLimiter,
    source_of: Callable[[Request], ClientSource],
    version: str,
    live_streams: Callable[[], int],
    warnings: Callable[[], Awaitable[list[str]]],
) -> APIRouter:
    """Make the health routes and `/metrics`; without `metrics_tokens` it is open.

    What is counted is of the whole service; readiness is of the process asked.
    """
    router = APIRouter(tags=["health"])
    looking: asyncio.Task[tuple[dict[str, str], list[str]]] | None = None

    async def look() -> tuple[dict[str, str], list[str]]:
        return await results_of(conditions), await _warned(warnings)

    @router.get("/health", operation_id="health", response_description="It does.")
    async def health() -> Health:
        """Tell that the process serves; asks nobody, so that it costs nothing."""
        return Health(status="healthy", version=version, liveStreams=live_streams())

    @router.get(
        "/health/ready",
        operation_id="ready",
        responses={
            200: {"model": Readiness, "description": "It would."},
            503: {"model": Readiness, "description": "It would not."},
        },
    )
    async def ready() -> Response:
        """Tell whether a new call would be served: 503 with the reasons when not.

        Warnings say what an operator should mend, though calls are served.
        """
        # Anybody may ask. Those who ask at the same time share one answer, so that a flood
        # of them is no flood of commands to Redis.
        nonlocal looking
        if looking is None or looking.done():
            looking = asyncio.create_task(look())
        results, warned = await asyncio.shield(looking)
        is_ready = all(result == "ok" for result in results.values())
        body = {
            "status": "ready" if is_ready else "unready",
            "checks": results,
            "warnings": warned,
        }
        return JSONResponse(body, 200 if is_ready else 503)

    @router.get(
        "/metrics",
        name="metrics",
        operation_id="metrics",
        response_class=Response,
        responses={
            200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}},
            401: {"model": Refusal, "description": "METRICS_TOKEN is set, and was not shown."},
            **refusals(TooManyAttempts),
        },
        openapi_extra={"security": METRICS},
    )
    async def exposition(request: Request) -> Response:
        """Give every series of this process."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not await _is_admitted(request, given):
            headers = {"WWW-Authenticate": "Bearer"}
            detail = "send Authorization: Bearer METRICS_TOKEN"
            return JSONResponse({"error": "unauthorized", "detail": detail}, 401, headers)
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    async def _is_admitted(request: Request, given: str) -> bool:
        if not metrics_tokens:
            return True
        if not given:
            return False
        source = source_of(request)
        # Every token is compared, so that the time taken does not tell which one fits.
        if sum(constant_time_equal(given, one) for one in metrics_tokens):
            return True
        await attempts.note_failure(WayIn.METRICS, source, given)
        return False

    return router


async def results_of(conditions: Sequence[Condition]) -> dict[str, str]:
    """Ask every condition at once; give for each `ok`, or why it does not hold."""
    results = await asyncio.gather(*(_result(condition) for condition in conditions))
    return dict(zip((one.name for one in conditions), results, strict=True))


async def _warned(warnings: Callable[[], Awaitable[list[str]]]) -> list[str]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await warnings()
    except TimeoutError:
        return []


async def _result(condition: Condition) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await condition.check()
    except BrokerError as error:
        # Its words may name hosts, which are nobody's business.
        return f"{error.reason}: {error.kind}"
    except BridgeError as error:
        return f"{error.reason}: {error}"
    except TimeoutError:
        return "timeout"
    return "ok"
