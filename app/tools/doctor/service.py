"""Whether it is this service that answers, and whether it would take a call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import httpx

from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import Finding, skipped, well
from app.tools.doctor.address import Address, origin_of
from app.tools.doctor.asking import Answer, Asker, words_of

# Of a Date header, which has whole seconds, and came some time ago.
MOST_SKEW_SECONDS = 5.0
_GATEWAY = {502, 503, 504, 520, 521, 522, 523, 525}


@dataclass(slots=True)
class ServiceChecks:
    """The checks of `/health` and what it tells; `wall_clock` gives Unix seconds."""

    address: Address
    asker: Asker
    wall_clock: Callable[[], float]
    _health: Answer | None = field(default=None, init=False)
    _why: str = field(default="", init=False)

    async def redirect(self) -> Sequence[Finding]:
        """Ask for `/health`, and see whether it is there or elsewhere."""
        try:
            self._health = await self.asker.get("/health")
        except httpx.HTTPError as error:
            self._why = words_of(error)
            return [skipped("redirect", "There is no answer that could lead elsewhere.")]
        if not 300 <= self._health.status < 400:
            return [well("redirect", "Requests are answered where they are sent.")]
        return [_redirected(self.address, self._health)]

    async def health(self) -> Sequence[Finding]:
        """See whether it is this service."""
        answer = self._health
        if answer is None:
            said = f"A connection is taken, and GET /health has no good answer: {self._why}."
            return [CAUSES["no_http_answer"].finding(said)]
        if answer.status == 200 and answer.body().get("status") == "healthy":
            version = str(answer.body().get("version", ""))[:20]
            return [well("health", f"media-bridge {version} answers.")]
        said = f"GET /health is answered {answer.status} ({answer.content_type or 'no type'})."
        cause = "service_down" if answer.status in _GATEWAY else "other_site"
        return [CAUSES[cause].finding(said, url=self.address.origin)]

    async def clock(self) -> Sequence[Finding]:
        """Compare the answer's Date with our clock (RFC 9110, 6.6.1)."""
        told = self._health.headers.get("date", "") if self._health else ""
        try:
            moment = parsedate_to_datetime(told)
        except ValueError:
            return [skipped("clock", "The answer has no Date.")]
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        skew = aware.timestamp() - self.wall_clock()
        if abs(skew) <= MOST_SKEW_SECONDS:
            return [well("clock", "Its clock and this machine's agree.")]
        said = (
            f"Its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's."
        )
        return [CAUSES["clock_skewed"].finding(said)]

    async def ready(self) -> Sequence[Finding]:
        """Ask whether a new call would be served."""
        try:
            answer = await self.asker.get("/health/ready")
        except httpx.HTTPError as error:
            return [CAUSES["no_http_answer"].finding(f"GET /health/ready: {words_of(error)}.")]
        body = answer.body()
        checks = body.get("checks")
        if not isinstance(checks, dict):
            return [skipped("ready", f"GET /health/ready is answered {answer.status}.")]
        bad = {str(name): str(said)[:120] for name, said in checks.items() if said != "ok"}
        if not bad:
            return [well("ready", "It would take a new call.")]
        said = "It would not take a new call: " + "; ".join(f"{k}: {v}" for k, v in bad.items())
        if "broker" in bad or "store" in bad:
            return [CAUSES["broker_away"].finding(f"{said}.")]
        cause = "businesses_not_loaded" if "businesses" in bad else "draining"
        return [CAUSES[cause].finding(f"{said}.")]


def _redirected(address: Address, answer: Answer) -> Finding:
    where = urljoin(f"{address.origin}/health", answer.headers.get("location", ""))
    said = f"GET /health is answered {answer.status}, to {where[:200]}."
    try:
        parts = urlsplit(where)
        origin = origin_of(parts.scheme, parts.hostname or "", parts.port)
    except (ValueError, KeyError):
        return CAUSES["redirects_path"].finding(said)
    # To the same path elsewhere: that is where the service is called by its right name.
    if origin == address.origin or parts.path.rstrip("/") != "/health":
        return CAUSES["redirects_path"].finding(said)
    return CAUSES["redirects"].finding(said, good=origin)
