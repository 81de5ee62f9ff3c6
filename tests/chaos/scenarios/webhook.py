"""The webhook answers a caller whatever becomes of Redis."""

import asyncio
import os
import signal
from collections.abc import Sequence

from benchmarks.host import Cores, Service, private_service
from benchmarks.webhook import WebhookLoad, load_webhook
from tests.chaos.registry import Context, Row, scenario

RATE = 200
SECONDS = 10
WARM_UP_SECONDS = 2
HEALTHY_MS = 50.0
HUNG_MS = 500.0
# The rest of the machine is for Redis and the load.
UNPINNED = Cores(None, frozenset())


@scenario("webhook")
async def webhook(context: Context) -> Sequence[Row]:
    """Ring the voice webhook 200 times a second; then freeze Redis, and again."""
    running = private_service(UNPINNED)
    service = await asyncio.to_thread(running.__enter__)
    try:
        healthy = await _ring(service, WARM_UP_SECONDS)
        context.say(_measured(healthy))
        os.kill(service.redis_pid, signal.SIGSTOP)
        try:
            hung = await _ring(service, 0)
        finally:
            os.kill(service.redis_pid, signal.SIGCONT)
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)
    return [_row("healthy", HEALTHY_MS, healthy), _row("hung", HUNG_MS, hung)]


async def _ring(service: Service, warm_up: int) -> WebhookLoad:
    return await load_webhook(service, rate=RATE, seconds=SECONDS, warm_up=warm_up)


def _row(state: str, limit: float, load: WebhookLoad) -> Row:
    return Row(
        f"webhook p99 at {RATE}/s, Redis {state}",
        f"<= {limit:g} ms, 0 x 5xx, all with a stream",
        _measured(load),
        load.latencies.p99 <= limit and load.welcomed == load.requests,
    )


def _measured(load: WebhookLoad) -> str:
    failed = ", ".join(f"{count} x {status}" for status, count in sorted(load.failed.items()))
    return (
        f"p99 {load.latencies.p99:.1f} ms, {failed or '0 x 5xx'}, "
        f"{load.welcomed:,} of {load.requests:,} with a stream"
    )
