"""Whether Redis serves: reachable, writable, durable, and large enough for what the plans allow."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.admin.redis_users import service_probes
from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import Finding, skipped, well
from app.diagnosis.steps import Step
from app.errors import StoreUnavailable
from app.plans import Business, Plan
from app.store.configuration import Stored
from app.store.redis_examination import RedisFacts

# GETEX keeps sessions: "since Redis 6.2.0" (redis.io, GETEX).
OLDEST_VERSION = (6, 2)
# What an entry takes beside its audio at most, measured (README, "What a Redis carries").
ENTRY_BYTES = 57
MOST_SKEW_SECONDS = 2.0
# What Redis says of a command; of a key or a channel it says "to access".
NO_COMMAND = "no permissions to run"
# Advice, not a warning: many hosted servers have no other user.
DEFAULT_USER = (
    " The service signs in as Redis' default user, who may do everything; docs/operations.md, "
    '"Redis users", has users with fewer permissions.'
)


class Examination(Protocol):
    """A server that tells of itself; every method raises StoreUnavailable."""

    async def check(self) -> None:
        """Raise unless it takes a write."""

    async def facts(self) -> RedisFacts:
        """Give what it tells of itself."""

    async def durability_warnings(self) -> list[str]:
        """Say what a restart would lose."""

    async def user(self) -> str:
        """Return the ACL user of the connection; empty where that is not known."""

    async def refusals(self, commands: Sequence[Sequence[str]]) -> list[str]:
        """Return for each command the words by which it is not permitted, or nothing."""


class Configured(Protocol):
    """Where plans and businesses are kept; both methods raise StoreUnavailable."""

    async def stored_plans(self) -> list[Stored[Plan]]:
        """Give every plan."""

    async def stored_businesses(self) -> list[Stored[Business]]:
        """Give every business."""


@dataclass(frozen=True, slots=True)
class RedisChecks:
    """The checks of one Redis. `wall_clock` gives Unix seconds."""

    server: Examination
    configured: Configured
    wall_clock: Callable[[], float]

    def steps(self) -> list[Step]:
        """Give the checks in their order."""
        late = CAUSES["redis_unreachable"].finding("Redis does not answer in time.")
        on_redis = ("redis",)
        return [
            Step("redis", self._reached, late),
            Step("redis_durability", self._durability, late, on_redis),
            Step("redis_eviction", self._eviction, late, on_redis),
            Step("redis_memory", self._memory, late, on_redis),
            Step("redis_clock", self._clock, late, on_redis),
        ]

    async def _reached(self) -> Sequence[Finding]:
        try:
            user = await self.server.user()
            if missing := await self._missing_permissions():
                who = f"Redis user {user}" if user else "The user of REDIS_URL"
                return [CAUSES["redis_permissions"].finding(f"{who} lacks {missing}.")]
            facts = await self.server.facts()
        except StoreUnavailable as error:
            return [_unreached(error)]
        numbers = tuple(int(part) for part in re.findall(r"\d+", facts.version)[:2])
        if numbers < OLDEST_VERSION:
            return [CAUSES["redis_old"].finding(f"It is Redis {facts.version}.")]
        try:
            await self.server.check()
        except StoreUnavailable as error:
            return [CAUSES["redis_read_only"].finding(f"It answers, and takes no write: {error}.")]
        of = ", a node of a Cluster" if facts.is_of_cluster else ""
        said = f"Redis {facts.version}{of} answers, and takes writes."
        return [well("redis", said + (DEFAULT_USER if user == "default" else ""))]

    async def _missing_permissions(self) -> str:
        """Name the commands and keys that Redis does not permit; nothing where it permits all."""
        probes = service_probes()
        found = await self.server.refusals([probe.words for probe in probes])
        refused = [(probe, words) for probe, words in zip(probes, found, strict=True) if words]
        commands, patterns = dict[str, None](), dict[str, None]()
        for probe, words in refused:
            if NO_COMMAND in words:
                commands[probe.command] = None
            else:
                patterns[probe.pattern] = None
        named = [("the commands", commands), ("the keys", patterns)]
        return " and ".join(f"{kind} {', '.join(names)}" for kind, names in named if names)

    async def _durability(self) -> Sequence[Finding]:
        lost = await self.server.durability_warnings()
        if not lost:
            return [well("redis_durability", "Redis keeps its data, or does not say.")]
        return [CAUSES["redis_not_persistent"].finding("Redis keeps nothing on disk.")]

    async def _eviction(self) -> Sequence[Finding]:
        policy = (await self.server.facts()).policy
        if policy in ("", "noeviction"):
            return [well("redis_eviction", f"maxmemory-policy is {policy or 'not told'}.")]
        return [CAUSES["redis_evicts"].finding(f"maxmemory-policy is {policy}.")]

    async def _memory(self) -> Sequence[Finding]:
        facts = await self.server.facts()
        plans = {one.record.name: one.record for one in await self.configured.stored_plans()}
        businesses = [one.record for one in await self.configured.stored_businesses()]
        needed = audio_bytes(plans, businesses)
        if not needed or not facts.limit_bytes:
            return [skipped("redis_memory", "No business is stored, or Redis tells no limit.")]
        free = max(0, facts.limit_bytes - facts.used_bytes)
        said = f"The plans may fill {_size(needed)}; {_size(free)} of Redis' memory is free."
        if facts.is_of_cluster or needed <= free:
            return [well("redis_memory", said)]
        total = _size(facts.used_bytes + needed)
        return [CAUSES["redis_memory_short"].finding(said, needed=total)]

    async def _clock(self) -> Sequence[Finding]:
        skew = (await self.server.facts()).now - self.wall_clock()
        if abs(skew) <= MOST_SKEW_SECONDS:
            return [well("redis_clock", "Its clock and this machine's agree.")]
        said = (
            f"Its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's."
        )
        return [CAUSES["redis_clock_skewed"].finding(said)]


def audio_bytes(plans: Mapping[str, Plan], businesses: Sequence[Business]) -> int:
    """Reckon what Redis holds when every slot of every plan is taken, the retained audio full.

    slots × entries that are kept of a stream × (audio of an entry + 57 B), as measured.
    A call that has ended is kept as long again, while another has its slot: twice that.
    """
    return 2 * sum(
        plan.max_concurrent_calls * plan.max_entries * (_entry_audio(plan) + ENTRY_BYTES)
        for business in businesses
        if (plan := plans.get(business.plan)) is not None
    )


def _entry_audio(plan: Plan) -> int:
    return plan.published_format.bytes_per_second * plan.frame_ms // 1000


def _unreached(error: StoreUnavailable) -> Finding:
    kind = type(error.__cause__).__name__
    if kind in ("AuthenticationError", "NoPermissionError", "AuthorizationError"):
        return CAUSES["redis_password"].finding("Redis answers, and refuses user or password.")
    if kind == "ResponseError":
        return CAUSES["redis_password"].finding("Redis answers, and refuses a command.")
    return CAUSES["redis_unreachable"].finding(f"Redis cannot be reached: {error}.")


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
