"""A media socket as a session sees it, and how one is closed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.events import EndReason
from app.session.watch import Line

# RFC 6455, 7.4.1
NORMAL_CLOSURE = 1000
GOING_AWAY = 1001
POLICY_VIOLATION = 1008
NO_CODE = 1005
INVALID_TEXT = 1007
MESSAGE_TOO_BIG = 1009
INTERNAL_ERROR = 1011

# What a server calls for each message of an admitted stream.
Take = Callable[[str | bytes], None]


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer's socket is gone, with this close code (RFC 6455, 7.4).

    It is 1006 where no Close frame came (7.1.5). `cut` says why, where our
    server closed it for what the peer sent.
    """

    code: int
    cut: EndReason | None = None


class Socket(Line, Protocol):
    """A WebSocket that is open."""

    async def receive(self) -> str | bytes | Closed:
        """Give the next message, or say that there will be none."""

    def admitted(self, take: Take) -> None:
        """Take note that the socket's stream is admitted.

        From now on its messages may go to `take`, in order and at once, while
        `receive` gives only its end; or all to `receive` as before.
        """

    async def send(self, text: str) -> None:
        """Send a text message; no effect when it is closed."""

    async def close(self, code: int, reason: str) -> None:
        """Close it; no effect when it is closed."""
