"""Every error this program raises on purpose, as one tree.

    BridgeError
    ├── LocalError                    our side, or the operator's
    │   ├── SettingsError             a variable is missing or unusable
    │   ├── ConfigurationError        a businesses file is unusable
    │   ├── EmbeddedServerError       no Redis server could be started
    │   ├── StartRefused              a worker cannot serve with these settings
    │   ├── CaptureError              a capture file is unusable
    │   ├── BrokerError
    │   │   ├── BrokerRefused         the broker answered no; nothing was written
    │   │   │   └── BrokerReplaced    it is another server than before
    │   │   └── BrokerLost            no answer came; what was written is unknown
    │   ├── StoreUnavailable          configuration and slots cannot be reached
    │   ├── PublicUrlMissing          this service does not know its own address
    │   ├── Draining                  this process takes no new calls
    │   ├── ProcessFull               MAX_CALLS reached
    │   ├── TooManySockets            MAX_UNADMITTED_SOCKETS reached
    │   ├── TooManyFromAddress        MAX_UNADMITTED_PER_ADDRESS reached
    │   └── EventsBacklogged          lifecycle events wait for the broker
    └── RemoteError                   the peer's side
        ├── MalformedRequest
        ├── SignatureMissing
        ├── SignatureInvalid
        ├── OriginRefused             a browser, where a carrier is expected
        ├── CredentialsMissing
        ├── CredentialsInvalid
        ├── TokenInvalid
        ├── TokenExpired
        ├── ExotelNotSupported
        ├── TicketMissing
        ├── TicketInvalid
        ├── TicketExpired
        ├── TicketSpent
        ├── UnknownBusiness
        ├── BusinessMismatch
        ├── PlanLimitReached
        ├── CallRateExceeded
        ├── InvalidIdentifier
        ├── UnsupportedFormat
        ├── StreamAlreadyLive
        ├── StartTimeout
        ├── CallRefused
        └── TooManyBadMessages

Each class knows the HTTP status and the WebSocket close code (RFC 6455, 7.4.1)
that answer it, whether trying again can help, and a `reason`: one word for
logs, metrics and `call.rejected`. `web/` maps them in one place.
"""

from typing import ClassVar


class BridgeError(Exception):
    """Base of every error raised on purpose."""

    http_status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    retryable: ClassVar[bool] = False
    reason: ClassVar[str] = "internal_error"


class LocalError(BridgeError):
    """Raised when our side, or the operator's, is at fault."""


class SettingsError(LocalError):
    """Raised when a variable is missing or unusable; the start stops."""

    reason = "bad_setting"

    def __init__(self, variable: str, problem: str, example: str) -> None:
        self.variable = variable
        self.problem = problem
        self.example = example
        super().__init__(f"{variable} {problem}. Example: {variable}={example}")


class ConfigurationError(LocalError):
    """Raised when a businesses file is unusable; names the table and the field."""

    reason = "bad_configuration"


class EmbeddedServerError(LocalError):
    """Raised when no Redis server of our own could be started."""

    reason = "no_embedded_server"


class StartRefused(LocalError):
    """Raised when a worker process cannot serve with these settings; has its words."""

    reason = "start_refused"


class CaptureError(LocalError):
    """Raised when a capture file is unusable; names the file and the line."""

    reason = "bad_capture"


class BrokerError(LocalError):
    """Base of what goes wrong between us and the broker.

    `kind` is one word from a closed set, fit for a metric's label.
    """

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "broker_unavailable"

    def __init__(self, kind: str, detail: str = "") -> None:
        self.kind = kind
        super().__init__(f"{kind}: {detail}" if detail else kind)


class BrokerRefused(BrokerError):
    """Raised when the broker answered no: nothing of the batch was written."""


class BrokerReplaced(BrokerRefused):
    """Raised when another server answers than before, which may lack what that one took."""


class BrokerLost(BrokerError):
    """Raised when no answer came: the batch may or may not have been written."""


class StoreUnavailable(LocalError):
    """Raised when configuration and slots cannot be reached in time."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "store_unavailable"


class PublicUrlMissing(LocalError):
    """Raised when a URL of this service is asked for and PUBLIC_URL is not set."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "public_url_missing"


class Draining(LocalError):
    """Raised for a new call while this process finishes its last ones."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "draining"


class ProcessFull(LocalError):
    """Raised when this process holds MAX_CALLS calls."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "process_full"


class TooManySockets(LocalError):
    """Raised for a media socket while MAX_UNADMITTED_SOCKETS wait to be admitted."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "too_many_sockets"


class TooManyFromAddress(LocalError):
    """Raised for a media socket while MAX_UNADMITTED_PER_ADDRESS of its address wait."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "too_many_from_address"


class EventsBacklogged(LocalError):
    """Raised for a new call when the budget of lifecycle events is spent."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "events_backlogged"


class RemoteError(BridgeError):
    """Raised when the peer is at fault."""

    http_status = 400
    close_code = 1008
    reason = "bad_request"


class MalformedRequest(RemoteError):
    """Raised when a request cannot be read as what its route takes."""

    reason = "malformed_request"


class SignatureMissing(RemoteError):
    """Raised when a request that must be signed is not."""

    http_status = 403
    reason = "signature_missing"


class SignatureInvalid(RemoteError):
    """Raised when a signature does not fit the request."""

    http_status = 403
    reason = "signature_invalid"


class OriginRefused(RemoteError):
    """Raised when a handshake for a carrier carries an Origin, as a browser's does."""

    http_status = 403
    reason = "origin_refused"


class CredentialsMissing(RemoteError):
    """Raised when a handshake shows nothing that admits it."""

    http_status = 401
    reason = "credentials_missing"


class CredentialsInvalid(RemoteError):
    """Raised when a handshake's credentials are unreadable, or none we know."""

    http_status = 401
    reason = "credentials_invalid"


class TokenInvalid(RemoteError):
    """Raised when a client's token is forged, or not one for this service."""

    http_status = 401
    reason = "token_invalid"


class TokenExpired(RemoteError):
    """Raised when a client's token was good and has run out."""

    http_status = 401
    reason = "token_expired"


class ExotelNotSupported(RemoteError):
    """Raised to Exotel while SUPPORT_EXOTEL is not set."""

    http_status = 401
    reason = "exotel_not_supported"


class TicketMissing(RemoteError):
    """Raised when `start` carries no ticket."""

    http_status = 403
    reason = "ticket_missing"


class TicketInvalid(RemoteError):
    """Raised when a ticket is forged, or belongs to another call."""

    http_status = 403
    reason = "ticket_invalid"


class TicketExpired(RemoteError):
    """Raised when a ticket's minute has passed."""

    http_status = 403
    reason = "ticket_expired"


class TicketSpent(RemoteError):
    """Raised when a ticket has admitted a stream before."""

    http_status = 403
    reason = "ticket_spent"


class UnknownBusiness(RemoteError):
    """Raised when no business owns the call."""

    http_status = 404
    reason = "unknown_business"


class BusinessMismatch(RemoteError):
    """Raised when credentials of one business name another."""

    http_status = 403
    reason = "business_mismatch"


class PlanLimitReached(RemoteError):
    """Raised when every slot of the business's plan is taken."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "plan_limit_reached"


class CallRateExceeded(RemoteError):
    """Raised when a business's calls come faster than its plan allows."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "call_rate_exceeded"


class InvalidIdentifier(RemoteError):
    """Raised when an id is not of the form `[A-Za-z0-9_.-]{1,128}`."""

    reason = "invalid_identifier"


class UnsupportedFormat(RemoteError):
    """Raised when `start` declares audio that this service cannot read."""

    http_status = 415
    close_code = 1003
    reason = "unsupported_format"


class StreamAlreadyLive(RemoteError):
    """Raised when a second socket asks for a stream that is live."""

    http_status = 409
    reason = "stream_already_live"


class StartTimeout(RemoteError):
    """Raised when no `start` came in time."""

    http_status = 408
    reason = "start_timeout"


class CallRefused(RemoteError):
    """Raised to a caller of ours when a service answers without a stream."""

    reason = "call_refused"


class TooManyBadMessages(RemoteError):
    """Raised when a peer sends bad messages and nothing else."""

    reason = "too_many_bad_messages"
