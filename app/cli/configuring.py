"""`config`: plans and businesses, between Redis and a file."""

import argparse
import asyncio
from pathlib import Path

from app.cli.arguments import Commands, beside
from app.errors import ConfigurationError
from app.store.redis import RedisStore
from app.tools import configuration

ADMIN_TIMEOUT_SECONDS = 5.0


def add_to(commands: Commands) -> None:
    """Add `config`."""
    config = commands.add_parser("config", help="plans and businesses as a TOML file")
    config.add_argument(
        "action",
        choices=("export", "import", "diff"),
        help="write what is stored to the file; store what the file holds; show what differs, "
        "with status 1 when anything does",
    )
    config.add_argument("file", type=Path, metavar="FILE")
    config.add_argument("--dry-run", action="store_true", help="import: only say what it would do")
    config.add_argument(
        "--delete-missing",
        action="store_true",
        help="import: delete what is stored and not in the file",
    )
    config.set_defaults(run=_config)


def _config(parsed: argparse.Namespace) -> int:
    store = RedisStore.from_url(beside(parsed.env_file).redis_url, ADMIN_TIMEOUT_SECONDS)
    return asyncio.run(_with_configuration(parsed, store))


async def _with_configuration(parsed: argparse.Namespace, store: RedisStore) -> int:
    try:
        if parsed.action == "export":
            _write(parsed.file, await configuration.exported(store))
            return 0
        is_diff = parsed.action == "diff"
        found = await configuration.differences(
            store,
            _read(parsed.file),
            str(parsed.file),
            delete_missing=parsed.delete_missing or is_diff,
        )
        if is_diff or parsed.dry_run:
            for one in found:
                print(one)
            return int(is_diff and bool(found))
        await configuration.apply(store, found, print)
        return 0
    finally:
        await store.close()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error}") from error
