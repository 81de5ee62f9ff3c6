"""What the settings themselves show: no other program is asked."""

import shlex
from collections.abc import Mapping, Sequence

from app.diagnosis.causes import CAUSES
from app.diagnosis.deployment import Deployment, Platform
from app.diagnosis.findings import Finding, Level, skipped, well
from app.secret_strength import ENFORCED_FROM

# devcenter.heroku.com, "Dyno shutdown behavior"; render.com, "Zero-downtime deploys".
HEROKU_SECONDS = 30.0
RENDER_DEFAULT_SECONDS = 30.0
RENDER_MOST_SECONDS = 300.0
# After its calls a process still writes the last audio and receipts, and closes.
LAST_WRITES_SECONDS = 10.0
# The checks whose warnings belong in the log of a start.
OPENINGS = frozenset(
    {
        "signatures",
        "secret_key",
        "admin_token",
        "metrics_token",
        "jwt_audience",
        "secrets",
        "secret_files",
        "exotel_addresses",
    }
)
_LOOPBACK = ("127.", "::1", "localhost")


def platform_of(environ: Mapping[str, str]) -> Platform:
    """Tell a platform by the variables that it sets."""
    if any(name.startswith("RAILWAY_") for name in environ):
        # docs.railway.com, "Deployment teardown": 0 s unless set.
        window = environ.get("RAILWAY_DEPLOYMENT_DRAINING_SECONDS", "0")
        return Platform("railway", float(window) if window.isdecimal() else 0.0)
    if environ.get("RENDER"):
        return Platform("render")
    if environ.get("DYNO"):
        return Platform("heroku", HEROKU_SECONDS)
    return Platform()


def settings_findings(deployment: Deployment) -> list[Finding]:
    """Look at everything that the settings show, in the order of CHECKS."""
    return [
        well("settings", "Every variable can be read."),
        _signatures(deployment),
        _secret_key(deployment),
        _admin_token(deployment),
        _metrics_token(deployment),
        _jwt_audience(deployment),
        *_secrets(deployment),
        *_secret_files(deployment),
        _exotel(deployment),
        *_exotel_addresses(deployment),
        *_platform(deployment),
        *_redis(deployment),
    ]


def warnings_at_start(deployment: Deployment) -> list[Finding]:
    """Return what the settings leave open to others, for the log of a start."""
    found = settings_findings(deployment)
    return [one for one in found if one.check in OPENINGS and one.level is Level.WARNING]


def _signatures(deployment: Deployment) -> Finding:
    if not deployment.waives_signatures:
        return well("signatures", "Requests without a signature are refused.")
    if deployment.is_public:
        return CAUSES["unsigned_allowed"].finding(
            "ALLOW_UNSIGNED lets requests without a signature in, on a public host."
        )
    return well(
        "signatures", "ALLOW_UNSIGNED lets requests without a signature in, on this machine."
    )


def _secret_key(deployment: Deployment) -> Finding:
    if deployment.has_secret_key:
        return well("secret_key", "SECRET_KEY is set.")
    return CAUSES["secret_key_missing"].finding(
        "SECRET_KEY is not set, so the audit log has no chain."
    )


def _admin_token(deployment: Deployment) -> Finding:
    if deployment.has_admin_token:
        return well("admin_token", "ADMIN_TOKEN is set: operators can sign in.")
    return CAUSES["admin_token_missing"].finding("ADMIN_TOKEN is not set.")


def _metrics_token(deployment: Deployment) -> Finding:
    if deployment.has_metrics_token:
        return well("metrics_token", "METRICS_TOKEN is set.")
    if not deployment.is_public:
        return well("metrics_token", "/metrics is open, on this machine or network alone.")
    return CAUSES["metrics_open"].finding("METRICS_TOKEN is not set, and PUBLIC_URL is public.")


def _jwt_audience(deployment: Deployment) -> Finding:
    if not deployment.takes_jwts:
        return skipped("jwt_audience", "No JWT key is set: /v1/ingest takes no tokens.")
    if deployment.has_jwt_audience:
        return well("jwt_audience", "JWT_AUDIENCE is set.")
    return CAUSES["jwt_audience_missing"].finding("A JWT key is set, and JWT_AUDIENCE is not.")


def _secrets(deployment: Deployment) -> Sequence[Finding]:
    if not deployment.weak_secrets:
        return [well("secrets", "No secret is too short or a placeholder.")]
    cause = CAUSES["secret_weak"]
    weak = deployment.weak_secrets.items()
    return [
        cause.finding(f"{name} {problem}.", variable=name, release=ENFORCED_FROM)
        for name, problem in weak
    ]


def _secret_files(deployment: Deployment) -> Sequence[Finding]:
    if not deployment.exposed_files:
        return [well("secret_files", "No file of secrets is readable by every user.")]
    cause = CAUSES["secret_file_exposed"]
    return [
        cause.finding(f"{path} holds secrets, and every user may read it.", path=shlex.quote(path))
        for path in deployment.exposed_files
    ]


def _exotel(deployment: Deployment) -> Finding:
    if deployment.exotel_wanted and not deployment.supports_exotel:
        return CAUSES["exotel_off"].finding(
            "Exotel's calls are to come here, and SUPPORT_EXOTEL is not true."
        )
    if not deployment.supports_exotel:
        return skipped("exotel_settings", "SUPPORT_EXOTEL is not set: Exotel is not served.")
    if deployment.exotel_proves_itself or deployment.waives_signatures:
        return well("exotel_settings", "SUPPORT_EXOTEL is true, and Exotel can prove who it is.")
    return CAUSES["exotel_without_credentials"].finding(
        "SUPPORT_EXOTEL is true, and neither EXOTEL_API_KEY nor EXOTEL_ALLOWED_IPS is set."
    )


def _exotel_addresses(deployment: Deployment) -> Sequence[Finding]:
    if not (deployment.supports_exotel and deployment.has_exotel_addresses):
        return []
    return [CAUSES["exotel_by_address"].finding("EXOTEL_ALLOWED_IPS admits by the address alone.")]


def _redis(deployment: Deployment) -> Sequence[Finding]:
    if deployment.redis_url:
        return []  # others look at it
    return [CAUSES["redis_missing"].finding("REDIS_URL is not set: PUBSUB_ADAPTER is memory.")]


def _platform(deployment: Deployment) -> Sequence[Finding]:
    platform = deployment.platform
    if not platform.name:
        return [skipped("drain_window", "No platform that is known runs this process.")]
    listens = well("listening", f"The process listens on {deployment.host}.")
    if deployment.host.startswith(_LOOPBACK):
        listens = CAUSES["host_loopback"].finding(
            f"HOST={deployment.host} is loopback, and {platform.name.title()} routes to it."
        )
    return [listens, _drain_window(deployment, platform)]


def _drain_window(deployment: Deployment, platform: Platform) -> Finding:
    drain = deployment.drain_seconds
    needed = drain + LAST_WRITES_SECONDS
    is_told = platform.drain_seconds is not None
    window = (
        platform.drain_seconds if platform.drain_seconds is not None else RENDER_DEFAULT_SECONDS
    )
    if window >= needed:
        return well(
            "drain_window", f"The platform waits {window:g} s, longer than calls may go on."
        )
    said = f"The platform waits {window:g} s after SIGTERM, and DRAIN_SECONDS is {drain:g}."
    return CAUSES[f"drain_window_{platform.name}"].finding(
        said if is_told else f"DRAIN_SECONDS={drain:g} is longer than Render waits by itself.",
        drain=drain,
        window=window,
        needed=needed if is_told else min(needed, RENDER_MOST_SECONDS),
        most=max(0.0, HEROKU_SECONDS - LAST_WRITES_SECONDS),
    )
