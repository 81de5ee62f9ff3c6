"""The deployment that checks look at, from the settings."""

from collections.abc import Mapping

from app.diagnosis.deployment import Deployment
from app.diagnosis.settings_checks import platform_of
from app.settings import Settings


def deployment_of(settings: Settings, environ: Mapping[str, str]) -> Deployment:
    """Give what checks look at; `environ` tells the platform."""
    tokens, pairs = settings.twilio_auth_token, settings.exotel_pairs
    proves_itself = bool(pairs or settings.exotel_allowed_ips)
    return Deployment(
        public_url=settings.public_url.http_base if settings.public_url else "",
        is_public=settings.public_url.is_public if settings.public_url else False,
        account_sid=settings.twilio_account_sid,
        auth_token=tokens[0].reveal() if tokens else "",
        waives_signatures=settings.waives_signatures,
        has_secret_key=bool(settings.secret_key),
        redis_url=settings.redis_url.reveal() if settings.redis_url else "",
        twilio_api_url=settings.twilio_api_url,
        twilio_monitor_url=settings.twilio_monitor_url,
        supports_exotel=settings.support_exotel,
        exotel_wanted=proves_itself or settings.support_exotel,
        exotel_proves_itself=proves_itself,
        exotel_pair=pairs[0] if pairs else "",
        host=settings.host,
        drain_seconds=settings.drain_seconds,
        platform=platform_of(environ),
    )
