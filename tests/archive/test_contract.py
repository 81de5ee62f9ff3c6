"""What every archive promises: calls listed and found, their streams read, all of it erased."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from app.archive.base import CallFilter, Erased
from app.archive.calls import CallState
from app.errors import AmbiguousCall, CallIsLive, FieldsInvalid, NotThere
from app.events import CallIdentity, EndEntry, LifecycleEvent
from app.media import Track
from app.pubsub.base import Announce
from app.pubsub.records import KeptStream
from tests.archive.kept import NOW_MS, Kept, audio
from tests.samples import CALL

ALL = CallFilter()
OTHER = replace(CALL, call_sid="CA2", stream_sid="MZ2", business_id="business-2")
FRAME = bytes(range(160)) * 2
STREAM = KeptStream("MZ1", "business-1", NOW_MS)
NONE = KeptStream("MZ-none", "business-1", NOW_MS)


def numbered(number: int) -> CallIdentity:
    return replace(CALL, call_sid=f"CA{number}", stream_sid=f"MZ{number}")


async def erased_silently(erased: Erased) -> None:
    """See what was erased, and say nothing."""


# --------------------------------------------------------------------------- lists


async def test_calls_come_the_latest_first_page_by_page(kept: Kept) -> None:
    for number in range(7):
        await kept.tell(numbered(number), "call.incoming", NOW_MS + number)
    pages, cursor = [], ""
    while True:
        page = await kept.archive.calls("business-1", ALL, cursor, limit=3)
        pages.append([call.call_sid for call in page.calls])
        if page.next is None:
            break
        cursor = page.next
    assert pages == [["CA6", "CA5", "CA4"], ["CA3", "CA2", "CA1"], ["CA0"]]


async def test_a_page_that_is_just_full_has_none_after_it(kept: Kept) -> None:
    for number in range(3):
        await kept.tell(numbered(number), "call.incoming", NOW_MS + number)
    page = await kept.archive.calls("business-1", ALL, limit=3)
    assert (len(page.calls), page.next) == (3, None)


async def test_calls_of_one_moment_are_each_listed_once(kept: Kept) -> None:
    for number in range(9):
        await kept.tell(numbered(number), "call.incoming", NOW_MS)
    found, cursor = [], ""
    while True:
        page = await kept.archive.calls("business-1", ALL, cursor, limit=2)
        found += [call.call_sid for call in page.calls]
        if page.next is None:
            break
        cursor = page.next
    assert found == [f"CA{number}" for number in reversed(range(9))]


async def test_who_calls_meanwhile_does_not_shift_the_pages(kept: Kept) -> None:
    for number in range(4):
        await kept.tell(numbered(number), "call.incoming", NOW_MS + number)
    first = await kept.archive.calls("business-1", ALL, limit=2)
    await kept.tell(numbered(9), "call.incoming", NOW_MS + 9)
    second = await kept.archive.calls("business-1", ALL, first.next or "", limit=2)
    assert [call.call_sid for call in second.calls] == ["CA1", "CA0"]


async def test_a_business_sees_its_own_calls_and_an_operator_all(kept: Kept) -> None:
    await kept.tell(CALL, "call.incoming", NOW_MS)
    await kept.tell(OTHER, "call.incoming", NOW_MS + 1)
    for business, expected in (
        ("business-1", ["CA1"]),
        ("business-2", ["CA2"]),
        ("business-3", []),
        (None, ["CA2", "CA1"]),
    ):
        page = await kept.archive.calls(business, ALL)
        assert [call.call_sid for call in page.calls] == expected
    all_calls = await kept.archive.calls(None, ALL, limit=1)
    rest = await kept.archive.calls(None, ALL, all_calls.next or "", limit=1)
    assert [call.business_id for call in (*all_calls.calls, *rest.calls)] == [
        "business-2",
        "business-1",
    ]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (CallFilter(), ["CA4", "CA3", "CA2", "CA1"]),
        (CallFilter(state=CallState.REJECTED), ["CA4"]),
        (CallFilter(state=CallState.LIVE), ["CA3"]),
        (CallFilter(state=CallState.ENDED), ["CA1"]),
        (CallFilter(state=CallState.INCOMING), ["CA2"]),
        (CallFilter(state=CallState.LOST), []),
        (CallFilter(from_number="0009"), ["CA3", "CA1"]),
        (CallFilter(to_number="+15005550006"), ["CA3", "CA1"]),
        (CallFilter(from_number="777"), []),
        (CallFilter(since=NOW_MS + 3), ["CA4", "CA3"]),
        (CallFilter(until=NOW_MS + 3), ["CA2", "CA1"]),
        (CallFilter(since=NOW_MS + 2, until=NOW_MS + 3), ["CA2"]),
        (CallFilter(since=NOW_MS + 3, until=NOW_MS), []),
    ],
)
async def test_calls_are_found_by_what_is_asked(
    kept: Kept, wanted: CallFilter, expected: list[str]
) -> None:
    await kept.whole(numbered(1), [audio(1, 0, FRAME)], at=NOW_MS + 1)
    await kept.tell(numbered(2), "call.incoming", NOW_MS + 2)
    await kept.begin(numbered(3), NOW_MS + 3)
    await kept.tell(numbered(4), "call.rejected", NOW_MS + 4, reason="plan_limit_reached")
    page = await kept.archive.calls("business-1", wanted, limit=50)
    assert [call.call_sid for call in page.calls] == expected
    everybodys = await kept.archive.calls(None, wanted, limit=50)
    assert [call.call_sid for call in everybodys.calls] == expected


@pytest.mark.parametrize("cursor", ["x", "not a cursor", "ÄÄÄ", "MTIz!", "aGVsbG8"])
async def test_a_cursor_that_is_none_is_refused(kept: Kept, cursor: str) -> None:
    with pytest.raises(FieldsInvalid, match="cursor"):
        await kept.archive.calls("business-1", ALL, cursor)


# ------------------------------------------------------------------------ one call


async def test_a_call_has_its_events_its_streams_and_their_records(kept: Kept) -> None:
    await kept.whole(CALL, [audio(1, 0, FRAME)])
    call = await kept.archive.call("business-1", "CA1")
    assert [event.name for event in call.events] == [
        "call.incoming",
        "stream.started",
        "stream.stopped",
    ]
    [stream] = call.summary.streams
    assert stream.receipt is not None
    assert stream.receipt["published"] == 1
    record = call.records["MZ1"]
    assert record.stream.params == {"a": "b"}
    assert record.stream.tracks == (Track.INBOUND,)
    assert record.ended_at == NOW_MS + 5000
    assert record.receipt == stream.receipt


async def test_an_operator_finds_whose_call_it_is(kept: Kept) -> None:
    for number in range(600):
        await kept.tell(numbered(number), "call.incoming", NOW_MS + number)
    await kept.tell(replace(OTHER, call_sid="CA-2"), "call.incoming", NOW_MS)
    assert await kept.archive.owner_of("CA599") == "business-1"
    assert await kept.archive.owner_of("CA-2") == "business-2"
    for unknown in ("CA", "CA600", "2", "CA5*", "", "*", "1 CA1", "business-1 CA1"):
        assert await kept.archive.owner_of(unknown) is None


async def test_a_call_id_of_several_businesses_is_ambiguous(kept: Kept) -> None:
    await kept.tell(CALL, "call.incoming", NOW_MS)
    assert await kept.archive.owner_of(CALL.call_sid) == "business-1"
    await kept.tell(replace(CALL, business_id="business-2"), "call.incoming", NOW_MS)
    with pytest.raises(AmbiguousCall, match=r"business-1, business-2; name one, as .business=ID"):
        await kept.archive.owner_of(CALL.call_sid)


@pytest.mark.parametrize("business", ["business-2", "", "business-1 ", "BUSINESS-1"])
async def test_another_businesss_call_is_not_there(kept: Kept, business: str) -> None:
    await kept.whole(CALL, [audio(1, 0, FRAME)])
    with pytest.raises(NotThere):
        await kept.archive.call(business, "CA1")
    with pytest.raises(NotThere):
        await kept.archive.erase(business, "CA1", erased_silently)
    assert (await kept.archive.call("business-1", "CA1")).records


async def test_a_stream_that_another_call_has_by_now_is_not_shown(kept: Kept) -> None:
    await kept.whole(CALL, [audio(1, 0, FRAME)])
    await kept.forget("MZ1")
    await kept.begin(replace(OTHER, stream_sid="MZ1"), NOW_MS + 9000)
    assert (await kept.archive.call("business-1", "CA1")).records == {}
    assert (await kept.archive.call("business-2", "CA2")).records.keys() == {"MZ1"}


# -------------------------------------------------------------------------- streams


async def test_a_streams_entries_are_read_in_pieces(kept: Kept) -> None:
    entries = [audio(n, 20 * (n - 1), FRAME) for n in range(1, 8)]
    await kept.whole(CALL, entries)
    extent = await kept.archive.extent(STREAM)
    assert extent is not None
    assert (extent.first_id, extent.last_id, extent.entries) == (f"{NOW_MS}-1", f"{NOW_MS}-8", 8)
    first = await kept.archive.entries(STREAM, "0-0", 5)
    rest = await kept.archive.entries(STREAM, first[-1][0], 5)
    assert [entry for _, entry in (*first, *rest)] == [*entries, EndEntry(8, "stop")]
    assert list(await kept.archive.latest(STREAM, 3)) == list(rest[-3:])


@pytest.mark.parametrize(
    "stream",
    [
        KeptStream("MZ1", "business-2", NOW_MS),
        KeptStream("MZ1", "", NOW_MS),
        KeptStream("MZ1", "business-1", NOW_MS + 1),
    ],
)
async def test_each_read_checks_whose_the_stream_is(kept: Kept, stream: KeptStream) -> None:
    """A business that names the stream of another, or one that its own id had before."""
    await kept.whole(CALL, [audio(1, 0, FRAME)])
    await kept.archive.keep_survey(STREAM, b"waveform")
    assert await kept.archive.extent(stream) is None
    assert list(await kept.archive.entries(stream, "0-0", 10)) == []
    assert list(await kept.archive.latest(stream, 10)) == []
    assert await kept.archive.kept_survey(stream) is None
    async with aclosing(kept.archive.follow(stream, "0-0", 10)) as feed:
        assert [chunk async for chunk in feed] == []
    await kept.archive.keep_survey(stream, b"forged")
    assert await kept.archive.kept_survey(STREAM) == b"waveform"


async def test_who_follows_a_stream_hears_nothing_of_what_takes_its_id(kept: Kept) -> None:
    await kept.begin(CALL)
    await kept.put(CALL, [audio(1, 0, FRAME)])
    async with aclosing(kept.archive.follow(STREAM, "0-0", 10)) as feed:
        assert len(await anext(feed)) == 1
        await kept.forget("MZ1")
        other = replace(OTHER, stream_sid="MZ1")
        await kept.begin(other, NOW_MS + 9000)
        await kept.put(other, [audio(1, 0, FRAME)], at=NOW_MS + 9000)
        assert [chunk async for chunk in feed if chunk] == []


async def test_of_an_unknown_stream_there_is_nothing(kept: Kept) -> None:
    assert await kept.archive.record("MZ-none") is None
    assert await kept.archive.extent(NONE) is None
    assert list(await kept.archive.entries(NONE, "0-0", 10)) == []
    assert list(await kept.archive.latest(NONE, 10)) == []
    assert await kept.archive.kept_survey(NONE) is None


async def test_what_comes_is_followed_and_a_silence_is_told(kept: Kept) -> None:
    await kept.begin(CALL)
    await kept.put(CALL, [audio(1, 0, FRAME)])
    heard = []
    async with aclosing(kept.archive.follow(STREAM, f"{NOW_MS}-1", 10)) as feed:
        assert list(await anext(feed)) == []
        await kept.put(CALL, [audio(2, 20, FRAME), audio(3, 40, FRAME)])
        async with asyncio.timeout(30):
            while len(heard) < 2:
                heard += [entry.n for _, entry in await anext(feed)]
    assert heard == [2, 3]


async def test_a_survey_is_kept_with_its_stream(kept: Kept) -> None:
    await kept.archive.keep_survey(NONE, b"lost")
    assert await kept.archive.kept_survey(NONE) in (None, b"lost")
    await kept.whole(CALL, [audio(1, 0, FRAME)])
    await kept.archive.keep_survey(STREAM, b"\x00\xff")
    assert await kept.archive.kept_survey(STREAM) == b"\x00\xff"


# -------------------------------------------------------------------------- erasure


async def test_an_erased_call_is_gone_with_all_of_it_and_counted(kept: Kept) -> None:
    await kept.whole(CALL, [audio(n, 20 * n, FRAME) for n in range(1, 4)])
    await kept.whole(replace(OTHER, business_id="business-1"), [audio(1, 0, FRAME)])
    await kept.archive.keep_survey(STREAM, b"waveform")
    seen: list[Erased] = []

    async def witness(erased: Erased) -> None:
        seen.append(erased)
        await kept.archive.call("business-1", "CA1")  # it is not forgotten yet

    erased = await kept.archive.erase("business-1", "CA1", witness)
    assert seen == [erased]
    wanted = {"audio": 4, "records": 1, "waveforms": 1, "events": 3, "log": 3}
    assert wanted.items() <= erased.counts.items()
    assert all(erased.bytes[kind] > 0 for kind in ("audio", "events", "log"))
    assert await kept.archive.record("MZ1") is None
    assert await kept.archive.extent(STREAM) is None
    assert await kept.archive.kept_survey(STREAM) is None
    for business in ("business-1", None):
        page = await kept.archive.calls(business, ALL)
        assert [call.call_sid for call in page.calls] == ["CA2"]
    announced = []
    async with asyncio.timeout(30):
        async for event in kept.pubsub.lifecycle():
            announced.append(event.call.call_sid)
            if event.name == "stream.stopped":
                break
    assert announced == ["CA2"] * 3
    with pytest.raises(NotThere):
        await kept.archive.erase("business-1", "CA1", erased_silently)


async def test_erasing_a_call_leaves_events_that_name_no_business(kept: Kept) -> None:
    await kept.whole(CALL, [audio(1, 0, FRAME)])
    nobodys = replace(CALL, business_id="")
    event = LifecycleEvent("call.rejected", "event-x", NOW_MS, nobodys, {"reason": "unknown"})
    await kept.pubsub.write([Announce(event)])
    erased = await kept.archive.erase("business-1", "CA1", erased_silently)
    assert erased.counts["events"] == 3
    async with asyncio.timeout(30):
        async for left in kept.pubsub.lifecycle():
            assert (left.event_id, left.call.business_id) == ("event-x", "")
            break


async def test_an_erasure_that_cannot_be_proved_can_be_done_again(kept: Kept) -> None:
    await kept.whole(CALL, [audio(1, 0, FRAME)])

    async def failing(erased: Erased) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await kept.archive.erase("business-1", "CA1", failing)
    erased = await kept.archive.erase("business-1", "CA1", erased_silently)
    assert erased.counts["log"] == 3


async def test_what_is_said_late_of_an_erased_call_does_not_bring_it_back(kept: Kept) -> None:
    await kept.whole(CALL, [audio(1, 0, FRAME)])
    await kept.archive.erase("business-1", "CA1", erased_silently)
    await kept.tell(CALL, "call.status", NOW_MS + 9000, status="completed")
    assert (await kept.archive.calls("business-1", ALL)).calls == ()
    assert (await kept.archive.calls(None, ALL)).calls == ()


@pytest.mark.parametrize("how", ["incoming", "live", "not closed yet"])
async def test_a_call_that_is_not_over_is_not_erased(kept: Kept, how: str) -> None:
    if how == "incoming":
        await kept.tell(CALL, "call.incoming", NOW_MS)
    else:
        await kept.begin(CALL)
        await kept.put(CALL, [audio(1, 0, FRAME)])
    if how == "not closed yet":  # its end is told before this replica's Redis has it
        await kept.tell(CALL, "stream.stopped", NOW_MS + 1, receipt={})
    with pytest.raises(CallIsLive):
        await kept.archive.erase("business-1", "CA1", erased_silently)
    assert (await kept.archive.call("business-1", "CA1")).events


async def test_a_stream_that_another_call_has_by_now_is_not_erased(kept: Kept) -> None:
    await kept.whole(CALL, [audio(1, 0, FRAME)])
    other = replace(OTHER, stream_sid="MZ1")
    await kept.forget("MZ1")
    await kept.whole(other, [audio(1, 0, FRAME)], at=NOW_MS + 9000)
    erased = await kept.archive.erase("business-1", "CA1", erased_silently)
    assert not erased.counts.get("audio")
    theirs = KeptStream("MZ1", "business-2", NOW_MS + 9000)
    assert (await kept.archive.extent(theirs)) is not None
    assert (await kept.archive.call("business-2", "CA2")).events
