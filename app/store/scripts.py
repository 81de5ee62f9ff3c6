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

# KEYS: live:{BUSINESS} with :recent, :ended:CALLSID and :streams:CALLSID, and where it counts
# :usage:MONTH, and :counted:CALLSID of the call and of the one it takes over from. ARGV:
# CallSid, limit, lease in ms; so many calls in so many ms, or two empty ones without a pace;
# the CallEnd after which the call is refused, or empty; the call that it takes over from, or
# empty; the stream that it is for, or empty, beside how many others that one is refused, and its
# lease in ms; where it counts, now, the hard limits in calls and ms, or empty, and for how long
# the call and the month are remembered, in ms. Returns the value of a SlotAnswer.
TAKE_SLOT = f"""
if redis.call('EXISTS', KEYS[1] .. ':deleted') == 1 then return 6 end
{_RUNNING}{_HOLD}
if ARGV[6] ~= '' then
  local ended = redis.call('GET', KEYS[3])
  if ended == 'final' or ended == ARGV[6] then return 4 end
end
if ARGV[8] ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
  if not redis.call('ZSCORE', KEYS[4], ARGV[8]) and
    redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[9]) then return 7 end
end
local held = redis.call('ZSCORE', KEYS[1], ARGV[1])
local inherits = false
if ARGV[7] ~= '' then
  if held then return 5 end
  inherits = redis.call('ZREM', KEYS[1], ARGV[7]) == 1
end
local counts = KEYS[5] and redis.call('EXISTS', KEYS[6], KEYS[7]) == 0
local function is_used_up(field, limit)
  return limit ~= '' and
    tonumber(redis.call('HGET', KEYS[5], field) or 0) >= tonumber(limit)
end
if not held and not inherits then
  if counts and (is_used_up('calls', ARGV[12]) or is_used_up('ms', ARGV[13])) then return 3 end
  if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
  if ARGV[4] ~= '' then
    local earlier = redis.call('LINDEX', KEYS[2], ARGV[4] - 1)
    if earlier and math.abs(now - earlier) < tonumber(ARGV[5]) then return 2 end
    redis.call('LPUSH', KEYS[2], now)
    redis.call('LTRIM', KEYS[2], 0, ARGV[4] - 1)
    redis.call('PEXPIRE', KEYS[2], ARGV[5])
  end
end
hold(ARGV[1], held, ARGV[3])
forget_in_time()
if counts then
  redis.call('HINCRBY', KEYS[5], 'calls', 1)
  redis.call('HSETNX', KEYS[5], 'first', ARGV[11])
  redis.call('HSET', KEYS[5], 'last', ARGV[11])
  redis.call('PEXPIRE', KEYS[5], ARGV[15])
end
if KEYS[5] then redis.call('SET', KEYS[6], 1, 'PX', ARGV[14]) end
if ARGV[8] ~= '' then
  redis.call('ZADD', KEYS[4], now + ARGV[10], ARGV[8])
  redis.call('PEXPIREAT', KEYS[4], redis.call('ZRANGE', KEYS[4], -1, -1, 'WITHSCORES')[2])
end
return 1
"""

# KEYS: live:{BUSINESS} with :ended:CALLSID and :stream:CALLSID; ARGV: CallSid, a CallEnd or empty,
# and for how long it is remembered, in ms. What the carrier reported is not replaced by the end
# of a stream. While a stream of the call is live, on whichever replica, the slot stays: the
# stream's end frees it.
FREE_SLOT = """
if redis.call('EXISTS', KEYS[3]) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
if ARGV[2] == '' or redis.call('EXISTS', KEYS[1] .. ':deleted') == 1 then return end
if ARGV[2] == 'final' or redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
end
"""

# KEYS: live:{BUSINESS}:usage:MONTH, a :counted:CALLSID for each call, a
# :metered:STREAM@START_MS:MONTH for each stream. ARGV: now, for how long calls and
# streams and the month are remembered, in ms, how many calls; for each stream, for how
# many ms it was live; then, for each limit, its name, the field that counts against it,
# and what it allows. Returns the month's fields, and the names of the limits just crossed.
NOTE_USAGE = """
if redis.call('EXISTS', string.match(KEYS[1], '^live:{[^}]*}') .. ':deleted') == 1 then
  return {redis.call('HGETALL', KEYS[1]), {}}
end
local calls = tonumber(ARGV[4])
local streams = #KEYS - 1 - calls
for i = 2, calls + 1 do
  if redis.call('SET', KEYS[i], 1, 'NX', 'PX', ARGV[2]) then
    redis.call('HINCRBY', KEYS[1], 'calls', 1)
    redis.call('HSETNX', KEYS[1], 'first', ARGV[1])
    redis.call('HSET', KEYS[1], 'last', ARGV[1])
  end
end
for i = 1, streams do
  local key, ms = KEYS[1 + calls + i], ARGV[4 + i]
  local more = ms - (redis.call('GET', key) or 0)
  if more > 0 then
    redis.call('HINCRBY', KEYS[1], 'ms', more)
    redis.call('SET', key, ms, 'PX', ARGV[2])
  end
end
local crossed = {}
for i = 5 + streams, #ARGV, 3 do
  local limit, used, allowed = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if tonumber(redis.call('HGET', KEYS[1], used) or 0) >= tonumber(allowed) and
    redis.call('HGET', KEYS[1], limit) ~= allowed
  then
    redis.call('HSET', KEYS[1], limit, allowed, limit .. ':at', ARGV[1])
    crossed[#crossed + 1] = limit
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {redis.call('HGETALL', KEYS[1]), crossed}
"""

# KEYS: live:{BUSINESS}:usage:MONTH for each month. Returns the fields of each.
READ_USAGE = """
local months = {}
for i = 1, #KEYS do months[i] = redis.call('HGETALL', KEYS[i]) end
return months
"""

# KEYS: live:{BUSINESS}; ARGV: lease in ms, CallSids. Returns those without a slot; nothing where
# the business was deleted.
RENEW_SLOTS = f"""
if redis.call('EXISTS', KEYS[1] .. ':deleted') == 1 then return false end
{_RUNNING}{_HOLD}
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

# Who holds a stream's id: STREAM → `START_MS BUSINESS`. A claim counts while the lease of
# STREAM@START_MS runs. While replicas could not renew, leases ran out that nobody gave up.
_CLAIMS = """
local function held_by_other(stream, claim, lease)
  local other = redis.call('HGET', KEYS[4], stream)
  if not other or other == claim then return false end
  local runs_until = redis.call('ZSCORE', KEYS[1], stream .. '@' .. string.match(other, '^%d+'))
  if not runs_until then return false end
  local may_have_run_out = now - redis.call('HGET', KEYS[3], 'since') >= tonumber(lease)
  if may_have_run_out and tonumber(runs_until) <= now then return false end
  return other
end
"""

# KEYS: held:{streams} with :facts, :reached and :claims; ARGV: lease in ms, then for each
# stream its name STREAM@START_MS, its facts, STREAM, and its claim. Returns, for each stream
# in order, an empty text, or the claim of another that holds its id; that stream is not held.
HOLD_STREAMS = f"""{_NOTE_REACHED}{_CLAIMS}
note_reached(ARGV[1])
local answers = {{}}
for i = 2, #ARGV, 4 do
  local name, facts, stream, claim = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local other = held_by_other(stream, claim, ARGV[1])
  if not other then
    redis.call('ZADD', KEYS[1], now + ARGV[1], name)
    redis.call('HSET', KEYS[2], name, facts)
    redis.call('HSET', KEYS[4], stream, claim)
  end
  answers[#answers + 1] = other or ''
end
redis.call('PEXPIRE', KEYS[4], ARGV[1] * 3)
return answers
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

# KEYS: held:{streams}, its :facts. Returns the facts of streams whose lease runs.
RUNNING_STREAMS = f"""{_NOW}
local running = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
local found = {{}}
for _, name in ipairs(running) do
  found[#found + 1] = redis.call('HGET', KEYS[2], name) or ''
end
return found
"""

# KEYS: held:{streams}:claims; ARGV: STREAM, and the claim that is given up.
RELEASE_CLAIM = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
"""

# KEYS: held:{streams} with :facts and :claims; ARGV: for each stream its name
# STREAM@START_MS, STREAM, and its claim. What another business holds is left alone.
LET_GO = """
for i = 1, #ARGV, 3 do
  local name, stream, claim = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local held = redis.call('HGET', KEYS[3], stream)
  if held == claim then redis.call('HDEL', KEYS[3], stream) end
  if not held or held == claim or stream .. '@' .. string.match(held, '^%d+') ~= name then
    redis.call('ZREM', KEYS[1], name)
    redis.call('HDEL', KEYS[2], name)
  end
end
"""

# KEYS: live:{BUSINESS}:stream:CALLSID and :streams:CALLSID; ARGV: the stream, its lease in ms.
MARK_LIVE = f"""{_NOW}
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
redis.call('PEXPIREAT', KEYS[2], redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2])
"""

# KEYS: as above; ARGV: the stream that has ended.
UNMARK_LIVE = """
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

# KEYS: held:{streams}:watched, and :figures:BUSINESS for each that is watched; ARGV: for
# how long, and how old figures may be, in ms; then the businesses. Returns for each of
# them what its holders have published.
WATCH = f"""{_NOW}
local found = {{}}
for i = 2, #KEYS do
  redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i + 1])
  local fresh, stale = {{}}, {{}}
  local parts = redis.call('HGETALL', KEYS[i])
  for j = 1, #parts, 2 do
    local at, figures = string.match(parts[j + 1], '^(%d+) (.*)$')
    if at and math.abs(now - at) <= tonumber(ARGV[2]) then
      fresh[#fresh + 1] = figures
    else
      stale[#stale + 1] = parts[j]
    end
  end
  for _, holder in ipairs(stale) do redis.call('HDEL', KEYS[i], holder) end
  found[i - 1] = fresh
end
return found
"""

# KEYS: held:{streams}:watched and :ending. Returns who is watched, and whose end is asked.
WANTED = f"""{_NOW}
for i = 1, 2 do redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now) end
return {{redis.call('ZRANGE', KEYS[1], 0, -1), redis.call('ZRANGE', KEYS[2], 0, -1)}}
"""

# KEYS: held:{streams}:figures:BUSINESS for each; ARGV: for how long they are kept, in ms,
# the holder, and its figures for each.
PUBLISH_FIGURES = f"""{_NOW}
for i = 1, #KEYS do
  redis.call('HSET', KEYS[i], ARGV[2], now .. ' ' .. ARGV[i + 2])
  redis.call('PEXPIRE', KEYS[i], ARGV[1])
end
"""

# KEYS: held:{streams}:ending; ARGV: for how long, in ms, how many at once, and whose end.
ASK_TO_END = f"""{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[2] - 1)
"""

# KEYS: held:{captures}; ARGV: for how long, in ms, how many at once, and what is asked for.
ASK_TO_CAPTURE = ASK_TO_END

# KEYS: held:{captures}. Returns what is asked for.
ASKED_TO_CAPTURE = f"""{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""

# Whose messages are there: of an opening, as msgpack, the field `business_id`.
_CAPTURED = """
local opening = redis.call('GET', KEYS[2])
local owner = opening and cmsgpack.unpack(opening).business_id
"""

# KEYS: capture:{STREAM}, capture:{STREAM}:opening; ARGV: BUSINESS, for how long, in ms, the
# opening. Returns whether it has begun: not where another business's messages are there.
BEGIN_CAPTURE = f"""{_CAPTURED}
if owner and owner ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
return 1
"""

# KEYS: as above; ARGV: BUSINESS, from which id, and how many. Returns entries.
READ_CAPTURED = f"""{_CAPTURED}
if owner ~= ARGV[1] then return {{}} end
return redis.call('XRANGE', KEYS[1], ARGV[2], '+', 'COUNT', ARGV[3])
"""

# KEYS: held:{captures}:begun; ARGV: for how long, in ms, how many at once, the stream.
NOTE_BEGUN = f"""{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])
redis.call('ZADD', KEYS[1], now, ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[2] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""

# KEYS: the same; ARGV: after when, in ms. Returns the time, and the streams.
BEGUN_AFTER = f"""{_NOW}
return {{now, redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf')}}
"""

# KEYS: as above; ARGV: BUSINESS, for how long, in ms, how many batches, the batch. Returns
# whether the opening of this business was there: without it, it was erased, and nothing may
# bring it back.
PUT_CAPTURED = f"""{_CAPTURED}
if owner ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[3], '*', 'batch', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""

# Refusals of the scripts that edit what is configured.
_AS_EXPECTED = """
local stands = redis.call('HGET', KEYS[1], 'version') or '0'
if redis.call('EXISTS', KEYS[1]) == 0 or (ARGV[1] ~= '' and ARGV[1] ~= stands) then return -1 end
"""

# KEYS: a record, and of a business its tombstone; ARGV: the version that must stand, empty for
# any, `new` for none; then names and values. Returns the new version, -1 when another stands,
# -2 when a new one is there, -5 when the business was deleted.
SAVE_RECORD = f"""
if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 1 then return -5 end
if ARGV[1] == 'new' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return -2 end
else
  {_AS_EXPECTED}
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return redis.call('HINCRBY', KEYS[1], 'version', 1)
"""

# KEYS: a record; ARGV: the version that must stand, or empty.
DELETE_RECORD = f"""{_AS_EXPECTED}
return redis.call('DEL', KEYS[1])
"""

# KEYS: business:{BUSINESS}, its :secrets, live:{BUSINESS}, its :deleted; ARGV: as above, then
# the tombstone. -3: it has calls. From here on the business admits no call, and its id is
# never free again.
DELETE_BUSINESS = f"""
if redis.call('EXISTS', KEYS[4]) == 1 then return 0 end
{_AS_EXPECTED}{_NOW}
if redis.call('ZCOUNT', KEYS[3], '(' .. now, '+inf') > 0 then return -3 end
redis.call('SET', KEYS[4], ARGV[2])
return redis.call('DEL', KEYS[1], KEYS[2])
"""

# KEYS: business:{BUSINESS}, live:{BUSINESS}:deleted. Version 0.1 may write the record of an id
# that was deleted.
HAS_BUSINESS = """
return redis.call('EXISTS', KEYS[1]) == 1 and redis.call('EXISTS', KEYS[2]) == 0
"""

# KEYS: business:{BUSINESS}, its :secrets; ARGV: names and values, empty ones are removed.
# Returns -4 when there is no such business.
SAVE_SECRETS = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -4 end
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
return 1
"""

# KEYS: business:{BUSINESS}:secrets; ARGV: a name, the value it must have, the new one. Returns
# whether it had that value.
REPLACE_SECRET = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""

# KEYS: a lock, or a name's claim; ARGV: whose it must be.
RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
