"""What the settings themselves show: no other program is asked."""

from collections.abc import Mapping, Sequence

from app.diagnosis.causes import CAUSES
from app.diagnosis.deployment import Deployment, Platform
from app.diagnosis.findings import Finding, skipped, well

# devcenter.heroku.com, "Dyno shutdown behavior"; render.com, "Zero-downtime deploys".
HEROKU_SECONDS = 30.0
RENDER_DEFAULT_SECONDS = 30.0
RENDER_MOST_SECONDS = 300.0
# After its calls a process still writes the last audio and receipts, and closes.
LAST_WRITES_SECONDS = 10.0
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
        _exotel(deployment),
        *_platform(deployment),
        *_redis(deployment),
    ]


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
    return CAUSES["secret_key_missing"].finding("SECRET_KEY is not set.")


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
