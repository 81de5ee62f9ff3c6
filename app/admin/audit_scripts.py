"""The audit log's keys in Redis, and its Lua scripts: each touches keys of one log only.

    audit                audit:{BUSINESS}           stream  `entry` JSON, `link` its place
    held:{audit}:head         audit:{BUSINESS}:head      string  the chain's signed head
    held:{audit}:personal     audit:{BUSINESS}:personal  hash    REF:NAME → a value, until erased
    held:{audit}:inbox                                   stream  entries of writers without a key
    held:{audit}:counts                                  hash    what came in a day, and of whom

All keys of one log lie in one slot of a Cluster.
"""

from dataclasses import dataclass
from typing import Final

from app.admin.audit_chain import SERVICE_LOG

COUNTS_KEY: Final = "held:{audit}:counts"

# A business's view ends with the business: its tombstone lies in the view's slot.
_IF_DELETED: Final = """
local business = string.match(KEYS[2], '^audit:({[^}]*})$')
if business and redis.call('EXISTS', 'live:' .. business .. ':deleted') == 1 then return false end
"""

# KEYS: head, stream, personal, inbox. ARGV: the head that must be there, the new head, the
# entry, its link, the inbox entry that it is made from (or empty), then personal fields and
# values. Returns the entry's id, the log's length and how many wait in the inbox; or the head
# that is there; or nothing where another writer has taken the inbox entry, or where the view's
# business was deleted.
APPEND: Final = f"""{_IF_DELETED}
local head = redis.call('GET', KEYS[1]) or ''
if head ~= ARGV[1] then return head end
if ARGV[5] ~= '' and redis.call('XDEL', KEYS[4], ARGV[5]) == 0 then return false end
local id = redis.call('XADD', KEYS[2], '*', 'entry', ARGV[3], 'link', ARGV[4])
redis.call('SET', KEYS[1], ARGV[2])
if #ARGV > 5 then redis.call('HSET', KEYS[3], unpack(ARGV, 6)) end
return {{id, redis.call('XLEN', KEYS[2]), redis.call('XLEN', KEYS[4])}}
"""

# KEYS: head, stream, personal. ARGV: the head that must be there, the new head, how many
# entries, their ids, then personal fields. Returns whether they are gone.
TRIM: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local n = tonumber(ARGV[3])
redis.call('XDEL', KEYS[2], unpack(ARGV, 4, 3 + n))
redis.call('SET', KEYS[1], ARGV[2])
if #ARGV > 3 + n then redis.call('HDEL', KEYS[3], unpack(ARGV, 4 + n)) end
return 1
"""

# KEYS: head, stream, personal, inbox. ARGV: the entry, how many a log may hold, how many may
# wait, then personal fields and values. Without a key nobody can extend a chain: the entry
# waits for a writer that has one, and nothing is returned; nor is it in a deleted business's view.
APPEND_UNSIGNED: Final = f"""{_IF_DELETED}
if #ARGV > 3 then redis.call('HSET', KEYS[3], unpack(ARGV, 4)) end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('XADD', KEYS[4], 'MAXLEN', ARGV[3], '*', 'entry', ARGV[1])
  return false
end
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'entry', ARGV[1])
"""

# KEYS: counts. ARGV: what is counted, and for how many seconds from the first on. Returns
# nothing where the counts were unreadable: they are removed, and begin anew.
COUNT: Final = """
local n = redis.pcall('HINCRBY', KEYS[1], ARGV[1], 1)
if type(n) ~= 'number' then
  redis.call('UNLINK', KEYS[1])
  return false
end
if redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return n
"""

# KEYS: counts. ARGV: what is no longer counted. A key that is no hash is removed.
FORGET_COUNTS: Final = """
local n = redis.pcall('HDEL', KEYS[1], unpack(ARGV))
if type(n) ~= 'number' then return redis.call('UNLINK', KEYS[1]) end
return n
"""


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The keys of one log: the service's, or a business's view."""

    name: str
    head: str
    stream: str
    personal: str
    inbox: str

    @classmethod
    def of(cls, business_id: str | None) -> "LogKeys":
        """Return the keys of a business's log, or with None of the service's."""
        if business_id is None:
            # The tag of a name without braces is the whole name: one slot with `audit`.
            tag = "held:{audit}"
            return cls(SERVICE_LOG, f"{tag}:head", "audit", f"{tag}:personal", f"{tag}:inbox")
        key = f"audit:{{{business_id}}}"
        return cls(key, f"{key}:head", key, f"{key}:personal", f"{key}:inbox")

    @property
    def all(self) -> tuple[str, str, str, str]:
        """Return them in the order in which the scripts take them."""
        return self.head, self.stream, self.personal, self.inbox
