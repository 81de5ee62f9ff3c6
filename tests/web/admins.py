"""An instance with an operator, and what they ask of its API."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.service import WAIT_SECONDS, Service, service_alone

TOKEN = "a-token-for-operators-with-enough-letters"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
API = "/api/v1"


@contextmanager
def administered(directory: Path, **variables: str) -> Iterator[Service]:
    """Run an instance that has an operator, and believes this machine's X-Forwarded-For."""
    with service_alone(
        directory, **{"ADMIN_TOKEN": TOKEN, "TRUSTED_PROXIES": "127.0.0.0/8", **variables}
    ) as service:
        yield service


def bearer(key: str) -> dict[str, str]:
    """Give the headers of whoever has this key."""
    return {"Authorization": f"Bearer {key}"}


class Caller:
    """Ask an instance's API, as whoever the headers say."""

    def __init__(self, service: Service, headers: Mapping[str, str] = OPERATOR) -> None:
        self._base = service.url + API
        self._headers = dict(headers)

    def __call__(
        self, method: str, path: str, body: Any = None, if_match: str | None = None, **more: Any
    ) -> httpx.Response:
        headers = {**self._headers, **more.pop("headers", {})}
        if if_match:
            headers["If-Match"] = if_match
        if body is not None:
            more["json"] = body
        # Without TLS, whose certificates take longer to read than an answer.
        more = {"verify": False, "timeout": WAIT_SECONDS, **more}
        return httpx.request(method, self._base + path, headers=headers, **more)

    def new_key(self, business_id: str, label: str = "a test's") -> dict[str, Any]:
        """Issue a key; give what is answered."""
        answer = self("POST", f"/businesses/{business_id}/keys", {"label": label})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found
