"""Where Redis is, as `REDIS_URL` says it: one server, a Sentinel group, a Cluster.

    redis://[USER:PASSWORD@]HOST[:6379][/DB]            one server; rediss:// with TLS
    unix://[USER:PASSWORD@]/PATH[?db=DB]                one server, by its socket
    redis+sentinel://[…@]HOST[:26379],HOST,…/GROUP[/DB] the group's primary, as the sentinels say
    redis+cluster://[…@]HOST[:6379],HOST,…              a cluster, from any of its nodes

`rediss+sentinel` and `rediss+cluster` use TLS. What follows a `?` goes to the
client as it is (`ssl_ca_certs=…`); `sentinel_username` and `sentinel_password`
are for the sentinels themselves.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qsl, urlencode, urlsplit

_DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}
_GROUP_AND_DB = re.compile(r"/(?P<group>[A-Za-z0-9._-]{1,128})(?:/(?P<db>[0-9]{1,4}))?")


class Topology(StrEnum):
    """What stands behind the URL."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where Redis is.

    `nodes` are URLs in redis-py's own form: of the server; of the primary's
    connection, its address left out, and then of each sentinel; of each of the
    cluster's known nodes. They hold passwords: no `repr` shows them.
    """

    topology: Topology
    nodes: tuple[str, ...] = field(repr=False)
    group: str = ""


def parse_redis_url(text: str) -> RedisUrl:
    """Read a REDIS_URL.

    Raises:
        ValueError: it cannot be used; says why, and nothing of what it holds.
    """
    try:
        parts = urlsplit(text)
        several = parts.scheme.partition("+")[2]
        _ = several or parts.port
    except ValueError:
        raise ValueError("is not a URL; in a password, write / as %2F and # as %23") from None
    if parts.fragment:
        raise ValueError("holds a #; in a password, write it as %23")
    if parts.scheme in ("redis", "rediss"):
        if not _is_name(parts.hostname or "") or not re.fullmatch(r"(?:/[0-9]*)?", parts.path):
            raise ValueError(
                "must name a host, and after it at most a port and a database's number"
            )
        return RedisUrl(Topology.SINGLE, (text,))
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("must name a socket, as unix:///run/redis.sock does")
        return RedisUrl(Topology.SINGLE, (text,))
    if several not in _DEFAULT_PORTS or parts.scheme.partition("+")[0] not in ("redis", "rediss"):
        raise ValueError(
            "must begin with redis://, rediss:// (TLS), unix://, redis+sentinel:// or "
            "redis+cluster://"
        )
    return _several(parts.scheme, parts.netloc, parts.path, parts.query)


def _several(scheme: str, netloc: str, path: str, query: str) -> RedisUrl:
    plain, _, kind = scheme.partition("+")
    user, at, hosts = netloc.rpartition("@")
    addresses = [_address(host, _DEFAULT_PORTS[kind]) for host in hosts.split(",")]
    options = dict(parse_qsl(query))
    if kind == "cluster":
        if path.strip("/") not in ("", "0"):
            raise ValueError("must not name a database: a cluster has only one")
        found = tuple(f"{plain}://{user}{at}{address}?{query}" for address in addresses)
        return RedisUrl(Topology.CLUSTER, found)
    named = _GROUP_AND_DB.fullmatch(path)
    if named is None:
        raise ValueError("must name the sentinels' group after the hosts, as /mymaster does")
    credentials = {
        name: options.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in options
    }
    rest = urlencode(options)
    primary = f"{plain}://{user}{at}primary/{named['db'] or 0}?{rest}"
    asked = urlencode({**options, **credentials})
    sentinels = [f"{plain}://{address}?{asked}" for address in addresses]
    return RedisUrl(Topology.SENTINEL, (primary, *sentinels), named["group"])


def _address(text: str, default_port: int) -> str:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port or default_port
    except ValueError:
        raise ValueError("holds a host or a port that is none; separate hosts by commas") from None
    if parts.netloc != text or not _is_name(host):
        raise ValueError("must name hosts, separated by commas")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_name(host: str) -> bool:
    """Tell whether a client could look this up; what it is exactly, DNS will say."""
    return re.fullmatch(r"[A-Za-z0-9_.-]{1,253}|[0-9A-Fa-f:.]{2,45}", host, re.ASCII) is not None
