"""Lua scripts of the store: what Redis does in one step, by its own clock.

The replicas' clocks don't matter then. A script's writes go to Redis' replicas
as their effects, so a script may ask for the time. Each touches keys of one
hash tag only, all of them named in KEYS.
"""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_RUNNING = f"""{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
"""
_HOLD = """
local function hold(call, held, lease)
  redis.call('ZADD', KEYS[1], math.max(tonumber(held) or 0, now + lease), call)
end
local function forget_in_time()
  redis.call('PEXPIREAT', KEYS[1], redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])
end
"""

# KEYS: live:{BUSINESS}, live:{BUSINESS}:recent; ARGV: CallSid, limit, lease in ms, and
# where there is a pace, so many calls in so many ms. Returns the value of a SlotAnswer.
TAKE_SLOT = f"""{_RUNNING}{_HOLD}
local held = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not held then
  if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
  if ARGV[4] then
    local earlier = redis.call('LINDEX', KEYS[2], ARGV[4] - 1)
    if earlier and math.abs(now - earlier) < tonumber(ARGV[5]) then return 2 end
    redis.call('LPUSH', KEYS[2], now)
    redis.call('LTRIM', KEYS[2], 0, ARGV[4] - 1)
    redis.call('PEXPIRE', KEYS[2], ARGV[5])
  end
end
hold(ARGV[1], held, ARGV[3])
forget_in_time()
return 1
"""

# KEYS: live:{BUSINESS}; ARGV: lease in ms, CallSids. Returns those without a slot.
RENEW_SLOTS = f"""{_RUNNING}{_HOLD}
local lost = {{}}
for i = 2, #ARGV do
  local held = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if not held then lost[#lost + 1] = ARGV[i] end
  hold(ARGV[i], held, ARGV[1])
end
forget_in_time()
return lost
"""

# KEYS: live:{BUSINESS}
COUNT_SLOTS = f"{_RUNNING}return redis.call('ZCARD', KEYS[1])"

# Whether the replicas reach Redis is seen by Redis, in which all of them meet: a
# pause is one for all, and a clock that is set anew looks like one.
_NOTE_REACHED = f"""{_NOW}
local function note_reached(lease)
  local last = tonumber(redis.call('HGET', KEYS[3], 'last'))
  if not last or math.abs(now - last) > lease / 2 then redis.call('HSET', KEYS[3], 'since', now) end
  redis.call('HSET', KEYS[3], 'last', now)
end
"""

# KEYS: held:{streams} with :facts and :reached; ARGV: lease in ms, then names and facts.
HOLD_STREAMS = f"""{_NOTE_REACHED}
note_reached(ARGV[1])
for i = 2, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i])
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
"""

# KEYS: as above; ARGV: lease in ms, claim in ms, limit. Returns names and facts.
CLAIM_STREAMS = f"""{_NOTE_REACHED}
note_reached(ARGV[1])
local claimed = {{}}
if now - redis.call('HGET', KEYS[3], 'since') < tonumber(ARGV[1]) then return claimed end
for _, name in ipairs(
  redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])
) do
  redis.call('ZADD', KEYS[1], now + ARGV[2], name)
  claimed[#claimed + 1] = name
  claimed[#claimed + 1] = redis.call('HGET', KEYS[2], name) or ''
end
return claimed
"""

# KEYS: held:{streams} with :facts; ARGV: names.
LET_GO = """
for i = 1, #ARGV do
  redis.call('ZREM', KEYS[1], ARGV[i])
  redis.call('HDEL', KEYS[2], ARGV[i])
end
"""

# KEYS: live:{BUSINESS}:stream:CALLSID; ARGV: the stream that has ended.
UNMARK_LIVE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""
