"""A call's audio as it comes: into a WAV file, or to a player."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from app.archive.recording import MAX_DATA_BYTES, wav_header
from app.archive.timeline import SAMPLE_BYTES, Mixer, Timeline
from app.consumer import Call, Frame
from app.errors import CommandFailed
from app.tools.new_file import create_private, replace_private

# A track is waited for no longer than this.
SKEW_SECONDS: Final = 0.5
# What a player that is slow has not taken; beyond it, audio is left out.
MAX_UNPLAYED_SECONDS: Final = 1.0
PLAYER_SECONDS: Final = 3.0


class Sound(Protocol):
    """Take PCM16, the tracks side by side."""

    async def open(self, sample_rate: int, channels: int) -> None:
        """Make ready; raises CommandFailed."""

    async def write(self, pcm16: bytes) -> None:
        """Take audio; raises CommandFailed."""

    async def close(self) -> None:
        """Be done."""


class SideBySide:
    """Put the frames of a call's tracks side by side; silence where audio is missing."""

    def __init__(self, call: Call) -> None:
        self.sample_rate = call.format.sample_rate
        self._channels = {track: place for place, track in enumerate(call.tracks)}
        self.channels = len(self._channels)
        self._timeline: Timeline | None = None
        self._mixer = Mixer(self.channels)

    def add(self, frame: Frame) -> Iterator[bytes]:
        """Take a frame; give what is whole by then."""
        if frame.track not in self._channels:
            return
        if self._timeline is None:
            rate, tracks = self.sample_rate, self.channels
            self._timeline = Timeline(rate, tracks, frame.ts, skew_seconds=SKEW_SECONDS)
        channel = self._channels[frame.track]
        pcm16 = frame.pcm16
        start = self._timeline.place(channel, frame.ts, len(pcm16) // SAMPLE_BYTES)
        self._mixer.add(channel, start, pcm16)
        yield from self._mixer.blocks(self._timeline.ready)

    def rest(self) -> Iterator[bytes]:
        """Give what one track has said behind the other's end."""
        if self._timeline is not None:
            yield from self._mixer.blocks(self._timeline.frontier)


class WavFile:
    """A WAV file that is valid whenever its writing ends."""

    def __init__(self, path: Path, *, may_replace: bool) -> None:
        self._path = path
        self._may_replace = may_replace
        self._size = 0

    def check(self) -> None:
        """Raise CommandFailed where the file cannot be begun."""
        if os.path.lexists(self._path) and not self._may_replace:
            raise CommandFailed(f"{self._path} is there already; --force replaces it")
        if not self._path.parent.is_dir():
            raise CommandFailed(f"{self._path.parent} is no directory")

    async def open(self, sample_rate: int, channels: int) -> None:
        """Begin the file."""
        self._form = sample_rate, channels
        create = replace_private if self._may_replace else create_private
        try:
            self._file = create(self._path)
            os.pwrite(self._file, wav_header(*self._form, 0), 0)
        except OSError as error:
            raise CommandFailed(f"{self._path} cannot be written: {error.strerror}") from error

    async def write(self, pcm16: bytes) -> None:
        """Add audio, and then let the header count it."""
        header = len(wav_header(*self._form, 0))
        if self._size + len(pcm16) > MAX_DATA_BYTES:
            raise CommandFailed(f"{self._path} is as long as a WAV file can be")
        try:
            written = os.pwrite(self._file, pcm16, header + self._size)
            frame = self._form[1] * SAMPLE_BYTES
            self._size += written - written % frame
            os.pwrite(self._file, wav_header(*self._form, self._size), 0)
            if written < len(pcm16):
                raise OSError(28, os.strerror(28))
        except OSError as error:
            seconds = self._size / (self._form[0] * self._form[1] * SAMPLE_BYTES)
            what = f"{self._path} ends after {seconds:.1f} s: {error.strerror}"
            raise CommandFailed(what) from error

    async def close(self) -> None:
        """Close it, without what its header does not count."""
        if hasattr(self, "_file"):
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, len(wav_header(*self._form, 0)) + self._size)
            os.close(self._file)


class Player:
    """A program that plays what it is given: aplay, ffplay or SoX's play."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    def check(self) -> None:
        """Raise CommandFailed where there is none."""
        self._command(8000, 1)

    @staticmethod
    def _command(rate: int, channels: int) -> list[str]:
        layout = "mono" if channels == 1 else "stereo"
        raw = ["-t", "raw", "-r", str(rate), "-c", str(channels)]
        commands = {
            "aplay": ["-q", "-f", "S16_LE", *raw, "-"],
            "ffplay": [
                *("-nodisp", "-autoexit", "-loglevel", "error", "-f", "s16le"),
                *("-ar", str(rate), "-ch_layout", layout, "-i", "-"),
            ],
            "play": ["-q", "-e", "signed", "-b", "16", *raw, "-"],
        }
        for name, arguments in commands.items():
            if shutil.which(name):
                return [name, *arguments]
        names = ", ".join(commands)
        raise CommandFailed(f"nothing that plays audio was found ({names}); --wav FILE keeps it")

    async def open(self, sample_rate: int, channels: int) -> None:
        """Start it."""
        command = self._command(sample_rate, channels)
        self._name = command[0]
        self._most = round(MAX_UNPLAYED_SECONDS * sample_rate * channels * SAMPLE_BYTES)
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )

    async def write(self, pcm16: bytes) -> None:
        """Give it audio; leave it out where the player is behind."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        if process.returncode is not None or process.stdin.is_closing():
            raise CommandFailed(f"{self._name} does not play any more; its words stand above")
        if process.stdin.transport.get_write_buffer_size() < self._most:
            process.stdin.write(pcm16)

    async def close(self) -> None:
        """Let it play what it has, for a moment."""
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            async with asyncio.timeout(PLAYER_SECONDS):
                await process.wait()
        except TimeoutError:
            process.terminate()
            await process.wait()
