"""Secrets at rest: encrypted under SECRET_KEY, each for its own place alone.

The key is derived from SECRET_KEY by HKDF with SHA-256 (RFC 5869), and used by AES-256-GCM
(NIST SP 800-38D) with a random nonce of 96 bits. The associated data names the business and
the secret: sealed text that is copied to another place cannot be opened there.
"""

import base64
import binascii
import os
from collections.abc import Callable
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
    """Seal secrets, and open what was sealed with the same SECRET_KEY.

    `new_nonce` gives 12 random bytes; none may come twice.
    """

    def __init__(
        self, secret_key: str, new_nonce: Callable[[], bytes] = lambda: os.urandom(_NONCE_BYTES)
    ) -> None:
        derived = HKDF(SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret_key.encode())
        self._cipher = AESGCM(derived)
        self._new_nonce = new_nonce

    def seal(self, business_id: str, name: str, text: str) -> str:
        """Encrypt a secret for this place alone; gives printable ASCII."""
        nonce = self._new_nonce()
        sealed = self._cipher.encrypt(nonce, text.encode(), _place(business_id, name))
        return _SCHEME + base64.urlsafe_b64encode(nonce + sealed).decode()

    def unseal(self, business_id: str, name: str, sealed: str) -> str:
        """Open what `seal` gave for this place.

        Raises:
            SecretUnreadable: another SECRET_KEY sealed it, or it was tampered with.
        """
        try:
            if not sealed.startswith(_SCHEME):
                raise ValueError("it has another form")
            raw = base64.b64decode(sealed.removeprefix(_SCHEME), b"-_", validate=True)
            nonce, encrypted = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
            return self._cipher.decrypt(nonce, encrypted, _place(business_id, name)).decode()
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise SecretUnreadable(
                f"{name} of {business_id} cannot be read with this SECRET_KEY: "
                "set the one it was stored with, or store the secret anew"
            ) from error


def _place(business_id: str, name: str) -> bytes:
    # Neither may hold a slash: no two places are written alike.
    return f"{business_id}/{name}".encode()
