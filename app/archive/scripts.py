"""Lua scripts of the archive in Redis; each touches keys of one hash tag only."""

from typing import Final

# Of a call with more events, so many from each end tell what a list of calls says.
SUMMED_UP: Final = 100

# KEYS: live:{BUSINESS}:call:CALLSID, several. Returns each one's events.
SUMMED_LOGS: Final = f"""
local found = {{}}
for i, key in ipairs(KEYS) do
  local count = redis.call('LLEN', key)
  if count <= {2 * SUMMED_UP} then
    found[i] = redis.call('LRANGE', key, 0, -1)
  else
    found[i] = redis.call('LRANGE', key, 0, {SUMMED_UP} - 1)
    for _, event in ipairs(redis.call('LRANGE', key, -{SUMMED_UP}, -1)) do
      table.insert(found[i], event)
    end
  end
end
return found
"""

_SIZE = """
local function size(key)
  local answer = redis.pcall('MEMORY', 'USAGE', key)
  return type(answer) == 'number' and answer or 0
end
"""

# KEYS: stream:{STREAM}, audio:{STREAM}, then all others of the stream; ARGV: CallSid,
# BUSINESS, and 1 where it is erased even when it is live. Returns entries of audio and, key
# by key, whether it was there and its bytes;
# 'other' where the id is another call's by now, 'live' where the stream is live.
ERASE_STREAM: Final = f"""{_SIZE}
local about = redis.call('HMGET', KEYS[1], 'callSid', 'businessId', 'endedAt')
if about[1] ~= ARGV[1] or about[2] ~= ARGV[2] then return 'other' end
if not about[3] and ARGV[3] ~= '1' then return 'live' end
local found = {{redis.call('XLEN', KEYS[2])}}
for _, key in ipairs(KEYS) do
  found[#found + 1] = redis.call('EXISTS', key)
  found[#found + 1] = size(key)
end
redis.call('UNLINK', unpack(KEYS))
return found
"""

# KEYS: live:{BUSINESS}:call:CALLSID. Returns its events and its bytes.
WEIGH_LOG: Final = f"""{_SIZE}
return {{redis.call('LLEN', KEYS[1]), size(KEYS[1])}}
"""

# KEYS: live:{BUSINESS}:calls, live:{BUSINESS}:call:CALLSID, live:{BUSINESS}:erased:CALLSID;
# ARGV: CallSid, now in ms, seconds. Returns whether there was such a call.
FORGET_CALL: Final = """
redis.call('SET', KEYS[3], ARGV[2], 'EX', ARGV[3])
redis.call('UNLINK', KEYS[2])
return redis.call('ZREM', KEYS[1], ARGV[1])
"""

# KEYS: audio:{STREAM}, stream:{STREAM}; ARGV: BUSINESS, START_MS.
_OWNED: Final = """
local record = redis.call('HMGET', KEYS[2], 'businessId', 'startedAt')
local is_owned = record[1] == ARGV[1] and record[2] == ARGV[2]
"""

# KEYS, ARGV: as above. Returns the first id, the last, and how many entries; nothing of a
# stream that is another's or has none.
EXTENT: Final = f"""{_OWNED}
local first = is_owned and redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not first then return false end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return {{first[1], last[1], redis.call('XLEN', KEYS[1])}}
"""

# KEYS, ARGV: as above, then XRANGE or XREVRANGE, from where, to where, and how many.
READ_ENTRIES: Final = f"""{_OWNED}
if not is_owned then return {{}} end
return redis.call(ARGV[3], KEYS[1], ARGV[4], ARGV[5], 'COUNT', ARGV[6])
"""

# KEYS: as above, then survey:{STREAM}; ARGV: as above, then the survey.
KEEP_SURVEY: Final = f"""{_OWNED}
local seconds = redis.call('TTL', KEYS[1])
if is_owned and seconds > 0 then redis.call('SET', KEYS[3], ARGV[3], 'EX', seconds) end
"""

# KEYS, ARGV: as above. Returns the survey.
READ_SURVEY: Final = f"""{_OWNED}
return is_owned and redis.call('GET', KEYS[3])
"""
