"""Calls ended or transferred at their carrier: beside their sessions, and after them."""

import asyncio
import logging
from collections import Counter
from typing import Final, Protocol

from app.errors import StoreUnavailable
from app.events import EndReason
from app.session.reception import Admitted
from app.twilio_api import CarrierCall, Outcome

log = logging.getLogger(__name__)

# What a call's TwiML may take to end it: the longest sentence (500 characters) is
# spoken in about 40 s.
TWIML_SECONDS: Final = 60.0
MAX_CALLS: Final = 10_000
MAX_CALLS_OF_BUSINESS: Final = 2_500
# Who ends a call by intent has said what there was to say.
_AT_ONCE: Final = frozenset({EndReason.ENDED_BY_ADMIN, EndReason.HANGUP})


class Carrier(Protocol):
    """Where calls are ended; `TwilioApi` is one."""

    async def end_call(self, call: CarrierCall) -> Outcome:
        """End a call."""

    async def redirect_call(self, call: CarrierCall, twiml: str) -> Outcome:
        """Have a call go on with this TwiML."""

    async def close(self) -> None:
        """Let go of its connections."""


class Hangups:
    """End the calls that outlive their plan's longest call, or that an admin or a worker ends.

    A forwarded call is ended at once: its two parties would go on without the
    stream. So is one that somebody ends. Any other goes on in its TwiML when its
    stream ends, says the business's sentence and hangs up; it is ended here only where
    that was not seen to happen within `twiml_seconds`. Nobody waits for any of it.
    """

    def __init__(self, carrier: Carrier, *, twiml_seconds: float = TWIML_SECONDS) -> None:
        self._carrier = carrier
        self._twiml_seconds = twiml_seconds
        # By business and CallSid: a business with an account of its own may name any call.
        self._waiting: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._of_business: Counter[str] = Counter()

    def hang_up(self, admitted: Admitted, reason: EndReason) -> asyncio.Task[None] | None:
        """See to it that a call ends whose stream is ended for this reason; give what does it."""
        at_once = admitted.forwarded or reason in _AT_ONCE
        return self.end(_carrier_call(admitted), 0.0 if at_once else self._twiml_seconds)

    def end(self, call: CarrierCall, seconds: float = 0.0) -> asyncio.Task[None] | None:
        """Have a call ended after `seconds`; return what does it."""
        key = call.business_id, call.call_sid
        if key in self._waiting or key in self._asking:
            return self._waiting.get(key) or self._asking[key]
        of_business = self._of_business[key[0]]
        in_all = len(self._waiting) + len(self._asking)
        if in_all >= MAX_CALLS or of_business >= MAX_CALLS_OF_BUSINESS:
            log.error("[Twilio] Call %s is not ended: too many others wait", call.call_sid)
            return None
        ending = asyncio.create_task(self._end(call, seconds), name="hang-up")
        self._waiting[key] = ending
        self._of_business[key[0]] += 1
        ending.add_done_callback(lambda _: self._forget(key[0]))
        return ending

    def _forget(self, business_id: str) -> None:
        self._of_business[business_id] -= 1
        if not self._of_business[business_id]:
            del self._of_business[business_id]

    async def transfer(self, admitted: Admitted, twiml: str) -> Outcome:
        """Have a call go on with this TwiML, in place of its stream."""
        try:
            return await self._carrier.redirect_call(_carrier_call(admitted), twiml)
        except StoreUnavailable:
            return Outcome.UNREACHABLE  # nobody knows with whose credentials to ask

    def ended(self, business_id: str, call_sid: str) -> None:
        """Note that Twilio has reported the end of a business's call."""
        ending = self._waiting.pop((business_id, call_sid), None)
        if ending is not None:
            ending.cancel()

    async def close(self, seconds: float) -> None:
        """Give up what still waits for its TwiML; finish within `seconds` what is asked."""
        while self._waiting:
            self._waiting.popitem()[1].cancel()
        asking = list(self._asking.values())
        if asking:
            await asyncio.wait(asking, timeout=seconds)
        for task in asking:
            task.cancel()
        await self._carrier.close()

    async def _end(self, call: CarrierCall, seconds: float) -> None:
        if seconds:
            await asyncio.sleep(seconds)
        key = call.business_id, call.call_sid
        self._asking[key] = self._waiting.pop(key)
        try:
            await self._carrier.end_call(call)
        except Exception:
            log.exception("[Twilio] Call %s could not be ended", call.call_sid)
        finally:
            del self._asking[key]


def _carrier_call(admitted: Admitted) -> CarrierCall:
    call = admitted.call
    is_own = admitted.authorization.is_own_account
    return CarrierCall(call.call_sid, admitted.account_sid, call.business_id, is_own)
