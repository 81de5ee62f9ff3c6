"""Rate limits of failed credentials, counted for each address on every way in.

An address is limited by its own failures alone, so nobody can lock out another
address, and requests that are refused before a comparison are not counted. Many clients
may share an address, so a right credential is never refused because of wrong ones: it is
compared first, and only the answer to a wrong one changes. The sign-in form is the exception.
"""

import hashlib
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from app.credentials.addresses import ClientSource
from app.errors import StoreUnavailable, TooManyAttempts
from app.metrics import Metrics
from app.store.access import Access

WINDOW_SECONDS = 300.0
# Addresses that one process remembers for each group of ways; the least recent go first.
MOST_ADDRESSES = 4096
# While an address keeps failing, the store hears of it once in this time.
STORE_SECONDS = 1.0


class WayIn(StrEnum):
    """Where credentials are presented; a label of `bridge_failed_credentials_total`.

    Twilio's signatures are counted and have no limit: all of Twilio's requests come from
    Twilio's addresses, and a right signature is accepted whatever else came from there.
    """

    ADMIN_BEARER = "admin_bearer"
    SIGN_IN = "sign_in"
    INGEST = "ingest"
    STREAM_URL = "exotel_stream_url"
    METRICS = "metrics"
    TWILIO_WEBHOOK = "twilio_webhook"
    TWILIO_HANDSHAKE = "twilio_handshake"


@dataclass(frozen=True, slots=True)
class AttemptLimit:
    """How many failures an address may have within WINDOW_SECONDS.

    Ways of the same `group` share their counts. With `counts_repeats` each failure counts;
    else a credential counts once however often it comes.
    """

    group: str
    failures: int
    counts_repeats: bool = False


# The group of administration is the key that version 0.1 uses in Redis.
ADMIN_LIMIT = AttemptLimit("", 10, counts_repeats=True)
# A business with a wrong pair repeats it at each call, from Exotel's addresses.
INGEST_LIMIT = AttemptLimit("ingest", 20)
METRICS_LIMIT = AttemptLimit("metrics", 10)
LIMITS = {
    WayIn.ADMIN_BEARER: ADMIN_LIMIT,
    WayIn.SIGN_IN: ADMIN_LIMIT,
    WayIn.INGEST: INGEST_LIMIT,
    WayIn.STREAM_URL: INGEST_LIMIT,
    WayIn.METRICS: METRICS_LIMIT,
}


@dataclass(slots=True)
class _Failure:
    """A wrong credential, until when it counts, and how often it came."""

    until: float
    credential: bytes
    times: int = 1


@dataclass(slots=True)
class _Failures:
    """The failures of one address, the oldest first."""

    recent: deque[_Failure] = field(default_factory=deque)
    # Until when other replicas' failures limit this address.
    limited_until: float = 0.0
    stored_at: float = float("-inf")

    def forget_before(self, now: float) -> None:
        while self.recent and self.recent[0].until <= now:
            self.recent.popleft()

    def seconds_left(self, now: float) -> float:
        """Return after how long a wrong credential is refused without mention of the limit."""
        oldest = self.recent[0].until if self.recent else now
        return max(oldest, self.limited_until) - now

    def of(self, credential: bytes) -> _Failure | None:
        return next((one for one in self.recent if one.credential == credential), None)


class AttemptLimiter:
    """Limit how many wrong credentials an address may try.

    Failures are counted in this process and, through `access`, over all replicas; while
    the store is away this process counts alone. `clock` returns monotonic seconds.
    """

    def __init__(self, access: Access, clock: Callable[[], float], metrics: Metrics) -> None:
        self._access = access
        self._clock = clock
        self._counted = metrics.failed_credentials
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    async def check(self, way: WayIn, source: ClientSource) -> None:
        """Raise TooManyAttempts when this address may try no credential now, not even a right one.

        A source that many clients share is never refused here.
        """
        limit = LIMITS[way]
        if not source.is_shared and await self._count(limit, source.address) >= limit.failures:
            self._refuse(way, WINDOW_SECONDS)

    async def note_failure(self, way: WayIn, source: ClientSource, credential: str = "") -> None:
        """Count a credential that was compared and is wrong.

        Raises:
            TooManyAttempts: this address has failed too often.
        """
        limit = LIMITS[way]
        now = self._clock()
        known = self._remembered(limit, source.address)
        known.forget_before(now)
        digest = _digest(credential)
        if not limit.counts_repeats and (same := known.of(digest)) is not None:
            same.times += 1
            if same.times > limit.failures or len(known.recent) >= limit.failures:
                self._refuse(way, known.seconds_left(now))
            self._counted.labels(way, "refused").inc()
            return
        was_full = len(known.recent) >= limit.failures
        if was_full:
            known.recent.popleft()
        known.recent.append(_Failure(now + WINDOW_SECONDS, digest))
        shared = 0
        if not was_full or now - known.stored_at >= STORE_SECONDS:
            known.stored_at = now
            shared = await self._note_in_store(limit, source.address)
        if shared > limit.failures:
            known.limited_until = now + WINDOW_SECONDS
        if was_full or now < known.limited_until:
            self._refuse(way, known.seconds_left(now))
        self._counted.labels(way, "refused").inc()

    async def _count(self, limit: AttemptLimit, address: str) -> int:
        known = self._failures.get((limit.group, address))
        here = 0
        if known is not None:
            known.forget_before(self._clock())
            here = len(known.recent)
        try:
            return max(here, await self._access.attempts_of(_stored_name(limit, address)))
        except StoreUnavailable:
            return here

    async def _note_in_store(self, limit: AttemptLimit, address: str) -> int:
        try:
            return await self._access.note_attempt(_stored_name(limit, address), WINDOW_SECONDS)
        except StoreUnavailable:
            return 0

    def _remembered(self, limit: AttemptLimit, address: str) -> _Failures:
        key = (limit.group, address)
        known = self._failures.setdefault(key, _Failures())
        self._failures.move_to_end(key)
        if len(self._failures) > MOST_ADDRESSES:
            self._failures.popitem(last=False)
        return known

    def _refuse(self, way: WayIn, seconds: float) -> None:
        self._counted.labels(way, "limited").inc()
        raise TooManyAttempts(
            "too many wrong credentials came from your address; "
            + (
                "wait five minutes, then try again"
                if LIMITS[way].counts_repeats
                else "this one is wrong too: correct it, and a right one is accepted at once"
            ),
            retry_seconds=max(1, math.ceil(seconds)),
        )


def _digest(credential: str) -> bytes:
    encoded = credential.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=16).digest()


def _stored_name(limit: AttemptLimit, address: str) -> str:
    return f"{limit.group} {address}" if limit.group else address
