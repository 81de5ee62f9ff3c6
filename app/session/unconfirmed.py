"""Calls that were admitted by remembered configuration, while the store was away."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from app.twilio_api import CarrierCall

# The oldest are left as they were decided; all of them were under their plans' limits.
MAX_UNCONFIRMED: Final = 10_000


@dataclass(frozen=True, slots=True)
class UnconfirmedCall:
    """A call, and what made it this business's.

    `number` and `pair` are what led to the business, empty where they did not; a number whose
    calls are the default business's has no owner (`number_is_owned`). `ticket` is the nonce of
    the ticket that its stream was given. A `forwarded` call goes on without its stream.
    """

    business_id: str
    call_sid: str
    number: str = ""
    number_is_owned: bool = True
    pair: str = field(default="", repr=False)
    ticket: str = field(default="", repr=False)
    forwarded: CarrierCall | None = None


class UnconfirmedCalls:
    """Hold such calls until the store can be asked about them."""

    def __init__(self) -> None:
        self._calls: deque[UnconfirmedCall] = deque(maxlen=MAX_UNCONFIRMED)

    def note(self, call: UnconfirmedCall) -> None:
        """Hold a call."""
        self._calls.append(call)

    def __len__(self) -> int:
        return len(self._calls)

    def next(self) -> UnconfirmedCall | None:
        """Return the oldest call, which is held until it is `done`."""
        return self._calls[0] if self._calls else None

    def done(self, call: UnconfirmedCall) -> None:
        """Hold a call no longer."""
        if self._calls and self._calls[0] is call:
            self._calls.popleft()
