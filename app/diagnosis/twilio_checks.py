"""What Twilio itself knows: the account, its numbers, and what went wrong lately."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from app.diagnosis.alerts import alert_findings
from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import Finding, skipped, well
from app.diagnosis.steps import Step
from app.errors import StoreUnavailable, TwilioApiError
from app.twilio_api.account import PhoneNumber, TwilioAccount

# Each is a request of its own.
MOST_NUMBERS = 20
SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class TwilioChecks:
    """The checks of one account.

    `numbers` gives the businesses' numbers (E.164); `public_url` is where they are to
    call; `wall_clock` gives Unix seconds.
    """

    account: TwilioAccount
    api_url: str
    public_url: str
    numbers: Callable[[], Awaitable[Sequence[str]]]
    wall_clock: Callable[[], float]

    def steps(self) -> list[Step]:
        """Give the checks: one step, since none makes sense without the account."""
        late = CAUSES["twilio_unreachable"].finding(
            "Twilio's REST API does not answer in time.", url=self.api_url
        )
        return [Step("twilio_account", self._account, late, (), SECONDS)]

    async def _account(self) -> Sequence[Finding]:
        """Ask for alerts and then for numbers, and for nothing more where Twilio is away."""
        try:
            alerts = await self._alerts()
        except TwilioApiError as error:
            return [self._refused(error)]
        taken = well("twilio_account", "Twilio takes the account's credentials.")
        return [taken, *await self._numbers(), *alerts]

    async def _alerts(self) -> Sequence[Finding]:
        since = datetime.fromtimestamp(self.wall_clock(), UTC) - timedelta(days=1)
        alerts = await self.account.alerts(f"{since:%Y-%m-%d}")
        # StartDate is a day; what lies before the hour is not of the last 24.
        recent = [one for one in alerts if one.date_created >= f"{since:%Y-%m-%dT%H:%M:%SZ}"]
        findings = alert_findings(one.error_code for one in recent)
        return findings or [well("twilio_alerts", "Twilio noted no error in the last 24 hours.")]

    async def _numbers(self) -> Sequence[Finding]:
        try:
            known = list(await self.numbers())
        except StoreUnavailable:
            return [skipped("twilio_numbers", "The businesses' numbers cannot be read.")]
        findings: list[Finding] = []
        try:
            for number in known[:MOST_NUMBERS]:
                set_there = await self.account.number(number)
                findings += number_findings(set_there, number, self.public_url)
        except TwilioApiError as error:
            findings.append(self._refused(error))
        if len(known) > MOST_NUMBERS:
            said = f"{len(known) - MOST_NUMBERS} more numbers are not looked at."
            findings.append(skipped("twilio_numbers", said))
        return findings or [skipped("twilio_numbers", "No business has a number.")]

    def _refused(self, error: TwilioApiError) -> Finding:
        if error.status in (401, 403):
            return CAUSES["twilio_credentials"].finding(f"{error}.")
        return CAUSES["twilio_unreachable"].finding(f"{error}.", url=self.api_url)


def number_findings(found: PhoneNumber | None, shown: str, public_url: str) -> list[Finding]:
    """Judge what Twilio has set for a number, which is shown so."""
    if found is None:
        return [CAUSES["number_unknown"].finding(f"The account has no number {shown}.")]
    if found.voice_application_sid or found.trunk_sid:
        said = f"{shown} is tied to a TwiML app or a trunk."
        return [CAUSES["number_uses_application"].finding(said, number=shown)]
    good = f"{public_url}/twilio-voice"
    # Its query may name the business, and a fragment how Twilio connects.
    called = _called(found.voice_url or "")
    if called != good:
        said = f"{shown} calls {called or 'nothing'}."
        return [CAUSES["number_calls_elsewhere"].finding(said, number=shown, good=good)]
    findings = []
    good = f"{public_url}/twilio-status"
    if (found.status_callback or "").partition("?")[0] != good:
        said = f"{shown} tells no status to this service."
        finding = CAUSES["number_without_status_callback"].finding(said, number=shown, good=good)
        findings.append(finding)
    if not found.voice_fallback_url:
        said = f"{shown} has no voice fallback URL."
        findings.append(CAUSES["number_without_fallback"].finding(said))
    return findings or [well("twilio_numbers", f"{shown} calls this service.")]


def _called(url: str) -> str:
    """Give a webhook's URL without what is not looked at, or may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if url else ""
