"""The service that a command places calls on, and which secrets of ours are for it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx

from app.archive.redis import RedisArchive
from app.cli.arguments import tell
from app.settings.readers import split_operator
from app.tools.receipts import ApiReceipts, ArchiveReceipts, Receipts
from app.tools.service import Credentials

LOOPBACK = ("localhost", "127.0.0.1", "::1")

Environment = Mapping[str, str]


def url_of(asked: str | None, environment: Environment) -> str:
    """Give the URL that was asked for, else the service's own."""
    local = f"http://localhost:{environment.get('PORT', '8000')}"
    return asked or environment.get("PUBLIC_URL", "") or local


def shown_to(base: str, environment: Environment) -> Environment:
    """Give what of the environment the service at `base` may see: nothing, if it is not ours."""
    if is_own(base, environment.get("PUBLIC_URL", "")):
        return environment
    tell(f"{base} is not PUBLIC_URL: no secret of this environment is shown to it")
    return {}


def is_own(base: str, public_url: str) -> bool:
    """Tell whether secrets of our environment are for this service."""
    host = urlsplit(base).hostname
    return not public_url or host in (*LOOPBACK, urlsplit(public_url).hostname)


def credentials_of(environment: Environment) -> Credentials:
    """Give what proves a call; of several tokens the first."""
    key, token = _first(environment, "EXOTEL_API_KEY"), _first(environment, "EXOTEL_API_TOKEN")
    return Credentials(
        _first(environment, "TWILIO_AUTH_TOKEN"),
        f"{key}:{token}" if key and token else "",
        environment.get("INGEST_TOKEN", ""),
    )


def admin_token_of(environment: Environment) -> str:
    """Return an operator's token; empty where there is none, or its digest alone."""
    _, token = split_operator(_first(environment, "ADMIN_TOKEN"))
    return "" if token.startswith("sha256-") else token


@asynccontextmanager
async def receipts_of(
    base: str, environment: Environment, client: httpx.AsyncClient
) -> AsyncIterator[Receipts | None]:
    """Give who knows the receipts of calls: the API by ADMIN_TOKEN, else REDIS_URL, or nobody."""
    redis_url = environment.get("REDIS_URL", "")
    if admin_token := admin_token_of(environment):
        yield ApiReceipts(client, base, admin_token)
    elif redis_url:
        archive = RedisArchive(redis_url)
        try:
            yield ArchiveReceipts(archive)
        finally:
            await archive.close()
    else:
        yield None


def _first(environment: Environment, name: str) -> str:
    return environment.get(name, "").partition(",")[0].strip()
