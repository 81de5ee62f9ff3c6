"""What commands write: text of strangers reaches no terminal as it is, in words and JSON."""

import io
import json
import sys
import unicodedata
from contextlib import suppress

import pytest

from app.cli import main
from app.tools.terminal import EscapingWriter, escaped, escaping_output, write_control

C0 = [chr(code) for code in range(0x20) if chr(code) not in "\t\n"]
C1 = [chr(code) for code in range(0x7F, 0xA0)]
BIDI = list("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
OTHERS = list("\u2028\u2029\ufeff\u200b\U000e0041\ud800")


@pytest.mark.parametrize("char", [*C0, *C1, *BIDI, *OTHERS], ids=lambda char: f"{ord(char):x}")
def test_escapes_what_a_terminal_acts_on(char: str) -> None:
    shown = escaped(f"a{char}b")
    assert char not in shown
    assert shown.isprintable()
    # In JSON it is the same text.
    assert json.loads(escaped(json.dumps({"x": f"a{char}b"}, ensure_ascii=False))) == {
        "x": f"a{char}b"
    }


def test_no_character_of_these_kinds_is_left_out() -> None:
    kinds = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    left = [
        char
        for char in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(char) in kinds and char in escaped(char)
    ]
    assert left == ["\t", "\n", "\u200d"]


@pytest.mark.parametrize("text", ["", "plain\n", "Grüß Gott, 世界\n\tמרפאה\n", "👩\u200d⚕️ ok\n"])
def test_leaves_text_as_it_is(text: str) -> None:
    assert escaped(text) == text


def test_a_writer_escapes_text_and_leaves_bytes_and_own_sequences() -> None:
    raw = io.BytesIO()
    writer = EscapingWriter(raw, encoding="utf-8")
    print("a\x9b2Jb", file=writer)
    write_control(writer, "\r\033[K")
    writer.flush()
    writer.buffer.write(b"\x1b\x00")
    assert raw.getvalue() == b"a\\u009b2Jb\n\r\x1b[K\x1b\x00"


def test_output_is_escaped_only_while_a_command_runs(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with escaping_output():
        sys.stdout.write("a\u202eb\n")
        sys.stderr.write("c\x1b[2Jd\n")
    assert (sys.stdout, sys.stderr) == before
    sys.stdout.write("e\x9bf\n")
    out, err = capsys.readouterr()
    assert (out, err) == ("a\\u202eb\ne\x9bf\n", "c\\u001b[2Jd\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "import", "no\x1b[2J\u202efile"],
        ["tail", "CA\x9b2J"],
        ["twilio", "\x1b]0;title\x07"],
    ],
)
def test_an_error_of_a_command_is_escaped(
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    redis_url: str,
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with suppress(SystemExit):
        main(arguments)
    said = "".join(capsys.readouterr())
    assert said
    assert all(map(str.isprintable, said.split("\n")))
