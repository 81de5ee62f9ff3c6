"""Who is measured: ours and its peers, each a process that does the same work.

A contender knows its address and its Redis, and not that it is measured. Each takes
Twilio's messages on /twilio-media and adds every frame, as PCM16, to the stream
`audio:{STREAM_SID}`, of which the last minute is kept.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.tools.embedded import HOST, free_port
from benchmarks.host import Cores, Service, private_directory, private_service, running

PEERS = Path(__file__).parent / "peers"
NODE = PEERS / "node"
PIPECAT = PEERS / "pipecat"
INSTALL_SECONDS = 900

Start = Callable[[Cores], AbstractContextManager[Service]]
# Makes a contender ready to be started; says why it cannot be, else nothing.
Prepare = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Contender:
    """One who is measured.

    `most_calls` is what it carries, None where that is not known; `times` by how much
    more calls it is given than others.
    """

    name: str
    title: str
    start: Start
    prepare: Prepare = str
    publishes: bool = True
    most_calls: int | None = None
    times: int = 1


def contenders(workers: int) -> dict[str, Contender]:
    """Name them all, in the order in which they have their turns."""
    everyone = [
        Contender("ours", "**ours**", private_service),
        Contender("node", "Node: Fastify, ws, ioredis", partial(_node, {}), _install_node),
        Contender(
            "node-auto",
            "the same, autopipelining",
            partial(_node, {"AUTO_PIPELINING": "true"}),
            _install_node,
        ),
        Contender("fastapi", "FastAPI, one awaited XADD a frame", _fastapi),
        Contender(
            "pipecat", "pipecat, XADD in a processor", _pipecat, _install_pipecat, most_calls=20
        ),
        Contender("floor", "floor: uvloop reads and discards", _floor, publishes=False),
    ]
    if workers > 1:
        start = partial(private_service, workers=workers)
        everyone.insert(
            1, Contender("workers", f"**ours**, {workers} workers", start, times=workers)
        )
    return {contender.name: contender for contender in everyone}


@contextmanager
def _peer(
    command: Sequence[str], environment: Mapping[str, str], cores: Cores
) -> Iterator[Service]:
    url = f"http://{HOST}:{free_port()}"
    port = url.rpartition(":")[2]
    command = [part.replace("PORT", port) for part in command]
    with (
        private_directory() as directory,
        running(command, environment, url, cores.of_service(), directory) as service,
    ):
        yield service


def _node(environment: Mapping[str, str], cores: Cores) -> AbstractContextManager[Service]:
    return _peer(["node", str(NODE / "server.js")], environment, cores)


def _fastapi(cores: Cores) -> AbstractContextManager[Service]:
    return _peer([sys.executable, *_uvicorn("benchmarks.peers.fastapi_plain:app")], {}, cores)


def _pipecat(cores: Cores) -> AbstractContextManager[Service]:
    command = [str(PIPECAT / ".venv/bin/python"), *_uvicorn("service:app")]
    return _peer([*command, "--app-dir", str(PIPECAT)], {}, cores)


def _floor(cores: Cores) -> AbstractContextManager[Service]:
    return _peer([sys.executable, str(PEERS / "floor.py")], {}, cores)


def _uvicorn(app: str) -> list[str]:
    return ["-m", "uvicorn", app, "--port", "PORT", "--log-level", "warning"]


# ------------------------------------------------------------------ what they need


def _install_node() -> str:
    if not (shutil.which("node") and shutil.which("npm")):
        return "node and npm are not installed"
    # npm writes this one when it is done.
    installed, lock = NODE / "node_modules/.package-lock.json", NODE / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return ""
    return _install(["npm", "ci", "--no-audit", "--no-fund", "--prefix", str(NODE)])


def _install_pipecat() -> str:
    venv, wanted = PIPECAT / ".venv", PIPECAT / "requirements.txt"
    ready = venv / "ready"
    if ready.exists() and ready.stat().st_mtime >= wanted.stat().st_mtime:
        return ""
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet"]
    wrong = _install([sys.executable, "-m", "venv", "--clear", str(venv)]) or _install(
        [*pip, "--disable-pip-version-check", "-r", str(wanted)]
    )
    if not wrong:
        ready.touch()
    return wrong


def _install(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} failed: {error}"
    if done.returncode == 0:
        return ""
    said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
    return f"{Path(command[0]).name} failed: {said}"
