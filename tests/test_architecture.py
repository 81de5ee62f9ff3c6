"""Rules of the code as a whole: who may import whom, and the tree of errors."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import errors

ROOT = Path(__file__).parent.parent
# A room is a module of `app`, or a package with all it holds. A room imports
# from rooms of earlier layers, and from itself; never from a sibling.
LAYERS = (
    {"errors", "hosts", "media", "redis_url", "secret_strength"},
    {"events", "audio", "budget", "plans", "settings", "log", "metrics", "topology"},
    {"carriers", "businesses"},
    {
        "wire",
        "playback",
        "pubsub",
        "auth",
        "credentials",
        "twiml",
        "twilio_api",
        "notices",
        "store",
    },
    {"admin"},
    {
        "session",
        "registry",
        "reaper",
        "vitals",
        "watchers",
        "consumer",
        "administration",
        "archive",
        "diagnosis",
    },
    {"calls", "records"},
    {"web", "tools", "server", "workers"},
    {"lifecycle"},
    {"main"},
    {"cli"},
    {"__main__"},
)
RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
CONFINED = {
    "fastapi": {"web", "main"},
    "starlette": {"web", "main"},
    "jinja2": {"web"},
    "redis": {"archive", "pubsub", "store", "topology"},
    "valkey": set[str](),
    "uvicorn": {"server"},
    "app.settings": {"settings", "main", "cli"},
}


def imports_of(module: str, source: str, *, is_package: bool = False) -> Iterator[str]:
    """Name what a module imports, wherever in it; relative names made absolute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: None if is_package else -1]
                above = above[: len(above) - (node.level - 1)]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            # Its argument may be anything: name a room that does not exist.
            argument = node.args[0] if node.args else None
            literal = argument.value if isinstance(argument, ast.Constant) else "app.?"
            yield str(literal)


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """Name every import of `module` that the layers or the confinements forbid."""
    parts = module.split(".")
    room = parts[1] if len(parts) > 1 else ""
    if room and room not in RANK:
        return [f"{module} belongs to no layer"]
    found = []
    for name in imports_of(module, source, is_package=is_package):
        target = name.split(".")
        if target[0] == "app":
            other = target[1] if len(target) > 1 else "?"
            if other not in RANK:
                found.append(f"{module} imports {name}, which belongs to no layer")
            elif room != other and (not room or RANK[other] >= RANK[room]):
                found.append(f"{module} imports {name}, which is not below it")
        for confined, rooms in CONFINED.items():
            if f"{name}.".startswith(f"{confined}.") and room not in rooms:
                found.append(f"{module} imports {name}, which is confined")
    return found


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / "app").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@pytest.mark.parametrize(
    ("module", "path"), [pytest.param(*found, id=found[0]) for found in modules()]
)
def test_a_module_imports_only_from_below(module: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert violations(module, source, is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app.errors", "from app.media import Track"),
        ("app.errors", "from app import media"),
        ("app.media", "import app.events"),
        ("app.media", "import app.events as later"),
        ("app.plans", "from app.audio import Converter"),
        ("app.events", "from . import metrics"),
        ("app.wire.twilio", "from app.session.call import CallSession"),
        ("app.wire.twilio", "from ..pubsub.base import PubSub"),
        ("app.wire.twilio", "from .. import store"),
        ("app.pubsub.outbox", "def late() -> None:\n    import app.registry"),
        ("app.auth", "if TYPE_CHECKING:\n    from app.store.base import Store"),
        ("app.session.call", "from app.registry import Registry"),
        ("app.session.call", "from app import web"),
        ("app.web.voice", "from app.tools.demo import run_demo"),
        ("app.web.voice", "from app.main import create_app"),
        ("app.main", "from app.cli import main"),
        ("app.cli", "import app.__main__"),
        ("app", "from app.main import create_app"),
        ("app", "from .errors import BridgeError"),
        ("app.errors", "import app"),
        ("app.log", "import importlib\nimportlib.import_module('app.cli')"),
        ("app.log", "import importlib\nimportlib.import_module(name)"),
        ("app.helpers", "import os"),
        ("app.web.voice", "from app.helpers import tidy"),
        ("app.session.call", "from fastapi import WebSocket"),
        ("app.session.call", "import starlette.websockets"),
        ("app.tools.tail", "from redis.asyncio import Redis"),
        ("app.tools.tail", "import redis"),
        ("app.main", "import uvicorn"),
        ("app.web.health", "from app.settings import Settings"),
        ("app.server", "from app import settings"),
        ("app.tools.embedded", "import valkey"),
    ],
)
def test_an_import_turned_around_is_caught(module: str, source: str) -> None:
    is_package = module == "app"
    assert violations(module, source, is_package=is_package)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app.events", "from app.media import Track"),
        ("app.pubsub.redis_streams", "from redis.asyncio import Redis\nfrom .base import PubSub"),
        ("app.store.redis", "import redis.asyncio"),
        ("app.session.call", "from app.session.stream import MediaStream"),
        ("app.web.voice", "from fastapi import APIRouter\nfrom app import twiml"),
        ("app.main", "from app.settings import Settings\nfrom fastapi import FastAPI"),
        ("app.settings", "from app.errors import SettingsError"),
        ("app.tools.replay", "import redistribution\nimport uvicornish"),
        ("app.__main__", "from app.cli import main"),
    ],
)
def test_an_import_that_is_right_is_let_through(module: str, source: str) -> None:
    assert violations(module, source) == []


# ------------------------------------------------------------------------- errors

ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.BridgeError)
]
# RFC 6455, 7.4.1, and 1012 to 1014 of IANA's registry; those an endpoint may send.
CLOSE_CODES = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}


def printed_tree() -> dict[str, str]:
    """Read each class's parent from the tree in the module's docstring."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([ │├└─]{4,})([A-Z]\w+)\b", line)
        if found is None:
            continue
        depth, name = len(found[1]), found[2]
        while above and above[-1][0] >= depth:
            above.pop()
        parents[name] = above[-1][1] if above else "Exception"
        above.append((depth, name))
    return parents


def test_the_printed_tree_of_errors_is_the_real_one() -> None:
    real = {kind.__name__: kind.__base__.__name__ for kind in ERRORS if kind.__base__}
    assert printed_tree() == real


def test_each_error_has_a_reason_of_its_own() -> None:
    reasons = [kind.reason for kind in ERRORS if "reason" in vars(kind)]
    assert sorted(reasons) == sorted(set(reasons))
    without = {kind for kind in ERRORS if "reason" not in vars(kind)}
    # The groups, and the answers of a broker, which a caller need not tell apart.
    broker = {errors.BrokerRefused, errors.BrokerReplaced, errors.BrokerLost}
    assert without == {errors.LocalError, errors.AdminError, *broker}


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_knows_how_it_is_answered(kind: type[errors.BridgeError]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.reason)
    assert 400 <= kind.http_status <= 599
    assert kind.close_code in CLOSE_CODES
    assert kind.retryable == (kind.http_status in (429, 503))
    if not issubclass(kind, errors.AdminError):  # whoever administers has no such socket
        assert kind.retryable == (kind.close_code == 1013)
    assert (inspect.getdoc(kind) or "").startswith(("Raised ", "Base of "))
