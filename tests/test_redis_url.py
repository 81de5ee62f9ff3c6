"""REDIS_URL: every way that Redis can stand, and what is no such way."""

import pytest

from app.redis_url import RedisUrl, Topology, parse_redis_url

CANARY = "canary-password"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (
            "redis://user:pa%2Fss@redis:6379/1",
            RedisUrl(Topology.SINGLE, ("redis://user:pa%2Fss@redis:6379/1",)),
        ),
        (
            "rediss://redis?ssl_ca_certs=/ca.crt",
            RedisUrl(Topology.SINGLE, ("rediss://redis?ssl_ca_certs=/ca.crt",)),
        ),
        (
            "unix:///run/redis.sock?db=1",
            RedisUrl(Topology.SINGLE, ("unix:///run/redis.sock?db=1",)),
        ),
        (
            "redis+sentinel://:pa%2Fss@one,two:26380/mymaster/3?sentinel_password=other",
            RedisUrl(
                Topology.SENTINEL,
                (
                    "redis://:pa%2Fss@primary/3?",
                    "redis://one:26379?password=other",
                    "redis://two:26380?password=other",
                ),
                "mymaster",
            ),
        ),
        (
            "rediss+sentinel://[::1]:26379/mymaster?ssl_cert_reqs=none",
            RedisUrl(
                Topology.SENTINEL,
                (
                    "rediss://primary/0?ssl_cert_reqs=none",
                    "rediss://[::1]:26379?ssl_cert_reqs=none",
                ),
                "mymaster",
            ),
        ),
        (
            "rediss+cluster://user:pass@one:7000,two?ssl_cert_reqs=none",
            RedisUrl(
                Topology.CLUSTER,
                (
                    "rediss://user:pass@one:7000?ssl_cert_reqs=none",
                    "rediss://user:pass@two:6379?ssl_cert_reqs=none",
                ),
            ),
        ),
    ],
)
def test_each_form_says_where_to_connect(text: str, read: RedisUrl) -> None:
    assert parse_redis_url(text) == read


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("redis+sentinel://one:26379", "group"),
        ("redis+sentinel://one/my master", "group"),
        ("redis+sentinel://one/group/first", "group"),
        ("redis+sentinel:///group", "hosts"),
        ("redis+sentinel://one,/group", "hosts"),
        ("redis+sentinel://one:x/group", "port"),
        ("redis+sentinel://one:99999/group", "port"),
        ("redis+sentinel://:pa/ss@one/group", "port"),
        ("redis+cluster://one/1", "database"),
        ("redis+cluster://", "hosts"),
        ("redis+nothing://one", "must begin"),
        ("http+cluster://one", "must begin"),
        ("redis+cluster://:a#b@one", "%23"),
    ],
)
def test_what_is_no_such_form_is_refused_in_words(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_redis_url(text)


@pytest.mark.parametrize(
    "text",
    [
        f"redis://:{CANARY}@one",
        f"redis+sentinel://:{CANARY}@one/group?sentinel_password={CANARY}",
        f"redis+cluster://{CANARY}:{CANARY}@one",
    ],
)
def test_no_password_is_shown(text: str) -> None:
    assert CANARY not in repr(parse_redis_url(text))
