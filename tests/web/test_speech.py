"""Speech into live calls by the API: operators alone, and only where the service lets them."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from app.audio import pcm16_to_mulaw
from tests.playback.conftest import settings
from tests.playback.talking import CALLS, Talk, exotel_call, speech, twilio_call
from tests.service import Service, lines_with
from tests.waiting import until
from tests.web.admins import Caller, administered, bearer

__all__ = ["settings"]


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, settings: Mapping[str, str]
) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("speaking")
    with administered(directory, ADMIN_MAY_SPEAK="true", **settings) as service:
        yield service
        assert not lines_with(service.logged(), "Traceback")


async def post(
    house: Service, talk: Talk, what: str, body: bytes = b"", **more: Any
) -> httpx.Response:
    caller = more.pop("caller", None) or Caller(house)
    path = f"/calls/{talk.call_sid}/{what}"
    found: httpx.Response = await asyncio.to_thread(caller, "POST", path, content=body, params=more)
    return found


@pytest.mark.parametrize("place", CALLS)
async def test_an_operator_speaks_in_pieces_and_the_caller_hears_them(
    house: Service, place: str
) -> None:
    said = speech(1.0)
    async with CALLS[place](house) as talk:
        for at in range(0, len(said), 4000):
            more = at + 4000 < len(said)
            piece = said[at : at + 4000]
            answer = await post(house, talk, "play", piece, sample_rate=8000, more=more)
            assert answer.status_code == 202, answer.text
            assert bool(answer.json()["id"]) is not more
        [played] = await talk.told("stream.played")
        assert (played["id"], played["heard"]) == (answer.json()["id"], True)
        expected = pcm16_to_mulaw(said) if talk.listener.is_twilio else said
        assert talk.listener.sent.startswith(expected)
        log = (await asyncio.to_thread(Caller(house), "GET", "/audit")).json()["items"]
        mine = [one for one in log if one["target"] == talk.call_sid]
        # Once, however many pieces.
        assert [(one["action"], one["actor"]) for one in mine] == [("call.spoken_into", "operator")]


async def test_an_operator_silences_a_call(house: Service) -> None:
    async with exotel_call(house) as talk:
        await talk.command("play", audio=speech(5.0), id="long")
        await talk.listener.heard(bytes(1600))
        answer = await post(house, talk, "clear")
        assert answer.status_code == 202
        [cleared] = await talk.told("stream.cleared")
        assert cleared["id"] == answer.json()["id"]
        assert talk.listener.of("clear") == [None]
        log = (await asyncio.to_thread(Caller(house), "GET", "/audit")).json()["items"]
        assert ("call.silenced", talk.call_sid) in {(one["action"], one["target"]) for one in log}


@pytest.mark.parametrize(
    ("body", "asked", "status", "words"),
    [
        (b"", {}, 422, "whole samples"),
        (b"\1\2\3", {}, 422, "whole samples"),
        (bytes(320), {"sample_rate": 44100}, 422, "sample_rate"),
        (bytes(320), {"more": "perhaps"}, 422, "more"),
        (bytes(65538), {}, 400, "longer than 65536 bytes"),
        (bytes(320), {"business": "listening"}, 404, "no live call"),
    ],
)
async def test_what_cannot_be_said_is_refused(
    house: Service, body: bytes, asked: dict[str, Any], status: int, words: str
) -> None:
    async with twilio_call(house) as talk:
        answer = await post(house, talk, "play", body, **asked)
        assert answer.status_code == status
        assert words in answer.text
        assert talk.listener.messages == []


async def test_business_admin_speaks_into_calls_of_their_own_business_only(house: Service) -> None:
    operator = Caller(house)
    async with twilio_call(house) as talk:
        for business_id, status in (("talking", 202), ("listening", 404)):
            key = await asyncio.to_thread(operator.new_key, business_id)
            answer = await post(house, talk, "clear", caller=Caller(house, bearer(key["key"])))
            assert answer.status_code == status, answer.text


async def test_a_plan_that_only_listens_is_not_spoken_to(house: Service) -> None:
    async with twilio_call(house, "?businessId=listening") as talk:
        answer = await post(house, talk, "play", bytes(320))
        assert answer.status_code == 403
        assert "has no return_audio" in answer.text


async def test_a_call_that_is_over_is_not_there(house: Service) -> None:
    async with twilio_call(house) as talk:
        pass

    async def is_gone() -> bool:
        return (await post(house, talk, "play", bytes(320))).status_code == 404

    await until(is_gone)
    assert (await post(house, talk, "clear")).status_code == 404


async def test_it_is_off_unless_it_was_turned_on(
    tmp_path_factory: pytest.TempPathFactory, settings: Mapping[str, str]
) -> None:
    with administered(tmp_path_factory.mktemp("silent"), **settings) as silent:
        async with twilio_call(silent) as talk:
            for what in ("play", "clear"):
                answer = await post(silent, talk, what, bytes(320))
                assert answer.status_code == 403
                assert "ADMIN_MAY_SPEAK is not set" in answer.text
            assert talk.listener.messages == []
