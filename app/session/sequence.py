"""The carrier's numbering of its messages, and what it proves to be missing."""

from typing import Final, NamedTuple

# DESIGN: a step back, or a jump of more than 1,000, is a new numbering, not a loss.
MAX_STEP: Final = 1000


class Place(NamedTuple):
    """Where a message stands.

    `seq` is its number as published. Before it, `unreadable` messages came that
    could not be read and `missing` never came; they end just before `seq`.
    """

    seq: int
    unreadable: int = 0
    missing: int = 0
    duplicate: bool = False


class Sequence:
    """Follow one stream's sequence numbers over all its messages.

    `missing` counts what never came and `resets` how often the numbering was
    given up and our own count went on.
    """

    __slots__ = ("_carried", "_payload", "_seq", "_unreadable", "missing", "resets")

    def __init__(self) -> None:
        self.missing = 0
        self.resets = 0
        self._seq = 0
        self._carried: int | None = None
        self._payload: bytes | None = None
        self._unreadable = 0

    def note_unreadable(self) -> None:
        """Remember a message whose number could not be read."""
        self._unreadable += 1

    def follows(self, carried: int | None, payload: bytes) -> int | None:
        """Give the published number of a media message that is simply the next one.

        Nearly every message is. None where there is more to say; ask `place` then.
        """
        if carried is None or self._carried is None or self._unreadable:
            return None
        if carried != self._carried + 1:
            return None
        self._carried = carried
        self._payload = payload
        self._seq += 1
        return self._seq

    def place(self, carried: int | None, payload: bytes | None = None) -> Place:
        """Place the next message: its carried number, and its payload when it is media.

        The last number again is a duplicate when the payload is the same too. A
        message without a number takes the next one.
        """
        if self._carried is None:
            return self._begin(carried, payload)
        if carried is None:
            return self._follow(self._carried + 1, payload)
        step = carried - self._carried
        if step == 0 and (payload is None or payload == self._payload):
            return Place(self._seq, duplicate=payload is not None)
        if 0 < step <= MAX_STEP:
            return self._follow(carried, payload)
        self.resets += 1
        self._unreadable = 0
        return self._take(carried, payload, self._seq + 1)

    def _begin(self, carried: int | None, payload: bytes | None) -> Place:
        if carried is None:
            return self._take(None, payload, self._seq + 1)
        if carried < 0:
            self.resets += 1
            return self._take(carried, payload, self._seq + 1)
        # Numbers of our own may have been given before the first carried one.
        return self._take(carried, payload, max(carried, self._seq + 1))

    def _follow(self, carried: int, payload: bytes | None) -> Place:
        assert self._carried is not None
        skipped = carried - self._carried - 1
        unreadable = min(skipped, self._unreadable)
        self._unreadable = 0
        self.missing += skipped - unreadable
        place = self._take(carried, payload, self._seq + skipped + 1)
        return place._replace(unreadable=unreadable, missing=skipped - unreadable)

    def _take(self, carried: int | None, payload: bytes | None, seq: int) -> Place:
        self._carried = carried
        self._payload = payload
        self._seq = seq
        return Place(seq)
