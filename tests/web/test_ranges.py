"""Range headers, as RFC 9110 has them."""

import pytest

from app.web.api.ranges import Span, Unsatisfiable, asked_span

SIZE = 1000


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-", Span(0, 999)),
        ("bytes=0-0", Span(0, 0)),
        ("bytes=10-19", Span(10, 19)),
        ("bytes=990-5000", Span(990, 999)),
        ("bytes=999-", Span(999, 999)),
        ("bytes=-1", Span(999, 999)),
        ("bytes=-5000", Span(0, 999)),
        ("Bytes=0-9", Span(0, 9)),
        (" bytes=0-9 ", Span(0, 9)),
        # What cannot be read, or asks for several parts, is not there.
        (None, None),
        ("", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=9-5", None),
        ("bytes=1-2,5-6", None),
        ("bytes=a-b", None),
        ("bytes=1--2", None),
        ("lines=1-2", None),
        ("bytes=\u0661-", None),
        ("bytes=" + "9" * 400 + "-", None),
    ],
)
def test_a_range_is_read(header: str | None, span: Span | None) -> None:
    assert asked_span(header, SIZE) == span


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=1000-", SIZE), ("bytes=-0", SIZE), ("bytes=0-", 0)]
)
def test_a_range_of_nothing_cannot_be_satisfied(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        asked_span(header, size)
