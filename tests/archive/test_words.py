"""Receipts in words."""

from typing import Any

import pytest

from app.archive.words import LOSSES, REASONS, in_words
from app.events import EndReason
from app.pubsub.lost import LOST_RECEIPT

WHOLE = {"received": 3004, "published": 3004, "end_reason": "stop"}


@pytest.mark.parametrize(
    ("receipt", "words"),
    [
        (None, "The call is live; its receipt comes at the end."),
        (WHOLE, "3,004 of 3,004 frames delivered; the carrier ended it."),
        (
            {"received": 1, "published": 1, "end_reason": "closed"},
            "1 of 1 frame delivered; the peer closed the connection.",
        ),
        (
            {**WHOLE, "published": 2504, "dropped": {"overflow": 500}},
            "2,504 of 3,004 frames delivered; 500 dropped while Redis was away; "
            "the carrier ended it.",
        ),
        (
            {**WHOLE, "published": 3000, "rejected": {"bad_base64": 1, "odd_thing": 3}},
            "3,000 of 3,004 frames delivered; 1 unreadable (broken base64); "
            "3 rejected (odd thing); the carrier ended it.",
        ),
        (
            {**WHOLE, "duplicates": 2, "carrier_gaps": 1200},
            "3,004 of 3,004 frames delivered; 2 came twice; "
            "1,200 never came from the carrier; the carrier ended it.",
        ),
        (
            {"received": 0, "end_reason": "idle"},
            "No audio came; the peer sent nothing for too long.",
        ),
        (
            {"received": 0, "published": 0, "carrier_gaps": 4, "end_reason": "stop"},
            "0 of 0 frames delivered; 4 never came from the carrier; the carrier ended it.",
        ),
        (
            LOST_RECEIPT,
            "How many frames were delivered is not known: the replica that held it died. "
            "What it had published is there.",
        ),
        (
            {},
            "How many frames were delivered is not known: it is not known why it ended. "
            "What it had published is there.",
        ),
        ({**WHOLE, "end_reason": "new_reason"}, "3,004 of 3,004 frames delivered; new reason."),
        ({**WHOLE, "dropped": None, "duplicates": "x"}, in_words(WHOLE)),
    ],
)
def test_a_receipt_is_put_into_words(receipt: dict[str, Any] | None, words: str) -> None:
    assert in_words(receipt) == words


def test_every_reason_for_an_end_has_words() -> None:
    assert set(EndReason) - set(REASONS) == set()
    assert all(words and words == words.strip(". ") for words in (REASONS | LOSSES).values())
