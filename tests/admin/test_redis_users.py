"""The Redis users of `media-bridge redis-acl`, as a real server applies their rules."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from app.admin.redis_users import (
    CHANNELS,
    CLIENT_INFO,
    GROUP_COMMANDS,
    KEYS,
    READ_COMMANDS,
    RedisUser,
    Right,
    acl_commands,
    pattern_of,
    sentinel_commands,
    user_rules,
)
from app.cli import main
from app.pubsub.control import writing
from tests.markdown import read
from tests.redis_process import RedisProcess
from tests.redis_users import METRICS, SERVICE, WORKER, server_with_users, url_as

GROUP = "transcribe"
OF_GROUP = f"{WORKER}-{GROUP}"
# What writes a key, of every type that there is.
WRITING = ("DEL", "EXPIRE", "HDEL", "HSET", "LPUSH", "SADD", "SET", "UNLINK", "XADD", "ZADD")
READING = ("GET", "HGET", "HGETALL", "LRANGE", "SMEMBERS", "XRANGE", "XREVRANGE", "ZRANGE", "DUMP")
ARGUMENTS = {
    "EXPIRE": "KEY 1",
    "GETEX": "KEY",
    "HDEL": "KEY f",
    "HGET": "KEY f",
    "HSET": "KEY f v",
    "LPUSH": "KEY v",
    "LRANGE": "KEY 0 0",
    "SADD": "KEY m",
    "SET": "KEY v",
    "XADD": "KEY * f v",
    "XRANGE": "KEY - +",
    "XREVRANGE": "KEY + -",
    "ZADD": "KEY 1 m",
    "ZRANGE": "KEY 0 0",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with server_with_users(tmp_path_factory.mktemp("redis"), [GROUP]) as running:
        yield running


@pytest.fixture
def administrator(server: RedisProcess) -> Iterator[Redis]:
    with server.client(decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def a_worker(server: RedisProcess, administrator: Redis) -> Iterator[Redis]:
    with Redis.from_url(url_as(WORKER, server.url), decode_responses=True) as client:
        yield client


def sample_of(key: str, group: str = GROUP) -> str:
    return pattern_of(key, group).replace("*", "x")


def permitted(administrator: Redis, user: str, command: str, key: str) -> bool:
    words = ARGUMENTS.get(command, "KEY").replace("KEY", key).split(" ")
    return str(administrator.execute_command("ACL DRYRUN", user, command, *words)) == "OK"


# ------------------------------------------------------------------------ every key


@pytest.mark.parametrize("user", RedisUser)
@pytest.mark.parametrize("key", KEYS)
def test_a_user_reads_and_writes_a_key_as_its_rights_say(
    administrator: Redis, user: RedisUser, key: str
) -> None:
    rights = dict(zip(RedisUser, KEYS[key], strict=True))[user]
    reads = {one for one in READING if permitted(administrator, user, one, sample_of(key))}
    writes = {one for one in WRITING if permitted(administrator, user, one, sample_of(key))}
    assert bool(reads) == (rights in (Right.READ, Right.BOTH))
    assert bool(writes) == (rights in (Right.WRITE, Right.BOTH))


def test_nobody_but_the_service_touches_a_key_that_the_contract_does_not_name(
    administrator: Redis,
) -> None:
    for user in (WORKER, METRICS, OF_GROUP):
        for key in ("somebody", "consumer", "audio", "audio:x", "stream:x", "controls:{x}", "call"):
            for command in (*READING, *WRITING):
                assert not permitted(administrator, user, command, key)
    for key in ("somebody", "sessionss:{x}", "audio:x", "callsx", "audits"):
        assert not permitted(administrator, SERVICE, "GET", key)


def test_a_worker_of_one_group_cannot_touch_another_groups_state(administrator: Redis) -> None:
    for key, rights in KEYS.items():
        if rights.worker is not Right.BOTH:
            continue
        own, other = sample_of(key), sample_of(key, f"{GROUP}2")
        for command in ("HSET", "ZADD"):
            assert permitted(administrator, OF_GROUP, command, own)
            assert not permitted(administrator, OF_GROUP, command, other)
            assert permitted(administrator, WORKER, command, other)
    for key in ("audio:{x}", "calls", "stream:{x}"):
        assert permitted(administrator, OF_GROUP, "XRANGE", key)


# --------------------------------------------------------------------- every command


@pytest.mark.parametrize(
    ("user", "dangerous"),
    [
        (SERVICE, {"info"}),
        (WORKER, set()),
        (OF_GROUP, set()),
        (
            METRICS,
            {
                "info",
                "lastsave",
                "latency|latest",
                "latency|histogram",
                "slowlog|len",
                "cluster|info",
            },
        ),
    ],
)
def test_a_user_has_no_dangerous_command_but_these(
    administrator: Redis, user: str, dangerous: set[str]
) -> None:
    granted = granted_to(administrator, user)
    assert "+@" not in "".join((*acl_commands(), *acl_commands(GROUP)))
    found = {
        one
        for category in ("dangerous", "admin")
        for one in administrator.execute_command("ACL CAT", category)
    }
    assert granted & found - {"acl|whoami"} <= dangerous
    forbidden = {"keys", "flushall", "flushdb", "config|get", "script|load", "debug", "module|load"}
    forbidden |= {"acl|setuser", "slowlog|get", "monitor", "scan", "swapdb", "client|list"}
    # What is kept of a deleted business, or of a person, is in keys that no index names.
    assert granted & forbidden == ({"scan"} if user == SERVICE else set())


def granted_to(administrator: Redis, user: str) -> set[str]:
    """Return a user's commands, those of its selectors too.

    Redis 7.0 abbreviates rules: it writes a category, then what of it is not granted.
    """
    rules: Any = administrator.execute_command("ACL", "GETUSER", user)
    found: set[str] = set()
    for text in (rules["commands"], *(one["commands"] for one in rules["selectors"])):
        first, *words = text.split(" ")
        assert first == "-@all"
        granted: set[str] = set()
        for word in words:
            name, is_category = word[1:].removeprefix("@"), word[1] == "@"
            named = administrator.execute_command("ACL CAT", name) if is_category else [name]
            granted = granted.union(named) if word[0] == "+" else granted.difference(named)
        found |= granted
    return found


@pytest.mark.parametrize("user", RedisUser)
def test_redis_7_0_knows_every_command_of_the_rules(administrator: Redis, user: RedisUser) -> None:
    for command in re.findall(r"\+([a-z|]+)", user_rules(user)):
        container = command.partition("|")[0]
        known: Any = administrator.execute_command("COMMAND DOCS", container)[container]
        if container != command:
            known = known["subcommands"][command]
        assert tuple(map(int, known["since"].split("."))) <= (7, 0, 0), command


def test_a_worker_is_granted_every_command_of_the_library() -> None:
    source = read("app/consumer/scripts.py")
    scripted = set(re.findall(r"redis\.p?call\('(\w+)'", source))
    assert scripted - {"TIME"} == {one.partition(" ")[0] for one in GROUP_COMMANDS}
    asked = set(re.findall(r'_(?:ask|ids)\("(\w+)"', read("app/consumer/kept.py")))
    assert asked <= {one.partition(" ")[0] for one in READ_COMMANDS}


# --------------------------------------------------------------------------- scripts


def test_a_worker_writes_a_command_by_the_librarys_script(
    administrator: Redis, a_worker: Redis
) -> None:
    administrator.hset("stream:{x}", "startedAt", "1")
    administrator.xadd("control:{x}", {"command": "mark"})
    assert a_worker.execute_command(*writing("x", 1, {"command": "clear"}))
    assert administrator.xlen("control:{x}") == 2


# As Redis 7.2 and Valkey say it, then as Redis 7.0 does.
REFUSED_IN_A_SCRIPT = (
    "ACL failure in script|not allowed from|"
    "The user executing the script can't (run this command|access at least one of the keys)"
)


@pytest.mark.parametrize(
    ("script", "key"),
    [
        ("return redis.call('HSET', KEYS[1], 'businessId', 'other')", "stream:{x}"),
        ("return redis.call('DEL', KEYS[1])", "stream:{x}"),
        ("return redis.call('XRANGE', KEYS[1], '-', '+')", "control:{x}"),
        ("return redis.call('DEL', KEYS[1])", "control:{x}"),
        ("return redis.call('XADD', 'calls', '*', 'event', 'call.status')", "consumer:{g}"),
        ("return redis.call('HGETALL', 'business:{b}')", "consumer:{g}"),
        ("return redis.call('HGETALL', 'business:{b}:secrets')", "control:{x}"),
        ("return redis.call('GET', 'session:{d}')", "consumer:{g}"),
        ("return redis.call('KEYS', '*')", "consumer:{g}"),
        ("return redis.call('FLUSHALL')", "consumer:{g}"),
        ("return redis.call('CONFIG', 'GET', '*')", "consumer:{g}"),
    ],
)
def test_a_workers_script_may_do_nothing_that_the_worker_may_not(
    administrator: Redis, a_worker: Redis, script: str, key: str
) -> None:
    administrator.hset("stream:{x}", "businessId", "own")
    administrator.hset("business:{b}", "name", "B")
    administrator.xadd("control:{x}", {"command": "mark"})
    before = {one: administrator.dump(one) for one in administrator.keys()}
    with pytest.raises(ResponseError, match=REFUSED_IN_A_SCRIPT):
        a_worker.eval(script, 1, key)
    assert {one: administrator.dump(one) for one in administrator.keys()} == before


@pytest.mark.parametrize("key", ["calls", "audio:{x}", "audit", "business:{b}", "consumer:{g}x"])
def test_a_worker_cannot_name_another_key_to_a_script(a_worker: Redis, key: str) -> None:
    with pytest.raises(NoPermissionError):
        a_worker.eval("return 1", 1, key)


# -------------------------------------------------------------------------- channels


@pytest.mark.parametrize("user", [SERVICE, WORKER])
@pytest.mark.parametrize("channel", [*map(sample_of, CHANNELS), "audit", "control:{x}", "__keys*"])
def test_users_hear_the_channels_of_audio_streams_and_events_only(
    server: RedisProcess, user: str, channel: str
) -> None:
    with Redis.from_url(url_as(user, server.url)) as client, client.pubsub() as listener:
        listener.subscribe(channel)
        if channel in map(sample_of, CHANNELS):
            heard: Any = listener.get_message(timeout=5)
            assert heard["type"] == "subscribe"
        else:
            with pytest.raises(NoPermissionError):
                listener.get_message(timeout=5)


def test_a_worker_hears_all_streams_by_the_contracts_pattern_and_publishes_nothing(
    server: RedisProcess, a_worker: Redis
) -> None:
    with a_worker.pubsub() as listener:
        listener.psubscribe("audio:{*}")
        heard: Any = listener.get_message(timeout=5)
        assert heard["type"] == "psubscribe"
    with a_worker.pubsub() as listener:
        listener.psubscribe("*")
        with pytest.raises(NoPermissionError):
            listener.get_message(timeout=5)
    with pytest.raises(NoPermissionError):
        a_worker.publish("calls", "forged")


# ------------------------------------------------------------------- what is shipped


def test_the_shipped_file_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["redis-acl"]) == 0
    assert capsys.readouterr().out == read("docs/redis-acl.txt")


def test_grants_what_redis_7_0_lacks_by_a_command_of_its_own() -> None:
    commands = [*acl_commands(), *acl_commands(GROUP), *sentinel_commands()]
    named = [one for one in commands if "client|setinfo" in one]
    assert [one.split(" ")[3:] for one in named] == [[CLIENT_INFO]] * (len(commands) // 2)


def test_the_rules_grant_no_sign_in_and_keep_passwords(administrator: Redis) -> None:
    administrator.execute_command("ACL DELUSER", METRICS)
    rules = next(one for one in acl_commands() if METRICS in one)
    assert "nopass" not in rules
    assert ">" not in rules
    administrator.execute_command(*rules.split(" "))
    assert administrator.execute_command("ACL GETUSER", METRICS)["flags"][0] == "off"
    administrator.execute_command("ACL SETUSER", METRICS, "on", ">p4ss-of-a-user")
    before = administrator.execute_command("ACL GETUSER", METRICS)
    administrator.execute_command("ACL SETUSER", METRICS, "+keys", "~*", "(+get ~*)", "&*")
    administrator.execute_command(*rules.split(" "))
    assert administrator.execute_command("ACL GETUSER", METRICS) == before


@pytest.mark.parametrize("group", ["", "a*", "a b", "a}", "x" * 65, "~*"])
def test_refuses_a_group_that_means_something_in_a_rule(
    group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["redis-acl", "--group", group])
    assert refused.value.code == 2
    assert "A-Z a-z 0-9" in capsys.readouterr().err


def test_an_exporter_reads_figures_and_no_content(server: RedisProcess) -> None:
    with Redis.from_url(url_as(METRICS, server.url)) as client:
        assert client.ping()
        assert client.info("memory")["used_memory"] > 0
        assert client.slowlog_len() >= 0
        for command in (
            "SLOWLOG GET",
            "CONFIG GET requirepass",
            "CLIENT LIST",
            "MONITOR",
            "SCAN 0",
        ):
            with pytest.raises(RedisError):
                client.execute_command(*command.split(" "))
