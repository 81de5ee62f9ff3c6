"""What stands in a document: its blocks, and what is set in code within its sentences."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What differs from case to case.
ANYTHING = "…"


@dataclass(frozen=True)
class Block:
    """A fenced block: its kind, the words after that, its text, and the kind before it."""

    kind: str
    name: str
    text: str
    line: int


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[Block]:
    """Give a document's fenced blocks in order."""
    text = read(name)
    found = re.finditer(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [
        Block(one[1], one[2] or "", one[3], text.count("\n", 0, one.start()) + 1) for one in found
    ]


def spans(name: str) -> Iterator[str]:
    """Give what is set in code outside the blocks, each once."""
    prose = re.sub(r"^```.*?^```$", "", read(name), flags=re.MULTILINE | re.DOTALL)
    yield from dict.fromkeys(re.findall(r"`([^`\n]+)`", prose))


def rows(name: str, heading: str) -> list[list[str]]:
    """Give the cells of each row of the tables below a heading, without the tables' own heads."""
    _, found, after = read(name).partition(f"\n{heading}\n")
    assert found, f"{name} has no heading {heading}"
    level = heading.partition(" ")[0]
    section = re.split(rf"^{level} ", after, maxsplit=1, flags=re.MULTILINE)[0]
    lines = section.splitlines()
    heads = {number for number, line in enumerate(lines) if re.match(r"\| ?---", line)}
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for number, line in enumerate(lines)
        if line.startswith("|") and number not in heads and number + 1 not in heads
    ]


def pattern(shown: str) -> "re.Pattern[str]":
    """Make what matches a text in which `…` stands for anything."""
    parts = (re.escape(part) for part in shown.strip().split(ANYTHING))
    return re.compile(".*?".join(parts), re.DOTALL)
