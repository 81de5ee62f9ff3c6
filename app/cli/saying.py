"""`say`: speak into a live call, for trying."""

import argparse
import asyncio
import sys
from pathlib import Path

from app.cli.arguments import EXIT_UNUSABLE, Commands, beside, chain_keys_beside, tell
from app.errors import CommandFailed, CommandRefused, StoreUnavailable
from app.log import without_password
from app.main.beside import note_command
from app.playback.answers import Played
from app.tools.say import Recording, read_recording, say, speech_into, spoken

EXIT_UNHEARD = 1


def add_to(commands: Commands) -> None:
    """Add `say`."""
    speak = commands.add_parser("say", help="speak into a live call, or play a recording")
    speak.add_argument("call", metavar="CALL", help="a live call's CallSid or stream id")
    speak.add_argument("text", nargs="?", default="", metavar="TEXT", help="said by espeak-ng")
    speak.add_argument("--voice", default="en", help="of espeak-ng's voices; default: en")
    speak.add_argument("--wav", type=Path, metavar="FILE", help="play it: mono, 16 bit")
    speak.add_argument("--business", default="", metavar="ID", help="whose call it is")
    speak.add_argument("--hang-up", action="store_true", help="end the call after it")
    speak.set_defaults(run=_say)


def _say(parsed: argparse.Namespace) -> int:
    if bool(parsed.text) == bool(parsed.wav):
        raise CommandFailed("say what: either a TEXT, or --wav FILE")
    redis_url = beside(parsed.env_file).redis_url
    try:
        return asyncio.run(_said(parsed, redis_url))
    except StoreUnavailable as error:
        tell(f"Redis at {without_password(redis_url)} cannot be used: {error}")
        return EXIT_UNUSABLE


async def _said(parsed: argparse.Namespace, redis_url: str) -> int:
    async with speech_into(redis_url, parsed.call, parsed.business) as speech:
        recording = (
            await asyncio.to_thread(read_recording, parsed.wav)
            if parsed.wav
            else await spoken(parsed.text, parsed.voice)
        )
        keys = chain_keys_beside(parsed.env_file)
        await note_command(redis_url, keys, "call.spoken_into", parsed.call, parsed.business)
        try:
            played = await say(speech, recording)
            was_heard = _show(recording, played)
            if parsed.hang_up:
                ended = await (await speech.hang_up()).answer()
                print(f"the call ended: {ended.reason if ended else 'nobody knows'}")
                was_heard = was_heard and ended is not None
        except CommandRefused as refused:
            tell(f"the call was not spoken to: {refused}")
            return EXIT_UNHEARD
    sys.stdout.flush()
    return 0 if was_heard else EXIT_UNHEARD


def _show(recording: Recording, played: Played | None) -> bool:
    """Say on standard output how much was heard; tell whether all was."""
    whole = f"{recording.seconds:.1f} s"
    if played is None or played.heard is None:
        print(f"played {whole}; the carrier has not said whether it was heard")
        return False
    if not played.heard:
        print(f"cleared after {played.played_ms / 1000:.1f} s of {whole}")
        return False
    print(f"heard {whole}")
    return True
