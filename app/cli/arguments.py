"""What several commands read from their line and their environment."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from dotenv import dotenv_values

from app.admin.audit_chain import ChainKeys
from app.errors import SettingsError
from app.log import phone_mask
from app.main.audited import chain_keys_of
from app.settings import SECRET_NAMES, SUFFIX, Settings, with_files
from app.tools.embedded import url_of_running

EXIT_UNUSABLE = 2
# Where `make run` has the data of its own Redis.
EMBEDDED = Path("data")
# INGEST_TOKEN is the commands' own: the JWT of a client.
FROM_FILES = (*SECRET_NAMES, "INGEST_TOKEN")


class Commands(Protocol):
    """Where a module adds its commands: what `add_subparsers` gives."""

    def add_parser(self, name: str, *, help: str = ...) -> argparse.ArgumentParser:
        """Add one; its `run` default is called with what was parsed, and gives the status."""


def environment_of(env_file: Path | None) -> dict[str, str]:
    """Return the variables of the environment, and those of a file that it has not.

    `NAME` and `NAME_FILE` are one variable here: the environment's wins over the file's.
    """
    from_file: Mapping[str, str | None] = dotenv_values(env_file) if env_file else {}
    found = {name: value for name, value in from_file.items() if value}
    for name in FROM_FILES:
        if os.environ.get(name) or os.environ.get(name + SUFFIX):
            found.pop(name, None)
            found.pop(name + SUFFIX, None)
    return found | dict(os.environ)


def secrets_read(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which the secrets of `NAME_FILE` are under `NAME`.

    Raises:
        SettingsError: a file cannot be used.
    """
    return with_files(environment, FROM_FILES)


def environment_beside(env_file: Path | None) -> dict[str, str]:
    """Return the environment of a command beside the service, with the secrets of files.

    Where no REDIS_URL is set, it is that of the server that `make run` has started here.
    """
    environment = secrets_read(environment_of(env_file))
    if not environment.get("REDIS_URL") and (running := url_of_running(EMBEDDED)):
        environment["REDIS_URL"] = running
    return environment


class Beside(NamedTuple):
    """What a command that reads Redis needs to know of the service."""

    redis_url: str
    mask_phone: Callable[[str], str]


def beside(env_file: Path | None) -> Beside:
    """Read where Redis is, and how numbers are shown.

    Raises:
        SettingsError: REDIS_URL is missing, or either is none.
    """
    environment = environment_beside(env_file)
    names = ("REDIS_URL", "LOG_PHONE_NUMBERS")
    needed = {name: environment[name] for name in names if environment.get(name)}
    settings = Settings.load({**needed, "PUBSUB_ADAPTER": "memory", "ALLOW_UNSIGNED": "public"})
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL", "is not set", "redis://localhost:6379/0")
    return Beside(settings.redis_url.reveal(), phone_mask(settings.log_phone_numbers))


def chain_keys_beside(env_file: Path | None) -> ChainKeys | None:
    """Return the keys of the audit log's chain; None where SECRET_KEY is not set.

    Raises:
        SettingsError: SECRET_KEY is unusable.
    """
    environment = environment_beside(env_file)
    if not environment.get("SECRET_KEY"):
        return None
    needed = {"SECRET_KEY": environment["SECRET_KEY"]}
    settings = Settings.load({**needed, "PUBSUB_ADAPTER": "memory", "ALLOW_UNSIGNED": "public"})
    return chain_keys_of(settings)


def count(most: int) -> Callable[[str], int]:
    """Read a whole number from 1 to `most`."""

    def read(text: str) -> int:
        if not (text.isdecimal() and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be 1 to {most}, is {text!r}")
        return int(text)

    return read


def tell(line: str) -> None:
    """Say something that is no result."""
    print(line, file=sys.stderr, flush=True)
