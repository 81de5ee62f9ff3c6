"""What every wire protocol shares: its port, the legal order, and ids and numbers.

A wire protocol is sans-I/O: no socket, clock, log or task. It is told each message
as it came and answers with what the message means, one event for one message.
"""

# The order of a stream. Everything that decides it stands in this file, and as much
# of it as fits stands in the two tables below.
#
# Rule 1: CONNECTING until `start`, STARTED until `stop`, then STOPPED for good.
# Rule 2: `connected` is optional. Before `start` it is harmless, however often it comes.
# Rule 3: before `start`, media is rejected and anything else is ignored: before_start.
# Rule 4: a second `start` never changes a stream: second_start. It is not even read,
#         so that a broken one cannot end a call.
# Rule 5: after `stop`, media is rejected and anything else is ignored: after_stop.
# Rule 6: what was refused when it was read (MediaRejected, Unreadable, Ignored) passes
#         in any state and keeps its own reason.

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Protocol, TypeGuard

import msgspec

from app.events import (
    Connected,
    DtmfReceived,
    Ignored,
    MarkReceived,
    MediaReceived,
    MediaRejected,
    StreamStarted,
    StreamStopped,
    WireEvent,
)
from app.plans import IDENTIFIER

MAX_MESSAGE_BYTES: Final = 64 * 1024
# What our server lends the application in a socket's ASGI scope: the socket's `line`;
# `assign`, to be called with the business whose credential was shown; and `admitted`, to
# be called once its stream is, with what takes its messages from then on. Another server
# lends nothing.
SOCKET_EXTENSION: Final = "bridge.socket"

# What `int_of` reads, as a type for a lax decoder (`strict=False`).
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class StreamState(StrEnum):
    """How far a stream has come."""

    CONNECTING = "connecting"
    STARTED = "started"
    STOPPED = "stopped"


_REFUSED: Final[Mapping[StreamState, Mapping[type, str]]] = {
    StreamState.CONNECTING: {
        MediaReceived: "before_start",
        DtmfReceived: "before_start",
        MarkReceived: "before_start",
        StreamStopped: "before_start",
    },
    StreamState.STARTED: {
        Connected: "late_connected",
        StreamStarted: "second_start",
    },
    StreamState.STOPPED: {
        Connected: "after_stop",
        StreamStarted: "after_stop",
        MediaReceived: "after_stop",
        DtmfReceived: "after_stop",
        MarkReceived: "after_stop",
        StreamStopped: "after_stop",
    },
}

_LEADS_TO: Final[Mapping[type, StreamState]] = {
    StreamStarted: StreamState.STARTED,
    StreamStopped: StreamState.STOPPED,
}


class Wire(Protocol):
    """One peer's protocol, for one connection.

    Implementations keep the state of their stream, so each connection has its own.
    """

    @property
    def state(self) -> StreamState:
        """Tell how far the stream has come."""
        ...

    def implied_start(self, message: str | bytes) -> StreamStarted | None:
        """Give the start that this message implies, for peers that send none.

        To be asked before `receive` while CONNECTING. After a start the stream is
        STARTED, and the same message goes to `receive`.

        Raises:
            InvalidIdentifier: what the URL says is no id.
            UnsupportedFormat: the URL declares audio that cannot be read.
        """
        ...

    def started_reply(self) -> str | None:
        """Give what the peer is answered once its stream is admitted, if anything."""
        ...

    def ack(self, seq: int) -> str | None:
        """Give the reply which says that frame number `seq` is published, if one is due."""
        ...

    def receive(self, message: str | bytes) -> WireEvent:
        """Read one message: text as `str`, a binary frame as `bytes`.

        Whatever comes, the answer is an event. The one exception is a first `start`
        that no stream can be made of, after which the caller closes the connection.

        Raises:
            MalformedRequest: `start` lacks what it must name.
            InvalidIdentifier: an id in `start` is not one.
            UnsupportedFormat: `start` declares audio that cannot be read.
            BusinessMismatch: `start` names what the peer's token does not admit.
        """
        ...


class StreamOrder:
    """The order of one stream: lets events pass, or says why not."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = StreamState.CONNECTING

    def refusal(self, kind: type[WireEvent]) -> str | None:
        """Give the reason why an event of this kind is out of order, or None."""
        return _REFUSED[self.state].get(kind)

    def admit(self, event: WireEvent) -> WireEvent:
        """Take the event and move on, or give the event that refuses it."""
        kind = type(event)
        reason = _REFUSED[self.state].get(kind)
        if reason is None:
            self.state = _LEADS_TO.get(kind, self.state)
            return event
        if isinstance(event, MediaReceived):
            return MediaRejected(reason, event.track, event.seq)
        return Ignored(reason, getattr(event, "seq", None))


def is_identifier(text: object) -> TypeGuard[str]:
    """Return whether this is an id: `[A-Za-z0-9_.-]{1,128}`, and not of dots alone."""
    return isinstance(text, str) and IDENTIFIER.fullmatch(text) is not None


def int_of(value: object) -> int | None:
    """Read an integer as carriers write it, or give None.

    Takes an integer, a number without a fraction, and either as JSON would write it
    in text (`"7"`, `"7.0"`, but not `"+7"`, `" 7"` or `"007"`). It must fit 64 bits with
    a sign, so that every reader of ours can store it.
    """
    try:
        return msgspec.convert(value, Integer, strict=False)
    except (msgspec.ValidationError, UnicodeError):
        return None
