"""Listening to a live call: from the newest audio on, until its stream ends."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest

from app.archive.library import Library
from app.archive.listening import BEHIND_SECONDS, MANY_ENTRIES, LiveAudio
from app.businesses.shares import PoolLimits
from app.errors import ArchiveBusy, NotThere
from app.events import EndEntry
from app.media import Encoding, MediaFormat, Track
from tests.archive.kept import NOW_MS, Kept, audio
from tests.archive.test_audio import BOTH, frame
from tests.samples import CALL
from tests.waiting import WAIT_SECONDS

MULAW_8K = MediaFormat(Encoding.MULAW, 8000)


class Ear:
    """Listens in the background."""

    def __init__(self, library: Library, live: LiveAudio) -> None:
        self.heard = b""
        self.has_begun = asyncio.Event()
        self._task = asyncio.create_task(self._listen(library, live))

    async def _listen(self, library: Library, live: LiveAudio) -> None:
        async with aclosing(library.listen(live)) as blocks:
            async for block in blocks:
                self.heard += block
                self.has_begun.set()

    async def ended(self) -> np.ndarray:
        """Wait for the end; give what was heard."""
        await asyncio.wait_for(self._task, WAIT_SECONDS)
        return np.frombuffer(self.heard, "<i2")

    async def begun(self) -> None:
        """Wait until something was heard, or a silence."""
        await asyncio.wait_for(self.has_begun.wait(), WAIT_SECONDS)


async def listening(kept: Kept, library: Library | None = None) -> Ear:
    library = library or Library(kept.archive)
    return Ear(library, await library.live_audio("business-1", "CA1"))


async def test_a_listener_hears_the_newest_and_what_comes_until_the_end(kept: Kept) -> None:
    await kept.begin(CALL)
    await kept.put(CALL, [audio(n, 20 * n, frame(n)) for n in range(1, 51)])
    ear = await listening(kept)
    await ear.begun()
    for n in range(51, 61):
        await kept.put(CALL, [audio(n, 20 * n, frame(n))])
    await kept.end(CALL, 61)
    heard = await ear.ended()
    behind = round(BEHIND_SECONDS * 8000)
    first = 50 - behind // 160
    expected = b"".join(frame(n) for n in range(first, 61))
    assert heard.tobytes() == expected[-len(heard) * 2 :]
    assert len(heard) == behind + 10 * 160


async def test_two_tracks_are_interleaved(kept: Kept) -> None:
    await kept.begin(CALL, tracks=BOTH)
    live = await Library(kept.archive).live_audio("business-1", "CA1")
    assert (live.channels, live.sample_rate) == (2, 8000)
    ear = await listening(kept)
    await ear.begun()
    entries = [
        entry
        for n in range(20)
        for entry in (
            audio(2 * n + 1, 20 * n, frame(n + 1)),
            audio(2 * n + 2, 20 * n, frame(-n - 1), Track.OUTBOUND),
        )
    ]
    await kept.put(CALL, entries)
    await kept.end(CALL, 41)
    heard = (await ear.ended()).reshape(-1, 2)
    assert heard[::160].tolist() == [[n, -n] for n in range(1, 21)]


async def test_mu_law_is_heard_decoded(kept: Kept) -> None:
    await kept.begin(CALL, published=MULAW_8K)
    ear = await listening(kept)
    await ear.begun()
    await kept.put(CALL, [audio(1, 0, b"\x00" * 160)])
    await kept.end(CALL, 2)
    assert set((await ear.ended()).tolist()) == {-32124}


async def test_a_silent_track_does_not_hold_the_other_up(kept: Kept) -> None:
    await kept.begin(CALL, tracks=BOTH)
    ear = await listening(kept)
    await ear.begun()
    for n in range(1, 101):
        await kept.put(CALL, [audio(n, 20 * n, frame(n))])
        await asyncio.sleep(0.001)
    async with asyncio.timeout(WAIT_SECONDS):
        while len(ear.heard) < 50 * 160 * 4:
            await asyncio.sleep(0.01)
    await kept.end(CALL, 101)
    await ear.ended()


async def test_who_falls_behind_goes_on_with_the_newest(kept: Kept) -> None:
    await kept.begin(CALL)
    ear = await listening(kept)
    await ear.begun()
    many = 5 * MANY_ENTRIES
    await kept.put(CALL, [audio(n, 20 * n, frame(n)) for n in range(1, many + 1)])
    await kept.end(CALL, many + 1)
    heard = await ear.ended()
    assert heard[-1] == many
    assert len(heard) < many * 160 / 2


async def test_a_listener_who_comes_at_the_end_hears_the_last_of_it(kept: Kept) -> None:
    await kept.begin(CALL)
    await kept.put(CALL, [audio(1, 0, frame(9)), EndEntry(2, "stop")])
    assert set((await (await listening(kept)).ended()).tolist()) == {9}


@pytest.mark.parametrize("how", ["over", "only announced", "unknown", "another's stream"])
async def test_what_is_not_live_cannot_be_listened_to(kept: Kept, how: str) -> None:
    if how == "over":
        await kept.whole(CALL, [audio(1, 0, frame(1))])
    elif how == "only announced":
        await kept.tell(CALL, "call.incoming", NOW_MS)
    elif how == "another's stream":
        await kept.begin(CALL)
        await kept.forget("MZ1")
        await kept.begin(replace(CALL, call_sid="CA2", business_id="business-2"), NOW_MS + 1)
    with pytest.raises(NotThere):
        await listening(kept)


async def test_so_many_listen_and_no_more_until_one_leaves(kept: Kept) -> None:
    await kept.begin(CALL)
    library = Library(kept.archive, max_listeners=PoolLimits(1, 1, 1))
    await library.live_audio("business-1", "CA1")
    with library.listening():
        with pytest.raises(ArchiveBusy, match="1 in this process"):
            await library.live_audio("business-1", "CA1")
        with pytest.raises(ArchiveBusy), library.listening():
            pass
    await library.live_audio("business-1", "CA1")


async def test_a_drain_ends_listening(kept: Kept) -> None:
    await kept.begin(CALL)
    library = Library(kept.archive)
    ear = await listening(kept, library)
    await ear.begun()
    library.close()
    await ear.ended()
    with pytest.raises(ArchiveBusy):
        await library.live_audio("business-1", "CA1")
