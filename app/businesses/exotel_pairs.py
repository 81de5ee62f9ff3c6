"""Exotel pairs: generated here, and the rules for those that an operator types.

A pair is `KEY:TOKEN`. Of a stored one there is only its digest; what its label is and
when it was generated stands beside it, under an id that is the digest's beginning.
"""

import hashlib
import re
import secrets
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from app.plans import checks
from app.plans.checks import PAIR_DIGEST

PART_MIN_CHARS: Final = 16
PAIR_ID: Final = re.compile(r"[0-9a-f]{12}")
LABEL_MAX_CHARS: Final = 80
# Beside the sealed secrets of a business, which have names without a colon.
_ABOUT: Final = "exotel_pairs:id:"


@dataclass(frozen=True, slots=True)
class NewPair:
    """A new pair, as whoever asked for it is shown it, once."""

    key: str
    token: str = field(repr=False)

    @property
    def text(self) -> str:
        """Return the pair as Exotel is given it."""
        return f"{self.key}:{self.token}"

    @property
    def digest(self) -> str:
        """Return all that is stored of it."""
        return digest_of(self.text)


class PairInfo(msgspec.Struct, frozen=True):
    """What is known of a stored pair. `created_at` is Unix ms; 0 where it was typed."""

    id: str
    label: str = ""
    created_at: int = 0


def new_pair() -> NewPair:
    """Create a pair of letters, digits, `-` and `_`, which a URL's user part may hold."""
    return NewPair(f"ex_{secrets.token_hex(8)}", secrets.token_urlsafe(32))


def digest_of(pair: str) -> str:
    """Return the SHA-256 of `KEY:TOKEN` in hexadecimal digits."""
    return hashlib.sha256(pair.encode()).hexdigest()


def id_of(digest: str) -> str:
    """Return the id that a stored pair goes by."""
    return digest[:12]


def about(info: PairInfo) -> dict[str, str]:
    """Return what is stored of a pair beside its digest."""
    return {f"{_ABOUT}{info.id}": msgspec.json.encode(info).decode()}


def without(pair_ids: Iterable[str]) -> dict[str, str]:
    """Return what removes these pairs' labels; the inverse of `about`."""
    return {f"{_ABOUT}{pair_id}": "" for pair_id in pair_ids}


def infos(digests: Iterable[str], stored: Mapping[str, str]) -> list[PairInfo]:
    """Return what is known of each pair, in the order in which they were added."""
    return [_info(id_of(digest), stored) for digest in digests]


def _info(pair_id: str, stored: Mapping[str, str]) -> PairInfo:
    try:
        return msgspec.json.decode(stored.get(f"{_ABOUT}{pair_id}", ""), type=PairInfo)
    except msgspec.DecodeError:
        return PairInfo(pair_id)


def typed_pairs(value: object, shared_digests: Collection[str]) -> tuple[str, ...]:
    """Return the digests of pairs that an operator types, `KEY:TOKEN` or `sha256-DIGEST`.

    Raises:
        ValueError: one is too short, or the service's own.
    """
    digests = checks.pairs(value)
    if isinstance(value, list | tuple) and any(is_short(item) for item in value):
        raise ValueError(
            f"must hold pairs of at least {PART_MIN_CHARS} characters before and behind the colon; "
            "a generated one is better"
        )
    if any(digest in shared_digests for digest in digests):
        raise ValueError("must not hold the service's own pair; generate one for this business")
    return digests


def short_pairs(toml_text: str) -> dict[str, list[str]]:
    """Return the digests of a businesses file's short pairs by business.

    The file is one that `parse_directory` has accepted.
    """
    found = {}
    for business_id, table in tomllib.loads(toml_text).get("businesses", {}).items():
        short = [digest_of(item) for item in table.get("exotel_pairs", ()) if is_short(item)]
        if short:
            found[business_id] = short
    return found


def is_short(item: object) -> bool:
    """Return whether a typed pair has a part that is too short to be safe from guessing."""
    if not isinstance(item, str) or PAIR_DIGEST.fullmatch(item):
        return False
    key, _, token = item.partition(":")
    return min(len(key), len(token)) < PART_MIN_CHARS
