"""What the settings and the platform's variables show."""

from collections.abc import Mapping

import pytest

from app.diagnosis.deployment import Deployment, Platform
from app.diagnosis.findings import Level
from app.diagnosis.settings_checks import platform_of, settings_findings
from app.main.examined import deployment_of
from app.settings import Settings

GOOD = {
    "PUBLIC_URL": "https://bridge.example.com",
    "TWILIO_AUTH_TOKEN": "an-auth-token-of-twilio",
    "REDIS_URL": "redis://:a-password@redis:6379",
    "SECRET_KEY": "k" * 32,
}
EXOTEL = {"EXOTEL_API_KEY": "a-key", "EXOTEL_API_TOKEN": "a-token-of-exotel"}


def deployment(environ: Mapping[str, str]) -> Deployment:
    return deployment_of(Settings.load(environ), environ)


def causes(environ: Mapping[str, str]) -> list[str]:
    found = settings_findings(deployment(environ))
    return [one.cause for one in found if one.cause]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"SECRET_KEY": ""}, ["secret_key_missing"]),
        ({"ALLOW_UNSIGNED": "public"}, ["unsigned_allowed"]),
        ({"ALLOW_UNSIGNED": "true", "PUBLIC_URL": "http://localhost:8000"}, []),
        ({"PUBSUB_ADAPTER": "memory", "REDIS_URL": ""}, ["redis_missing"]),
        # The third guide: "supportExotel: false".
        (EXOTEL, ["exotel_off"]),
        ({"EXOTEL_ALLOWED_IPS": "192.0.2.0/24", "SUPPORT_EXOTEL": "false"}, ["exotel_off"]),
        ({"SUPPORT_EXOTEL": "true"}, ["exotel_without_credentials"]),
        ({"SUPPORT_EXOTEL": "true", **EXOTEL}, []),
        ({"SUPPORT_EXOTEL": "true", "EXOTEL_ALLOWED_IPS": "192.0.2.7"}, []),
        ({"RENDER": "true", "HOST": "127.0.0.1", "DRAIN_SECONDS": "10"}, ["host_loopback"]),
        ({"HOST": "127.0.0.1"}, []),
        # Railway waits 0 s unless it is told.
        ({"RAILWAY_PROJECT_ID": "p"}, ["drain_window_railway"]),
        ({"RAILWAY_PROJECT_ID": "p", "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "40"}, []),
        (
            {"RAILWAY_PROJECT_ID": "p", "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "39"},
            ["drain_window_railway"],
        ),
        (
            {"RAILWAY_PROJECT_ID": "p", "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "long"},
            ["drain_window_railway"],
        ),
        ({"RENDER": "true"}, ["drain_window_render"]),
        ({"RENDER": "true", "DRAIN_SECONDS": "20"}, []),
        ({"DYNO": "web.1"}, ["drain_window_heroku"]),
        ({"DYNO": "web.1", "DRAIN_SECONDS": "20"}, []),
    ],
)
def test_what_is_set_wrong_is_named(changes: Mapping[str, str], found: list[str]) -> None:
    assert causes(GOOD | changes) == found


def test_a_fix_names_the_seconds_to_set() -> None:
    railway = GOOD | {"RAILWAY_PROJECT_ID": "p", "DRAIN_SECONDS": "300"}
    [found] = [one for one in settings_findings(deployment(railway)) if one.cause]
    assert "RAILWAY_DEPLOYMENT_DRAINING_SECONDS=310" in found.fix
    assert found.level is Level.WARNING


@pytest.mark.parametrize(
    ("environ", "platform"),
    [
        ({}, Platform()),
        ({"RENDER": "true"}, Platform("render")),
        ({"DYNO": "web.1"}, Platform("heroku", 30.0)),
        ({"RAILWAY_SERVICE_NAME": "x"}, Platform("railway", 0.0)),
    ],
)
def test_a_platform_is_known_by_its_variables(
    environ: Mapping[str, str], platform: Platform
) -> None:
    assert platform_of(environ) == platform


def test_no_secret_is_shown() -> None:
    known = deployment(GOOD | EXOTEL | {"SUPPORT_EXOTEL": "true"})
    shown = f"{known} {settings_findings(known)}"
    for secret in ("an-auth-token-of-twilio", "a-password", "a-token-of-exotel", "k" * 32):
        assert secret not in shown
