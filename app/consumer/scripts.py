"""Lua scripts of a group: what Redis does in one step, by its own clock.

Keys of a group have one hash tag:

    consumer:{GROUP}          hash  `cursor`; `last` and `since`: when workers reached us, ms
    consumer:{GROUP}:calls    zset  STREAM@START_MS → when it is free to be taken, Unix ms
    consumer:{GROUP}:at       hash  STREAM@START_MS → id of the last entry acknowledged
    consumer:{GROUP}:by       hash  STREAM@START_MS → the worker that holds it
    consumer:{GROUP}:failed   hash  STREAM@START_MS → how often it has failed
    consumer:{GROUP}:done     zset  STREAM@START_MS → when it was finished, Unix ms
    consumer:{GROUP}:lost     hash  STREAM → `STREAM@START_MS ID`: was lost, and read up to ID

Each script is given all seven, in this order, and first GROUP_SECONDS and DONE_SECONDS in ms.
"""

from app.consumer.sharing import MAX_FAILURES, MAX_KNOWN

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local group, calls, at, by, failed, done, lost = unpack(KEYS)
local function keep()
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end
end
local function is_ours(name, worker)
  local holder = redis.call('HGET', by, name)
  return holder == worker or (not holder and not redis.call('ZSCORE', done, name))
end
local function forget(name)
  redis.call('ZREM', calls, name)
  for _, key in ipairs({at, by, failed}) do redis.call('HDEL', key, name) end
end
local function finish(name)
  forget(name)
  redis.call('ZADD', done, now, name)
end
"""

# A stream is free from its START_MS on, so that the oldest comes first; now at the latest,
# since the bridge's clock may be ahead of ours.
_FREE = """
local function free_since(name) return math.min(tonumber(string.match(name, '%d+$')), now) end
"""

_ADD = f"""{_FREE}
local function add(name, position)
  if redis.call('ZSCORE', calls, name) or redis.call('ZSCORE', done, name) then return end
  redis.call('ZADD', calls, free_since(name), name)
  redis.call('HSET', at, name, position or (string.match(name, '%d+$') .. '-0'))
end
"""

# As replicas' own leases do: a pause is one for all workers.
_REACHED = """
local function reached(lease)
  local last = tonumber(redis.call('HGET', group, 'last'))
  if not last or math.abs(now - last) > lease / 2 then redis.call('HSET', group, 'since', now) end
  redis.call('HSET', group, 'last', now)
  return now - redis.call('HGET', group, 'since')
end
"""

# ARGV: …, cursor, names. Returns the cursor that stands.
BEGIN = f"""{_NOW}{_ADD}
if redis.call('HSETNX', group, 'cursor', ARGV[3]) == 1 then
  for i = 4, #ARGV do add(ARGV[i]) end
end
keep()
return redis.call('HGET', group, 'cursor')
"""

# ARGV: …, after, upto, how many names, names, ids of streams that live after all.
# Returns the cursor that stands.
ENLIST = f"""{_NOW}{_ADD}
local cursor = redis.call('HGET', group, 'cursor')
if cursor and cursor ~= ARGV[3] then return cursor end
redis.call('HSET', group, 'cursor', ARGV[4])
for i = 6, 5 + ARGV[5] do add(ARGV[i]) end
for i = 6 + ARGV[5], #ARGV do
  local found = redis.call('HGET', lost, ARGV[i])
  if found then
    local name, position = string.match(found, '^(%S+) (%S+)$')
    redis.call('HDEL', lost, ARGV[i])
    redis.call('ZREM', done, name)
    add(name, position)
  end
end
local too_old = redis.call('ZRANGEBYSCORE', done, '-inf', now - ARGV[2], 'LIMIT', 0, 100)
if redis.call('ZCARD', done) > {MAX_KNOWN} then too_old[#too_old + 1] =
  redis.call('ZRANGE', done, 0, 0)[1] end
for _, name in ipairs(too_old) do
  redis.call('ZREM', done, name)
  redis.call('HDEL', lost, (string.gsub(name, '@%d+$', '')))
end
for _ = 1, redis.call('ZCARD', calls) - {MAX_KNOWN} do
  forget(redis.call('ZRANGE', calls, 0, 0)[1])
end
keep()
return ARGV[4]
"""

# ARGV: …, lease in ms, worker, how many. Returns names and positions by turns.
CLAIM = f"""{_NOW}{_REACHED}
local known_for = reached(ARGV[3])
local claimed = {{}}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', calls, '-inf', now, 'LIMIT', 0, 1000)) do
  if #claimed >= 2 * ARGV[5] then break end
  if known_for >= tonumber(ARGV[3]) or not redis.call('HGET', by, name) then
    redis.call('ZADD', calls, now + ARGV[3], name)
    redis.call('HSET', by, name, ARGV[4])
    claimed[#claimed + 1] = name
    claimed[#claimed + 1] = redis.call('HGET', at, name)
  end
end
keep()
return claimed
"""

# What a worker's renewal says may arrive after a later acknowledgement of the same worker.
_BEHIND = """
local function is_behind(one, other)
  local ms, n = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_n = string.match(other, '^(%d+)-(%d+)$')
  if ms ~= other_ms then return tonumber(ms) < tonumber(other_ms) end
  return tonumber(n) < tonumber(other_n)
end
"""

# ARGV: …, lease in ms, worker, names and positions by turns. Returns what is not ours.
HOLD = f"""{_NOW}{_REACHED}{_BEHIND}
reached(ARGV[3])
local others = {{}}
for i = 5, #ARGV, 2 do
  if is_ours(ARGV[i], ARGV[4]) then
    redis.call('ZADD', calls, now + ARGV[3], ARGV[i])
    redis.call('HSET', by, ARGV[i], ARGV[4])
    local noted = redis.call('HGET', at, ARGV[i])
    if not noted or is_behind(noted, ARGV[i + 1]) then
      redis.call('HSET', at, ARGV[i], ARGV[i + 1])
    end
  else
    others[#others + 1] = ARGV[i]
  end
end
keep()
return others
"""

# ARGV: …, worker, name, position, the stream's id if it was lost or empty.
FINISH = f"""{_NOW}
if not is_ours(ARGV[4], ARGV[3]) then return 0 end
finish(ARGV[4])
if ARGV[6] ~= '' then redis.call('HSET', lost, ARGV[6], ARGV[4] .. ' ' .. ARGV[5]) end
keep()
return 1
"""

# ARGV: …, worker, name, position, for how many ms nobody may take it; a failure has some.
# Returns 0 when nobody is to try again.
RELEASE = f"""{_NOW}{_FREE}
local name = ARGV[4]
if not is_ours(name, ARGV[3]) then return 1 end
if ARGV[6] ~= '0' and redis.call('HINCRBY', failed, name, 1) >= {MAX_FAILURES} then
  finish(name)
  return 0
end
redis.call('HDEL', by, name)
redis.call('HSET', at, name, ARGV[5])
local free_at = ARGV[6] == '0' and free_since(name) or now + ARGV[6]
redis.call('ZADD', calls, free_at, name)
keep()
return 1
"""
