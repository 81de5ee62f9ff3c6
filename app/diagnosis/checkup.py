"""The checks from inside, as the running service makes them for an operator."""

from collections.abc import Callable

from app import twilio_api
from app.diagnosis.deployment import Deployment
from app.diagnosis.findings import Finding
from app.diagnosis.inside import inside
from app.diagnosis.settings_checks import settings_findings
from app.diagnosis.steps import examine
from app.errors import CheckupRunning

# A person waits for the page.
CHECKUP_SECONDS = 15.0


class Checkup:
    """Look at the settings, at Redis and at Twilio's records: one at a time in a process.

    By connections of its own: no call waits for it. `clock` gives monotonic seconds.
    """

    def __init__(self, deployment: Deployment, clock: Callable[[], float]) -> None:
        self._deployment = deployment
        self._clock = clock
        # Made once: to read the authorities' certificates takes longer than a call may wait.
        self._client = twilio_api.client()
        self._is_running = False

    async def open(self) -> None:
        """Do nothing: connections are made when they are needed."""

    async def close(self) -> None:
        """Let go of its connections."""
        await self._client.aclose()

    async def run(self) -> list[Finding]:
        """Look at everything, for 15 s at most.

        Raises:
            CheckupRunning: it is being done.
        """
        if self._is_running:
            raise CheckupRunning("the checks are running already: wait a moment, and ask again")
        self._is_running = True
        try:
            async with inside(self._deployment, self._client) as within:
                found = await examine(
                    [*within.redis, *within.twilio],
                    lambda finding: None,
                    self._clock,
                    whole_seconds=CHECKUP_SECONDS,
                )
        finally:
            self._is_running = False
        return [*settings_findings(self._deployment), *found]
