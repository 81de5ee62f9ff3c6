"""What must be written again when another server answers than the one that confirmed it."""

from collections.abc import Iterable, Mapping, Sequence

from app.events import AudioEntry, GapEntry
from app.pubsub.base import Append, CallWrite, OpenStream, PubSub, Standing, Write
from app.pubsub.queue import StreamQueue

BROKER_LOST = "broker_lost"


def appends_by_stream(writes: Iterable[Write]) -> dict[str, list[Append]]:
    """Sort the entries among `writes` by their streams, in order."""
    found: dict[str, list[Append]] = {}
    for write in writes:
        if isinstance(write, Append):
            found.setdefault(write.stream, []).append(write)
    return found


async def restoration(
    pubsub: PubSub,
    recent: Sequence[Write],
    live: Mapping[str, tuple[StreamQueue, OpenStream]],
) -> tuple[list[Write], dict[str, int]]:
    """Compare what was confirmed with what stands; give what to write, and what is lost.

    `recent` is what was confirmed lately. All that is live is opened again, which
    is harmless where it is open. What was lost and is not among `recent` becomes
    a gap; its frames are counted per live stream.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    recent = _of_last_opening(recent)
    by_stream = appends_by_stream(recent)
    missing: dict[str, list[Append]] = {}
    losses: dict[str, int] = {}
    for stream in by_stream.keys() | live.keys():
        appends = by_stream.get(stream, [])
        standing = await pubsub.standing(stream, appends)
        again = appends[standing.written_of(appends) :]
        if stream in live and len(again) == len(appends):
            gap = _beyond(again, live[stream][0], standing)
            if gap is not None:
                assert isinstance(gap.entry, GapEntry)
                losses[stream] = gap.entry.frames
                again.insert(0, gap)
        missing[stream] = _above(again, standing)
    writes: list[Write] = [opening.again() for _, opening in live.values()]
    for write in recent:
        if isinstance(write, OpenStream):
            writes.append(write.again())
        elif not isinstance(write, Append):
            writes.append(write)
        elif write.stream in missing:
            writes.extend(missing.pop(write.stream))
    for rest in missing.values():
        writes.extend(rest)
    return writes, losses


def _of_last_opening(recent: Sequence[Write]) -> list[Write]:
    """Leave out what was written of a stream before its id was used again."""
    opened: set[str] = set()
    kept: list[Write] = []
    for write in reversed(recent):
        if isinstance(write, CallWrite):
            kept.append(write)
        elif write.stream not in opened:
            kept.append(write)
            if isinstance(write, OpenStream):
                opened.add(write.stream)
    return kept[::-1]


def _beyond(again: Sequence[Append], queue: StreamQueue, standing: Standing) -> Append | None:
    """Make a gap of what was confirmed before all that is kept, and does not stand."""
    at = again[0] if again else queue.confirmed
    if at is None or standing.last_ms > at.id_ms:
        return None
    last_n = at.n - 1 if again else at.n
    lost = last_n - (standing.last_n if standing.last_ms == at.id_ms else 0)
    if lost <= 0:
        return None
    seq = ts = 0
    if isinstance(at.entry, AudioEntry):
        seq = max(0, at.entry.seq - (at.entry.frames if again else 0))
        ts = at.entry.ts
    gap = GapEntry(last_n, None, lost, max(0, seq - lost + 1), seq, ts, BROKER_LOST)
    return Append(at.stream, at.id_ms, last_n, gap, at.max_entries)


def _above(appends: Sequence[Append], standing: Standing) -> list[Append]:
    """Number what another writer's entry stands before anew, above that."""
    if not appends or (appends[0].id_ms, appends[0].n) > standing.last:
        return list(appends)
    return [
        Append(one.stream, standing.last_ms, standing.last_n + place, one.entry, one.max_entries)
        for place, one in enumerate(appends, 1)
    ]
