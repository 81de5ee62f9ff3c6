"""Secrets from files: `NAME_FILE` in place of `NAME`, and how long a secret must be."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.administration.secret_fields import SEALED
from app.cli.arguments import FROM_FILES, environment_beside, environment_of
from app.credentials.sealing import Sealing
from app.errors import SettingsError
from app.plans import Business, Plan
from app.secret_strength import FLOORS, is_placeholder, weakness_of
from app.session.accounts import OwnAccounts
from app.settings import SECRET_NAMES, Settings
from app.settings.files import MOST_BYTES
from app.store.memory import MemoryStore

SECRET = "canary-7d2c9a-of-at-least-32-characters"
REDIS = f"redis://:{SECRET}@localhost:6379/0"
GOOD = {"PUBLIC_URL": "https://bridge.example.com", "TWILIO_AUTH_TOKEN": "t" * 32}
PARTNERS = {
    "EXOTEL_API_KEY": {"EXOTEL_API_TOKEN": "x" * 16},
    "EXOTEL_API_TOKEN": {"EXOTEL_API_KEY": "x" * 16},
}


def file_of(directory: Path, content: str | bytes) -> Path:
    path = directory / "secret"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o600)
    return path


def environ_with(name: str, path: Path | str) -> dict[str, str]:
    found = {**GOOD, "REDIS_URL": "redis://localhost", **PARTNERS.get(name, {})}
    found.pop(name, None)
    return {**found, f"{name}_FILE": str(path)}


def refused(environ: dict[str, str]) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert SECRET not in message
    return caught.value


def test_every_secret_setting_may_come_from_a_file() -> None:
    assert set(SECRET_NAMES) == {
        "REDIS_URL",
        "TWILIO_AUTH_TOKEN",
        "SECRET_KEY",
        "ADMIN_TOKEN",
        "METRICS_TOKEN",
        "EXOTEL_API_KEY",
        "EXOTEL_API_TOKEN",
        "JWT_SECRET",
    }


@pytest.mark.parametrize("name", SECRET_NAMES)
@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_a_secret_from_a_file_is_the_same_as_from_the_environment(
    tmp_path: Path, name: str, ending: str
) -> None:
    value = REDIS if name == "REDIS_URL" else SECRET
    environ = environ_with(name, file_of(tmp_path, value + ending))
    direct = {other: text for other, text in environ.items() if other != f"{name}_FILE"}
    assert Settings.load(environ) == Settings.load({**direct, name: value})


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_that_is_set_twice_stops_the_start(tmp_path: Path, name: str) -> None:
    environ = environ_with(name, file_of(tmp_path, SECRET))
    error = refused({**environ, name: SECRET})
    assert error.variable == f"{name}_FILE"
    assert f"beside {name}" in error.problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "which is empty"),
        ("\n", "which is empty"),
        (SECRET * (MOST_BYTES // len(SECRET) + 1), "larger than 65536 bytes"),
        (SECRET.encode() + b"\xff", "not UTF-8 text"),
        ("short", "whose content must have at least 32 characters"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_variable(
    tmp_path: Path, content: str | bytes, problem: str
) -> None:
    path = file_of(tmp_path, content)
    error = refused(environ_with("SECRET_KEY", path))
    assert error.variable == "SECRET_KEY_FILE"
    assert problem in error.problem
    assert str(path) in error.problem
    assert error.example.startswith("/")


def test_the_largest_file_is_still_read(tmp_path: Path) -> None:
    largest = "k" * MOST_BYTES
    settings = Settings.load(environ_with("SECRET_KEY", file_of(tmp_path, largest)))
    assert [key.reveal() for key in settings.secret_key] == [largest]


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ("nothing", "No such file or directory"),
        ("directory", "Is a directory"),
        ("fifo", "is not a regular file"),
        ("socket\x1b[31m", "No such file or directory"),
        ("nul\0", "not a path"),
    ],
)
def test_what_is_not_a_readable_file_is_refused_at_once(
    tmp_path: Path, made: str, problem: str
) -> None:
    path = tmp_path / made
    if made == "directory":
        path.mkdir()
    if made == "fifo":
        os.mkfifo(path)
    error = refused(environ_with("ADMIN_TOKEN", path))
    assert error.variable == "ADMIN_TOKEN_FILE"
    assert problem in error.problem


def test_a_link_is_followed_as_kubernetes_mounts_secrets(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file_of(tmp_path, SECRET))
    assert Settings.load(environ_with("SECRET_KEY", link)).secret_key


def test_an_unreadable_file_is_refused_to_another_user(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    path = file_of(tmp_path, SECRET)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o711)
    program = (
        "import os, sys; from app.settings import Settings; from app.errors import SettingsError\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: Settings.load({'SECRET_KEY_FILE': sys.argv[1]})\n"
        "except SettingsError as error: print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith(f"SECRET_KEY_FILE names {path}, which cannot be read: Permission")


# ---------------------------------------------------------------------- commands


def test_commands_read_secrets_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(tmp_path, REDIS + "\n")
    for name in FROM_FILES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(f"{name}_FILE", str(path))
    found = environment_beside(None)
    assert {found[name] for name in FROM_FILES} == {REDIS}
    assert "INGEST_TOKEN" in FROM_FILES


@pytest.mark.parametrize(
    ("in_environment", "in_file", "found"),
    [
        ({}, {"SECRET_KEY": "file"}, {"SECRET_KEY": "file"}),
        ({"SECRET_KEY": "env"}, {"SECRET_KEY_FILE": "file"}, {"SECRET_KEY": "env"}),
        ({"SECRET_KEY_FILE": "env"}, {"SECRET_KEY": "file"}, {"SECRET_KEY_FILE": "env"}),
        (
            {},
            {"SECRET_KEY": "a", "SECRET_KEY_FILE": "b"},
            {"SECRET_KEY": "a", "SECRET_KEY_FILE": "b"},
        ),
    ],
)
def test_the_environment_wins_over_the_env_file_in_either_form(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_environment: dict[str, str],
    in_file: dict[str, str],
    found: dict[str, str],
) -> None:
    names = ("SECRET_KEY", "SECRET_KEY_FILE")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in in_environment.items():
        monkeypatch.setenv(name, value)
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in in_file.items()))
    read = environment_of(env_file)
    assert {name: read[name] for name in names if name in read} == found


def test_a_command_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "app", "calls"],
        env={"PATH": os.environ["PATH"], "REDIS_URL_FILE": str(tmp_path / "gone")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"REDIS_URL_FILE names {tmp_path / 'gone'}, which cannot be read")
    assert len(ran.stderr.splitlines()) == 1


# ------------------------------------------------------------------------ floors


def test_every_secret_setting_but_an_address_has_a_floor() -> None:
    assert set(SECRET_NAMES) - set(FLOORS) == {"REDIS_URL"}


@pytest.mark.parametrize("name", FLOORS)
def test_a_secret_is_weak_below_its_floor_and_not_at_it(name: str) -> None:
    floor = FLOORS[name].characters
    assert weakness_of(name, ["x" * floor]) == weakness_of(name, []) == ""
    assert f"at least {floor} characters" in weakness_of(name, ["x" * (floor - 1)])
    assert weakness_of(name, ["x" * floor, "x"]) != ""


@pytest.mark.parametrize("name", [name for name in SECRET_NAMES if name in FLOORS])
def test_a_variable_below_its_floor_stops_the_start_or_warns_where_0_1_took_it(name: str) -> None:
    environ = {**GOOD, "REDIS_URL": "redis://localhost", **PARTNERS.get(name, {})}
    short = {**environ, name: "x" * (FLOORS[name].characters - 1)}
    if FLOORS[name].is_new:
        assert list(Settings.load(short).weak_secrets) == [name]
    else:
        assert refused(short).variable == name
    assert Settings.load({**environ, name: "x" * FLOORS[name].characters}).weak_secrets == {}


PLACEHOLDERS = [
    "changeme",
    "change-me-change-me-change-me-change-me",
    "CHANGE_THIS_TO_A_RANDOM_VALUE_OF_32_CHARACTERS",
    "your-token",
    "your-auth-token-of-thirty-two-characters",
    "my_secret_key",
    "current-token",
    "older-key",
    "$(openssl rand -hex 32)",
    "${SECRET_KEY_OF_THE_DEPLOYMENT_ON_RAILWAY}",
    "<the output of openssl rand -hex 32>",
]


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_a_placeholder_is_known(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize(
    "text", ["0f" * 16, "GmXhYoUrToKeNqX", "correct horse battery staple", SECRET]
)
def test_a_secret_is_not_taken_for_a_placeholder(text: str) -> None:
    assert not is_placeholder(text)


@pytest.mark.parametrize("name", ["SECRET_KEY", "ADMIN_TOKEN", "JWT_SECRET"])
def test_a_long_placeholder_stops_the_start(name: str) -> None:
    environ = {**GOOD, "REDIS_URL": "redis://localhost"}
    error = refused({**environ, name: "changeme" * 5})
    assert error.variable == name
    assert "placeholder" in error.problem


@pytest.mark.parametrize("name", ["TWILIO_AUTH_TOKEN", "METRICS_TOKEN", "EXOTEL_API_TOKEN"])
def test_a_placeholder_that_0_1_took_warns(name: str) -> None:
    environ = {**GOOD, "REDIS_URL": "redis://localhost", **PARTNERS.get(name, {})}
    assert "placeholder" in Settings.load({**environ, name: "changeme" * 5}).weak_secrets[name]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("twilio_auth_tokens", ["a"], "at least 32 characters"),
        ("twilio_auth_tokens", ["0f" * 16, "x" * 31], "at least 32 characters"),
        ("twilio_auth_tokens", ["your-auth-token-of-32-characters-or-more"], "placeholder"),
        ("usage_webhook_secret", "x" * 15, "16 to 256"),
        ("usage_webhook_secret", "changeme-changeme", "placeholder"),
    ],
)
def test_a_new_secret_of_a_business_below_its_floor_is_refused(
    name: str, value: object, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        SEALED[name].check(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("twilio_auth_tokens", ["0f" * 16]),
        ("twilio_auth_tokens", ["0f" * 16, "f0" * 16]),
        ("twilio_auth_tokens", []),
        ("usage_webhook_secret", "x" * 16),
        ("usage_webhook_secret", None),
    ],
)
def test_a_new_secret_of_a_business_at_its_floor_is_taken(name: str, value: object) -> None:
    assert SEALED[name].check(value) == ([value] if isinstance(value, str) else value or [])


async def test_a_stored_token_below_the_floor_works_and_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, sealing = MemoryStore(time.monotonic), Sealing(("k" * 32,))
    await store.add_plan(Plan("plain"))
    for name, token in (("weak", "a"), ("strong", "0f" * 16)):
        await store.add_business(Business(name, name, "plain", ()))
        await store.save_secrets(
            name, {"twilio_auth_tokens": sealing.seal(name, "twilio_auth_tokens", token)}
        )
    accounts = OwnAccounts(store, sealing)
    for _ in range(3):
        for name, token in (("weak", "a"), ("strong", "0f" * 16)):
            account = await accounts.of_request(name, "")
            assert account is not None
            assert account.tokens == (token,)
    [line] = caplog.messages
    assert "business weak must have at least 32 characters" in line
