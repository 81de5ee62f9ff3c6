"""Our side's errors, or the operator's."""

from app.errors.base import LocalError


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


class CommandFailed(LocalError):
    """Raised when a command cannot do what it was asked; says what, and where."""

    reason = "command_failed"


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


class ArchiveBusy(LocalError):
    """Raised when as many listen, or wait for a waveform, as one process serves."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "archive_busy"


class StoreUnavailable(LocalError):
    """Raised when configuration and slots cannot be reached in time."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "store_unavailable"


class CallTakenOver(LocalError):
    """Raised when another worker of the group has taken a call over from this one."""

    reason = "call_taken_over"


class CommandRefused(LocalError):
    """Raised to a worker whose command into a call was not done.

    `why` is the contract's reason (docs/redis-contract.md, "Answers").
    """

    reason = "command_refused"

    def __init__(self, command: str, why: str, detail: str = "") -> None:
        self.command = command
        self.why = why
        self.detail = detail
        super().__init__(f"{command}: {why}{': ' * bool(detail)}{detail}")


class SecretUnreadable(LocalError):
    """Raised when a stored secret cannot be opened with this SECRET_KEY."""

    reason = "secret_unreadable"


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


class TooManyWatchers(LocalError):
    """Raised to one more who would watch live calls in this process."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "too_many_watchers"


class EventsBacklogged(LocalError):
    """Raised for a new call when the budget of lifecycle events is spent."""

    http_status = 503
    close_code = 1013
    retryable = True
    reason = "events_backlogged"


class TwilioApiError(LocalError):
    """Raised when Twilio's REST API did not do what was asked.

    `status` is its HTTP status, `code` its own (twilio.com/docs/api/errors); 0 where
    there is none.
    """

    http_status = 502
    reason = "twilio_api_failed"

    def __init__(self, said: str, status: int = 0, code: int = 0) -> None:
        self.status = status
        self.code = code
        super().__init__(f"Twilio's REST API {said}")
