"""The audit log's chain: each entry is linked to the one before, under keys that are not in Redis.

An entry's link has its number, the hash of the entry before it, and a MAC of its own hash. The
head is a signed record of the newest entry's number and hash, and of the oldest number that is
still kept. So a changed, removed, inserted or moved entry is found, and one that was cut off at
either end. The hashes need no key: entries that an older SECRET_KEY signed are vouched for by
every later signature.

`audit_verify` checks a log.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_PURPOSE: Final = b"twilio-media-bridge/audit-chain/v1"
_PERSONS: Final = b"twilio-media-bridge/audit-persons/v1"
_KEY_ID_BYTES: Final = 6

SERVICE_LOG: Final = "audit"
CHAIN_BEGUN: Final = "audit.chain_begun"
ROLLED_BACK: Final = "audit.rolled_back"
TRIM_REFUSED: Final = "audit.trim_refused"


class Link(msgspec.Struct, frozen=True):
    """What ties an entry to the one before it. `key` names the key of `mac`."""

    seq: int
    prev: str
    key: str
    mac: str


class Head(msgspec.Struct, frozen=True):
    """The newest entry's number and hash, and the oldest number kept; signed.

    `begun` is when the chain began, in Unix ms; 0 where that was not recorded.
    """

    log: str
    seq: int
    hash: str
    first: int
    key: str = ""
    mac: str = ""
    begun: int = 0


class ChainKeys:
    """Sign with the first of several SECRET_KEYs, and verify with any."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        if not secret_keys:
            raise ValueError("a chain needs a SECRET_KEY")
        keys = [_derived(key, _PURPOSE) for key in secret_keys]
        self._by_id = {_key_id(key): key for key in keys}
        self._first = _key_id(keys[0])
        self._persons = _derived(secret_keys[0], _PERSONS)

    def link(self, log: str, seq: int, prev: str, entry: bytes) -> tuple[Link, str]:
        """Return a new entry's link, and its hash."""
        digest = hash_of(log, seq, prev, entry)
        return Link(seq, prev, self._first, self._mac(self._first, b"entry", digest)), digest

    def signs_link(self, link: Link, digest: str) -> bool | None:
        """Return whether a link was made by this service; None where its key is not known."""
        return self._verify(link.key, link.mac, b"entry", digest)

    def head(self, log: str, seq: int, digest: str, first: int, begun: int = 0) -> Head:
        """Return a signed head."""
        head = Head(log, seq, digest, first, self._first, begun=begun)
        mac = self._mac(self._first, b"head", _head_text(head))
        return msgspec.structs.replace(head, mac=mac)

    def is_signed_by_older(self, head: Head) -> bool:
        """Return whether a head was signed with a key that is not the first."""
        return head.key != self._first and self.signs_head(head) is True

    def signs_head(self, head: Head) -> bool | None:
        """Return whether a head was made by this service; None where its key is not known."""
        return self._verify(head.key, head.mac, b"head", _head_text(head))

    def digest_of_person(self, identity: str) -> str:
        """Return a keyed digest by which entries about one person can be recognised."""
        return hmac.digest(self._persons, identity.encode(), hashlib.sha256).hex()[:24]

    def _mac(self, key_id: str, kind: bytes, text: str) -> str:
        message = kind + b"\0" + text.encode()
        return hmac.digest(self._by_id[key_id], message, hashlib.sha256).hex()

    def _verify(self, key_id: str, mac: str, kind: bytes, text: str) -> bool | None:
        if key_id not in self._by_id:
            return None
        return hmac.compare_digest(self._mac(key_id, kind, text).encode(), mac.encode())


def hash_of(log: str, seq: int, prev: str, entry: bytes) -> str:
    """Return the hash that commits to an entry and to all before it."""
    about = f"{log}\0{seq}\0{prev}\0".encode()
    return hashlib.sha256(about + entry).hexdigest()


def write_head(head: Head) -> bytes:
    """Return a head as JSON."""
    return msgspec.json.encode(head)


def parse_head(text: bytes) -> Head | None:
    """Parse a head; None for anything else."""
    try:
        return msgspec.json.decode(text, type=Head)
    except msgspec.MsgspecError:
        return None


def write_link(link: Link) -> bytes:
    """Return a link as JSON."""
    return msgspec.json.encode(link)


def parse_link(text: bytes) -> Link | None:
    """Parse a link; None for anything else."""
    try:
        return msgspec.json.decode(text, type=Link)
    except msgspec.MsgspecError:
        return None


def _derived(secret_key: str, purpose: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=purpose).derive(secret_key.encode())


def _key_id(key: bytes) -> str:
    return hmac.digest(key, b"id", hashlib.sha256)[:_KEY_ID_BYTES].hex()


def _head_text(head: Head) -> str:
    begun = f"\0{head.begun}" if head.begun else ""
    return f"{head.log}\0{head.seq}\0{head.hash}\0{head.first}{begun}"
