"""What every error knows: its status, its close code, and whether to try again."""

from typing import ClassVar


class BridgeError(Exception):
    """Base of every error raised on purpose."""

    http_status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    retryable: ClassVar[bool] = False
    reason: ClassVar[str] = "internal_error"
    # Where trying again can help: after so long.
    retry_seconds: int = 5


class LocalError(BridgeError):
    """Raised when our side, or the operator's, is at fault."""


class RemoteError(BridgeError):
    """Raised when the peer is at fault."""

    http_status = 400
    close_code = 1008
    reason = "bad_request"
