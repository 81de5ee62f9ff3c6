"""One meaning for each of Redis' errors."""

import asyncio

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from app.errors import BrokerError, BrokerLost
from app.pubsub.base import Outcome

_KINDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    ((AuthenticationError, AuthorizationError), "auth"),
    (BusyLoadingError, "loading"),
    (ReadOnlyError, "readonly"),
    (OutOfMemoryError, "oom"),
    (NoPermissionError, "noperm"),
    (MovedError, "moved"),
    (AskError, "ask"),
    (TryAgainError, "tryagain"),
    (ClusterDownError, "clusterdown"),
    ((TimeoutError, asyncio.TimeoutError), "timeout"),
    ((ConnectionError, OSError, RuntimeError), "connection"),
)
# What the scripts that open a stream answer where its id is somebody else's.
_REFUSALS = {one.value.encode(): one for one in Outcome if one.is_refusal}
# Words that begin a server's refusal, for which the client has no class.
_WORDS = frozenset({"misconf", "noauth", "noreplicas", "busy"})


def error_kind(error: BaseException) -> str:
    """Name an error by one word of a closed set, for metrics and logs."""
    if isinstance(error, BrokerError):
        return error.kind
    for classes, kind in _KINDS:
        if isinstance(error, classes):
            return kind
    word = str(error).partition(" ")[0].rstrip(":").lower()
    return word if word in _WORDS else "error"


def lost(error: Exception) -> BrokerError:
    """Make a failed question to the server one of our errors."""
    return BrokerLost(error_kind(error), str(error))


def outcome_of(reply: object) -> Outcome:
    """Tell what a write's reply means."""
    if isinstance(reply, BrokerError):
        return Outcome.RETRY
    if isinstance(reply, list) and len(reply) == 1 and reply[0] in _REFUSALS:
        return _REFUSALS[reply[0]]
    if not isinstance(reply, ResponseError):
        return Outcome.WRITTEN
    # "The ID specified in XADD is equal or smaller than the target stream top item"
    return Outcome.CONFLICT if "equal or smaller" in str(reply) else Outcome.FAILED
