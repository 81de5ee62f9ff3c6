"""Every setting of the service, and what one demands of another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

from app.errors import SettingsError
from app.secret_strength import FLOORS, weakness_of
from app.settings.files import SUFFIX, with_files
from app.settings.readers import (
    Unusable,
    choice,
    one_of,
    read_account_sid,
    read_admin_tokens,
    read_flag,
    read_header_name,
    read_host,
    read_https_base,
    read_https_url,
    read_identifier,
    read_jwt_secret,
    read_networks,
    read_public_url,
    read_redis_url,
    read_rotating,
    read_sample_rate,
    read_secret_keys,
    read_text,
    read_tokens,
    seconds,
    whole,
)
from app.settings.values import Adapter, Network, OperatorSecret, PublicUrl, Secret, Unsigned

LOOPBACK: Final = "127.0.0.1"
_JWT_KEYS = ("jwt_public_key", "jwt_secret", "jwt_jwks_url")


def _variable(read: Callable[[str], Any], default: Any, example: str) -> Any:
    return field(default=default, metadata={"read": read, "example": example})


def _secret(read: Callable[[str], Any], default: Any, example: str) -> Any:
    """Declare a variable whose value may also be in the file that `NAME_FILE` names."""
    metadata = {"read": read, "example": example, "is_secret": True}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, read and checked; units stand in the names."""

    public_url: PublicUrl | None = _variable(read_public_url, None, "https://bridge.example.com")
    host: str = _variable(read_host, "0.0.0.0", "0.0.0.0")
    port: int = _variable(whole(0, 65535), 8000, "8000")
    redis_url: Secret | None = _secret(read_redis_url, None, "redis://localhost:6379/0")
    pubsub_adapter: Adapter = _variable(one_of(Adapter), Adapter.REDIS_STREAMS, "redis_streams")
    twilio_account_sid: str = _variable(read_account_sid, "", "AC" + "0123456789abcdef" * 2)
    twilio_auth_token: tuple[Secret, ...] = _secret(read_tokens, (), "current-token,older-token")
    twilio_api_url: str = _variable(
        read_https_base, "https://api.twilio.com", "https://api.twilio.com"
    )
    twilio_monitor_url: str = _variable(
        read_https_base, "https://monitor.twilio.com", "https://monitor.twilio.com"
    )
    secret_key: tuple[Secret, ...] = _secret(read_secret_keys, (), "$(openssl rand -hex 32)")
    admin_token: tuple[OperatorSecret, ...] = _secret(
        read_admin_tokens, (), "alice=$(openssl rand -hex 32)"
    )
    allow_unsigned: Unsigned = _variable(one_of(Unsigned), Unsigned.NO, "true")
    businesses_file: str | None = _variable(read_text, None, "businesses.toml")
    allow_private_webhooks: bool = _variable(read_flag, False, "true")
    max_calls: int = _variable(whole(1, 100_000), 1000, "1000")
    log_format: str = _variable(choice("console", "json"), "console", "json")
    log_level: str = _variable(choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "INFO")
    log_phone_numbers: str = _variable(choice("masked", "full"), "masked", "masked")
    stream_start_timeout_seconds: float = _variable(seconds(0.1, 60), 5.0, "5")
    media_idle_seconds: float = _variable(seconds(1, 3600), 10.0, "10")
    max_unadmitted_sockets: int = _variable(whole(1, 100_000), 2000, "2000")
    max_unadmitted_per_address: int = _variable(whole(1, 100_000), 200, "200")
    metrics_token: tuple[Secret, ...] = _secret(read_rotating, (), "$(openssl rand -hex 32)")
    broker_buffer_seconds: float = _variable(seconds(1, 600), 30.0, "30")
    broker_buffer_bytes: int = _variable(whole(2**20, 2**40), 256 * 2**20, "268435456")
    call_history_days: int = _variable(whole(1, 3650), 30, "30")
    playback_lead_ms: int = _variable(whole(40, 2000), 160, "160")
    admin_may_speak: bool = _variable(read_flag, False, "true")
    drain_seconds: float = _variable(seconds(0, 14_400), 30.0, "30")
    support_exotel: bool = _variable(read_flag, False, "true")
    exotel_api_key: tuple[Secret, ...] = _secret(read_tokens, (), "current-key,older-key")
    exotel_api_token: tuple[Secret, ...] = _secret(read_tokens, (), "current-token,older-token")
    exotel_allowed_ips: tuple[Network, ...] = _variable(
        read_networks, (), "192.0.2.0/24,198.51.100.7"
    )
    exotel_default_business: str = _variable(read_identifier, "", "business-1")
    trusted_proxies: tuple[Network, ...] = _variable(read_networks, (), "10.0.0.0/8")
    client_address_header: str = _variable(read_header_name, "x-forwarded-for", "X-Real-IP")
    ingest_default_sample_rate: int = _variable(read_sample_rate, 24000, "24000")
    ingest_idle_seconds: float = _variable(seconds(1, 3600), 10.0, "10")
    ack_interval: int = _variable(whole(1, 1000), 10, "10")
    jwt_public_key: str = _variable(read_text, "", '"-----BEGIN PUBLIC KEY-----\\n…"')
    jwt_secret: Secret | None = _secret(read_jwt_secret, None, "$(openssl rand -hex 32)")
    jwt_jwks_url: str = _variable(
        read_https_url, "", "https://id.example.com/.well-known/jwks.json"
    )
    jwt_audience: str = _variable(read_text, "", "media-bridge")
    jwt_issuer: str = _variable(read_text, "", "https://id.example.com/")
    jwt_leeway_seconds: float = _variable(seconds(0, 300), 5.0, "5")

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; an empty variable counts as unset.

        A secret is also read from the file that `NAME_FILE` names.

        Raises:
            SettingsError: a variable is missing or unusable; names it, the
                problem and an example.
        """
        values = with_files(environ, SECRET_NAMES)
        given: dict[str, Any] = {}
        for variable in fields(cls):
            name = variable.name.upper()
            value = values.get(name, "")
            if value:
                try:
                    given[variable.name] = variable.metadata["read"](value)
                except Unusable as error:
                    example = error.example or variable.metadata["example"]
                    if path := environ.get(name + SUFFIX) if name in SECRET_NAMES else None:
                        problem = f"names {ascii(path)}, whose content {error}"
                        example = f"/run/secrets/{variable.name}"
                        raise SettingsError(name + SUFFIX, problem, example) from None
                    raise SettingsError(name, str(error), example) from None
        _check_together(given)
        return cls(**given)

    @property
    def serves_twilio(self) -> bool:
        """Tell whether the Twilio routes can be served: by an auth token, or without."""
        has_token = bool(self.twilio_auth_token)
        return self.public_url is not None and (has_token or self.waives_signatures)

    @property
    def twilio_api_lacks(self) -> str:
        """Name what is missing to ask Twilio's REST API, or nothing."""
        if not self.twilio_account_sid:
            return "TWILIO_ACCOUNT_SID"
        return "" if self.twilio_auth_token else "TWILIO_AUTH_TOKEN"

    @property
    def operators(self) -> dict[str, str]:
        """Return each operator's name, empty for a plain token, by the digest of their token."""
        return {token.digest.reveal(): token.name for token in self.admin_token}

    @property
    def exotel_pairs(self) -> tuple[str, ...]:
        """Give the pairs that Exotel may show, as `KEY:TOKEN`."""
        pairs = zip(self.exotel_api_key, self.exotel_api_token, strict=True)
        return tuple(f"{key.reveal()}:{token.reveal()}" for key, token in pairs)

    @property
    def takes_jwts(self) -> bool:
        """Return whether clients of our own may show JWTs at /v1/ingest."""
        return any(getattr(self, name) for name in _JWT_KEYS)

    @property
    def weak_secrets(self) -> dict[str, str]:
        """Return what is wrong with each secret that is only accepted for one more release."""
        found = {name: weakness_of(name, self._texts(name)) for name in FLOORS if name.isupper()}
        return {name: weakness for name, weakness in found.items() if weakness}

    def _texts(self, name: str) -> list[str]:
        if name == "ADMIN_TOKEN":
            return []  # Kept as digests; `load` has checked the tokens.
        value = getattr(self, name.lower())
        secrets = value if isinstance(value, tuple) else (value,)
        return [secret.reveal() for secret in secrets if secret]

    @property
    def waives_signatures(self) -> bool:
        """Tell whether a request without a signature is served, and tickets are ignored."""
        return self.allow_unsigned is not Unsigned.NO


SECRET_NAMES: Final = tuple(
    variable.name.upper() for variable in fields(Settings) if "is_secret" in variable.metadata
)


def _check_together(given: dict[str, Any]) -> None:
    """Check what one variable demands of another, and fill in what depends on ALLOW_UNSIGNED.

    That is a local PUBLIC_URL, and a HOST that only this machine reaches.
    """
    unsigned = given.get("allow_unsigned", Unsigned.NO)
    if unsigned is not Unsigned.NO:
        given.setdefault("host", LOOPBACK)
    public = given.get("public_url")
    ingest_alone = given.get("support_exotel") or any(map(given.get, _JWT_KEYS))
    if public is None:
        if unsigned is not Unsigned.NO:
            given["public_url"] = PublicUrl(f"http://localhost:{given.get('port', 8000)}")
        elif not ingest_alone:
            raise _missing("PUBLIC_URL", "the URL at which Twilio reaches this service")
    elif unsigned is Unsigned.YES and public.is_public:
        problem = "lets anyone place calls, and PUBLIC_URL is a public host; if you mean it, say so"
        raise SettingsError("ALLOW_UNSIGNED", problem, "public")
    if unsigned is Unsigned.NO and not ingest_alone and not given.get("twilio_auth_token"):
        raise _missing("TWILIO_AUTH_TOKEN", "the auth token that signs Twilio's requests")
    if len(given.get("exotel_api_key", ())) != len(given.get("exotel_api_token", ())):
        problem = "must hold as many tokens as EXOTEL_API_KEY holds keys"
        raise SettingsError("EXOTEL_API_TOKEN", problem, "current-token,older-token")
    if sum(1 for name in _JWT_KEYS if given.get(name)) > 1:
        problem = "must not be set beside JWT_SECRET or JWT_JWKS_URL: one algorithm is pinned"
        raise SettingsError("JWT_PUBLIC_KEY", problem, "")
    adapter = given.get("pubsub_adapter", Adapter.REDIS_STREAMS)
    if adapter is not Adapter.MEMORY and given.get("redis_url") is None:
        raise _missing("REDIS_URL", "where frames are published (`make run` starts one for you)")


def _missing(name: str, what: str) -> SettingsError:
    example = next(v.metadata["example"] for v in fields(Settings) if v.name == name.lower())
    return SettingsError(name, f"is not set: {what}", example)
