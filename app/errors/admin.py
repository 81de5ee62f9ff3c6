"""The errors of whoever administers: by the API, or in a browser."""

from collections.abc import Iterable, Mapping

from app.errors.base import RemoteError


class AdminError(RemoteError):
    """Raised when what an admin asks cannot be done as asked."""


class FieldsInvalid(AdminError):
    """Raised when fields cannot be stored; has for each what is wrong and what would do."""

    http_status = 422
    reason = "fields_invalid"

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{name}: {said}" for name, said in self.problems.items()))


class SignInRequired(AdminError):
    """Raised when a request shows no token or key, or one that holds no more."""

    http_status = 401
    reason = "sign_in_required"


class KeyExpired(SignInRequired):
    """Raised when a request shows an access key whose time is over."""

    reason = "key_expired"


class InsecureSignIn(AdminError):
    """Raised when somebody signs in over a network without encryption."""

    http_status = 403
    reason = "insecure_sign_in"


class Forbidden(AdminError):
    """Raised when whoever asks may not do this."""

    http_status = 403
    reason = "forbidden"


class FormExpired(AdminError):
    """Raised when a form was not sent from a page of this session."""

    http_status = 403
    reason = "form_expired"


class TooManyAttempts(AdminError):
    """Raised when an address has tried too many wrong keys."""

    http_status = 429
    retryable = True
    reason = "too_many_attempts"

    def __init__(self, message: str, retry_seconds: int) -> None:
        self.retry_seconds = retry_seconds
        super().__init__(message)


class TooManyRequests(AdminError):
    """Raised when a business has as many requests under way in a process as it may."""

    http_status = 429
    retryable = True
    retry_seconds = 1
    reason = "too_many_requests"


class TooOften(AdminError):
    """Raised when a business edits, or a key signs in, faster than the audit log may grow."""

    http_status = 429
    retryable = True
    reason = "too_often"

    def __init__(self, message: str, retry_seconds: int) -> None:
        self.retry_seconds = retry_seconds
        super().__init__(message)


class TooMuchSpeech(AdminError):
    """Raised when a business's pieces of speech come faster than a process takes them."""

    http_status = 429
    retryable = True
    retry_seconds = 1
    reason = "too_much_speech"


class NotThere(AdminError):
    """Raised when there is no such thing, or none that whoever asks may see.

    `others` names the other business that was asked for, for the audit log alone.
    """

    http_status = 404
    reason = "not_found"

    def __init__(self, message: str, others: str = "") -> None:
        self.others = others
        super().__init__(message)


class AlreadyThere(AdminError):
    """Raised when the name of something new is taken."""

    http_status = 409
    reason = "already_exists"


class AmbiguousCall(AdminError):
    """Raised when calls of several businesses have the CallSid that is asked for."""

    http_status = 409
    reason = "ambiguous_call"

    def __init__(self, businesses: Iterable[str]) -> None:
        owners = sorted(businesses)
        shown = ", ".join(owners[:10]) + (", …" if len(owners) > 10 else "")
        super().__init__(
            f"{len(owners)} businesses have a call of this id: {shown}; name one, as ?business=ID "
            "or --business ID"
        )


class BusinessDeleted(AdminError):
    """Raised when a new business would have the id of one that was deleted."""

    http_status = 409
    reason = "business_deleted"


class NumberTaken(AdminError):
    """Raised when a number, or an Exotel pair, is another business's."""

    http_status = 409
    reason = "number_taken"


class PlanInUse(AdminError):
    """Raised when a plan that businesses have is to be deleted."""

    http_status = 409
    reason = "plan_in_use"


class BusinessHasCalls(AdminError):
    """Raised when a business with live calls is to be deleted."""

    http_status = 409
    reason = "business_has_calls"


class CallIsLive(AdminError):
    """Raised when a live call is to be erased."""

    http_status = 409
    reason = "call_is_live"


class CheckupRunning(AdminError):
    """Raised to one more who would look at the deployment while that is being done."""

    http_status = 409
    reason = "checkup_running"


class VersionMissing(AdminError):
    """Raised when an edit does not say, by If-Match, which version it is of."""

    http_status = 428
    reason = "version_missing"


class EditedMeanwhile(AdminError):
    """Raised when somebody else has saved since the version that an edit is of."""

    http_status = 412
    reason = "edited_meanwhile"
