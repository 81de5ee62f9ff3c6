"""Workers that speak into calls, by `app.consumer`: whole services, simulated carriers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.audio import pcm16_to_mulaw
from app.consumer import Call, Cleared, CommandRefused, Encoding, Played, Reached, Said, Stopped
from app.consumer.speech import pieces
from app.media import MediaFormat
from tests.consumer.reading import next_call, worker
from tests.playback.conftest import service, settings, talk
from tests.playback.talking import Talk, speech, twilio_call
from tests.service import Service
from tests.waiting import WAIT_SECONDS

__all__ = ["service", "settings", "talk"]


@asynccontextmanager
async def call_of(talk: Talk, group: str = "") -> AsyncIterator[Call]:
    """Take a caller's call as a worker does."""
    async with worker(talk.service.redis_url, group) as mine:
        while True:
            call = await next_call(mine)
            if call.stream_sid == talk.stream_sid:
                break
            await mine.done(call)
        yield call


def in_its_format(talk: Talk, pcm16: bytes) -> bytes:
    return pcm16_to_mulaw(pcm16) if talk.listener.is_twilio else pcm16


async def test_a_recording_is_heard_bit_for_bit_and_the_worker_knows(talk: Talk) -> None:
    recording = speech(0.5)
    sound = in_its_format(talk, recording)
    encoding = Encoding.MULAW if talk.listener.is_twilio else Encoding.PCM16
    async with call_of(talk) as call:
        said = await call.play(sound, encoding=encoding, mark="told")
        assert await said.heard(WAIT_SECONDS) is True
        assert await said.answer() == Played(said.id, 1, 500, 500, True)
    assert talk.listener.sent[: len(sound)] == sound
    assert not talk.listener.sent[len(sound) :].strip(b"\0")
    [mark] = await talk.told("stream.mark")
    assert mark["name"] == "told"


async def test_pieces_are_answered_together(talk: Talk) -> None:
    recording = speech(0.6)
    async with call_of(talk) as call:
        parts = [recording[at : at + 1600] for at in range(0, len(recording), 1600)]
        said = [await call.play(part, more=part is not parts[-1]) for part in parts]
        answers = [await one.answer(WAIT_SECONDS) for one in said]
    assert answers == [Played(said[-1].id, 6, 600, 600, True)] * 6
    assert talk.listener.sent[: len(recording)].startswith(in_its_format(talk, recording))


async def test_a_worker_barges_in_and_learns_what_was_heard(talk: Talk) -> None:
    async with call_of(talk) as call:
        said = await call.play(speech(5.0))
        mark = await call.mark("after")
        await talk.listener.heard(bytes(1600))
        cleared = await (await call.clear()).answer(WAIT_SECONDS)
        played = await said.answer(WAIT_SECONDS)
        assert await mark.answer(WAIT_SECONDS) == Reached(mark.id, "after", False)
    assert isinstance(cleared, Cleared)
    assert cleared.plays == 1
    assert played is not None
    assert (played.heard, played.duration_ms) == (False, 5000)
    assert played.played_ms < 5000
    assert talk.listener.of("clear") == [None]


async def test_a_mark_is_heard_behind_what_was_said(talk: Talk) -> None:
    async with call_of(talk) as call:
        await call.play(speech(0.2))
        mark = await call.mark("one")
        assert await mark.heard(WAIT_SECONDS) is True


async def test_a_worker_says_goodbye_and_hangs_up(talk: Talk) -> None:
    async with call_of(talk) as call:
        goodbye = await call.play(speech(0.3))
        ended = await call.hang_up()
        assert await ended.answer(WAIT_SECONDS) == Stopped("hangup")
        assert await goodbye.heard() is True
        with pytest.raises(CommandRefused, match="stream_ended"):
            await call.play(speech(0.1))
    assert await talk.listener.closed() == (1000, "hangup")


async def test_what_is_refused_says_why_and_the_call_goes_on(service: Service) -> None:
    async with twilio_call(service) as talk, call_of(talk) as call:
        refused: list[tuple[Said[Any], str]] = [
            (await call.play(b"", more=True), "bad_audio"),
            (await call.play(b"\1"), "bad_audio"),
            (await call.play(bytes(100), sample_rate=44100), "bad_format"),
            (await call.mark(""), "bad_field"),
            (await call.transfer("not a number"), "bad_field"),
            (await call.transfer("+14155550199"), "no_credentials"),
        ]
        for said, why in refused:
            with pytest.raises(CommandRefused) as error:
                await said.answer(WAIT_SECONDS)
            assert error.value.why == why
        assert await (await call.play(speech(0.1))).heard(WAIT_SECONDS) is True


async def test_a_plan_that_only_listens_is_told_to_the_worker(service: Service) -> None:
    async with twilio_call(service, "?businessId=listening") as talk, call_of(talk) as call:
        said = await call.play(speech(0.1))
        with pytest.raises(CommandRefused) as error:
            await said.heard(WAIT_SECONDS)
    assert (error.value.command, error.value.why) == ("play", "not_allowed")


async def test_what_was_not_heard_when_the_caller_hung_up_is_told(service: Service) -> None:
    async with twilio_call(service) as talk, call_of(talk) as call:
        said = await call.play(speech(3.0))
        await talk.listener.heard(bytes(800))
        await talk.listener.socket.close()
        with pytest.raises(CommandRefused, match="stream_ended"):
            await said.heard(WAIT_SECONDS)


async def test_nobody_waits_for_ever(service: Service) -> None:
    async with twilio_call(service) as talk, call_of(talk) as call:
        said = await call.play(speech(3.0))
        assert await said.heard(0.01) is None
        assert not said.is_answered


async def test_two_workers_of_a_group_each_hear_of_their_own(service: Service) -> None:
    async with (
        worker(service.redis_url, "speakers", start="new") as one,
        worker(service.redis_url, "speakers", start="new") as other,
        twilio_call(service),
        twilio_call(service),
    ):
        calls = [await next_call(one), await next_call(other)]
        said = [await call.play(speech(0.2)) for call in calls]
        assert await asyncio.gather(*(one.heard(WAIT_SECONDS) for one in said)) == [True, True]


async def test_a_stream_that_began_again_is_not_spoken_to_as_the_one_before(
    service: Service,
) -> None:
    async with twilio_call(service) as talk, call_of(talk) as call:
        record = f"stream:{{{talk.stream_sid}}}"
        await talk.redis.hset(record, "startedAt", call.started_at + 1)
        with pytest.raises(CommandRefused, match="stream_ended"):
            await call.play(speech(0.1))
        assert await talk.redis.xlen(f"control:{{{talk.stream_sid}}}") == 0


@pytest.mark.parametrize(
    ("encoding", "rate", "seconds", "sizes"),
    [
        (Encoding.PCM16, 8000, 0, [0]),
        (Encoding.PCM16, 8000, 20, [320_000]),
        (Encoding.PCM16, 8000, 41, [320_000, 320_000, 16_000]),
        (Encoding.MULAW, 8000, 21, [160_000, 8_000]),
        (Encoding.PCM16, 48000, 22, [1024 * 1024, 1024 * 1024, 14_848]),
    ],
)
def test_long_audio_is_cut_into_pieces_one_ahead(
    encoding: Encoding, rate: int, seconds: int, sizes: list[int]
) -> None:
    sound = MediaFormat(encoding, rate)
    audio = bytes(sound.bytes_per_second * seconds)
    cut = list(pieces(audio, sound))
    assert [len(piece.audio) for piece in cut] == sizes
    assert [piece.is_last for piece in cut] == [False] * (len(sizes) - 1) + [True]
    dues = [piece.due_seconds for piece in cut]
    length = sound.duration_ms(sizes[0]) / 1000
    assert dues == [max(0, at - 1) * length for at in range(len(sizes))]
