"""`tail`, `calls` and `stream-id`: what happens, what has happened, and under which keys."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from app.archive.redis import RedisArchive
from app.carriers.stream_ids import CARRIERS, stream_id
from app.cli.arguments import EXIT_UNUSABLE, Beside, Commands, beside, chain_keys_beside, count
from app.errors import CommandFailed, StoreUnavailable
from app.log import without_password
from app.main.beside import note_command
from app.tools import tail
from app.tools.call_list import Which, as_data, listed, table
from app.tools.tail.display import Display, JsonLines, Lines, Screen
from app.tools.tail.sound import Player, Sound, WavFile

MOST_CALLS = 10_000


def add_to(commands: Commands) -> None:
    """Add `tail`, `calls` and `stream-id`."""
    watch = commands.add_parser("tail", help="show live calls: events, levels, and their audio")
    watch.add_argument(
        "call", nargs="?", default="", metavar="CALL", help="one call, by its CallSid or stream id"
    )
    watch.add_argument("--business", default="", metavar="ID", help="only this business's calls")
    watch.add_argument("--json", action="store_true", help="one JSON object a line")
    watch.add_argument("--wav", type=Path, metavar="FILE", help="write its audio as it comes")
    watch.add_argument("--force", action="store_true", help="--wav: replace a file that is there")
    watch.add_argument("--play", action="store_true", help="play its audio as it comes")
    watch.set_defaults(run=_tail)
    calls = commands.add_parser("calls", help="list live calls and past ones, the latest first")
    calls.add_argument("--business", default="", metavar="ID", help="only this business's")
    which = calls.add_mutually_exclusive_group()
    which.add_argument("--live", dest="which", action="store_const", const="live")
    which.add_argument("--ended", dest="which", action="store_const", const="ended")
    calls.add_argument("--limit", type=count(MOST_CALLS), default=20, metavar="N")
    calls.add_argument("--json", action="store_true", help="one JSON object a line")
    calls.set_defaults(run=_calls, which="all")
    named = commands.add_parser(
        "stream-id", help="print the id under which a peer's stream is published"
    )
    named.add_argument("name", metavar="NAME", help="stream_sid, streamSid or interaction_id")
    named.add_argument("--business", required=True, metavar="ID", help="the business's id")
    named.add_argument("--carrier", required=True, choices=CARRIERS)
    named.set_defaults(run=_stream_id)


def _stream_id(parsed: argparse.Namespace) -> int:
    try:
        print(stream_id(parsed.carrier, parsed.business, parsed.name))
    except ValueError as error:
        raise CommandFailed(f"no such stream can exist: {error}") from error
    return 0


def _tail(parsed: argparse.Namespace) -> int:
    if (parsed.wav or parsed.play) and not parsed.call:
        raise CommandFailed("--wav and --play need a CALL; `media-bridge calls --live` lists them")
    service = beside(parsed.env_file)
    sounds: list[Sound] = []
    if parsed.wav:
        wav = WavFile(parsed.wav, may_replace=parsed.force)
        wav.check()
        sounds.append(wav)
    if parsed.play:
        player = Player()
        player.check()
        sounds.append(player)
    display, every = _display(parsed, service)
    tailing = tail.Tail(display, every, parsed.call, parsed.business, sounds)

    async def run(redis_url: str, archive: RedisArchive) -> int:
        if parsed.call:
            await tail.check_call(archive, parsed.call, parsed.business)
        # With a sound it is listened to; without one only what happens in calls is shown.
        action = "call.listened" if sounds else "live.watched"
        target = parsed.call or parsed.business or "all calls"
        keys = chain_keys_beside(parsed.env_file)
        await note_command(redis_url, keys, action, target, parsed.business)
        await tailing.run(redis_url)
        return 0

    return _with_redis(service.redis_url, run)


def _display(parsed: argparse.Namespace, service: Beside) -> tuple[Display, float]:
    mask = service.mask_phone
    if parsed.json:
        return JsonLines(sys.stdout, mask), tail.LINES_SECONDS
    if sys.stdout.isatty():
        return Screen(sys.stdout, mask), tail.DRAWN_SECONDS
    return Lines(sys.stdout, mask), tail.LINES_SECONDS


def _calls(parsed: argparse.Namespace) -> int:
    service = beside(parsed.env_file)
    mask = service.mask_phone
    which: Which = parsed.which

    async def run(redis_url: str, archive: RedisArchive) -> int:
        now_ms = int(time.time() * 1000)
        found = await listed(archive, parsed.business, which, parsed.limit, now_ms)
        if parsed.json:
            for call in found:
                print(msgspec.json.encode(as_data(call, mask)).decode())
        elif found:
            print("\n".join(table(found, mask, now_ms)))
        else:
            print("there are no such calls", file=sys.stderr)
        sys.stdout.flush()
        return 0

    return _with_redis(service.redis_url, run)


def _with_redis(redis_url: str, run: Callable[[str, RedisArchive], Awaitable[int]]) -> int:
    """Run with an archive; say where Redis is when it cannot be reached."""

    async def with_archive() -> int:
        archive = RedisArchive(redis_url)
        try:
            return await run(redis_url, archive)
        finally:
            await archive.close()

    try:
        return asyncio.run(with_archive())
    except StoreUnavailable as error:
        where = without_password(redis_url)
        print(f"Redis at {where} cannot be used: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    except BrokenPipeError:
        # Whoever reads us has enough. What is left in the buffer would fail at our end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
