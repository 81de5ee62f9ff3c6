"""The deployment that checks look at, from the settings."""

import logging
from collections.abc import Mapping
from pathlib import Path

from app.diagnosis.deployment import Deployment
from app.diagnosis.settings_checks import platform_of, warnings_at_start
from app.main.parts import shared_digests
from app.settings import SECRET_NAMES, Settings, others_may_read, readable_by_others

log = logging.getLogger(__name__)


def exposed_files(environ: Mapping[str, str], env_file: Path | None = None) -> tuple[str, ...]:
    """Return the files of secrets, `env_file` among them, that every user may read."""
    found = readable_by_others(environ, SECRET_NAMES)
    if env_file is not None and others_may_read(env_file):
        found.append(str(env_file))
    return tuple(found)


def log_warnings(deployment: Deployment) -> None:
    """Log what the settings leave open, one line each; once a start, not in each worker."""
    if deployment.waives_signatures:
        log.warning(
            "[server] ⚠️ ALLOW_UNSIGNED: requests without a signature are served, and stream "
            "tickets are ignored"
        )
    for finding in warnings_at_start(deployment):
        log.warning("[server] ⚠️ %s %s", finding.found, finding.fix)


def deployment_of(
    settings: Settings, environ: Mapping[str, str], exposed_files: tuple[str, ...] = ()
) -> Deployment:
    """Return what checks look at; `environ` tells the platform.

    `exposed_files` hold secrets, and every user of the machine may read them.
    """
    tokens, pairs = settings.twilio_auth_token, settings.exotel_pairs
    proves_itself = bool(pairs or settings.exotel_allowed_ips)
    return Deployment(
        public_url=settings.public_url.http_base if settings.public_url else "",
        is_public=settings.public_url.is_public if settings.public_url else False,
        account_sid=settings.twilio_account_sid,
        auth_token=tokens[0].reveal() if tokens else "",
        waives_signatures=settings.waives_signatures,
        has_secret_key=bool(settings.secret_key),
        has_admin_token=bool(settings.admin_token),
        has_metrics_token=bool(settings.metrics_token),
        takes_jwts=settings.takes_jwts,
        has_jwt_audience=bool(settings.jwt_audience),
        weak_secrets=settings.weak_secrets,
        exposed_files=exposed_files,
        redis_url=settings.redis_url.reveal() if settings.redis_url else "",
        twilio_api_url=settings.twilio_api_url,
        twilio_monitor_url=settings.twilio_monitor_url,
        supports_exotel=settings.support_exotel,
        exotel_wanted=proves_itself or settings.support_exotel,
        exotel_proves_itself=proves_itself,
        has_exotel_addresses=bool(settings.exotel_allowed_ips),
        exotel_pair=pairs[0] if pairs else "",
        exotel_digests=shared_digests(settings),
        host=settings.host,
        drain_seconds=settings.drain_seconds,
        platform=platform_of(environ),
    )
