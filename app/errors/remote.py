"""The errors of whoever speaks to us over the telephone network or a socket."""

from app.errors.base import RemoteError


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


class HostRefused(RemoteError):
    """Raised when a request names a host that is not this service's, where that is checked."""

    http_status = 403
    reason = "host_refused"


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


class PurposeMismatch(RemoteError):
    """Raised when a credential is good, and for something else."""

    http_status = 403
    reason = "purpose_mismatch"


class PlanLimitReached(RemoteError):
    """Raised when every slot of the business's plan is taken."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "plan_limit_reached"


class TooManyStreams(RemoteError):
    """Raised when a call has as many live streams as a call may have."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "too_many_streams"


class CallRateExceeded(RemoteError):
    """Raised when a business's calls come faster than its plan allows."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "call_rate_exceeded"


class MonthlyLimitReached(RemoteError):
    """Raised when a business has had the calls or minutes that its plan has for a month."""

    http_status = 403
    reason = "monthly_limit_reached"


class CallEnded(RemoteError):
    """Raised when a call's webhook or stream comes after the call's end."""

    http_status = 409
    reason = "call_ended"


class DestinationNotAllowed(RemoteError):
    """Raised when a call is to be forwarded where its plan does not allow."""

    http_status = 403
    reason = "destination_not_allowed"


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
