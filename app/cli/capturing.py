"""`record` and `export`: calls as files, from the wire and from Redis."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from app.archive.library import Library
from app.archive.redis import RedisArchive
from app.cli.arguments import Commands, beside, chain_keys_beside, count, tell
from app.errors import CommandFailed, NotThere, StoreUnavailable
from app.main.beside import note_command
from app.store.captures import ANY, Asked
from app.store.redis import RedisStore
from app.store.redis_captures import RedisCaptures
from app.tools.capture.export import Kept, facts_of, find_kept, rebuilt
from app.tools.capture.files import CaptureFile
from app.tools.capture.record import Recorder
from app.tools.new_file import NewFile
from app.wire.capture import CaptureFacts, capture_line

REDIS_SECONDS = 5.0
EXIT_INTERRUPTED = 130


def add_to(commands: Commands) -> None:
    """Add `record` and `export`."""
    _add_record(commands)
    _add_export(commands)


def _add_record(commands: Commands) -> None:
    record = commands.add_parser(
        "record", help="capture live calls at the wire, of businesses that allow it"
    )
    whom = record.add_mutually_exclusive_group(required=True)
    whom.add_argument("call", nargs="?", metavar="CALL", help="a live call's CallSid")
    whom.add_argument("--all", action="store_true", help="every call, until Ctrl-C")
    record.add_argument("--business", default=ANY, metavar="ID", help="of this business only")
    record.add_argument(
        "--calls", type=count(100_000), metavar="N", help="with --all: end after so many"
    )
    record.add_argument("-o", "--output", type=Path, required=True, metavar="DIRECTORY")
    record.add_argument("--force", action="store_true", help="write over files that are there")
    record.set_defaults(run=_record)


def _add_export(commands: Commands) -> None:
    export = commands.add_parser(
        "export", help="rebuild a call from what Redis retains: as a capture, or as WAV"
    )
    export.add_argument("call", metavar="CALL", help="its CallSid")
    export.add_argument("--format", choices=("jsonl", "wav"), required=True)
    export.add_argument("--business", default="", metavar="ID", help="whose call it is")
    export.add_argument("--stream", default="", metavar="ID", help="default: the latest kept")
    export.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: standard output"
    )
    export.add_argument("--force", action="store_true", help="write over a file that is there")
    export.set_defaults(run=_export)


def _record(parsed: argparse.Namespace) -> int:
    return asyncio.run(_recorded(parsed, beside(parsed.env_file).redis_url))


async def _recorded(parsed: argparse.Namespace, redis_url: str) -> int:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, stop.set)
    captures = RedisCaptures.from_url(redis_url, REDIS_SECONDS)
    store = RedisStore.from_url(redis_url, REDIS_SECONDS)
    asked = Asked(parsed.business, ANY if parsed.all else parsed.call)
    recorder = Recorder(
        *(captures, store, asked, parsed.output, tell),
        calls=parsed.calls,
        force=parsed.force,
    )
    try:
        _make_directory(parsed.output)
        whose = "" if parsed.business == ANY else parsed.business
        keys = chain_keys_beside(parsed.env_file)
        target = "all calls" if parsed.all else parsed.call
        await note_command(redis_url, keys, "call.captured", target, whose)
        is_whole = await recorder.run(stop)
    except StoreUnavailable as error:
        raise CommandFailed(f"REDIS_URL: {error}") from error
    finally:
        await captures.close()
        await store.close()
    if stop.is_set():
        return EXIT_INTERRUPTED
    return 0 if is_whole else 1


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written to: {error.strerror}") from error


def _export(parsed: argparse.Namespace) -> int:
    redis_url, mask = beside(parsed.env_file)
    if parsed.format == "wav" and parsed.output is None and sys.stdout.isatty():
        raise CommandFailed("a WAV is no text: name a file by -o, or lead it into a program")
    try:
        status = asyncio.run(_exported(parsed, redis_url, mask))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads us has enough. What is left in the buffer would fail at our end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


async def _exported(parsed: argparse.Namespace, redis_url: str, mask: Callable[[str], str]) -> int:
    archive = RedisArchive(redis_url)
    try:
        kept = await find_kept(
            archive, parsed.call, business_id=parsed.business, stream_sid=parsed.stream
        )
        keys = chain_keys_beside(parsed.env_file)
        what = {"format": parsed.format, "stream": kept.stream_sid}
        await note_command(
            *(redis_url, keys, "call.exported", parsed.call, kept.business_id), **what
        )
        if parsed.format == "wav":
            await _write_wav(parsed, archive, kept)
        else:
            await _write_capture(parsed, rebuilt(archive, kept, mask), facts_of(kept))
    except NotThere as error:
        raise CommandFailed(str(error)) from error
    except StoreUnavailable as error:
        raise CommandFailed(f"REDIS_URL: {error}") from error
    finally:
        await archive.close()
    if kept.is_trimmed:
        tell("Its beginning is not kept any more.")
    if kept.is_live:
        tell("The call is live: this is what there was by now.")
    return 0


async def _write_wav(parsed: argparse.Namespace, archive: RedisArchive, kept: Kept) -> None:
    library = Library(archive)
    recording = await library.recording(kept.business_id, parsed.call, stream_sid=kept.stream_sid)
    if parsed.output is None:
        async for piece in recording.read():
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    with NewFile(parsed.output, force=parsed.force) as file:
        async for piece in recording.read():
            file.write(piece)
        file.keep()


async def _write_capture(
    parsed: argparse.Namespace, messages: AsyncGenerator[str | bytes, None], facts: CaptureFacts
) -> None:
    if parsed.output is None:
        async for message in messages:
            print(capture_line(message))
        return
    file = CaptureFile(parsed.output, force=parsed.force)
    try:
        async for message in messages:
            file.add(message)
        file.keep(facts)
    finally:
        file.discard()
