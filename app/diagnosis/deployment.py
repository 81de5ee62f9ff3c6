"""How the service is deployed, as its settings and its platform say it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Platform:
    """Who runs the process: `railway`, `render`, `heroku` or nobody that is known.

    `drain_seconds` is how long it waits after SIGTERM, None where that cannot be seen.
    """

    name: str = ""
    drain_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is set, as far as checks look at it; what is empty is not set.

    `public_url` is where it is called: scheme and host. `auth_token` is the current one.
    `exotel_pair` is the `KEY:TOKEN` that Exotel shows; `exotel_wanted` tells that any of
    Exotel's variables is set.
    """

    public_url: str = ""
    is_public: bool = False
    account_sid: str = ""
    auth_token: str = field(default="", repr=False)
    waives_signatures: bool = False
    has_secret_key: bool = False
    redis_url: str = field(default="", repr=False)
    twilio_api_url: str = "https://api.twilio.com"
    twilio_monitor_url: str = "https://monitor.twilio.com"
    supports_exotel: bool = False
    exotel_wanted: bool = False
    exotel_proves_itself: bool = False
    exotel_pair: str = field(default="", repr=False)
    host: str = "0.0.0.0"
    drain_seconds: float = 30.0
    platform: Platform = Platform()
