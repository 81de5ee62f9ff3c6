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

# KEYS: live:{BUSINESS}; ARGV: CallSid, limit, lease in ms.
TAKE_SLOT = f"""{_RUNNING}{_HOLD}
local held = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not held and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
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

# KEYS: live:{BUSINESS}:stream:CALLSID; ARGV: the stream that has ended.
UNMARK_LIVE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""
