"""Every error this program raises on purpose, as one tree.

    BridgeError
    ├── LocalError                    our side, or the operator's
    │   ├── SettingsError             a variable is missing or unusable
    │   ├── ConfigurationError        a businesses file is unusable
    │   ├── EmbeddedServerError       no Redis server could be started
    │   ├── StartRefused              a worker cannot serve with these settings
    │   ├── CaptureError              a capture file is unusable
    │   ├── CommandFailed             a command cannot do what it was asked
    │   ├── BrokerError
    │   │   ├── BrokerRefused         the broker answered no; nothing was written
    │   │   │   └── BrokerReplaced    it is another server than before
    │   │   └── BrokerLost            no answer came; what was written is unknown
    │   ├── ArchiveBusy               too many listen, or wait for a waveform
    │   ├── TwilioApiError            Twilio's REST API did not do what was asked
    │   ├── StoreUnavailable          configuration and slots cannot be reached
    │   ├── CallTakenOver             another worker of the group has the call now
    │   ├── CommandRefused            what a worker asked of a call was not done
    │   ├── SecretUnreadable          SECRET_KEY is not the one it was sealed with
    │   ├── PublicUrlMissing          this service does not know its own address
    │   ├── Draining                  this process takes no new calls
    │   ├── ProcessFull               MAX_CALLS reached
    │   ├── TooManySockets            MAX_UNADMITTED_SOCKETS reached
    │   ├── TooManyFromAddress        MAX_UNADMITTED_PER_ADDRESS reached
    │   ├── TooManyWatchers           as many watch live calls as may
    │   └── EventsBacklogged          lifecycle events wait for the broker
    └── RemoteError                   the peer's side
        ├── MalformedRequest
        ├── SignatureMissing
        ├── SignatureInvalid
        ├── OriginRefused             a browser, where a carrier is expected
        ├── HostRefused               another site's name that leads here
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
        ├── PurposeMismatch           a credential for something else
        ├── PlanLimitReached
        ├── TooManyStreams            of one call
        ├── CallRateExceeded
        ├── MonthlyLimitReached
        ├── CallEnded                 a webhook of a call that is over
        ├── DestinationNotAllowed
        ├── InvalidIdentifier
        ├── UnsupportedFormat
        ├── StreamAlreadyLive
        ├── StartTimeout
        ├── CallRefused
        ├── TooManyBadMessages
        └── AdminError                whoever administers, by the API or in a browser
            ├── FieldsInvalid         has each field's problem, and what would do
            ├── SignInRequired
            │   └── KeyExpired
            ├── InsecureSignIn
            ├── Forbidden
            ├── FormExpired
            ├── TooManyAttempts
            ├── TooManyRequests
            ├── TooMuchSpeech
            ├── TooOften
            ├── NotThere
            ├── AlreadyThere
            ├── AmbiguousCall         calls of several businesses have this CallSid
            ├── BusinessDeleted
            ├── NumberTaken
            ├── PlanInUse
            ├── BusinessHasCalls
            ├── CallIsLive
            ├── CheckupRunning
            ├── VersionMissing
            └── EditedMeanwhile

Each class knows the HTTP status and the WebSocket close code (RFC 6455, 7.4.1)
that answer it, whether trying again can help, and a `reason`: one word for
logs, metrics and `call.rejected`. `web/` maps them in one place.
"""

from app.errors.admin import (
    AdminError,
    AlreadyThere,
    AmbiguousCall,
    BusinessDeleted,
    BusinessHasCalls,
    CallIsLive,
    CheckupRunning,
    EditedMeanwhile,
    FieldsInvalid,
    Forbidden,
    FormExpired,
    InsecureSignIn,
    KeyExpired,
    NotThere,
    NumberTaken,
    PlanInUse,
    SignInRequired,
    TooManyAttempts,
    TooManyRequests,
    TooMuchSpeech,
    TooOften,
    VersionMissing,
)
from app.errors.base import (
    BridgeError,
    LocalError,
    RemoteError,
)
from app.errors.local import (
    ArchiveBusy,
    BrokerError,
    BrokerLost,
    BrokerRefused,
    BrokerReplaced,
    CallTakenOver,
    CaptureError,
    CommandFailed,
    CommandRefused,
    ConfigurationError,
    Draining,
    EmbeddedServerError,
    EventsBacklogged,
    ProcessFull,
    PublicUrlMissing,
    SecretUnreadable,
    SettingsError,
    StartRefused,
    StoreUnavailable,
    TooManyFromAddress,
    TooManySockets,
    TooManyWatchers,
    TwilioApiError,
)
from app.errors.remote import (
    BusinessMismatch,
    CallEnded,
    CallRateExceeded,
    CallRefused,
    CredentialsInvalid,
    CredentialsMissing,
    DestinationNotAllowed,
    ExotelNotSupported,
    HostRefused,
    InvalidIdentifier,
    MalformedRequest,
    MonthlyLimitReached,
    OriginRefused,
    PlanLimitReached,
    PurposeMismatch,
    SignatureInvalid,
    SignatureMissing,
    StartTimeout,
    StreamAlreadyLive,
    TicketExpired,
    TicketInvalid,
    TicketMissing,
    TicketSpent,
    TokenExpired,
    TokenInvalid,
    TooManyBadMessages,
    TooManyStreams,
    UnknownBusiness,
    UnsupportedFormat,
)

__all__ = [
    "AdminError",
    "AlreadyThere",
    "AmbiguousCall",
    "ArchiveBusy",
    "BridgeError",
    "BrokerError",
    "BrokerLost",
    "BrokerRefused",
    "BrokerReplaced",
    "BusinessDeleted",
    "BusinessHasCalls",
    "BusinessMismatch",
    "CallEnded",
    "CallIsLive",
    "CheckupRunning",
    "CallRateExceeded",
    "CallRefused",
    "CallTakenOver",
    "CaptureError",
    "CommandFailed",
    "CommandRefused",
    "ConfigurationError",
    "CredentialsInvalid",
    "CredentialsMissing",
    "DestinationNotAllowed",
    "Draining",
    "EditedMeanwhile",
    "EmbeddedServerError",
    "EventsBacklogged",
    "ExotelNotSupported",
    "FieldsInvalid",
    "Forbidden",
    "FormExpired",
    "HostRefused",
    "InvalidIdentifier",
    "LocalError",
    "MalformedRequest",
    "MonthlyLimitReached",
    "NotThere",
    "NumberTaken",
    "OriginRefused",
    "PlanInUse",
    "PlanLimitReached",
    "ProcessFull",
    "PublicUrlMissing",
    "PurposeMismatch",
    "RemoteError",
    "SecretUnreadable",
    "InsecureSignIn",
    "KeyExpired",
    "SettingsError",
    "SignInRequired",
    "SignatureInvalid",
    "SignatureMissing",
    "StartRefused",
    "StartTimeout",
    "StoreUnavailable",
    "StreamAlreadyLive",
    "TicketExpired",
    "TicketInvalid",
    "TicketMissing",
    "TicketSpent",
    "TokenExpired",
    "TokenInvalid",
    "TooManyAttempts",
    "TooManyBadMessages",
    "TooManyFromAddress",
    "TooManyRequests",
    "TooManySockets",
    "TooManyStreams",
    "TooManyWatchers",
    "TooMuchSpeech",
    "TooOften",
    "TwilioApiError",
    "UnknownBusiness",
    "UnsupportedFormat",
    "VersionMissing",
]
