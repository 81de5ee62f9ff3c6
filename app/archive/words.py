"""A receipt in words, for people."""

from collections.abc import Mapping
from typing import Any

REASONS = {
    "stop": "the carrier ended it",
    "closed": "the peer closed the connection",
    "disconnected": "the connection was lost",
    "vanished": "the peer fell silent and did not answer",
    "idle": "the peer sent nothing for too long",
    "max_call_seconds": "the plan's longest call was over",
    "message_too_big": "the peer sent a message that was too big",
    "too_many_bad_messages": "the peer sent too much that could not be read",
    "flooding": "the peer sent too much without audio",
    "peer_not_reading": "the peer did not read its answers",
    "drain": "the service was stopped",
    "error": "a fault of the service",
    "lost": "the replica that held it died",
    "ended_by_admin": "an admin ended it",
    "hangup": "a worker ended the call",
    "transfer": "a worker gave the call to somebody else",
    "business_mismatch": "its stream's id belongs to another business",
    "stream_already_live": "its stream was live on another connection",
}
LOSSES = {
    "overflow": "dropped while Redis was away",
    "broker_lost": "lost by Redis after it had confirmed them",
    "broker_rejected": "refused by Redis",
    "drain": "not written before the service stopped",
    "business_mismatch": "not written under the id of another business's stream",
    "stream_already_live": "not written beside a stream that was live already",
    "bad_base64": "unreadable (broken base64)",
    "before_start": "sent before the start",
    "track_not_in_plan": "of a track that the plan leaves out",
}


def in_words(receipt: Mapping[str, Any] | None) -> str:
    """Say what became of a stream's audio; `receipt` as published, None while it is live.

    Such as: `3,004 of 3,004 frames delivered; the carrier ended it.`
    """
    if receipt is None:
        return "The call is live; its receipt comes at the end."
    reason = str(receipt.get("end_reason", ""))
    end = REASONS.get(reason, reason.replace("_", " ") or "it is not known why it ended")
    received = receipt.get("received")
    if not isinstance(received, int):
        return (
            f"How many frames were delivered is not known: {end}. What it had published is there."
        )
    if not received and not receipt.get("carrier_gaps"):
        return f"No audio came; {end}."
    parts = [f"{_count(receipt, 'published'):,} of {_frames(received)} delivered"]
    for kind, fallback in (("dropped", "dropped"), ("rejected", "rejected")):
        losses = receipt.get(kind)
        for cause, count in sorted(losses.items()) if isinstance(losses, Mapping) else ():
            why = LOSSES.get(cause, f"{fallback} ({cause.replace('_', ' ')})")
            parts.append(f"{count:,} {why}")
    if repeated := _count(receipt, "duplicates"):
        parts.append(f"{repeated:,} came twice")
    if missing := _count(receipt, "carrier_gaps"):
        parts.append(f"{missing:,} never came from the carrier")
    return "; ".join([*parts, end]) + "."


def _frames(count: int) -> str:
    return f"{count:,} frame" if count == 1 else f"{count:,} frames"


def _count(receipt: Mapping[str, Any], name: str) -> int:
    found = receipt.get(name)
    return found if isinstance(found, int) else 0
