"""A business's secrets: set and replaced, and never shown again."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from app.admin.audit_log import AuditLog
from app.admin.principal import Principal
from app.admin.roles import Permission
from app.administration.businesses import Businesses
from app.businesses.exotel_pairs import id_of, typed_pairs, without
from app.errors import FieldsInvalid, Forbidden
from app.plans import BUSINESS_FIELDS
from app.plans.fields import meant
from app.secret_strength import weakness_of
from app.store.configuration import Configuration

# Twilio has a primary and a secondary auth token, and no third.
MOST_TOKENS: Final = 2
# All that is visible in ASCII but the comma, which separates them.
_TOKEN: Final = re.compile(r"[!-+\--~]{1,256}")
_SIGNING_SECRET: Final = re.compile(r"[!-~]{16,256}")
_SET_AT: Final = ":at"


class Sealer(Protocol):
    """What encrypts a secret, so that Redis does not know it; several are joined by commas."""

    def seal(self, business_id: str, name: str, text: str) -> str:
        """Encrypt a secret for this place alone."""


class NoSealer:
    """What there is without a key to seal with: no secret can be stored."""

    def seal(self, business_id: str, name: str, text: str) -> str:
        """Refuse."""
        raise FieldsInvalid({name: "cannot be stored without SECRET_KEY: set it, and start again"})


@dataclass(frozen=True, slots=True)
class SecretState:
    """What is told of a secret: whether it is set, how many there are, and since when.

    `set_at` is Unix ms, 0 where it is not known.
    """

    name: str
    effect: str
    count: int
    set_at: int


def _tokens(value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > MOST_TOKENS:
        raise ValueError(f"must be a list of at most {MOST_TOKENS} tokens, the current one first")
    for token in value:
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError("must be tokens of 1 to 256 visible ASCII characters, without commas")
    if len(set(value)) < len(value):
        raise ValueError("names a token twice")
    if weakness := weakness_of("twilio_auth_tokens", value):
        raise ValueError(weakness)
    return value


def _signing_secret(value: object) -> list[str]:
    if value in (None, "", []):
        return []
    text = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(text, str) or not _SIGNING_SECRET.fullmatch(text):
        raise ValueError("must be 16 to 256 visible ASCII characters, without spaces")
    if weakness := weakness_of("usage_webhook_secret", [text]):
        raise ValueError(weakness)
    return [text]


@dataclass(frozen=True, slots=True)
class _Sealed:
    effect: str
    check: Callable[[object], list[str]]


SEALED: Final[Mapping[str, _Sealed]] = {
    "twilio_auth_tokens": _Sealed(
        "The auth tokens of the business's own Twilio account: the current one, and while it is "
        "being replaced the other.",
        _tokens,
    ),
    "usage_webhook_secret": _Sealed(
        "What is sent to usage_webhook_url is signed with this.", _signing_secret
    ),
}
PAIRS: Final = "exotel_pairs"
NAMES: Final = (*SEALED, PAIRS)


class Secrets:
    """Set a business's secrets, and tell which are set. `wall_clock` gives Unix seconds.

    `shared_digests` are of the service's own Exotel pairs, which no business may have.
    """

    def __init__(
        self,
        configuration: Configuration,
        businesses: Businesses,
        sealer: Sealer,
        audit: AuditLog,
        wall_clock: Callable[[], float],
        shared_digests: Collection[str] = (),
    ) -> None:
        self._shared_digests = shared_digests
        self._configuration = configuration
        self._businesses = businesses
        self._sealer = sealer
        self._audit = audit
        self._wall_clock = wall_clock

    async def states(self, who: Principal, business_id: str) -> list[SecretState]:
        """Tell which secrets are set, and never what they are."""
        business = await self._businesses.get(who, business_id, Permission.EDIT_SECRETS)
        stored = await self._configuration.sealed_secrets(business_id)
        counts = {PAIRS: len(business.record.exotel_pairs)}
        for name in SEALED:
            counts[name] = int(stored.get(f"{name}:count", "1")) if name in stored else 0
        return [
            SecretState(name, _effect(name), counts[name], int(stored.get(name + _SET_AT, "0")))
            for name in NAMES
        ]

    async def save(
        self, who: Principal, business_id: str, given: Mapping[str, Any]
    ) -> list[SecretState]:
        """Replace the secrets that are given; null, or an empty list, removes one.

        Raises:
            FieldsInvalid: has each problem, and not the secret.
            Forbidden: only an operator may type Exotel pairs.
            NumberTaken: an Exotel pair is another business's.
        """
        before = await self._businesses.get(who, business_id, Permission.EDIT_SECRETS)
        if given.get(PAIRS) and not who.may(Permission.EDIT_EVERY_FIELD):
            # Before it is looked at: no answer tells whether somebody else has it.
            raise Forbidden(
                "only an operator may type Exotel pairs; generate one: POST "
                f"/api/v1/businesses/{business_id}/exotel-pairs"
            )
        self._audit.check_pace_of_edits(who)
        values, pairs = _checked(given, self._shared_digests)
        now = str(int(self._wall_clock() * 1000))
        stored: dict[str, str] = {}
        for name, texts in values.items():
            sealed = self._sealer.seal(business_id, name, ",".join(texts)) if texts else ""
            count = str(len(texts)) if texts else ""
            stored |= {name: sealed, f"{name}:count": count, name + _SET_AT: now if texts else ""}
        if pairs is not None:
            after = replace(before.record, exotel_pairs=pairs)
            await self._businesses.replace(who, before, after, before.version)
            stored[PAIRS + _SET_AT] = now if pairs else ""
            gone = set(before.record.exotel_pairs) - set(pairs)
            stored |= without(map(id_of, gone))
        if stored:
            await self._configuration.save_secrets(business_id, stored)
            data = {"fields": ", ".join(name for name in NAMES if name in given)}
            await self._audit.note(who, "secrets.saved", business_id, business_id, data)
        return await self.states(who, business_id)


def _checked(
    given: Mapping[str, Any], shared_digests: Collection[str]
) -> tuple[dict[str, list[str]], tuple[str, ...] | None]:
    values: dict[str, list[str]] = {}
    pairs: tuple[str, ...] | None = None
    problems: dict[str, str] = {}
    for name, value in given.items():
        try:
            if name == PAIRS:
                pairs = typed_pairs([] if value is None else value, shared_digests)
            elif name in SEALED:
                values[name] = SEALED[name].check([] if value is None else value)
            else:
                problems[name] = f"is unknown{meant(name, NAMES)}"
        except ValueError as error:
            problems[name] = str(error)
    if problems:
        raise FieldsInvalid(problems)
    return values, pairs


def _effect(name: str) -> str:
    return SEALED[name].effect if name in SEALED else BUSINESS_FIELDS[name].effect
