"""Real Redis servers in company: a master under Sentinels, and a cluster."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from redis.exceptions import RedisError

from tests.redis_process import HOST, START_SECONDS, RedisProcess, eventually, fixed_port

SLOTS = 16_384


def _wait_until_following(replica: RedisProcess) -> None:
    eventually(
        lambda: replica.command("INFO", "replication")["master_link_status"] == "up",
        "the replica follows",
    )


# ------------------------------------------------------------------------ Sentinel


@dataclass(frozen=True)
class SentinelGroup:
    """A master, its replicas, and the Sentinels that watch them."""

    name: str
    servers: Sequence[RedisProcess]
    sentinels: Sequence[RedisProcess]

    @property
    def addresses(self) -> str:
        """Give the Sentinels' addresses, separated by commas."""
        return ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)

    @property
    def url(self) -> str:
        """Give the URL by which the service finds the master."""
        password = self.servers[0].password
        user = f":{quote(password, safe='')}@" if password else ""
        return f"redis+sentinel://{user}{self.addresses}/{self.name}/0"

    def master(self) -> RedisProcess:
        """Find the server that the Sentinels name as the master now."""
        for sentinel in self.sentinels:
            with suppress(RedisError, OSError):
                found = sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
                port = int(found[1])
                return next(server for server in self.servers if server.port == port)
        raise AssertionError("no Sentinel answers")

    def wait_for_failover(self, old: RedisProcess, seconds: float = START_SECONDS) -> RedisProcess:
        """Wait until another server than `old` is named, and takes writes."""

        def taken_over() -> bool:
            master = self.master()
            return master is not old and master.command("ROLE")[0] == b"master"

        eventually(taken_over, "another master", seconds)
        return self.master()


@contextmanager
def sentinel_group(
    directory: Path,
    *,
    replicas: int = 1,
    sentinels: int = 3,
    down_after_ms: int = 1000,
    name: str = "bridge",
    password: str = "",
    fsync: str | None = "everysec",
) -> Iterator[SentinelGroup]:
    """Run a master with replicas under Sentinels that all know each other."""
    servers: list[RedisProcess] = []
    watchers: list[RedisProcess] = []
    try:
        for number in range(1 + replicas):
            server = RedisProcess(directory / f"redis-{number}", password=password, fsync=fsync)
            server.start()
            servers.append(server)
            if number:
                server.replicate(servers[0])
                _wait_until_following(server)
        auth = f"sentinel auth-pass {name} {password}\n" if password else ""
        config = (
            f"sentinel monitor {name} {HOST} {servers[0].port} {sentinels // 2 + 1}\n"
            f"sentinel down-after-milliseconds {name} {down_after_ms}\n"
            f"sentinel failover-timeout {name} 5000\n"
            f"sentinel parallel-syncs {name} 1\n{auth}"
        )
        for number in range(sentinels):
            watcher = RedisProcess(directory / f"sentinel-{number}", config=config)
            watcher.start()
            watchers.append(watcher)
        for watcher in watchers:
            eventually(
                lambda watcher=watcher: _knows_all(watcher, name, replicas, sentinels),  # type: ignore[misc]
                "the Sentinels know each other",
            )
        yield SentinelGroup(name, servers, watchers)
    finally:
        for process in (*watchers, *servers):
            process.kill()


def _knows_all(watcher: RedisProcess, name: str, replicas: int, sentinels: int) -> bool:
    known = watcher.command("SENTINEL", "MASTER", name)
    return bool(
        int(known[b"num-slaves"]) == replicas
        and int(known[b"num-other-sentinels"]) == sentinels - 1
        and known[b"flags"] == b"master"
    )


# ------------------------------------------------------------------------- cluster


@dataclass(frozen=True)
class Cluster:
    """Nodes of a Redis Cluster: `masters` own the slots at the beginning."""

    masters: Sequence[RedisProcess]
    replicas: Sequence[RedisProcess]

    @property
    def nodes(self) -> Sequence[RedisProcess]:
        """Give every node."""
        return (*self.masters, *self.replicas)

    @property
    def url(self) -> str:
        """Give the URL by which the service finds every node."""
        first = self.masters[0]
        user = f":{quote(first.password, safe='')}@" if first.password else ""
        return f"redis+cluster://{user}" + ",".join(f"{HOST}:{node.port}" for node in self.masters)

    def slot_of(self, key: str) -> int:
        """Tell a key's slot."""
        slot: int = self.nodes[0].command("CLUSTER", "KEYSLOT", key)
        return slot

    def owner(self, slot: int) -> RedisProcess:
        """Find the master that owns a slot now, as the first node that answers knows it."""
        for node in self.nodes:
            with suppress(RedisError, OSError):
                for first, last, owner, *_ in node.command("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(one for one in self.nodes if one.port == owner[1])
        raise AssertionError(f"nobody owns slot {slot}")

    def wait_for_failover(self, dead: RedisProcess, seconds: float = START_SECONDS) -> None:
        """Wait until the slots of a node that was killed have another owner."""
        alive = next(node for node in self.nodes if node is not dead)

        def replaced() -> bool:
            owners = {owner[1] for _, _, owner, *_ in alive.command("CLUSTER", "SLOTS")}
            state = alive.command("CLUSTER", "INFO").split()
            return dead.port not in owners and b"cluster_state:ok" in state

        eventually(replaced, "a replica takes over", seconds)

    def migrate(
        self, slots: Sequence[int], target: RedisProcess, *, pause_seconds: float = 0.0
    ) -> None:
        """Move slots with their keys to `target`; `pause_seconds` is how long each is halfway.

        Halfway, keys that have moved are answered with ASK. Source: redis.io,
        CLUSTER SETSLOT, "Redis Cluster live resharding explained".
        """
        target_id = _id(target)
        for slot in slots:
            source = self.owner(slot)
            if source is target:
                continue
            target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
            source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
            while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                auth = ("AUTH", target.password) if target.password else ()
                source.command("MIGRATE", HOST, target.port, "", 0, 5000, *auth, "KEYS", *keys)
                time.sleep(pause_seconds)
            # The target first: the source would otherwise send everybody in circles.
            for node in (target, source, *(n for n in self.masters if n not in (target, source))):
                with suppress(RedisError, OSError):
                    node.command("CLUSTER", "SETSLOT", slot, "NODE", target_id)


@contextmanager
def cluster(
    directory: Path,
    *,
    masters: int = 3,
    replicas_each: int = 0,
    node_timeout_ms: int | None = None,
    password: str = "",
    fsync: str | None = "everysec",
) -> Iterator[Cluster]:
    """Run a cluster whose masters share the slots evenly.

    Without replicas nobody can take over, and no node is to be taken for dead.
    """
    options = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": str(node_timeout_ms or (1000 if replicas_each else 15_000)),
        "cluster-config-file": "nodes.conf",
    }
    nodes = [
        RedisProcess(
            directory / f"node-{number}",
            fsync=fsync,
            password=password,
            options={**options, "cluster-port": str(fixed_port())},
        )
        for number in range(masters * (1 + replicas_each))
    ]
    made = Cluster(nodes[:masters], nodes[masters:])
    try:
        for node in nodes:
            node.start()
        _join(made)
        yield made
    finally:
        for node in nodes:
            node.kill()


def _join(made: Cluster) -> None:
    count = len(made.masters)
    for number, node in enumerate(made.masters):
        first, last = SLOTS * number // count, SLOTS * (number + 1) // count - 1
        node.command("CLUSTER", "ADDSLOTSRANGE", first, last)
    for number, node in enumerate(made.nodes, 1):
        node.command("CLUSTER", "SET-CONFIG-EPOCH", number)
    bus = made.masters[0].options["cluster-port"]
    for node in made.nodes[1:]:
        node.command("CLUSTER", "MEET", HOST, made.masters[0].port, bus)
    for node in made.nodes:
        eventually(lambda node=node: _sees(node, made), "the nodes know each other")  # type: ignore[misc]
    for number, node in enumerate(made.replicas):
        node.command("CLUSTER", "REPLICATE", _id(made.masters[number % count]))
    for node in made.replicas:
        _wait_until_following(node)


def _sees(node: RedisProcess, made: Cluster) -> bool:
    said = node.command("CLUSTER", "INFO").split()
    return b"cluster_state:ok" in said and b"cluster_known_nodes:%d" % len(made.nodes) in said


def _id(node: RedisProcess) -> str:
    found = node.command("CLUSTER", "MYID")
    return found.decode() if isinstance(found, bytes) else str(found)
