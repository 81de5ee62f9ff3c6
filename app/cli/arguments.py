"""What several commands read from their line and their environment."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from dotenv import dotenv_values

from app.errors import SettingsError
from app.settings import Settings

EXIT_UNUSABLE = 2


class Commands(Protocol):
    """Where a module adds its commands: what `add_subparsers` gives."""

    def add_parser(self, name: str, *, help: str = ...) -> argparse.ArgumentParser:
        """Add one; its `run` default is called with what was parsed, and gives the status."""


def environment_of(env_file: Path | None) -> dict[str, str]:
    """Give the variables of the environment, and those of a file that it has not."""
    from_file: Mapping[str, str | None] = dotenv_values(env_file) if env_file else {}
    return {name: value for name, value in from_file.items() if value} | dict(os.environ)


def redis_url_of(environment: Mapping[str, str]) -> str:
    """Read REDIS_URL for a command that needs nothing else.

    Raises:
        SettingsError: it is missing or unusable.
    """
    settings = Settings.load(
        {"REDIS_URL": environment.get("REDIS_URL", ""), "ALLOW_UNSIGNED": "public"}
    )
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL", "is not set", "redis://localhost:6379/0")
    return settings.redis_url.reveal()


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
