"""Redis ACL users with least privilege: the keys and commands of each, and the rules for both.

docs/redis-contract.md lists every key; each of them has an entry in KEYS, which says what each
user may do with it. `media-bridge redis-acl` prints the rules, and docs/redis-acl.txt holds
them. Selectors need Redis 7.0 or Valkey.
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class RedisUser(StrEnum):
    """The users that are offered."""

    SERVICE = "bridge-service"
    WORKER = "bridge-worker"
    METRICS = "bridge-metrics"


class Right(StrEnum):
    """What a user may do with a key, as Redis writes it in a key pattern."""

    NONE = ""
    READ = "R"
    WRITE = "W"
    BOTH = "RW"


class Rights(NamedTuple):
    """What each user may do with one key."""

    service: Right
    worker: Right
    metrics: Right


PRIVATE: Final = Rights(Right.BOTH, Right.NONE, Right.NONE)
READABLE: Final = Rights(Right.BOTH, Right.READ, Right.NONE)
WRITABLE: Final = Rights(Right.BOTH, Right.WRITE, Right.NONE)
SHARED: Final = Rights(Right.BOTH, Right.BOTH, Right.NONE)

# Every key of docs/redis-contract.md, as it is written there. The first ones are those of audio,
# which Redis compares first.
KEYS: Final[Mapping[str, Rights]] = {
    "audio:{STREAM}": READABLE,
    "calls": READABLE,
    "stream:{STREAM}": READABLE,
    "control:{STREAM}": WRITABLE,
    "business:{ID}": PRIVATE,
    "plan:{NAME}": PRIVATE,
    "businesses": PRIVATE,
    "businesses:{deleted}": PRIVATE,
    "plans": PRIVATE,
    "number:{NUMBER}": PRIVATE,
    "exotel:{DIGEST}": PRIVATE,
    "business:{ID}:secrets": PRIVATE,
    "configured": PRIVATE,
    "configuration:{lock}": PRIVATE,
    "live:{BUSINESS}": PRIVATE,
    "live:{BUSINESS}:stream:CALLSID": PRIVATE,
    "live:{BUSINESS}:streams:CALLSID": PRIVATE,
    "live:{BUSINESS}:recent": PRIVATE,
    "live:{BUSINESS}:usage:MONTH": PRIVATE,
    "live:{BUSINESS}:counted:CALLSID": PRIVATE,
    "live:{BUSINESS}:metered:STREAM@START_MS:MONTH": PRIVATE,
    "live:{BUSINESS}:calls": PRIVATE,
    "live:{BUSINESS}:call:CALLSID": PRIVATE,
    "live:{BUSINESS}:erased:CALLSID": PRIVATE,
    "live:{BUSINESS}:ended:CALLSID": PRIVATE,
    "live:{BUSINESS}:deleted": PRIVATE,
    "ticket:{NONCE}": PRIVATE,
    "seen:{BUSINESS:CALLSID}": PRIVATE,
    "answered:{CALLSID}": PRIVATE,
    "survey:{STREAM}": PRIVATE,
    "held:{streams}": PRIVATE,
    # A worker that joins finds the streams that are live here; the same identity as in `calls`.
    "held:{streams}:facts": READABLE,
    "held:{streams}:reached": PRIVATE,
    "held:{streams}:claims": PRIVATE,
    "owner:{STREAM}": PRIVATE,
    "held:{streams}:watched": PRIVATE,
    "held:{streams}:ending": PRIVATE,
    "held:{streams}:figures:BUSINESS": PRIVATE,
    "held:{calls}": PRIVATE,
    "held:{captures}": PRIVATE,
    "held:{captures}:begun": PRIVATE,
    "capture:{STREAM}": PRIVATE,
    "capture:{STREAM}:opening": PRIVATE,
    "held:{control}:HOLDER": PRIVATE,
    "keys:{BUSINESS}": PRIVATE,
    "key:{DIGEST}": PRIVATE,
    "session:{DIGEST}": PRIVATE,
    "sessions:{KEY_ID}": PRIVATE,
    "attempts:{ADDRESS}": PRIVATE,
    "audit": PRIVATE,
    "audit:{BUSINESS}": PRIVATE,
    "held:{audit}:head": PRIVATE,
    "audit:{BUSINESS}:head": PRIVATE,
    "held:{audit}:personal": PRIVATE,
    "audit:{BUSINESS}:personal": PRIVATE,
    "held:{audit}:inbox": PRIVATE,
    "held:{audit}:counts": PRIVATE,
    "consumer:{GROUP}": SHARED,
    "consumer:{GROUP}:by": SHARED,
    "consumer:{GROUP}:at": SHARED,
    "consumer:{GROUP}:failed": SHARED,
    "consumer:{GROUP}:lost": SHARED,
    "consumer:{GROUP}:calls": SHARED,
    "consumer:{GROUP}:done": SHARED,
    "store:{check}": PRIVATE,
}
# With PUBSUB_ADAPTER=redis_pubsub these are channels too.
CHANNELS: Final = ("calls", "audio:{STREAM}", "stream:{STREAM}")

# Commands are written with arguments that do nothing, so that `media-bridge doctor` can ask
# Redis about each of them; KEY stands for a key that is not there. A command that has
# subcommands is granted by the one that is named.
CONNECTION: Final = (
    "PING",
    "SELECT 0",
    "CLIENT|SETNAME media-bridge",
)
CLUSTER: Final = ("CLUSTER|SLOTS", "ASKING")
LISTENING: Final = ("SUBSCRIBE", "UNSUBSCRIBE")
GROUP_COMMANDS: Final = (
    "HGET KEY f",
    "HSET KEY f v",
    "HSETNX KEY f v",
    "HDEL KEY f",
    "HINCRBY KEY f 1",
    "PEXPIRE KEY 1",
    "ZADD KEY 1 m",
    "ZCARD KEY",
    "ZRANGE KEY 0 0",
    "ZRANGEBYSCORE KEY 0 0",
    "ZREM KEY m",
    "ZSCORE KEY m",
)
READ_COMMANDS: Final = (
    "EXISTS KEY",
    "HGET KEY f",
    "HGETALL KEY",
    "HMGET KEY f",
    "HVALS KEY",
    "TTL KEY",
    "XLEN KEY",
    "XRANGE KEY - +",
    "XREAD STREAMS KEY 0",
    "XREVRANGE KEY + -",
)
SERVICE_COMMANDS: Final = tuple(
    sorted(
        {
            *GROUP_COMMANDS,
            *READ_COMMANDS,
            "DEL KEY",
            "EVAL return{} 1 KEY",
            "EXPIRE KEY 1",
            "GET KEY",
            "GETEX KEY",
            "HEXISTS KEY f",
            "HSCAN KEY 0",
            "INCR KEY",
            "LINDEX KEY 0",
            "LLEN KEY",
            "LPUSH KEY v",
            "LRANGE KEY 0 0",
            "LREM KEY 0 v",
            "LSET KEY 0 v",
            "LTRIM KEY 0 0",
            "MEMORY|USAGE KEY",
            "PEXPIREAT KEY 1",
            "RPUSH KEY v",
            "SADD KEY m",
            "SET KEY v",
            "SMEMBERS KEY",
            "SREM KEY m",
            "UNLINK KEY",
            "XADD KEY * f v",
            "XDEL KEY 0-1",
            "XGROUP|CREATE KEY g 0",
            "XGROUP|DESTROY KEY g",
            "XINFO|STREAM KEY",
            "XTRIM KEY MAXLEN 1",
            "ZCOUNT KEY 0 0",
            "ZPOPMIN KEY",
            "ZREMRANGEBYRANK KEY 0 0",
            "ZREMRANGEBYSCORE KEY 0 0",
            "ZREVRANGEBYSCORE KEY 0 0",
            "ZSCAN KEY 0",
        }
    )
)
# Without keys. Which user it is tells the doctor whether ACL users are in use at all.
SERVICE_SERVER_COMMANDS: Final = (
    "ACL|WHOAMI",
    "DISCARD",
    "EXEC",
    "INFO",
    "MULTI",
    "SCAN 0",
    "TIME",
)
METRICS_COMMANDS: Final = (
    "CLUSTER|INFO",
    "DBSIZE",
    "INFO",
    "LASTSAVE",
    "LATENCY|HISTOGRAM",
    "LATENCY|LATEST",
    "SLOWLOG|LEN",
    "TIME",
)
# What a service's or a worker's client asks of Sentinels, which have users of their own.
SENTINEL_COMMANDS: Final = ("PING", "CLIENT|SETNAME", "SENTINEL|MASTERS")
# Redis before 7.2 lacks it, and refuses a whole rule that names it: each user gets it by a
# command of its own, whose refusal changes nothing.
CLIENT_INFO: Final = "+client|setinfo"

# Idempotent, and silent about passwords: a new user can sign in only after
# `ACL SETUSER NAME on >PASSWORD`, and one that is there keeps its own.
_RESET: Final = "resetkeys resetchannels clearselectors -@all"
_VALUE: Final = re.compile(r"[A-Z][A-Z0-9_]*")


def pattern_of(key: str, group: str = "*") -> str:
    """Return the Redis pattern of a key in KEYS: its values become `*`, its braces stay."""
    return _VALUE.sub("*", key.replace("GROUP", group))


def family_of(key: str) -> str:
    """Return the pattern of all keys that begin as this one does."""
    name, brace, rest = key.partition("{")
    if brace and not name:
        return f"{{{rest.partition('}')[0]}}}*"  # such as `{audit}:head`
    return f"{name}{brace}*" if brace else name


def user_rules(user: RedisUser, group: str = "") -> str:
    """Return a user's rules as `ACL SETUSER` takes them, without a password.

    With `group` a worker shares calls in that group only. `group` is a name of a group, which
    has no characters that a pattern gives a meaning.
    """
    return " ".join((_RESET, *_rules_of(user, group or "*")))


def _rules_of(user: RedisUser, group: str) -> Iterator[str]:
    match user:
        case RedisUser.SERVICE:
            families = (family_of(key) for key, rights in KEYS.items() if rights.service)
            yield from (f"~{family}" for family in dict.fromkeys(families))
            yield from (f"&{pattern_of(name)}" for name in CHANNELS)
            every = (*CONNECTION, *CLUSTER, *LISTENING, "PUBLISH", *SERVICE_SERVER_COMMANDS)
            yield from _granted(*every, *SERVICE_COMMANDS)
        case RedisUser.WORKER:
            yield from (f"&{pattern_of(name)}" for name in CHANNELS)
            yield from _granted(*CONNECTION, *CLUSTER, *LISTENING, "PSUBSCRIBE", "PUNSUBSCRIBE")
            yield from _granted("TIME")
            read, written, shared = (
                [pattern_of(key, group) for key, rights in KEYS.items() if rights.worker is right]
                for right in (Right.READ, Right.WRITE, Right.BOTH)
            )
            yield _selector(*(f"%R~{one}" for one in read), *_granted(*READ_COMMANDS))
            yield _selector(*(f"%W~{one}" for one in written), *_granted("XADD"))
            yield _selector(*(f"~{one}" for one in shared), *_granted(*GROUP_COMMANDS))
            # Redis asks for both rights on all keys that are named to a script, whatever it does
            # with them. What it then does is subject to the selectors above.
            named = [pattern_of("control:{STREAM}"), pattern_of("stream:{STREAM}"), *shared]
            yield _selector(*(f"~{one}" for one in named), *_granted("EVAL"))
        case RedisUser.METRICS:
            yield from _granted(*CONNECTION, *METRICS_COMMANDS)


def _selector(*rules: str) -> str:
    return f"({' '.join(('-@all', *rules))})"


def _granted(*commands: str) -> list[str]:
    return [f"+{command.partition(' ')[0].lower()}" for command in dict.fromkeys(commands)]


def acl_commands(group: str = "") -> list[str]:
    """Return the commands that create or update all users, for redis-cli.

    With `group` they are those of one user: a worker of that group.
    """
    if group:
        return _set_user(f"{RedisUser.WORKER}-{group}", user_rules(RedisUser.WORKER, group))
    return [command for user in RedisUser for command in _set_user(user, user_rules(user))]


def sentinel_commands() -> list[str]:
    """Return the commands that create the user of services and workers on a Sentinel."""
    rules = " ".join(_granted(*SENTINEL_COMMANDS))
    return _set_user("bridge-sentinel", f"{_RESET} {rules}")


def _set_user(name: str, rules: str) -> list[str]:
    return [f"ACL SETUSER {name} {rules}", f"ACL SETUSER {name} {CLIENT_INFO}"]


class Probe(NamedTuple):
    """A command that asks Redis for two permissions: to run it, and to use `pattern`."""

    words: tuple[str, ...]
    command: str
    pattern: str


def service_probes() -> list[Probe]:
    """Return what to ask Redis to learn whether its user may do all that the service does."""
    audio = "audio:{STREAM}"
    not_queued = {"DISCARD", "EXEC", "MULTI"}
    of_server = [one for one in SERVICE_SERVER_COMMANDS if one not in not_queued]
    probes = [_probe(one, family_of(audio)) for one in (*SERVICE_COMMANDS, *of_server)]
    probes += [_probe("PUBLISH KEY m", f"&{pattern_of(name)}") for name in CHANNELS]
    for family in dict.fromkeys(map(family_of, KEYS)):
        # A right to read, and one to write.
        probes += [_probe("HGET KEY f", family), _probe("HDEL KEY f", family)]
    return probes


# No id, name or number has a space.
_PROBE_VALUE: Final = "media-bridge doctor"


def _probe(command: str, pattern: str) -> Probe:
    key = pattern.lstrip("&").replace("*}", "*").replace("*", f"{_PROBE_VALUE}}}")
    name, *rest = command.split(" ")
    words = *name.split("|"), *(key if word == "KEY" else word for word in rest)
    return Probe(words, name, pattern)
