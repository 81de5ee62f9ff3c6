"""Whether a stream may be spoken into, and how."""

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

from app.events import EndReason, StreamStarted
from app.media import Track
from app.playback.commands import Reason
from app.session.reception import Admitted, Handshake
from app.twilio_api import Outcome
from app.wire.back import EXOTEL, TWILIO, ReturnPath, return_path

# Exotel's messages do not tell its two applets apart, so the URL does.
APPLET_PARAMETER: Final = "applet"
ONE_WAY_APPLET: Final = "stream"


class Calls(Protocol):
    """What can be done with a call at its carrier; `Hangups` does it."""

    def hang_up(self, admitted: Admitted, reason: EndReason) -> asyncio.Task[None] | None:
        """See to it that a call ends; give what does it."""

    async def transfer(self, admitted: Admitted, twiml: str) -> Outcome:
        """Have a call go on with this TwiML."""


@dataclass(frozen=True, slots=True)
class WayBack:
    """Whether and how a stream may be spoken into.

    Either `path` says how, or `refusal` why not. `calls` is None where a call's carrier
    cannot be asked: it is no Twilio call, or its signature was waived.
    """

    path: ReturnPath | None
    refusal: Reason | None = None
    calls: Calls | None = None


def way_back(
    start: StreamStarted,
    admitted: Admitted,
    handshake: Handshake,
    calls: Calls | None,
    *,
    implied: bool,
) -> WayBack:
    """Find the way back into a stream; `implied`: its peer sent audio and no `start`."""
    if not admitted.plan.return_audio:
        return WayBack(None, Reason.NOT_ALLOWED)
    path = return_path(handshake.carrier, start)
    if path is None:
        return WayBack(None, Reason.NOT_SUPPORTED)
    if implied or _is_one_way(start, admitted, handshake):
        return WayBack(None, Reason.ONE_WAY)
    return WayBack(path, calls=calls)


def _is_one_way(start: StreamStarted, admitted: Admitted, handshake: Handshake) -> bool:
    """Tell a stream that only listens.

    Twilio gives `<Connect>` the inbound track only, and a call that is forwarded has
    a `<Start>`; sending to that one is an error of Twilio's that ends it (31924).
    """
    if handshake.carrier == TWILIO:
        return admitted.forwarded or Track.OUTBOUND in start.tracks
    applet = handshake.query.get(APPLET_PARAMETER, "")
    return handshake.carrier == EXOTEL and applet.lower() == ONE_WAY_APPLET
