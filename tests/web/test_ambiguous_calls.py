"""Two businesses with calls of one CallSid: an operator says whose, a key always gets its own."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from app.cli import main
from tests.service import Peer, Service, a_call, a_peer, post, receipt_of, started, written
from tests.waiting import WAIT_SECONDS
from tests.web.admins import OPERATOR, Caller, administered, bearer

NUMBERS = {"business-1": "+15005550006", "business-2": "+15005550002"}
A, B = NUMBERS
# A sound of each business's own: what is read shows whose it is.
SOUNDS = {A: b"\x80" * 160, B: b"\x00" * 160}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("ambiguous")
    with administered(directory, ADMIN_MAY_SPEAK="true") as service:
        yield service


@pytest.fixture(scope="module")
def keys(house: Service) -> dict[str, Caller]:
    operator = Caller(house)
    return {name: Caller(house, bearer(operator.new_key(name)["key"])) for name in NUMBERS}


@asynccontextmanager
async def twins(house: Service) -> AsyncIterator[dict[str, Peer]]:
    """Let each business have a live call, both of one CallSid."""
    call_sid = "CA" + secrets.token_hex(16)
    async with AsyncExitStack() as stack:
        peers = {}
        for name, number in NUMBERS.items():
            form = {**a_call(number), "CallSid": call_sid}
            answer = await post(house, "/twilio-voice", form)
            ticket = answer.text.partition('name="ticket" value="')[2].partition('"')[0]
            peer = await stack.enter_async_context(a_peer(house, call_sid=call_sid))
            await peer.start({"ticket": ticket, "from": form["From"]})
            await started(house, peer.stream_sid)
            await peer.media(5, SOUNDS[name])
            await written(house, peer.stream_sid, 5)
            peers[name] = peer
        yield peers


READS = ["", "/events", "/waveform", "/audio.wav"]
LIVE = [("GET", "/live.pcm"), ("POST", "/end"), ("POST", "/play"), ("POST", "/clear")]


async def test_an_operator_is_asked_whose_call_is_meant(house: Service) -> None:
    operator = Caller(house)
    async with twins(house) as peers:
        call = f"/calls/{peers[A].call_sid}"
        for method, path in [*(("GET", path) for path in READS), *LIVE, ("DELETE", "")]:
            body = bytes(320) if path == "/play" else None
            answer = await asyncio.to_thread(operator, method, call + path, content=body)
            assert (answer.status_code, answer.json()["error"]) == (409, "ambiguous_call"), path
            assert "business-1, business-2" in answer.json()["detail"]
            assert "?business=" in answer.json()["detail"]
        # Nothing was done to either.
        live = await asyncio.to_thread(operator, "GET", "/live")
        assert {one["business_id"] for one in live.json()["items"]} >= {A, B}
        for name in NUMBERS:
            found = await asyncio.to_thread(operator, "GET", f"{call}?business={name}")
            assert found.json()["business_id"] == name
            [stream] = found.json()["streams"]
            assert stream["stream_sid"] == peers[name].stream_sid


async def test_a_key_always_gets_its_own(house: Service, keys: dict[str, Caller]) -> None:
    async with twins(house) as peers:
        call = f"/calls/{peers[A].call_sid}"
        for name, caller in keys.items():
            for path in READS:
                answer = await asyncio.to_thread(caller, "GET", call + path)
                assert answer.status_code == 200, path
            audio = await asyncio.to_thread(caller, "GET", f"{call}/audio.wav")
            operators = await asyncio.to_thread(
                Caller(house), "GET", f"{call}/audio.wav?business={name}"
            )
            assert audio.content == operators.content
            other = B if name == A else A
            refused = await asyncio.to_thread(caller, "GET", f"{call}?business={other}")
            assert refused.status_code == 404
        heard = [
            (await asyncio.to_thread(caller, "GET", f"{call}/audio.wav")).content
            for caller in keys.values()
        ]
        assert heard[0] != heard[1]


async def test_ends_the_call_that_is_meant_and_no_other(
    house: Service, keys: dict[str, Caller]
) -> None:
    async with twins(house) as peers:
        call = f"/calls/{peers[A].call_sid}"
        ended = await asyncio.to_thread(Caller(house), "POST", f"{call}/end?business={B}")
        assert ended.status_code == 202
        receipt = await receipt_of(house, peers[B].stream_sid)
        assert receipt["end_reason"] == "ended_by_admin"
        await peers[A].media(1, SOUNDS[A])
        await written(house, peers[A].stream_sid, 6)  # it goes on
        assert (await asyncio.to_thread(keys[A], "POST", f"{call}/end")).status_code == 202
        assert (await receipt_of(house, peers[A].stream_sid))["end_reason"] == "ended_by_admin"


async def test_erases_the_call_that_is_meant_and_no_other(
    house: Service, keys: dict[str, Caller]
) -> None:
    operator = Caller(house)
    async with twins(house) as peers:
        call = f"/calls/{peers[A].call_sid}"
        for peer in peers.values():
            await peer.stop()
            await receipt_of(house, peer.stream_sid)
    assert (await asyncio.to_thread(operator, "DELETE", call)).status_code == 409
    kept = await asyncio.to_thread(keys[A], "GET", f"{call}/audio.wav")
    erased = await asyncio.to_thread(operator, "DELETE", f"{call}?business={B}")
    assert erased.status_code == 200, erased.text
    assert (await asyncio.to_thread(keys[B], "GET", call)).status_code == 404
    left = await asyncio.to_thread(keys[A], "GET", f"{call}/audio.wav")
    assert left.content == kept.content
    # Alone now, it needs no name any more.
    assert (await asyncio.to_thread(operator, "GET", call)).json()["business_id"] == A


async def test_commands_ask_whose_call_is_meant(
    house: Service,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", house.redis_url)
    async with twins(house) as peers:
        call_sid = peers[A].call_sid
        for command in (
            ["export", call_sid, "--format", "wav", "-o", str(tmp_path / "x.wav")],
            ["tail", call_sid],
            ["say", call_sid, "hello"],
        ):
            assert await asyncio.to_thread(main, command) == 2
            said = capsys.readouterr().err
            assert "business-1, business-2" in said
            assert "--business" in said
        files = []
        for name in NUMBERS:
            files.append(tmp_path / f"{name}.wav")
            given = ["--format", "wav", "--business", name, "-o", str(files[-1])]
            assert await asyncio.to_thread(main, ["export", call_sid, *given]) == 0
        assert files[0].read_bytes() != files[1].read_bytes()


async def test_the_pages_show_the_call_that_the_link_names(house: Service) -> None:
    async with twins(house) as peers:
        sid = peers[A].call_sid
        token = OPERATOR["Authorization"].removeprefix("Bearer ")
        async with httpx.AsyncClient(
            verify=False, timeout=WAIT_SECONDS, base_url=house.url
        ) as client:
            assert (await client.post("/admin/sign-in", data={"key": token})).status_code == 303
            for name in NUMBERS:
                page = await client.get(f"/admin/calls/{sid}?business={name}")
                assert page.status_code == 200
                assert f"business={name}" in page.text
            assert (await client.get(f"/admin/calls/{sid}")).status_code == 404
