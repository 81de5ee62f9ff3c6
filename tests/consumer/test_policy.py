"""`policy` of `stream:{STREAM}`: what workers may know of a business and its plan."""

import re
from dataclasses import replace

import msgspec
import pytest
from redis.asyncio import Redis

from app.events import StreamPolicy
from app.plans import Plan
from app.pubsub.base import record_fields
from app.pubsub.records import parse_record
from app.session.reception import Admitted
from app.session.record import policy_of
from tests.consumer.bridge import Bridge
from tests.consumer.reading import next_call, worker
from tests.markdown import read
from tests.samples import CALL, OPENED, a_record

POLICY = StreamPolicy("Müller & Söhne", "DE", False, True, 600, 5, 40, 7200)


def test_a_policy_is_read_as_it_was_written() -> None:
    record = replace(a_record(), policy=POLICY)
    parsed = parse_record("MZ1", record_fields(record))
    assert parsed is not None
    assert parsed.stream == record


def test_a_record_of_version_0_1_has_no_policy() -> None:
    fields = record_fields(a_record())
    assert "policy" not in fields
    parsed = parse_record("MZ1", fields)
    assert parsed is not None
    assert parsed.stream.policy is None


def test_ignores_names_in_a_policy_that_a_later_version_adds() -> None:
    fields = record_fields(a_record())
    fields["policy"] = '{"businessName": "A", "returnAudio": true, "languages": ["de"]}'
    parsed = parse_record("MZ1", fields)
    assert parsed is not None
    assert parsed.stream.policy == StreamPolicy(business_name="A", return_audio=True)


def test_takes_a_policy_from_the_business_and_its_plan() -> None:
    plan = Plan(
        "premium",
        max_concurrent_calls=5,
        max_call_seconds=600,
        frame_ms=40,
        retention_seconds=7200,
        return_audio=True,
    )
    admitted = Admitted(
        CALL, plan, "+15005550009", "", OPENED, business_name=POLICY.business_name, country="DE"
    )
    assert policy_of(admitted) == POLICY
    assert policy_of(replace(admitted, forwarded=True)).forwarded


def test_the_contract_lists_every_name_in_a_policy_and_no_other() -> None:
    _, _, after = read("docs/redis-contract.md").partition("| in `policy` | |\n")
    table, _, _ = after.partition("\n\n")
    assert set(re.findall(r"^\| `(\w+)` ", table, re.M)) == set(msgspec.to_builtins(POLICY))


@pytest.mark.parametrize("policy", [POLICY, None])
async def test_a_worker_sees_the_policy_of_its_call(
    bridge: Bridge, redis: Redis, redis_url: str, policy: StreamPolicy | None
) -> None:
    await bridge.begin("MZ1")
    if policy is not None:
        await redis.hset("stream:{MZ1}", "policy", msgspec.json.encode(policy).decode())
    async with worker(redis_url) as mine:
        call = await next_call(mine)
        assert call.policy == policy
