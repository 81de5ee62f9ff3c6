"""Each business's log of its calls: its keys, and what is written into them.

The log is what an admin reads long after `calls` was trimmed. All of it is
personal data; nothing in it is a secret, and no digit a caller pressed.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from app.events import CallIdentity, LifecycleEvent

DAY_SECONDS: Final = 86_400
CALL_HISTORY_SECONDS: Final = 30 * DAY_SECONDS
MAX_CALLS_OF_BUSINESS: Final = 100_000
MAX_CALLS_OF_ALL: Final = 100_000
# Of a call that has more, the first and the latest are kept.
MAX_EVENTS_OF_CALL: Final = 500
FIRST_EVENTS_KEPT: Final = 100
MAX_EVENT_BYTES: Final = 4096
# What is still said of a call when it has been erased (a late status, the end that a
# replica writes that was cut off) must not bring it back.
ERASED_SECONDS: Final = DAY_SECONDS
BEGINNINGS: Final = frozenset({"call.incoming", "call.rejected", "stream.started"})

# Every business's calls, newest last: `BUSINESS CALLSID` by its first event's time.
CALL_INDEX_KEY: Final = "held:{calls}"


def calls_of_key(business_id: str) -> str:
    """Name the sorted set of a business's calls: CallSid by its first event's time, ms."""
    return f"live:{{{business_id}}}:calls"


def call_key(business_id: str, call_sid: str) -> str:
    """Name the list of a call's events."""
    return f"live:{{{business_id}}}:call:{call_sid}"


def erased_key(business_id: str, call_sid: str) -> str:
    """Name the mark of a call that was erased: when, in ms."""
    return f"live:{{{business_id}}}:erased:{call_sid}"


def index_member(business_id: str, call_sid: str) -> str:
    """Name a call among those of every business."""
    return f"{business_id} {call_sid}"


def is_logged(event: LifecycleEvent) -> bool:
    """Tell whether an event belongs to a call of somebody's."""
    return bool(event.call.business_id and event.call.call_sid)


class LoggedEvent(msgspec.Struct, frozen=True, rename="camel"):
    """One event of a call's log, as its JSON has it; whose call it is, the key says."""

    event: str
    event_id: str
    at: int
    stream_sid: str
    plan: str
    carrier: str
    data: dict[str, Any]

    def of_call(self, business_id: str, call_sid: str) -> LifecycleEvent:
        """Give the event back."""
        call = CallIdentity(call_sid, self.stream_sid, business_id, self.plan, self.carrier)
        return LifecycleEvent(self.event, self.event_id, self.at, call, self.data)


def logged(event: LifecycleEvent) -> bytes:
    """Write an event as its call's log keeps it: without a digit, and of bounded size."""
    line = _line(event, {name: said for name, said in event.data.items() if name != "digit"})
    return line if len(line) <= MAX_EVENT_BYTES else _line(event, {"omitted": "too long"})


def _line(event: LifecycleEvent, data: Mapping[str, Any]) -> bytes:
    call = event.call
    return msgspec.json.encode(
        LoggedEvent(
            event.name,
            event.event_id,
            event.at,
            call.stream_sid,
            call.plan,
            call.carrier,
            dict(data),
        )
    )


_parse = msgspec.json.Decoder(LoggedEvent).decode


def parse_logged(lines: list[bytes], business_id: str, call_sid: str) -> list[LifecycleEvent]:
    """Read a call's log: each event once, in the order in which they happened.

    Replicas write as they can: an event may stand there twice, or after a later one.
    """
    events: dict[str, LifecycleEvent] = {}
    for line in lines:
        event = _parse(line)
        events.setdefault(event.event_id, event.of_call(business_id, call_sid))
    return sorted(events.values(), key=lambda event: event.at)


# KEYS: live:{BUSINESS}:calls, live:{BUSINESS}:call:CALLSID, live:{BUSINESS}:erased:CALLSID;
# ARGV: CallSid, the event's ms, seconds to keep, the event, whether it may begin a call.
# The lists of calls that are one too many have the same tag, and so has the mark of a business
# that was deleted: what is said of it late is not kept.
_NOTE = f"""
if redis.call('EXISTS', string.match(KEYS[1], '^live:{{[^}}]*}}') .. ':deleted') == 1 then
  return 0
end
local erased = redis.call('GET', KEYS[3])
if erased then
  if ARGV[5] == '0' or tonumber(ARGV[2]) <= tonumber(erased) then return 0 end
  redis.call('DEL', KEYS[3])
end
redis.call('ZADD', KEYS[1], 'NX', ARGV[2], ARGV[1])
if redis.call('RPUSH', KEYS[2], ARGV[4]) > {MAX_EVENTS_OF_CALL} then
  redis.call('LSET', KEYS[2], {FIRST_EVENTS_KEPT}, '')
  redis.call('LREM', KEYS[2], 1, '')
end
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2] - ARGV[3] * 1000)
local before = string.sub(KEYS[2], 1, #KEYS[2] - #ARGV[1])
if redis.call('ZCARD', KEYS[1]) > {MAX_CALLS_OF_BUSINESS} then
  redis.call('DEL', before .. redis.call('ZPOPMIN', KEYS[1])[1])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""

# KEYS: held:{calls}; ARGV: the call, its first event's ms, seconds to keep.
_LIST = f"""
redis.call('ZADD', KEYS[1], 'NX', ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2] - ARGV[3] * 1000)
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -{MAX_CALLS_OF_ALL} - 1)
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""

Command = tuple[str | int | bytes, ...]


def note_command(event: LifecycleEvent, keep_seconds: int) -> Command:
    """Give the command that puts an event into its call's log."""
    call = event.call
    keys = (
        calls_of_key(call.business_id),
        call_key(call.business_id, call.call_sid),
        erased_key(call.business_id, call.call_sid),
    )
    begins = int(event.name in BEGINNINGS)
    said = (call.call_sid, event.at, keep_seconds, logged(event), begins)
    return ("EVAL", _NOTE, len(keys), *keys, *said)


def list_command(event: LifecycleEvent, keep_seconds: int) -> Command:
    """Give the command that lists a call among those of every business."""
    member = index_member(event.call.business_id, event.call.call_sid)
    return ("EVAL", _LIST, 1, CALL_INDEX_KEY, member, event.at, keep_seconds)


class MemoryCallLog:
    """The log in process: the same rules, but that nothing expires by itself.

    `calls` has of each (business, CallSid) its first event's ms and its events.
    """

    def __init__(self, keep_seconds: int) -> None:
        self._keep_ms = keep_seconds * 1000
        self.calls: dict[tuple[str, str], tuple[int, list[bytes]]] = {}
        self._erased: dict[tuple[str, str], int] = {}

    def note(self, event: LifecycleEvent) -> None:
        """Put an event into its call's log."""
        call = event.call.business_id, event.call.call_sid
        erased = self._erased.get(call)
        if erased is not None:
            if event.name not in BEGINNINGS or event.at <= erased:
                return
            del self._erased[call]
        _, lines = self.calls.setdefault(call, (event.at, []))
        lines.append(logged(event))
        if len(lines) > MAX_EVENTS_OF_CALL:
            del lines[FIRST_EVENTS_KEPT]
        # In the order of their first events, but for what replicas would disorder.
        oldest = next(iter(self.calls))
        while self.calls[oldest][0] < event.at - self._keep_ms or self._is_one_too_many:
            del self.calls[oldest]
            oldest = next(iter(self.calls))

    def erase(self, business_id: str, call_sid: str, now_ms: int) -> bool:
        """Forget a call, and what is said of it late; False when there is none."""
        self._erased = {
            call: at for call, at in self._erased.items() if at > now_ms - ERASED_SECONDS * 1000
        }
        self._erased[business_id, call_sid] = now_ms
        return self.calls.pop((business_id, call_sid), None) is not None

    @property
    def _is_one_too_many(self) -> bool:
        return len(self.calls) > MAX_CALLS_OF_ALL
