"""How long a peer is heard that sends little audio."""

from collections.abc import Iterable

import pytest

from app.events import (
    Connected,
    DtmfReceived,
    EndReason,
    Ignored,
    MarkReceived,
    MediaReceived,
    MediaRejected,
    Unreadable,
    WireEvent,
)
from app.session.patience import Patience

FRAME = MediaReceived(b"\xff" * 160)
CRUMB = MediaReceived(b"\xff")
UNKNOWN = Ignored("unknown_event")
BROKEN = Unreadable("broken_json")
KEY = DtmfReceived("7")
MARK = MarkReceived("label")


def outcome(events: Iterable[WireEvent], *, seconds_each: float = 0.0) -> EndReason | None:
    now = 0.0
    patience = Patience(lambda: now)
    for event in events:
        now += seconds_each
        reason = patience.lost_by(event)
        if reason is not None:
            return reason
    return None


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([FRAME] * 30_000, None),
        ([FRAME, MARK] * 30_000, None),
        ([FRAME, UNKNOWN] * 30_000, None),
        ([KEY] * 300 + [FRAME] * 30_000, None),
        ([UNKNOWN] * 100, None),
        ([UNKNOWN] * 101, EndReason.BAD_MESSAGES),
        ([MediaRejected("bad_base64")] * 101, EndReason.BAD_MESSAGES),
        ([*[BROKEN] * 100, FRAME] * 3, None),
        ([*[UNKNOWN] * 90, FRAME] * 1000, EndReason.FLOODING),
        ([UNKNOWN, UNKNOWN, FRAME] * 1000, EndReason.FLOODING),
        ([*[UNKNOWN] * 90, KEY] * 1000, EndReason.FLOODING),
        ([KEY] * 501, EndReason.FLOODING),
        ([MARK] * 501, EndReason.FLOODING),
        ([Connected()] * 501, EndReason.FLOODING),
        ([CRUMB] * 501, EndReason.FLOODING),
    ],
)
def test_what_comes_at_once(events: list[WireEvent], expected: EndReason | None) -> None:
    assert outcome(events) is expected


@pytest.mark.parametrize(
    ("events", "seconds_each"),
    [
        pytest.param([KEY] * 10_000, 0.1, id="ten keys a second"),
        pytest.param([FRAME, KEY] * 10_000, 0.02, id="a key beside each frame"),
        pytest.param([*[FRAME] * 3000, Connected(), MARK] * 10, 0.02, id="a call"),
    ],
)
def test_what_a_carrier_may_do_for_ever(events: list[WireEvent], seconds_each: float) -> None:
    assert outcome(events, seconds_each=seconds_each) is None
