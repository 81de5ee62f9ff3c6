"""A real Redis server whose service, workers and metrics sign in as users of their own."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from app.admin.redis_users import CLIENT_INFO, RedisUser, acl_commands
from tests.redis_process import RedisProcess

PASSWORD = "p4ss-of-a-user"


def add_users(server: RedisProcess, commands: Iterable[str]) -> None:
    """Create users as an administrator does: by the commands, then with a password."""
    for command in commands:
        words = command.split(" ")
        try:
            server.command(*words)
        except ResponseError as error:  # Redis before 7.2, as docs/operations.md says
            if words[3:] != [CLIENT_INFO] or "Unknown command" not in str(error):
                raise
        server.command("ACL", "SETUSER", words[2], "on", f">{PASSWORD}")


def url_as(user: str, url: str) -> str:
    """Return the URL with which a user signs in, in place of the one that it names."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user}:{PASSWORD}@{rest.rpartition('@')[2]}"


def denials(server: RedisProcess) -> list[tuple[str, str, str]]:
    """Return what Redis has refused since it was last asked: user, kind and object."""
    with Redis(port=server.port, decode_responses=True) as client:
        found: Sequence[dict[str, Any]] = client.execute_command("ACL LOG", 100)
        client.execute_command("ACL LOG", "RESET")
    return [(one["username"], one["reason"], one["object"]) for one in found]


@contextmanager
def server_with_users(directory: Path, groups: Sequence[str] = ()) -> Iterator[RedisProcess]:
    """Run a server that has the users of `media-bridge redis-acl`."""
    with RedisProcess(directory) as server:
        add_users(server, acl_commands())
        for group in groups:
            add_users(server, acl_commands(group))
        yield server


SERVICE, WORKER, METRICS = RedisUser
