"""What Redis holds of a business, so that a test can show that nothing of it changed."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from redis import Redis

from tests.tenancy.world import BUSINESSES, Tenant

# Written by time alone, or by what the other business's own processes do.
_PASSING = (
    b"attempts:",
    b"held:{streams}:reached",
    b"held:{streams}:watched",
    b"held:{streams}:figures:",
    b"held:{control}",
    b"store:{check}",
    b"session",
    b"audit",
    b"held:{audit}",
)


def names_of(tenant: Tenant) -> set[str]:
    """Return everything that only a request about this business would be answered with."""
    names = {tenant.id, tenant.number, *tenant.key_ids.values()}
    for call in tenant.calls:
        names |= {call.call_sid, call.stream}
    return names - {""}


def snapshot(redis: "Redis", tenants: Iterable[Tenant]) -> dict[str, Any]:
    """Return all that Redis holds of these businesses: key → content, without leases' times.

    What another business has under a name of theirs (a CallSid, a number) is its own.
    """
    theirs = list(tenants)
    names = [name.encode() for tenant in theirs for name in names_of(tenant)]
    streams = {call.stream.encode() for tenant in theirs for call in tenant.calls}
    others = BUSINESSES - {tenant.id for tenant in theirs}
    found: dict[str, Any] = {}
    for key, content in _everything(redis):
        if any(_is_tagged(key, other) for other in others):
            continue
        if key == b"calls":
            content = [
                (entry_id, fields)
                for entry_id, fields in content
                if dict(fields)[b"businessId"].decode() not in others
                or dict(fields)[b"streamSid"] in streams
            ]
        elif key == b"held:{calls}":
            content = {one for one in content if one.partition(b" ")[0].decode() not in others}
        elif key.startswith(b"stream:") and content.get(b"businessId", b"").decode() in others:
            if not any(stream in key for stream in streams):
                continue
        if any(name in key for name in names):
            found[key.decode()] = content
        elif isinstance(content, dict):
            about = {name: value for name, value in content.items() if _names(name, names)}
            if about:
                found[key.decode()] = about
        elif isinstance(content, list | set):
            about_list = sorted(repr(part) for part in content if _names(part, names))
            if about_list:
                found[key.decode()] = about_list
    return found


def _is_tagged(key: bytes, business: str) -> bool:
    """Return whether a key's hash tag begins with this business."""
    return any(f"{{{business}{end}".encode() in key for end in "}: ")


def _names(part: object, names: Iterable[bytes]) -> bool:
    text = repr(part).encode()
    return any(name in text for name in names)


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what is not the same: the key, and the parts that were and that are."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        was, now = _parts(before.get(key)), _parts(after.get(key))
        if was != now:
            gone = [part for part in was if part not in now]
            came = [part for part in now if part not in was]
            found.append(f"{key}: {gone} -> {came}")
    return found


def _parts(content: Any) -> list[str]:
    if isinstance(content, dict):
        return sorted(f"{name}={value}" for name, value in content.items())
    if isinstance(content, list | set):
        return sorted(map(str, content))
    return [str(content)]


def _everything(redis: "Redis") -> Iterator[tuple[bytes, Any]]:
    keys = [
        key
        for key in redis.scan_iter(count=1000)
        if not key.startswith(_PASSING) and b":metered:" not in key
    ]
    asking = redis.pipeline(transaction=False)
    for key in keys:
        asking.type(key)
    kinds = asking.execute()
    for key, kind in zip(keys, kinds, strict=True):
        _READ[kind](asking, key)
    for key, kind, content in zip(keys, kinds, asking.execute(), strict=True):
        yield key, _settled(key, kind, content)


_READ: dict[bytes, Callable[[Any, bytes], object]] = {
    b"string": lambda redis, key: redis.get(key),
    b"hash": lambda redis, key: redis.hgetall(key),
    b"zset": lambda redis, key: redis.zrange(key, 0, -1),
    b"set": lambda redis, key: redis.smembers(key),
    b"list": lambda redis, key: redis.lrange(key, 0, -1),
    b"stream": lambda redis, key: redis.xrange(key),
    # It expired between the two looks.
    b"none": lambda redis, key: redis.get(key),
}


def _settled(key: bytes, kind: bytes, content: Any) -> Any:
    """Return a key's content without what time alone changes."""
    match kind:
        case b"hash":
            passing = (b"ms",) if b":usage:" in key else ()
            return {
                name: value
                for name, value in content.items()
                if name not in passing and not name.endswith(b":used")
            }
        case b"zset" | b"set":
            # Scores are leases, which are renewed all the time.
            return set(content)
        case b"stream":
            return [(entry_id, sorted(fields.items())) for entry_id, fields in content]
    return content
