"""A service behind a proxy with TLS, and the doctor sent to it."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.diagnosis.deployment import Deployment
from app.diagnosis.findings import Finding, Level
from app.diagnosis.steps import WHOLE_SECONDS
from app.tools.doctor.address import read_address
from app.tools.doctor.consult import Consultation, consult
from tests.certificates import Holder
from tests.proxy import Rules, proxied
from tests.redis_process import fixed_port
from tests.service import TOKEN, Service, service_alone

EXOTEL = {"EXOTEL_API_KEY": "key", "EXOTEL_API_TOKEN": "token", "SUPPORT_EXOTEL": "true"}


@dataclass(frozen=True)
class Deployed:
    """A service whose PUBLIC_URL is a port on which a proxy may stand."""

    service: Service
    port: int
    root: Holder
    directory: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def inner_port(self) -> int:
        return urlsplit(self.service.url).port or 0

    @property
    def deployment(self) -> Deployment:
        """Give the deployment as its own environment says it."""
        return Deployment(
            public_url=self.url,
            auth_token=TOKEN,
            has_secret_key=True,
            redis_url=self.service.redis_url,
            exotel_pair="key:token",
        )

    def trusting(self) -> ssl.SSLContext:
        """Give the context of whoever knows this authority alone."""
        return ssl.create_default_context(cadata=self.root.pem.decode())

    def context(self, holder: Holder | None = None) -> ssl.SSLContext:
        """Give a server's context: the good one, unless a holder is named."""
        shown = holder or self.root.server()
        return shown.serving(self.directory / str(shown.certificate.serial_number))

    async def examined(
        self,
        rules: Rules | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **asked: Any,
    ) -> list[Finding]:
        """Send the doctor through a proxy that stands there."""
        async with proxied(self.port, self.inner_port, context or self.context(), rules):
            return await self.examined_alone(**asked)

    async def examined_alone(
        self,
        *,
        deployment: Deployment | None = None,
        url: str = "",
        whole_seconds: float = WHOLE_SECONDS,
        **asked: Any,
    ) -> list[Finding]:
        """Send the doctor, with nobody at the port unless somebody else stands there."""
        address, seen = read_address(url or self.url, is_setting=True)
        consultation = Consultation(address, deployment or self.deployment, seen, self.trusting())
        consultation = replace(consultation, **asked)
        return await consult(consultation, lambda finding: None, whole_seconds)


@contextmanager
def deployed(directory: Path, **variables: str) -> Iterator[Deployed]:
    """Run a service whose PUBLIC_URL is https:// on a port that is free."""
    port = fixed_port()
    named = {"PUBLIC_URL": f"https://127.0.0.1:{port}", **EXOTEL, **variables}
    with service_alone(directory, **named) as service:
        yield Deployed(service, port, Holder.root(), directory)


def first_cause(findings: list[Finding], level: Level = Level.FAILED) -> str:
    """Name the cause of the first finding of a level; empty where there is none."""
    return next((finding.cause for finding in findings if finding.level is level), "")
