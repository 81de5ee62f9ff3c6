"""Speech into one stream: what a worker can ask of a call."""

import secrets
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Final

from app.consumer.sharing import StreamName
from app.consumer.speaking import OutcomeT, Said, Speaking, Stopped
from app.media import Encoding, MediaFormat
from app.playback.answers import Cleared, Played, Reached
from app.playback.commands import MAX_PLAY_BYTES, Clear, Command, HangUp, Mark, Play, Transfer

# Audio that is longer goes in pieces of so much, one of them ahead.
PIECE_SECONDS: Final = 20


class Speech:
    """Speak into the stream `name`."""

    def __init__(self, name: StreamName, speaking: Speaking) -> None:
        self.name = name
        self._speaking = speaking

    async def play(
        self,
        audio: bytes,
        *,
        encoding: Encoding = Encoding.PCM16,
        sample_rate: int = 8000,
        mark: str = "",
        more: bool = False,
    ) -> Said[Played]:
        """Say audio into the call, behind what was said before.

        It is PCM16 (little-endian) at 8, 16, 24 or 48 kHz, or mu-law at 8 kHz, mono.
        When it has been heard, a `mark` is told to everybody who reads events. Of speech in
        pieces, give `more` with all but the last: they join without a seam, and are
        answered together. Audio longer than 40 s is written while it is heard; this
        returns with its last piece, or as soon as it is cleared or refused.

        Raises:
            CommandRefused: the stream is over. What else can be wrong, `Said` tells.
            StoreUnavailable: Redis did not answer; it may be heard or not.
        """
        said: Said[Played] = Said("play", is_joined=more)
        if not more:
            said.id = new_id()
        sound = MediaFormat(encoding, sample_rate)
        began = monotonic()
        for piece in pieces(audio, sound):
            if await said.is_answered_within(began + piece.due_seconds - monotonic()):
                break
            is_named = piece.is_last and not more
            part = Play(
                said.id if is_named else "",
                *(piece.audio, sound, mark if piece.is_last else "", is_named),
            )
            await self._speaking.write(self.name, part, said)
        return said

    async def mark(self, name: str) -> Said[Reached]:
        """Have it told when all that was said before has been heard.

        Raises:
            CommandRefused: the stream is over.
            StoreUnavailable: Redis did not answer.
        """
        return await self._command(Mark(new_id(), name), Said("mark"))

    async def clear(self) -> Said[Cleared]:
        """Be silent at once: end all that was said before, here and at the carrier.

        Raises:
            CommandRefused: the stream is over.
            StoreUnavailable: Redis did not answer.
        """
        return await self._command(Clear(new_id()), Said("clear"))

    async def hang_up(self) -> Said[Stopped]:
        """End the call when all that was said before has been heard.

        Raises:
            CommandRefused: the stream is over.
            StoreUnavailable: Redis did not answer.
        """
        return await self._command(HangUp(new_id()), Said("hangup"))

    async def transfer(self, to: str = "", *, twiml: str = "") -> Said[Stopped]:
        """Give the call to a number (E.164) or to TwiML, when all before has been heard.

        Only Twilio's calls can be given on.

        Raises:
            CommandRefused: the stream is over.
            StoreUnavailable: Redis did not answer.
        """
        return await self._command(Transfer(new_id(), to, twiml), Said("transfer"))

    def digits(self) -> AsyncGenerator[str, None]:
        """Give the keys that the caller presses from now on, one by one, up to the end.

        A digit is a secret of the caller's, such as a PIN: it belongs in no log.

        Raises:
            StoreUnavailable: Redis did not answer at the start.
        """
        return self._speaking.digits(self.name)

    async def _command(self, command: Command, said: Said[OutcomeT]) -> Said[OutcomeT]:
        said.id = command.id
        await self._speaking.write(self.name, command, said)
        return said


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of audio, to be written `due_seconds` after the first."""

    audio: bytes
    due_seconds: float
    is_last: bool


def pieces(audio: bytes, sound: MediaFormat) -> Iterator[Piece]:
    """Cut audio into what one command holds, each due a piece before it is to be heard."""
    size = min(MAX_PLAY_BYTES, round(PIECE_SECONDS * sound.bytes_per_second))
    for at in range(0, max(len(audio), 1), size):
        due_seconds = max(at / size - 1, 0) * sound.duration_ms(size) / 1000
        yield Piece(audio[at : at + size], due_seconds, at + size >= len(audio))


def new_id() -> str:
    """Make up what an answer is called by."""
    return secrets.token_hex(8)
