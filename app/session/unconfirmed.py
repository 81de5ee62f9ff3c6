"""Calls that were admitted by remembered configuration, while the store was away."""

from collections import defaultdict, deque
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from app.twilio_api import CarrierCall

# What is given up is left as it was decided; all of them were under their plans' limits.
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
    """Hold such calls until the store can be asked about them, the oldest first.

    Beyond `most` the business that has the most gives up its oldest: a flood of one
    business's calls leaves those of others to be asked about.
    """

    def __init__(self, most: int = MAX_UNCONFIRMED) -> None:
        self._most = most
        self._calls: dict[int, UnconfirmedCall] = {}
        self._of_business: defaultdict[str, deque[int]] = defaultdict(deque)
        self._numbers = count()

    def note(self, call: UnconfirmedCall) -> None:
        """Hold a call."""
        if len(self._calls) >= self._most:
            largest = max(self._of_business.values(), key=len)
            self._remove(largest[0])
        number = next(self._numbers)
        self._calls[number] = call
        self._of_business[call.business_id].append(number)

    def __len__(self) -> int:
        return len(self._calls)

    def next(self) -> UnconfirmedCall | None:
        """Return the oldest call, which is held until it is `done`."""
        return next(iter(self._calls.values()), None)

    def done(self, call: UnconfirmedCall) -> None:
        """Hold a call no longer; no effect on one that is not the oldest."""
        oldest = next(iter(self._calls), None)
        if oldest is not None and self._calls[oldest] is call:
            self._remove(oldest)

    def _remove(self, number: int) -> None:
        business_id = self._calls.pop(number).business_id
        numbers = self._of_business[business_id]
        numbers.remove(number)
        if not numbers:
            del self._of_business[business_id]
