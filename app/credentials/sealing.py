"""Secrets at rest: encrypted under SECRET_KEY, each for its own place alone.

From each key of SECRET_KEY one is derived by HKDF with SHA-256 (RFC 5869), and used by
AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits. The associated data names the
business and the secret: sealed text that is copied to another place cannot be opened there.
"""

import base64
import binascii
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.errors import SecretUnreadable

_SCHEME: Final = "v1."
_PURPOSE: Final = b"twilio-media-bridge/sealed-secrets/v1"
_NONCE_BYTES: Final = 12


class Sealing:
    """Seal secrets with the first of `secret_keys`, and open what any of them sealed.

    `new_nonce` returns 12 random bytes, never the same twice.
    """

    def __init__(
        self,
        secret_keys: tuple[str, ...],
        new_nonce: Callable[[], bytes] = lambda: os.urandom(_NONCE_BYTES),
    ) -> None:
        if not secret_keys:
            raise ValueError("a Sealing needs at least one key")
        self._ciphers = tuple(AESGCM(_derived(key)) for key in secret_keys)
        self._new_nonce = new_nonce

    def seal(self, business_id: str, name: str, text: str) -> str:
        """Encrypt a secret for this place alone; gives printable ASCII."""
        nonce = self._new_nonce()
        sealed = self._ciphers[0].encrypt(nonce, text.encode(), _place(business_id, name))
        return _SCHEME + base64.urlsafe_b64encode(nonce + sealed).decode()

    def unseal(self, business_id: str, name: str, sealed: str) -> str:
        """Return the text that `seal` encrypted for this place, with any of the keys.

        Raises:
            SecretUnreadable: none of the keys sealed it, or it was tampered with.
        """
        return self._opened(business_id, name, sealed)[1]

    def resealed(self, business_id: str, name: str, sealed: str) -> str:
        """Return the secret sealed with the first key; unchanged where it is already.

        Raises:
            SecretUnreadable: as `unseal`.
        """
        key, text = self._opened(business_id, name, sealed)
        return sealed if key == 0 else self.seal(business_id, name, text)

    def _opened(self, business_id: str, name: str, sealed: str) -> tuple[int, str]:
        """Return the index of the key that sealed this, and the text."""
        place = _place(business_id, name)
        try:
            if not sealed.startswith(_SCHEME):
                raise ValueError("it has another form")
            raw = base64.b64decode(sealed.removeprefix(_SCHEME), b"-_", validate=True)
            nonce, encrypted = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
            for index, cipher in enumerate(self._ciphers):
                with suppress(InvalidTag):
                    return index, cipher.decrypt(nonce, encrypted, place).decode()
        except (ValueError, binascii.Error) as error:
            raise _unreadable(business_id, name) from error
        raise _unreadable(business_id, name)


def _derived(secret_key: str) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret_key.encode())


def _unreadable(business_id: str, name: str) -> SecretUnreadable:
    return SecretUnreadable(
        f"{name} of {business_id} cannot be read with this SECRET_KEY: "
        "set the one it was stored with, or store the secret anew"
    )


def _place(business_id: str, name: str) -> bytes:
    # Neither may hold a slash: no two places are written alike.
    return f"{business_id}/{name}".encode()
