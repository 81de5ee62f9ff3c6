"""The archive in Redis, of what `redis_streams` and `redis_pubsub` write there."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from itertools import groupby
from typing import Any

from app.archive.base import (
    MAX_EXAMINED,
    MAX_PAGE,
    CallFilter,
    CallPage,
    Entries,
    Erased,
    Extent,
    Witness,
    captures_of,
    only_owner,
    read_cursor,
    write_cursor,
)
from app.archive.calls import Call, CallSummary, summarize
from app.archive.scripts import (
    ERASE_STREAM,
    EXTENT,
    FORGET_CALL,
    KEEP_SURVEY,
    READ_ENTRIES,
    READ_SURVEY,
    SUMMED_LOGS,
    WEIGH_LOG,
)
from app.errors import CallIsLive, NotThere, StoreUnavailable
from app.pubsub.base import CALLS_KEY, audio_key, control_key, parse_entry, record_key
from app.pubsub.call_log import (
    CALL_INDEX_KEY,
    ERASED_SECONDS,
    call_key,
    calls_of_key,
    erased_key,
    index_member,
    parse_logged,
)
from app.pubsub.records import KeptStream, StoredRecord, parse_record
from app.redis_url import parse_redis_url
from app.store.directory import answered_key
from app.store.reach import RedisReach
from app.store.scripts import RELEASE
from app.topology import CONNECTION_ERRORS, close, connect

# Whoever reads what is kept may wait a little; no call does.
TIMEOUT_SECONDS = 2.0
CONNECT_SECONDS = 1.0
BLOCK_MS = 1000
SCANNED = 250
ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def survey_key(stream_sid: str) -> str:
    """Name what was found out of a stream's audio."""
    return f"survey:{{{stream_sid}}}"


class RedisArchive(RedisReach):
    """Read and erase what is kept in Redis; `wall_clock` gives Unix seconds."""

    def __init__(
        self, url: str, *, wall_clock: Callable[[], float] = time.time, seconds: float = 0.0
    ) -> None:
        self._where = parse_redis_url(url)
        client = connect(self._where, connect_seconds=CONNECT_SECONDS, max_connections=33)
        super().__init__(client, own_client=True, timeout_seconds=seconds or TIMEOUT_SECONDS)
        self._wall_clock = wall_clock

    # -------------------------------------------------------------------- calls

    async def calls(
        self, business_id: str | None, wanted: CallFilter, cursor: str = "", limit: int = 50
    ) -> CallPage:
        """Give a page of calls; see `Archive.calls`."""
        limit = min(limit, MAX_PAGE)
        key = CALL_INDEX_KEY if business_id is None else calls_of_key(business_id)
        place = read_cursor(cursor) if cursor else None
        found: list[CallSummary] = []
        examined = 0
        async for listed, is_last in self._walk(key, wanted, place, limit + 1):
            named = {
                pair: _split(pair[1]) if business_id is None else (business_id, pair[1])
                for pair in listed
            }
            summaries = await self._summaries(named.values())
            for place in listed:
                call = summaries.get(named[place])
                if call is not None and wanted.takes(call):
                    found.append(call)
                if len(found) == limit:
                    ends = is_last and place == listed[-1]
                    return CallPage(tuple(found), None if ends else write_cursor(*place))
            examined += len(listed)
            if place and examined >= MAX_EXAMINED:
                return CallPage(tuple(found), write_cursor(*place))
        return CallPage(tuple(found), None)

    async def _walk(
        self, key: str, wanted: CallFilter, after: tuple[int, str] | None, count: int
    ) -> AsyncIterator[tuple[list[tuple[int, str]], bool]]:
        """Give a list's calls after a place, the latest first, and whether these are the last.

        Of one time, they come by their names.
        """
        since = "-inf" if wanted.since is None else str(wanted.since)
        until = "+inf" if wanted.until is None else f"({wanted.until}"
        if after is not None and (wanted.until is None or after[0] < wanted.until):
            until = str(after[0])
        skipped = 0
        while True:
            flat = await self._ask(
                *("ZREVRANGEBYSCORE", key, until, since, "WITHSCORES", "LIMIT", skipped, count)
            )
            pairs = [
                (int(float(at)), member.decode())
                for member, at in zip(flat[::2], flat[1::2], strict=True)
            ]
            yield [pair for pair in pairs if after is None or pair < after], len(pairs) < count
            if len(pairs) < count:
                return
            if not skipped:
                until = str(pairs[0][0])  # who calls meanwhile is not to shift the rest
            skipped += count

    async def _summaries(
        self, named: Iterable[tuple[str, str]]
    ) -> dict[tuple[str, str], CallSummary]:
        found: dict[tuple[str, str], CallSummary] = {}
        now_ms = self._now_ms()
        for business_id, calls in groupby(sorted(named), key=lambda name: name[0]):
            sids = [sid for _, sid in calls]
            keys = [call_key(business_id, sid) for sid in sids]
            logs = await self._ask("EVAL", SUMMED_LOGS, len(keys), *keys)
            for sid, lines in zip(sids, logs, strict=True):
                events = parse_logged(lines, business_id, sid)
                if events:  # a list may have expired before its call was taken off the list
                    found[business_id, sid] = summarize(events, now_ms)
            await asyncio.sleep(0)
        return found

    async def call(self, business_id: str, call_sid: str) -> Call:
        """Give a business's call; see `Archive.call`."""
        lines = await self._ask("LRANGE", call_key(business_id, call_sid), 0, -1)
        events = parse_logged(lines, business_id, call_sid)
        if not events:
            raise NotThere("there is no such call, or it is not kept any more")
        summary = summarize(events, self._now_ms())
        records: dict[str, StoredRecord] = {}
        for sid in {stream.stream_sid: None for stream in summary.streams}:
            record = await self.record(sid)
            if record is not None and record.is_of(business_id, call_sid):
                records[sid] = record
        return Call(summary, tuple(events), records)

    async def owner_of(self, call_sid: str) -> str | None:
        """Name the business whose call this is; it is looked for in the list of all."""
        if not ID.fullmatch(call_sid):
            return None
        place, owners = 0, set[str]()
        while True:
            asked = "ZSCAN", CALL_INDEX_KEY, place, "MATCH", f"* {call_sid}", "COUNT", SCANNED
            place, found = await self._ask(*asked)
            owners |= {_split(member.decode())[0] for member, _ in found}
            if not int(place):
                return only_owner(owners)

    # ------------------------------------------------------------------ streams

    async def record(self, stream_sid: str) -> StoredRecord | None:
        """Give what a stream's record says; see `Archive.record`."""
        found = await self._ask("HGETALL", record_key(stream_sid))
        fields = {name.decode(): value.decode() for name, value in found.items()}
        return parse_record(stream_sid, fields)

    async def extent(self, stream: KeptStream) -> Extent | None:
        """Return what stands of a stream's audio; see `Archive.extent`."""
        found = await self._read(stream, EXTENT)
        if not found:
            return None
        first, last, entries = found
        return Extent(first.decode(), last.decode(), entries)

    async def entries(self, stream: KeptStream, after: str, count: int) -> Entries:
        """Return entries that follow an id; see `Archive.entries`."""
        return _entries(await self._read(stream, READ_ENTRIES, "XRANGE", _next(after), "+", count))

    async def latest(self, stream: KeptStream, count: int) -> Entries:
        """Return the last entries; see `Archive.latest`."""
        found = await self._read(stream, READ_ENTRIES, "XREVRANGE", "+", "-", count)
        return _entries(found[::-1])

    async def follow(
        self, stream: KeptStream, after: str, count: int
    ) -> AsyncGenerator[Entries, None]:
        """Return what follows an id as it comes; see `Archive.follow`."""
        # A blocking read holds its connection, so a client of its own.
        client = connect(self._where, connect_seconds=CONNECT_SECONDS, max_connections=2)
        key = audio_key(stream.stream_sid)
        command: tuple[str | int, ...] = ("XREAD", "COUNT", count, "BLOCK", BLOCK_MS)
        try:
            while True:
                try:
                    async with asyncio.timeout(BLOCK_MS / 1000 + TIMEOUT_SECONDS):
                        answer = await client.execute_command(*command, "STREAMS", key, after)
                except CONNECTION_ERRORS as error:
                    raise StoreUnavailable(f"Redis failed: {type(error).__name__}") from error
                found = _entries(answer[0][1]) if answer else ()
                # A script cannot block, so whose they are is asked when they are here.
                if found and not await self._is_still(stream):
                    return
                if found:
                    after = found[-1][0]
                yield found
        finally:
            await close(client)

    async def keep_survey(self, stream: KeptStream, survey: bytes) -> None:
        """Keep a survey as long as the audio; see `Archive.keep_survey`."""
        await self._read(stream, KEEP_SURVEY, survey, key=survey_key(stream.stream_sid))

    async def kept_survey(self, stream: KeptStream) -> bytes | None:
        """Return a survey that was kept."""
        found: bytes | None = await self._read(
            stream, READ_SURVEY, key=survey_key(stream.stream_sid)
        )
        return found

    async def _is_still(self, stream: KeptStream) -> bool:
        whose = await self._ask("HMGET", record_key(stream.stream_sid), "businessId", "startedAt")
        return bool(whose == [stream.business_id.encode(), str(stream.started_at).encode()])

    async def _read(
        self, stream: KeptStream, script: str, *arguments: str | int | bytes, key: str = ""
    ) -> Any:
        """Run a script that answers only while the id is this stream's."""
        keys = [audio_key(stream.stream_sid), record_key(stream.stream_sid)]
        keys += [key] if key else []
        whose = stream.business_id, stream.started_at
        return await self._ask("EVAL", script, len(keys), *keys, *whose, *arguments)

    # ------------------------------------------------------------------ erasure

    async def erase(
        self, business_id: str, call_sid: str, witness: Witness, *, even_live: bool = False
    ) -> Erased:
        """Erase all that is kept of a call; see `Archive.erase`."""
        call = await self.call(business_id, call_sid)
        if not call.summary.is_over and not even_live:
            raise CallIsLive("the call is live: end it, or wait for its end")
        erased = Erased()
        for sid in dict.fromkeys(stream.stream_sid for stream in call.summary.streams):
            await self._erase_stream(erased, business_id, call_sid, sid, even_live=even_live)
        await self._erase_announced(erased, business_id, call_sid)
        seen = f"seen:{{{business_id}:{call_sid}}}"
        answered = await self._ask("EVAL", RELEASE, 1, answered_key(call_sid), business_id)
        erased.add("marks", await self._ask("UNLINK", seen) + answered, 0)
        events, size = await self._ask("EVAL", WEIGH_LOG, 1, call_key(business_id, call_sid))
        erased.add("log", events, size)
        await witness(erased)
        member = index_member(business_id, call_sid)
        await self._ask("ZREM", CALL_INDEX_KEY, member)
        keys = (
            calls_of_key(business_id),
            call_key(business_id, call_sid),
            erased_key(business_id, call_sid),
        )
        said = call_sid, self._now_ms(), ERASED_SECONDS
        await self._ask("EVAL", FORGET_CALL, len(keys), *keys, *said)
        return erased

    async def erase_stream(self, business_id: str, call_sid: str, stream_sid: str) -> Erased:
        """Erase all that is kept of a stream; see `Archive.erase_stream`."""
        erased = Erased()
        await self._erase_stream(erased, business_id, call_sid, stream_sid, even_live=True)
        return erased

    async def _erase_stream(
        self,
        erased: Erased,
        business_id: str,
        call_sid: str,
        stream_sid: str,
        *,
        even_live: bool,
    ) -> None:
        audio, captures = audio_key(stream_sid), captures_of(stream_sid)
        kinds = {
            record_key(stream_sid): "records",
            audio: "audio",
            survey_key(stream_sid): "waveforms",
            control_key(stream_sid): "commands",
            **dict.fromkeys(captures, "captures"),
        }
        about = call_sid, business_id, int(even_live)
        answer = await self._ask("EVAL", ERASE_STREAM, len(kinds), *kinds, *about)
        if answer == b"live":
            raise CallIsLive("a stream of the call is live: end it, or wait for its end")
        if answer == b"other":
            return
        entries, *found = answer
        for (key, kind), there, size in zip(kinds.items(), found[::2], found[1::2], strict=True):
            erased.add(kind, entries if key == audio else there, size)

    async def _erase_announced(self, erased: Erased, business_id: str, call_sid: str) -> None:
        """Erase a call's events in `calls`, wherever they stand.

        One that names no business may be of anybody's call of this id; it stays.

        Their ids are of Redis' clock and an outage may have held them up, so that no
        range of times is sure to hold them all.
        """
        after = "-"
        erased.add("events", 0, 0)
        while True:
            found = await self._ask("XRANGE", CALLS_KEY, after, "+", "COUNT", SCANNED)
            of_call = {}
            for entry_id, fields in found:
                owner = fields[b"businessId"].decode(), fields[b"callSid"].decode()
                if owner == (business_id, call_sid):
                    of_call[entry_id] = sum(map(len, fields.values()))
            if of_call:
                await self._ask("XDEL", CALLS_KEY, *of_call)
                erased.add("events", len(of_call), sum(of_call.values()))
            if len(found) < SCANNED:
                return
            after = _next(found[-1][0].decode())

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000)


def _split(member: str) -> tuple[str, str]:
    business_id, _, call_sid = member.partition(" ")
    return business_id, call_sid


def _next(entry_id: str) -> str:
    """Give the first id after one. Redis' own form, `(ID`, needs 6.2."""
    ms, _, n = entry_id.partition("-")
    return f"{ms}-{int(n) + 1}"


def _entries(found: Any) -> Entries:
    read = []
    for name, fields in found:
        entry_id = name.decode()
        # A script's answer is not read by the client: names and values alternate.
        pairs = (
            zip(fields[::2], fields[1::2], strict=True) if type(fields) is list else fields.items()
        )
        said = {key.decode(): value for key, value in pairs}
        read.append((entry_id, parse_entry(int(entry_id.partition("-")[2]), said)))
    return read
