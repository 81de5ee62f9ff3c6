"""How the service is deployed, as its settings and its platform say it."""

from collections.abc import Mapping
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
    Exotel's variables is set. `weak_secrets` has what is wrong with each by its variable, and
    `exposed_files` the paths of files with secrets that every user of the machine may read.
    `exotel_digests` are the digests of all pairs of the service.
    """

    public_url: str = ""
    is_public: bool = False
    account_sid: str = ""
    auth_token: str = field(default="", repr=False)
    waives_signatures: bool = False
    has_secret_key: bool = False
    has_admin_token: bool = False
    has_metrics_token: bool = False
    takes_jwts: bool = False
    has_jwt_audience: bool = False
    weak_secrets: Mapping[str, str] = field(default_factory=dict)
    exposed_files: tuple[str, ...] = ()
    redis_url: str = field(default="", repr=False)
    twilio_api_url: str = "https://api.twilio.com"
    twilio_monitor_url: str = "https://monitor.twilio.com"
    supports_exotel: bool = False
    exotel_wanted: bool = False
    exotel_proves_itself: bool = False
    has_exotel_addresses: bool = False
    exotel_pair: str = field(default="", repr=False)
    exotel_digests: frozenset[str] = field(default=frozenset(), repr=False)
    host: str = "0.0.0.0"
    drain_seconds: float = 30.0
    platform: Platform = Platform()
