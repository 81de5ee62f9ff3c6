"""What peers may cost this process, in numbers, and the words for what they did.

docs/decisions/0004 says where the numbers come from.
"""

import sys
from dataclasses import dataclass
from enum import StrEnum

from app.budget import NO_LIMIT, Allowance
from app.credentials.addresses import FORWARDED_FOR, Network

# Shorter than any message that carries audio: 10 ms of mu-law are 80 bytes, and the
# shortest media message in JSON is longer.
LIGHT_BYTES = 64
# How much of one peer is parsed in a turn of the event loop: 170 frames of the
# shortest kind, half a millisecond; or two media messages, and a part of a third.
SLICE_BYTES = 1024
# What is read of a live stream before its turn comes, and reading pauses: 32 KiB are
# all that one socket of a live call can make us keep, beside what the loop read last.
ROUND_BYTES = 32 * 1024
# More of them while one long frame is read: that only moves bytes.
SLICES_OF_A_FRAME = 16
MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 128
MAX_PIPELINED = 16
# For a close frame, or an answer, to reach the peer before the connection is cut.
LINGER_SECONDS = 0.5
# For a peer to answer our close frame, and what may still come before that.
CLOSE_SECONDS = 3.0
LATE_BYTES = 64 * 1024


class Fault(StrEnum):
    """Why we closed, or did not open, a peer's socket."""

    FLOODING = "flooding"
    NOT_READING = "peer_not_reading"
    NO_REQUEST = "no_request"
    SLOW_REQUEST = "slow_request"
    SLOW_RESPONSE = "slow_response"
    TOO_LARGE = "headers_too_large"
    PIPELINING = "pipelining"
    GAVE_WAY = "gave_way"
    TOO_MANY = "too_many_sockets"
    TOO_MANY_FROM_ADDRESS = "too_many_from_address"


@dataclass(frozen=True, slots=True)
class SocketRules:
    """The limits of one process.

    `light_frames` and `light_bytes` are for what carries no audio on one
    WebSocket, where each message that may carry audio makes good for one light
    frame; `max_fragments` is of one message. A connection has
    `first_byte_seconds` to begin its first request, each request
    `request_seconds` to come whole, and each answer `response_seconds` to be
    made and read. `max_unadmitted` bounds the media sockets whose stream is not
    admitted, and apart from them the plain HTTP connections;
    `max_unadmitted_per_address` the media sockets alone. `client_header` is where trusted
    proxies name their client; `own_headers` are in each answer that no application gives.
    """

    light_frames: Allowance = Allowance(200, 20)
    light_bytes: Allowance = Allowance(16 * 1024, 4 * 1024)
    max_fragments: int = 128
    first_byte_seconds: float = 5.0
    request_seconds: float = 5.0
    response_seconds: float = 30.0
    max_unadmitted: int = 2000
    max_unadmitted_per_address: int = 200
    trusted_proxies: tuple[Network, ...] = ()
    client_header: str = FORWARDED_FOR
    own_headers: tuple[tuple[bytes, bytes], ...] = ()


DEFAULT_RULES = SocketRules()
# For tests of the protocol, which send nothing but pings, or a message byte by byte.
NO_BUDGETS = SocketRules(NO_LIMIT, NO_LIMIT, max_fragments=sys.maxsize)
