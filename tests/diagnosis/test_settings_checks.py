"""What the settings and the platform's variables show."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from app.diagnosis.deployment import Deployment, Platform
from app.diagnosis.findings import Level
from app.diagnosis.settings_checks import platform_of, settings_findings
from app.main.examined import deployment_of, exposed_files, log_warnings
from app.settings import Settings

GOOD = {
    "PUBLIC_URL": "https://bridge.example.com",
    "TWILIO_AUTH_TOKEN": "an-auth-token-of-32-or-more-characters",
    "REDIS_URL": "redis://:a-password@redis:6379",
    "SECRET_KEY": "k" * 32,
    "ADMIN_TOKEN": "o" * 32,
    "METRICS_TOKEN": "m" * 16,
}
EXOTEL = {"EXOTEL_API_KEY": "a-key-of-16-or-more", "EXOTEL_API_TOKEN": "a-token-of-exotel"}


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
        ({"ADMIN_TOKEN": ""}, ["admin_token_missing"]),
        ({"METRICS_TOKEN": ""}, ["metrics_open"]),
        ({"METRICS_TOKEN": "", "PUBLIC_URL": "http://localhost:8000"}, []),
        ({"JWT_SECRET": "j" * 32}, ["jwt_audience_missing"]),
        ({"JWT_JWKS_URL": "https://id.example.com/jwks"}, ["jwt_audience_missing"]),
        ({"JWT_SECRET": "j" * 32, "JWT_AUDIENCE": "media-bridge"}, []),
        ({"METRICS_TOKEN": "m" * 15}, ["secret_weak"]),
        ({**EXOTEL, "SUPPORT_EXOTEL": "true", "EXOTEL_API_KEY": "key"}, ["secret_weak"]),
        ({"ALLOW_UNSIGNED": "true", "PUBLIC_URL": "http://localhost:8000"}, []),
        ({"PUBSUB_ADAPTER": "memory", "REDIS_URL": ""}, ["redis_missing"]),
        # The third guide: "supportExotel: false".
        (EXOTEL, ["exotel_off"]),
        ({"EXOTEL_ALLOWED_IPS": "192.0.2.0/24", "SUPPORT_EXOTEL": "false"}, ["exotel_off"]),
        ({"SUPPORT_EXOTEL": "true"}, ["exotel_without_credentials"]),
        ({"SUPPORT_EXOTEL": "true", **EXOTEL}, []),
        # Any customer of Exotel calls from there.
        ({"SUPPORT_EXOTEL": "true", "EXOTEL_ALLOWED_IPS": "192.0.2.7"}, ["exotel_by_address"]),
        (
            {"SUPPORT_EXOTEL": "true", "EXOTEL_ALLOWED_IPS": "192.0.2.7", **EXOTEL},
            ["exotel_by_address"],
        ),
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


def test_a_weak_secret_is_named_with_the_release_that_refuses_it() -> None:
    weak = GOOD | {"TWILIO_AUTH_TOKEN": "12345", "METRICS_TOKEN": "m" * 15}
    found = [one for one in settings_findings(deployment(weak)) if one.check == "secrets"]
    assert [one.found.split()[0] for one in found] == ["TWILIO_AUTH_TOKEN", "METRICS_TOKEN"]
    assert all("0.3.0" in one.fix for one in found)


def test_a_file_of_secrets_that_every_user_may_read_is_named(tmp_path: Path) -> None:
    key = tmp_path / "secret key"
    key.write_text("k" * 32)
    env_file = tmp_path / ".env"
    env_file.write_text("")
    environ = {**GOOD, "SECRET_KEY": "", "SECRET_KEY_FILE": str(key)}
    modes = {0o644: [str(key), str(env_file)], 0o640: [], 0o600: []}
    for mode, paths in modes.items():
        key.chmod(mode)
        env_file.chmod(mode)
        exposed = exposed_files(environ, env_file)
        found = settings_findings(deployment_of(Settings.load(environ), environ, exposed))
        named = [one for one in found if one.cause]
        assert [one.cause for one in named] == ["secret_file_exposed"] * len(paths)
        for one, path in zip(named, paths, strict=True):
            assert one.found.startswith(path)
    assert exposed_files({"SECRET_KEY_FILE": "/nowhere"}, tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("changes", "logged"),
    [
        ({"JWT_AUDIENCE": "media-bridge"}, []),
        ({}, ["JWT_AUDIENCE"]),
        ({"SECRET_KEY": "", "ADMIN_TOKEN": ""}, ["SECRET_KEY", "ADMIN_TOKEN", "JWT_AUDIENCE"]),
        ({"METRICS_TOKEN": ""}, ["METRICS_TOKEN", "JWT_AUDIENCE"]),
        ({"METRICS_TOKEN": "short"}, ["JWT_AUDIENCE", "METRICS_TOKEN"]),
        ({"ALLOW_UNSIGNED": "public"}, ["ALLOW_UNSIGNED", "ALLOW_UNSIGNED", "JWT_AUDIENCE"]),
        (
            {"SUPPORT_EXOTEL": "true", "EXOTEL_ALLOWED_IPS": "192.0.2.7"},
            ["JWT_AUDIENCE", "EXOTEL_ALLOWED_IPS"],
        ),
        # Findings of other kinds are the doctor's alone.
        ({"SUPPORT_EXOTEL": "true", "RENDER": "true"}, ["JWT_AUDIENCE"]),
    ],
)
def test_a_start_logs_one_line_for_each_thing_left_open(
    changes: Mapping[str, str], logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    log_warnings(deployment(GOOD | {"JWT_SECRET": "j" * 32} | changes))
    assert len(caplog.messages) == len(logged)
    for line, name in zip(caplog.messages, logged, strict=True):
        assert line.startswith("[server] ⚠️ ")
        assert name in line
        assert len(line.splitlines()) == 1


def test_no_secret_is_shown() -> None:
    known = deployment(GOOD | EXOTEL | {"SUPPORT_EXOTEL": "true"})
    shown = f"{known} {settings_findings(known)}"
    for secret in (
        "an-auth-token-of-32-or-more-characters",
        "a-password",
        "a-token-of-exotel",
        "k" * 32,
    ):
        assert secret not in shown
