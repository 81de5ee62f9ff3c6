"""The end of a stream whose holder died, as another replica writes it.

It is provisional: a holder that lives on after all continues with higher ids,
and ends the stream again.
"""

from dataclasses import fields
from typing import Any, Final

import msgspec

from app.events import AudioReceipt, EndReason, HeldStream, LifecycleEvent

# They are in a receipt only where there is something to say.
_AS_NEEDED: Final = ("playback", "unannounced")
# What became of each frame, only the holder knew: every count is null.
LOST_RECEIPT: Final[dict[str, Any]] = {
    **{field.name: None for field in fields(AudioReceipt) if field.name not in _AS_NEEDED},
    "end_reason": EndReason.LOST.value,
    "provisional": True,
}
LOST_RECEIPT_JSON: Final = msgspec.json.encode(LOST_RECEIPT).decode()

# KEYS: audio:{STREAM}, control:{STREAM}, stream:{STREAM}; ARGV: START_MS, retention in
# seconds, receipt, reason, BUSINESS. Returns when the stream ended, Unix ms, or nil: it was
# never opened, its id is another stream's by now, or its holder ended it.
#
# The end's id has a higher time than all before it. A holder that lives on then meets
# it with the whole of its next batch: with its first entry alone, the others would be
# written behind it, and the first be lost.
END_LOST: Final = """
local record = redis.call('HMGET', KEYS[3], 'startedAt', 'endedAt', 'receipt', 'businessId')
local ended_at = record[2]
if record[1] ~= ARGV[1] or record[4] ~= ARGV[5] then return false end
if ended_at and not string.find(record[3] or '', '"provisional":true', 1, true) then
  return false
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not last or last[2][1] ~= 'event' or last[2][2] ~= 'end' then
  local last_ms = tonumber(string.match(last and last[1] or ARGV[1], '^%d+'))
  local id = string.format('%.0f-1', math.max(now, last_ms + 1))
  redis.call('XADD', KEYS[1], id, 'event', 'end', 'reason', ARGV[4])
end
if not ended_at then
  ended_at = string.format('%.0f', now)
  redis.call('HSET', KEYS[3], 'endedAt', ended_at, 'receipt', ARGV[3])
end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[2]) end
return ended_at
"""


def lost_event(held: HeldStream, ended_at: int) -> LifecycleEvent:
    """Announce such an end. Two that announce it give it one id: it is one event."""
    event_id = f"{held.call.stream_sid}-{held.started_at}-lost"
    data = {"receipt": LOST_RECEIPT, "provisional": True}
    return LifecycleEvent("stream.stopped", event_id, ended_at, held.call, data)
