"""The operator's page of checks: who may have them made, and what it shows."""

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from app.diagnosis.checkup import Checkup
from app.diagnosis.deployment import Deployment
from app.errors import CheckupRunning
from tests.service import TOKEN as TWILIO_TOKEN
from tests.service import WAIT_SECONDS, Service
from tests.web.admins import TOKEN, Caller, administered

PAGE = "/admin/health"
CSRF = re.compile(r'name="csrf" value="([^"]+)"')


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with administered(tmp_path_factory.mktemp("bridge")) as running:
        yield running


@contextmanager
def signed_in(bridge: Service, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(verify=False, timeout=WAIT_SECONDS, base_url=bridge.url) as client:
        assert client.post("/admin/sign-in", data={"key": key}).status_code == 303
        yield client


def test_an_operator_has_the_checks_made_by_a_form(bridge: Service) -> None:
    with signed_in(bridge, TOKEN) as client:
        before = client.get(PAGE)
        assert "Look now" in before.text
        assert "redis" not in before.text  # nothing is looked at before it is asked for
        [csrf] = set(CSRF.findall(before.text))
        after = client.post(PAGE, data={"csrf": csrf})
    assert after.status_code == 200
    assert "takes writes" in after.text
    assert "Redis keeps nothing on disk." in after.text
    assert "appendonly yes" in after.text
    for secret in (TOKEN, f">{TWILIO_TOKEN}<", "s" * 32):
        assert secret not in after.text


def test_a_form_without_its_token_has_nothing_looked_at(bridge: Service) -> None:
    with signed_in(bridge, TOKEN) as client:
        answer = client.post(PAGE, data={"csrf": "0" * 64})
    assert answer.status_code == 403
    assert "takes writes" not in answer.text


def test_a_businesss_admin_sees_nothing_of_it(bridge: Service) -> None:
    key = Caller(bridge).new_key("business-1")["key"]
    with signed_in(bridge, key) as client:
        overview = client.get("/admin")
        [csrf] = set(CSRF.findall(overview.text))
        assert PAGE not in overview.text
        assert client.get(PAGE).status_code == 403
        assert client.post(PAGE, data={"csrf": csrf}).status_code == 403


async def test_only_one_looks_at_a_time_and_the_next_may_after_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        checkup = Checkup(Deployment(redis_url=url), time.monotonic)
        first = asyncio.create_task(checkup.run())
        await asyncio.sleep(0)
        with pytest.raises(CheckupRunning):
            await checkup.run()
        async with asyncio.timeout(WAIT_SECONDS):
            found = await first
    assert "redis_unreachable" in {finding.cause for finding in found}
    assert "redis_unreachable" in {finding.cause for finding in await checkup.run()}
    await checkup.close()
