"""Secrets that are looked for: one of its own for each setting, header and message."""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any, get_args, get_type_hints
from urllib.parse import quote

from redis import Redis

from app.settings import Secret, Settings
from app.settings.values import OperatorSecret


def canary(place: str) -> str:
    """Make the secret that is put into this place, and into no other."""
    return f"canary-{place}-5f1e0b7d2c9a"


REDIS_USER = "bridge"
# What each setting that is a secret is set to. REDIS_URL holds its own as a password.
SETTINGS = {
    "REDIS_URL": canary("redis-password"),
    "TWILIO_AUTH_TOKEN": f"{canary('auth-token')},{canary('older-auth-token')}",
    "SECRET_KEY": canary("secret-key-of-32-characters"),
    "ADMIN_TOKEN": canary("admin-token-of-32-characters"),
    "METRICS_TOKEN": canary("metrics-token"),
    "EXOTEL_API_KEY": canary("exotel-key"),
    "EXOTEL_API_TOKEN": canary("exotel-token"),
    "JWT_SECRET": canary("jwt-secret-of-32-characters"),
}
# A business may have pairs of its own; they come from BUSINESSES_FILE.
OWN_PAIR = f"{canary('own-key')}:{canary('own-token')}"


def secret_settings() -> set[str]:
    """Name the settings that are secrets, by their type."""
    hints = get_type_hints(Settings)
    return {field.name.upper() for field in fields(Settings) if _is_secret(hints[field.name])}


def _is_secret(kind: Any) -> bool:
    return kind in (Secret, OperatorSecret) or any(_is_secret(part) for part in get_args(kind))


class Watch:
    """Secrets that have been used, and every place in which one of them was found."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: set[str] = set(secrets)
        self.found: list[str] = []

    def keep(self, secret: str) -> str:
        """Remember a secret, and give it back."""
        self._secrets.add(secret)
        return secret

    def search(self, place: str, text: str | bytes) -> None:
        """Look for every secret in a text, in each form in which it may stand there."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "backslashreplace")
        for secret in self._secrets:
            if any(form in text for form in _forms(secret)):
                at = max(0, min(text.find(form) for form in _forms(secret) if form in text) - 80)
                self.found.append(f"{secret} in {place}: …{text[at : at + 240]!r}")


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    # Of base64, what does not depend on what stands beside it.
    for shift in range(3):
        encoded = base64.b64encode(b"\x00" * shift + secret.encode()).decode().rstrip("=")
        yield encoded[shift + 1 : -2]


def everything_in(redis: Redis) -> Iterator[tuple[str, bytes]]:
    """Read all of a Redis server: every key, and every field and value under it."""
    for key in redis.scan_iter():
        name = key.decode()
        yield "a key", key
        for value in _values(redis, key):
            yield name, value


def _values(redis: Any, key: bytes) -> Iterable[bytes]:
    match redis.type(key):
        case b"string":
            return [redis.get(key)]
        case b"hash":
            return [part for pair in redis.hgetall(key).items() for part in pair]
        case b"list":
            return list(redis.lrange(key, 0, -1))
        case b"set":
            return list(redis.smembers(key))
        case b"zset":
            return list(redis.zrange(key, 0, -1))
        case b"stream":
            entries = redis.xrange(key)
            return [part for _, entry in entries for pair in entry.items() for part in pair]
        case b"none":
            return []  # it has expired since it was named
    raise AssertionError(f"{key!r} is of a type that nobody reads here")
