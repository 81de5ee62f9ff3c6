"""Capture files: one message a line, and a clear word about those that are not."""

from pathlib import Path

import pytest

from app.errors import CaptureError
from app.wire.base import MAX_MESSAGE_BYTES
from app.wire.capture import CaptureMessage, capture_line, read_capture
from tests.captures.make_captures import DIRECTORY, captures


def written(directory: Path, content: bytes) -> Path:
    path = directory / "call.jsonl"
    path.write_bytes(content)
    return path


def test_the_files_are_what_their_generator_makes() -> None:
    made = {path.name: path.read_text() for path in DIRECTORY.glob("*.jsonl")}
    assert made == captures()


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_is_a_message_and_blank_lines_are_skipped(tmp_path: Path, end: bytes) -> None:
    path = written(tmp_path, end.join([b'{"a":"\xc3\xa9"}', b"", b"  \t", b" not JSON ", b"[]"]))
    assert list(read_capture(path)) == [
        CaptureMessage(1, '{"a":"é"}'),
        CaptureMessage(4, " not JSON "),
        CaptureMessage(5, "[]"),
    ]


def test_an_empty_file_holds_no_message(tmp_path: Path) -> None:
    assert list(read_capture(written(tmp_path, b""))) == []


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    text = "a\u2028b\x0bc\x85d"
    assert list(read_capture(written(tmp_path, text.encode()))) == [CaptureMessage(1, text)]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_line_may_be_64_kib_long_and_no_longer(tmp_path: Path, end: bytes) -> None:
    longest = b"a" * MAX_MESSAGE_BYTES
    messages = list(read_capture(written(tmp_path, longest + end + b"b" * (end != b""))))
    assert [len(message.message) for message in messages] == [MAX_MESSAGE_BYTES, 1][: len(messages)]
    assert len(messages) == (2 if end else 1)
    path = written(tmp_path, b"{}\n" + longest + b"a" + end)
    with pytest.raises(CaptureError, match=r"call\.jsonl, line 2: longer than 64 KiB"):
        list(read_capture(path))


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, b"{}\n\n\xff\n")
    messages = read_capture(path)
    assert next(messages) == CaptureMessage(1, "{}")
    with pytest.raises(CaptureError, match=r"call\.jsonl, line 3: not UTF-8"):
        next(messages)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"gone\.jsonl: No such file"):
        list(read_capture(tmp_path / "gone.jsonl"))


def test_a_directory_is_no_capture(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="Is a directory"):
        list(read_capture(tmp_path))


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ('{"event":"media"}', '{"event":"media"}'),
        ("not JSON", "not JSON"),
        (" {} ", " {} "),
        ("", '{"text":""}'),
        (" \t", '{"text":" \\t"}'),
        ('{"a":1,\n"b":2}', '{"text":"{\\"a\\":1,\\n\\"b\\":2}"}'),
        ("ends by a return\r", '{"text":"ends by a return\\r"}'),
        ('{"text":"a"}', '{"text":"{\\"text\\":\\"a\\"}"}'),
        ('{"binary":"', '{"text":"{\\"binary\\":\\""}'),
        (b"\x00\xff", '{"binary":"AP8="}'),
        (b"", '{"binary":""}'),
    ],
)
def test_whatever_came_stands_in_a_line_and_is_read_back(
    tmp_path: Path, message: str | bytes, line: str
) -> None:
    assert capture_line(message) == line
    path = written(tmp_path, (line + "\n").encode())
    assert list(read_capture(path)) == [CaptureMessage(1, message)]


@pytest.mark.parametrize("message", ["\n" * MAX_MESSAGE_BYTES, b"a" * MAX_MESSAGE_BYTES])
def test_the_longest_message_may_be_wrapped(tmp_path: Path, message: str | bytes) -> None:
    path = written(tmp_path, capture_line(message).encode())
    assert list(read_capture(path)) == [CaptureMessage(1, message)]
