"""Audit entries, and how they are written: personal values stay apart, so that they can be erased.

An entry's JSON holds a commitment in place of each personal value: the SHA-256 of the value with
a random salt. The salt and the value are stored beside the log. Once they are erased the
commitment reveals nothing, and the entry is unchanged, so that the chain still holds.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from app.errors import StoreUnavailable

ERASED: Final = "(erased)"
SERVICE: Final = "service"
# Before the actor of an entry whose writer had no SECRET_KEY, so that nobody vouches for it.
UNSIGNED: Final = "unsigned:"
# In the data of an entry that is in its business's view alone.
BEYOND_SHARE: Final = "beyond_share"
_SALT_BYTES: Final = 16
_REF_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One recorded action: who did what to what, and what changed; never a secret's value.

    `at` is Unix ms. `actor` is `operator`, `operator:NAME`, `key:ID`, `cli:USER@HOST` or
    `service`; `action` is two words such as `plan.saved`; `address` is where the request came
    from, empty for a command. `personal` has the values in `data`'s place that can be erased.
    `id` and `seq` are assigned by the store: `id` in order, `seq` the entry's number in the
    chain, 0 for an entry outside it.
    """

    at: int
    actor: str
    action: str
    target: str
    business_id: str = ""
    data: Mapping[str, str | int] = field(default_factory=dict)
    id: str = ""
    address: str = ""
    personal: Mapping[str, str] = field(default_factory=dict)
    seq: int = 0


class Personal(msgspec.Struct, frozen=True):
    """A personal value as it is stored beside the log, with the salt of its commitment."""

    salt: bytes
    value: str
    business_id: str = ""


class WrittenEntry(msgspec.Struct, frozen=True):
    """An entry as its JSON has it; `personal` has commitments, to values stored under `ref`.

    Version 0.1 reads it too.
    """

    at: int
    actor: str
    action: str
    target: str
    business_id: str = ""
    data: dict[str, str | int] = {}
    address: str = ""
    personal: dict[str, str] = {}
    ref: str = ""

    @property
    def personal_fields(self) -> dict[str, str]:
        """Return where each personal value is stored, by name: the field of a hash."""
        return {name: f"{self.ref}:{name}" for name in self.personal}


def commitment(name: str, personal: Personal) -> str:
    """Return what an entry says in place of a personal value."""
    message = f"{name}\0{personal.value}".encode("utf-8", "surrogatepass")
    return hmac.digest(personal.salt, message, hashlib.sha256).hex()


def write_entry(
    entry: AuditEntry, random_bytes: Callable[[int], bytes]
) -> tuple[WrittenEntry, dict[str, Personal]]:
    """Return an entry as it is written, and its personal values by the field they go to."""
    values = {
        name: Personal(random_bytes(_SALT_BYTES), value, entry.business_id)
        for name, value in entry.personal.items()
    }
    written = WrittenEntry(
        *(entry.at, entry.actor, entry.action, entry.target, entry.business_id),
        data=dict(entry.data),
        address=entry.address,
        personal={name: commitment(name, value) for name, value in values.items()},
        ref=random_bytes(_REF_BYTES).hex() if values else "",
    )
    fields = written.personal_fields
    return written, {fields[name]: value for name, value in values.items()}


def parse_entry(written: bytes) -> WrittenEntry:
    """Parse an entry's JSON, of this version or of 0.1.

    Raises:
        StoreUnavailable: it is no entry.
    """
    try:
        return msgspec.json.decode(written, type=WrittenEntry)
    except msgspec.MsgspecError as error:
        raise StoreUnavailable("the audit log holds something that is no entry") from error


def shown_entry(
    written: WrittenEntry, entry_id: str, seq: int, values: Mapping[str, Personal]
) -> AuditEntry:
    """Return an entry for reading: each personal value in its place, or that it was erased."""
    told = {name: values[name].value if name in values else ERASED for name in written.personal}
    return AuditEntry(
        *(written.at, written.actor, written.action, written.target, written.business_id),
        data={**written.data, **told},
        id=entry_id,
        address=written.address,
        seq=seq,
    )
