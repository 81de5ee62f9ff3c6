"""What a command writes: text of strangers cannot move a terminal's cursor or reorder its text.

Callers, carriers and businesses name things. A control character (C0, C1), a mark that changes
the direction of text, or a separator of lines is written as `\\uXXXX`, which JSON reads as the
character it was and a person sees. Here, once, for every command and for text and JSON alike.
"""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from app.log import EMOJI_JOINER

# What commands write themselves.
_KEPT: Final = frozenset({"\n", "\t", EMOJI_JOINER})


def escaped(text: str) -> str:
    """Escape what a terminal or a reader of lines would act on; line ends stay."""
    if all(map(str.isprintable, text.split("\n"))):
        return text
    return "".join(
        char if char.isprintable() or char in _KEPT else _as_json_escape(char) for char in text
    )


def _as_json_escape(char: str) -> str:
    """Write a character as JSON may: of one beyond U+FFFF both surrogates (RFC 8259, 7)."""
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


class EscapingWriter(io.TextIOWrapper):
    """Write text to a terminal, file or pipe, escaped. Bytes go to `buffer` as they are."""

    def write(self, text: str, /) -> int:
        """Write a text; what a terminal would act on is escaped."""
        super().write(escaped(text))
        return len(text)

    def write_control(self, text: str) -> None:
        """Write a command's own control sequences, as they are."""
        super().write(text)


def write_control(out: TextIO, sequence: str) -> None:
    """Write a command's own control sequence to where its text goes."""
    if isinstance(out, EscapingWriter):
        out.write_control(sequence)
    else:
        out.write(sequence)


@contextmanager
def escaping_output() -> Iterator[None]:
    """Escape what is written to stdout and stderr for as long as the block runs.

    Where there is no stdout or stderr, or one without a buffer, nothing changes.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_escaping(stream) for stream in before)
    try:
        yield
    finally:
        for writer, stream in zip((sys.stdout, sys.stderr), before, strict=True):
            if isinstance(writer, EscapingWriter) and writer is not stream:
                _let_go(writer)
        sys.stdout, sys.stderr = before


def _escaping(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, EscapingWriter):
        return stream
    stream.flush()
    return EscapingWriter(
        stream.buffer,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _let_go(writer: EscapingWriter) -> None:
    """Hand the buffer back to the stream that it is of."""
    try:
        writer.flush()
    except (OSError, ValueError):
        pass  # whoever reads has gone
    writer.detach()
