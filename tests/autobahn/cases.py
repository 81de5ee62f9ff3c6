"""Autobahn's test cases, read from its package and made to run.

The package is written in Python 2 and cannot be imported. Its case files are
read one by one and changed on the way: a division of integers stays one, and
`print` goes. What they import is given to them from here.

In Python 2 a text is bytes. Here it is a `str` with one character of U+0000 to
U+00FF for each byte, as Latin-1 has it. The sources are read so, and the peer
writes and reads its payloads so; then `"\\xfe" * 125` means what it did.
"""

import ast
import builtins
import codecs
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "autobahntestsuite"
# Handshake (0) and Misc (8) are empty. 12 and 13 are about compression, which is off.
CATEGORIES = frozenset({"1", "2", "3", "4", "5", "6", "7", "9", "10"})
# Not in the suite's own list either: it sends without end, by Twisted's producers.
_LEFT_OUT = frozenset({"case9_9_1"})
_CASE = re.compile(r"Case\d+_\d+(?:_\d+)?")
_PRINT = re.compile(r"^(\s*)print\b.*$", re.MULTILINE)


class WebSocketProtocol:
    """What the cases ask Autobahn's own protocol class for: its constants."""

    STATE_CLOSED = 0
    STATE_CONNECTING = 1
    STATE_CLOSING = 2
    STATE_OPEN = 3
    CLOSE_STATUS_CODE_NORMAL = 1000
    CLOSE_STATUS_CODE_PROTOCOL_ERROR = 1002
    CLOSE_STATUS_CODE_INVALID_PAYLOAD = 1007


class Utf8Validator:
    """Tell of a text, given in parts, whether it is valid so far, and whether it is whole."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def validate(self, text: str) -> tuple[bool, bool]:
        try:
            self._decoder.decode(text.encode("latin-1"))
        except UnicodeDecodeError:
            return False, False
        return True, not self._decoder.getstate()[0]


def load_cases() -> dict[str, type[Any]]:
    """Load the cases by id (`7.1.5`), in the suite's order.

    Raises:
        LookupError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise LookupError(f"{PACKAGE} is not installed: it comes with the `dev` extra")
    sources = _Sources(Path(spec.origin).parent / "case")
    found = {_id_of(case): case for name in sources.names() for case in _cases_in(sources[name])}
    return dict(sorted(found.items(), key=lambda item: [*map(int, item[0].split("."))]))


def _id_of(case: type[Any]) -> str:
    return case.__name__.removeprefix("Case").replace("_", ".")


def _cases_in(module: ModuleType) -> Iterator[type[Any]]:
    for value in vars(module).values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, type) and _CASE.fullmatch(one.__name__):
                yield one


class _Sources(dict[str, ModuleType]):
    """The modules of the suite, each loaded when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            {
                "autobahn.websocket.protocol": _module(WebSocketProtocol=WebSocketProtocol),
                "autobahn.websocket.utf8validator": _module(Utf8Validator=Utf8Validator),
                "binascii": _module(b2a_hex=lambda text: text.encode("latin-1").hex()),
                "array": _module(),
                # They pickle two values to compare them; here the values are compared.
                "pickle": _module(dumps=lambda value: value),
            }
        )
        self._directory = directory
        self._builtins = {**vars(builtins), "xrange": range, "type": _new_type}
        self._builtins["__import__"] = lambda name, *_: self[name]

    def names(self) -> list[str]:
        files = [path.stem for path in self._directory.glob("case*_*.py")]
        chosen = (name for name in files if re.split("[e_]", name)[1] in CATEGORIES)
        return sorted(name for name in chosen if name not in _LEFT_OUT)

    def __missing__(self, name: str) -> ModuleType:
        path = self._directory / f"{name}.py"
        source = _PRINT.sub(r"\1pass", path.read_text(encoding="latin-1"))
        tree = ast.fix_missing_locations(_WholeDivision().visit(ast.parse(source)))
        self[name] = module = _module(__builtins__=self._builtins, __name__=name)
        exec(compile(tree, path, "exec"), vars(module))
        return module


class _WholeDivision(ast.NodeTransformer):
    def visit_Div(self, node: ast.Div) -> ast.FloorDiv:
        return ast.FloorDiv()


def _module(**names: Any) -> ModuleType:
    module = ModuleType("stand-in")
    vars(module).update(names)
    return module


def _new_type(name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    # `(object, Case)` was an order of bases that classes of the old style allowed.
    return type(name, tuple(base for base in bases if base is not object), body)
