"""The benchmark's own arithmetic: what it sends, compares, counts and prints."""

import asyncio
import base64
import json
import math
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from app.audio import mulaw_to_pcm16
from app.errors import LocalError
from app.wire.back import TwilioReturn
from benchmarks.administration import EDIT, ApiLoad, Operator, api_lines, asked, load_api
from benchmarks.comparison import Comparison, Measured, order
from benchmarks.contenders import NODE, contenders
from benchmarks.exact import FIRST_SEQ, Found, Tally, compare, compare_all
from benchmarks.frames import FramesLoad, Stretch, Timing, latencies, load_frames
from benchmarks.hearing import Ear, drift_of, first_after, round_trips
from benchmarks.host import Cores, Service, Usage, private_service
from benchmarks.latency import Latencies
from benchmarks.line import TEXT, client_frame, connect, take_frame
from benchmarks.pages import Difference, Turn, page_lines, watching
from benchmarks.playback import load_playback, playback_lines
from benchmarks.speech import speeches_to
from benchmarks.table import comparison_lines, markdown, spread
from benchmarks.webhook import Answer

CORES = Cores(1, frozenset({0}))

# --------------------------------------------------------------------------- frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
async def test_a_peer_reads_what_a_client_frame_holds(size: int) -> None:
    got: asyncio.Future[str | bytes] = asyncio.get_running_loop().create_future()

    async def peer(socket: ServerConnection) -> None:
        got.set_result(await socket.recv())
        await socket.wait_closed()

    async with serve(peer, "127.0.0.1", 0) as server:
        line = await connect("127.0.0.1", server.sockets[0].getsockname()[1], "/", {})
        line.write(client_frame(TEXT, b"x" * size))
        assert await asyncio.wait_for(got, 10) == "x" * size
        line.close()
        await asyncio.wait_for(line.closed, 10)


async def test_pings_are_answered() -> None:
    answered = asyncio.Event()

    async def peer(socket: ServerConnection) -> None:
        await (await socket.ping(b"there?"))
        answered.set()

    async with serve(peer, "127.0.0.1", 0) as server:
        line = await connect("127.0.0.1", server.sockets[0].getsockname()[1], "/", {})
        await asyncio.wait_for(answered.wait(), 10)
        await asyncio.wait_for(line.closed, 10)
        assert not line.is_open


@pytest.mark.parametrize(("code", "cut"), [(1000, False), (1011, True)])
async def test_a_close_that_is_not_normal_is_a_cut(code: int, cut: bool) -> None:
    async def peer(socket: ServerConnection) -> None:
        await socket.close(code)

    async with serve(peer, "127.0.0.1", 0) as server:
        line = await connect("127.0.0.1", server.sockets[0].getsockname()[1], "/", {})
        await asyncio.wait_for(line.closed, 10)
        assert line.was_cut is cut


async def test_a_close_without_a_code_is_no_cut() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x88\x00")
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(peer, "127.0.0.1", 0) as server:
        line = await connect("127.0.0.1", server.sockets[0].getsockname()[1], "/", {})
        await asyncio.wait_for(line.closed, 10)
        assert not line.was_cut


async def test_a_connection_that_we_closed_was_not_cut() -> None:
    async def peer(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with serve(peer, "127.0.0.1", 0) as server:
        line = await connect("127.0.0.1", server.sockets[0].getsockname()[1], "/", {})
        line.close()
        await asyncio.wait_for(line.closed, 10)
        assert not line.was_cut


async def test_a_refused_handshake_is_an_error() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(peer, "127.0.0.1", 0) as server:
        with pytest.raises(LocalError, match="403"):
            await connect("127.0.0.1", server.sockets[0].getsockname()[1], "/", {})


@pytest.mark.parametrize("size", [0, 125, 126, 70_000])
def test_a_servers_frame_is_taken_when_it_is_whole(size: int) -> None:
    length = (
        bytes([size])
        if size < 126
        else b"\x7e" + size.to_bytes(2)
        if size < 65_536
        else b"\x7f" + size.to_bytes(8)
    )
    received = bytearray(b"\x82" + length + b"y" * size)
    whole = bytes(received)
    del received[-1]
    assert take_frame(received) is None
    received[:] = whole + b"rest"
    assert take_frame(received) == (2, b"y" * size)
    assert received == b"rest"


def unmasked(frame: bytes) -> bytes:
    key, masked = frame[4:8], frame[8:]
    return bytes(byte ^ key[place % 4] for place, byte in enumerate(masked))


def test_every_frame_of_a_call_is_numbered_masked_and_its_audio_known() -> None:
    speech, other = speeches_to("+15005550006", 2, 100)
    assert speech.call.stream_sid != other.call.stream_sid
    assert len({frame[4:8] for frame in speech.messages}) > 90  # random masks
    for place, (frame, heard) in enumerate(zip(speech.messages, speech.heard, strict=True)):
        message = json.loads(unmasked(frame))
        assert message["sequenceNumber"] == str(FIRST_SEQ + place)
        assert message["media"]["timestamp"] == str(20 * place)
        payload = base64.b64decode(message["media"]["payload"])
        assert len(payload) == 160
        assert mulaw_to_pcm16(payload) == heard


# ------------------------------------------------------------------------ exactness

SENT = [b"a", b"b", b"c", b"d"]
READ = [Found(FIRST_SEQ + place, audio) for place, audio in enumerate(SENT)]
A, B, C, D = READ


@pytest.mark.parametrize(
    ("entries", "tally"),
    [
        pytest.param(READ, Tally(4, 4), id="all of it"),
        pytest.param([], Tally(4, 0), id="nothing"),
        pytest.param([A, C, D], Tally(4, 3), id="one lost"),
        pytest.param([A, B, B, C, D], Tally(4, 4, duplicated=1), id="one doubled"),
        pytest.param([A, C, B, D], Tally(4, 4, reordered=1), id="one moved"),
        pytest.param([A, B, C, Found(D.seq, b"x")], Tally(4, 3, foreign=1), id="other audio"),
        pytest.param([*READ, Found(99, b"a")], Tally(4, 4, foreign=1), id="never sent"),
        pytest.param([Found(1, b"a"), *READ], Tally(4, 4, foreign=1), id="before the first"),
        pytest.param(
            [Found(None, audio) for audio in SENT], Tally(4, 4, numbered=False), id="no numbers"
        ),
        pytest.param(
            [Found(None, audio) for audio in b"a b d".split()],
            Tally(4, 2, foreign=1, numbered=False),
            id="no numbers, one lost",
        ),
    ],
)
def test_entries_are_compared_with_what_was_sent(entries: Sequence[Found], tally: Tally) -> None:
    assert compare(entries, SENT) == tally
    assert tally.lost == 4 - tally.readable


def test_calls_add_up_and_one_without_numbers_marks_them_all() -> None:
    nameless = [Found(None, audio) for audio in SENT]
    assert compare_all([(READ, SENT), ([A, B], SENT), (nameless, SENT)]) == Tally(
        12, 10, numbered=False
    )


# ------------------------------------------------------------------------ latencies


def test_a_latency_runs_from_write_to_arrival_of_the_same_frame() -> None:
    written = [1.0, 2.0, 3.0, 4.0]
    arrivals = [(FIRST_SEQ, 1.5), (FIRST_SEQ + 2, 3.25), (FIRST_SEQ + 1, 3.5)]
    took = list(latencies(arrivals, written, first=1.0, last=4.0, ended=9.0))
    assert took == [0.5, 1.5, 0.25]


def test_a_frame_that_did_not_come_took_until_the_reader_ended() -> None:
    took = list(latencies([(FIRST_SEQ, 1.5)], [1.0, 2.0], first=0.0, last=5.0, ended=7.0))
    assert took == [0.5, 5.0]


def test_entries_without_numbers_are_paired_by_place() -> None:
    took = list(latencies([(None, 1.5), (None, 2.75)], [1.0, 2.0], first=2.0, last=5.0, ended=7.0))
    assert took == [0.75]


def test_lateness_is_against_the_time_of_each_call_and_frame() -> None:
    timing = Timing(10.0, [[10.0, 10.021], [10.01, 10.032]])
    assert list(timing.late(10.0, 11.0)) == pytest.approx([0.0, 0.001, 0.0, 0.002])
    assert list(timing.late(10.02, 10.03)) == pytest.approx([0.001])


def test_percentiles_are_values_that_occurred() -> None:
    shown = Latencies.of([number / 1000 for number in range(1, 1001)])
    assert (shown.p50, shown.p99, shown.p999, shown.longest) == pytest.approx((500, 990, 999, 1000))
    assert math.isnan(Latencies.of([]).p50)


# ------------------------------------------------------------------------- the table


def load(
    micros: float,
    *,
    calls: int = 100,
    tally: Tally | None = None,
    offered: int = 1000,
    late: float = 0.001,
    generator: float = 1.0,
    unfinished: bool = False,
) -> FramesLoad:
    usage = Usage(10.0, micros * 1000 / 1e6, 0.005, generator, 0.0)
    return FramesLoad(
        calls=calls,
        tally=tally or Tally(1000, 1000),
        counted=Stretch(usage, 1000),
        quiet=Stretch(usage, 1000),
        offered=offered,
        latencies=Latencies.of([0.005]),
        samples=1,
        late=Latencies.of([late]),
        call_bytes=100 * 1024,
        hung_up=0,
        unfinished=unfinished,
        warnings=0,
    )


def drawn(**loads: FramesLoad | list[FramesLoad]) -> str:
    known = contenders(2)
    rows = [
        Measured(known[name], of[0].calls, of, 20 * 1024)
        for name, of in ((n, o if isinstance(o, list) else [o]) for n, o in loads.items())
    ]
    return "\n".join(comparison_lines(Comparison(rows, ["pipecat: no network"]), CORES))


def cells(table: str, title: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| {title}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_has_its_ratios_to_node_and_the_floor() -> None:
    table = drawn(ours=load(15.0), node=load(50.0), floor=load(7.5))
    assert cells(table, "**ours**")[1:6] == ["100", "15.0", "0.30", "2.00", "1,333"]
    assert cells(table, "**ours**")[9:12] == ["5.0", "20, 100", "0, 0, 0"]


def test_without_node_there_is_no_ratio_and_no_verdict_on_it() -> None:
    table = drawn(ours=load(15.0), floor=load(7.5))
    assert cells(table, "**ours**")[3] == "–"
    assert "node's" not in table
    assert "- pipecat: no network." in table


@pytest.mark.parametrize(
    ("micros", "verdict"),
    [(15.0, "held, both"), (20.0, "held"), (20.1, "**not held**")],
)
def test_a_figure_is_held_or_not(micros: float, verdict: str) -> None:
    table = drawn(ours=load(micros), node=load(50.0))
    assert cells(table, "CPU a frame at most 0.4")[-1] == verdict


def test_one_altered_frame_breaks_exactness() -> None:
    whole = "none lost, doubled, moved or altered; 100 calls"
    assert cells(drawn(ours=load(9)), whole)[-1] == "held"
    for fault in (Tally(9, 8), Tally(9, 9, duplicated=1), Tally(9, 9, foreign=1)):
        assert cells(drawn(ours=load(9, tally=fault)), whole)[-1] == "**not held**"


def test_what_was_still_coming_is_not_called_lost() -> None:
    table = drawn(fastapi=load(50.0, tally=Tally(1000, 900), unfinished=True))
    assert cells(table, "FastAPI")[11] == "–, 0, 0"
    assert "100 frames were still on their way" in table
    table = drawn(fastapi=load(50.0, tally=Tally(1000, 900)))
    assert cells(table, "FastAPI")[11] == "100, 0, 0"


def test_workers_are_compared_at_as_many_calls_for_each() -> None:
    table = drawn(ours=load(20.0), workers=load(24.0, calls=200))
    assert cells(table, "CPU a frame with 2 workers, 200 calls")[1:] == ["1.20", "**not held**"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"offered": 2000}, "did not keep up: 50%"),
        ({"late": 0.006}, "CAUTION"),
        ({"generator": 8.5}, "CAUTION"),
        ({"tally": Tally(9, 9, numbered=False)}, "no number"),
    ],
)
def test_what_bends_a_row_is_said(changed: dict[str, float], said: str) -> None:
    assert said not in drawn(fastapi=load(50.0))
    assert said in drawn(fastapi=load(50.0, **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([20.0], "20.0"),
        ([20.0, 21.0], "20.5"),
        ([20.0, 30.0], "25.0 (20.0–30.0)"),
        ([20.0, math.nan], "–"),
        ([], "–"),
    ],
)
def test_rounds_are_shown_by_their_median_and_where_they_differ_their_range(
    values: Sequence[float], shown: str
) -> None:
    assert spread(values) == shown


def test_the_columns_of_a_table_are_aligned() -> None:
    assert markdown(("a", "long"), [("wide one", "x")]) == [
        "| a        | long |",
        "| -------- | ---- |",
        "| wide one | x    |",
    ]


def test_who_carries_fewer_calls_has_one_turn_with_these() -> None:
    known = contenders(2)
    asked = [known["ours"], known["workers"], known["pipecat"]]
    turns = [(contender.name, calls) for contender, calls in order(asked, [100, 300])]
    assert turns == [
        ("ours", 100),
        ("workers", 200),
        ("pipecat", 20),
        ("ours", 300),
        ("workers", 600),
    ]


# ---------------------------------------------------------------- the administration


def nowhere(url: str = "http://127.0.0.1:1") -> Service:
    return Service(url, "", "", "", "", 0, 0, Path(), 0, admin_token="the operator's")


def test_each_route_and_each_call_has_its_turn() -> None:
    due = list(islice(asked(Operator(nowhere()), ["over-1", "over-2"], ["live"]), 24))
    assert set(Counter(route for route, _ in due).values()) == {3}
    firsts = [request.partition(b"\r\n")[0].decode() for _, request in due]
    assert [line.split()[1] for line in firsts if "waveform" in line] == [
        f"/api/v1/calls/{sid}/waveform" for sid in ("over-1", "over-2", "over-1")
    ]
    single = [
        first for (route, _), first in zip(due, firsts, strict=True) if route == "GET /calls/{sid}"
    ]
    assert [line.split()[1] for line in single] == [
        f"/api/v1/calls/{sid}" for sid in ("live", "over-1", "over-2")
    ]
    edits = [request for route, request in due if route == EDIT]
    assert edits[0] != edits[1]  # or there would be nothing to store
    assert all(b"\r\nAuthorization: Bearer the operator's\r\n" in request for _, request in due)


async def test_an_edit_is_of_the_version_that_the_last_one_told() -> None:
    versions = iter([4, 5, 6])
    heard = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for version in versions:
            head = await reader.readuntil(b"\r\n\r\n")
            heard.append([line for line in head.split(b"\r\n") if line.startswith(b"If-Match")])
            size = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(size)
            body = json.dumps({"version": version}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    async with await asyncio.start_server(peer, "127.0.0.1", 0) as server:
        operator = Operator(nowhere(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        await operator.know()
        edit = operator.request(EDIT, {"retention_seconds": 60})
        await asyncio.gather(operator.ask(edit), operator.ask(edit))
        operator.close()
    assert heard == [[], [b'If-Match: "4"'], [b'If-Match: "5"']]


def answered(*latencies_ms: float, status: int = 200) -> list[Answer]:
    return [Answer(status, b"", ms / 1000, 0.0) for ms in latencies_ms]


@pytest.mark.parametrize(
    ("slow", "verdict"),
    [
        (answered(100.0), "held"),
        (answered(100.1), "**not held**"),
        (answered(1.0, status=500), "**not held**"),
    ],
)
def test_the_api_holds_when_it_is_quick_and_refuses_nothing(
    slow: list[Answer], verdict: str
) -> None:
    found = ApiLoad(20, {"GET /live": answered(1.0, 2.0), "GET /calls": slow}, load(9))
    table = "\n".join(api_lines(found, CORES))
    assert cells(table, "GET /live")[1:] == ["2", "0", "1.0", "2.0", "2.0"]
    assert cells(table, "**all**")[1] == "3"
    assert cells(table, "p99 of the API")[-1] == verdict


def test_the_kind_of_a_refusal_is_shown() -> None:
    found = ApiLoad(20, {EDIT: answered(1.0) + answered(1.0, 1.0, status=412)}, load(9))
    assert cells("\n".join(api_lines(found, CORES)), EDIT)[2] == "412: 2"


@pytest.mark.parametrize(
    ("without", "pages", "verdict"),
    [
        ([20.0, 22.0], [22.0, 23.0], "nothing measurable"),
        ([20.0, 20.5], [22.0, 22.1], "**measurable**"),
        ([22.0, 22.1], [20.0, 20.5], "nothing measurable"),
        ([20.0], [22.0], "–"),
        ([math.nan, math.nan], [22.0, 22.0], "–"),
    ],
)
def test_what_pages_cost_is_judged_by_what_turns_differ_by_anyway(
    without: Sequence[float], pages: Sequence[float], verdict: str
) -> None:
    assert Difference.of(without, pages).verdict() == verdict


def test_turns_with_pages_stand_beside_those_without() -> None:
    turns = [
        Turn(load(20.0)),
        Turn(load(23.0), "3 browsers", [50, 50, 49]),
        Turn(load(21.0)),
        Turn(load(24.0, tally=Tally(1000, 999)), "3 browsers", [50, 50, 50]),
    ]
    table = "\n".join(page_lines(turns, CORES))
    assert cells(table, "100 live calls")[1:] == ["no page", "pages", "no page", "pages"]
    assert cells(table, "CPU of the service")[1:] == ["20.0", "23.0", "21.0", "24.0"]
    assert cells(table, "calls that each page")[1:] == ["–", "50, 50, 49", "–", "50, 50, 50"]
    told = ["+3.0; turns alike differ by 1.0", "**measurable**"]
    assert cells(table, "pages cost nothing measurable: CPU")[1:] == told
    assert cells(table, "no frame lost")[1:] == ["1", "**not held**"]
    assert "- pages: 3 browsers." in table


# ------------------------------------------------------------------------ for real


def test_the_lock_of_the_node_peer_names_no_registry() -> None:
    lock = json.loads((NODE / "package-lock.json").read_text(encoding="utf-8"))
    assert len(lock["packages"]) > 10
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]


async def test_a_load_on_the_service_itself_is_whole() -> None:
    with private_service(Cores(None, frozenset())) as service:
        found = await load_frames(service, calls=3, seconds=1.0, warm_up=0.2)
    assert found.tally == Tally(sent=180, readable=180)
    assert found.counted.frames > 0
    assert found.samples > 0
    assert found.hung_up == 0


async def test_every_request_of_the_administration_is_answered() -> None:
    with private_service(Cores(None, frozenset())) as service:
        found = await load_api(service, calls=2, seconds=1, rate=16, over_seconds=0.2)
    assert [len(answers) for answers in found.answers.values()] == [2] * 8
    assert {answer.status for answer in found.all} == {200}
    assert found.calls.lost == 0


async def test_without_a_browser_plain_clients_follow_the_calls() -> None:
    with private_service(Cores(None, frozenset())) as service, watching(service, "") as watchers:
        found = await load_frames(service, calls=2, seconds=1.0)
        assert watchers.end() == [2, 2, 2]
    assert "no Chromium" in watchers.who
    assert found.lost == 0


# ------------------------------------------------------------------------- playback


@pytest.mark.parametrize(("slower", "drift"), [(1.0, 0.0), (1.0001, 6.0), (0.9995, -30.0)])
def test_the_drift_of_messages_is_told_in_ms_a_minute(slower: float, drift: float) -> None:
    heard = [(1000.0, b"\xff" * 160)] * 8
    for number in range(8, 3000):
        late = 0.005 if number % 3 else 0.0  # the receiver's own
        heard.append((1000.0 + (number - 8) * 0.02 * slower + late, b"\xff" * 160))
    assert drift_of(heard) == pytest.approx(drift, abs=0.05)


def test_of_too_few_messages_no_drift_can_be_told() -> None:
    assert math.isnan(drift_of([]))
    assert math.isnan(drift_of([(1.0, b"\xff" * 160)] * 3))


def test_a_round_trip_is_that_of_the_frame_that_was_heard_again() -> None:
    speech = [b"a", b"b", b"b", b"c\x7f"]
    written = [10.0 + n for n in range(8)]  # frames: b b c a b b c a
    heard = [(12.5, b"c\xff"), (13.25, b"b"), (17.125, b"a"), (17.5, b"unknown")]
    assert list(round_trips(speech, 1, written, heard)) == [0.5, 0.125]


def test_an_ear_hears_audio_and_clears_and_echoes_marks() -> None:
    written: list[bytes] = []

    class Wire:
        def write(self, frame: bytes) -> None:
            written.append(frame)

    ear = Ear(Wire(), "MZ1")  # type: ignore[arg-type]
    back = TwilioReturn("MZ1")
    for message in (back.media(b"\x01\x02"), back.mark("m"), back.clear()):
        ear.take(message.encode())
    assert [payload for _, payload in ear.heard] == [b"\x01\x02"]
    assert len(ear.cleared) == len(written) == 1
    assert first_after(ear.cleared, ear.cleared[0]) is None
    assert first_after(ear.cleared, 0.0) == ear.cleared[0]


async def test_calls_that_are_spoken_into_are_measured() -> None:
    with private_service(CORES) as service:
        load = await load_playback(service, calls=3, seconds=1)
    assert len(load.first_bytes) == len(load.silences) == 3
    assert (load.missed, load.after_clear) == (0, 0)
    assert len(load.drifts) == 3
    assert load.echoes
    lines = "\n".join(playback_lines(load))
    assert "3 live calls" in lines
    assert "nan" not in lines
