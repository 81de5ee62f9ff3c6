"""What a request's credential permits.

Every way into a call yields exactly one `Authorization`. It travels with the request to the
point of use, and decides there which business and which call are meant. What the peer says
of itself may narrow it down, and never contradict it.

    way in                         proofs                                what fixes the business
    POST /twilio-voice, -dial,     TWILIO_SERVICE, TWILIO_BUSINESS,      the token's owner, else the
      -status, -stream-status        WAIVED                                signed URL's businessId
    WS /twilio-media/{business}    the same; with the ticket of `start`  the path, the ticket
    GET, POST /exotel-stream-url   EXOTEL_SHARED_PAIR, EXOTEL_OWN_PAIR,  the pair's owner, the token
                                     EXOTEL_ADDRESS, JWT, WAIVED
    WS /v1/ingest                  the same, and TICKET                  the same, and the ticket

Where nothing fixes it, the credential speaks for the whole service: the business is then the
one that `start` names, else the URL, else the owner of the dialled number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from app.errors import BusinessMismatch, PurposeMismatch

_BUSINESS_NAMES: Final = ("businessId",)
_CALL_NAMES: Final = ("callSid", "CallSid")
# What an own client calls its business and its call.
_CLIENT_BUSINESS_NAMES: Final = (*_BUSINESS_NAMES, "tenant_id", "business_id")
_CLIENT_CALL_NAMES: Final = (*_CALL_NAMES, "interaction_id")


class Proof(StrEnum):
    """How a request proved who it is from."""

    TWILIO_SERVICE = "twilio_service"
    """A signature made with an auth token of the service's Twilio account."""
    TWILIO_BUSINESS = "twilio_business"
    """A signature made with an auth token of a business's own Twilio account."""
    EXOTEL_SHARED_PAIR = "exotel_shared_pair"
    """A pair of EXOTEL_API_KEY and EXOTEL_API_TOKEN."""
    EXOTEL_OWN_PAIR = "exotel_own_pair"
    """A pair that belongs to one business."""
    EXOTEL_ADDRESS = "exotel_address"
    """An address in EXOTEL_ALLOWED_IPS: from Exotel, but from any customer of Exotel."""
    TICKET = "ticket"
    """A stream ticket in the URL."""
    JWT = "jwt"
    """The token of an own client."""
    WAIVED = "waived"
    """Nothing: ALLOW_UNSIGNED."""


_OF_A_BUSINESS: Final = frozenset(
    {Proof.TWILIO_BUSINESS, Proof.EXOTEL_OWN_PAIR, Proof.TICKET, Proof.JWT}
)


class Purpose(StrEnum):
    """What a request wants to do."""

    ANSWER_CALL = "answer_call"
    REPORT_STATUS = "report_status"
    GET_STREAM_URL = "get_stream_url"
    OPEN_STREAM = "open_stream"


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a credential permits, and how it was proved.

    `business_id` is empty only where the credential speaks for the whole service, and
    `call_sid` where it speaks for any call of its business. The call of an own client is
    its interaction, so that a token's `interaction_id` is its `call_sid`. `pair` is the digest
    of a business's own pair that was shown.
    """

    proof: Proof
    purpose: Purpose
    business_id: str = ""
    call_sid: str = ""
    pair: str = field(default="", repr=False, compare=False)

    @property
    def is_proven(self) -> bool:
        """Return whether a credential was checked; False under ALLOW_UNSIGNED."""
        return self.proof is not Proof.WAIVED

    @property
    def speaks_for_a_business(self) -> bool:
        """Return whether the credential itself is one business's, not the whole service's."""
        return self.proof in _OF_A_BUSINESS

    @property
    def is_own_account(self) -> bool:
        """Return whether a business's own Twilio account signed the request."""
        return self.proof is Proof.TWILIO_BUSINESS

    @property
    def is_signature(self) -> bool:
        """Return whether Twilio signed the request.

        A signature has no time, so that a request can be replayed. That of a handshake
        covers the URL alone, which is the same for all calls: a stream needs a ticket too.
        """
        return self.proof in (Proof.TWILIO_SERVICE, Proof.TWILIO_BUSINESS)

    def require(self, *purposes: Purpose) -> None:
        """Raise PurposeMismatch unless the credential is good for one of these."""
        if self.purpose not in purposes:
            raise PurposeMismatch(f"this credential is for {self.purpose} and nothing else")

    def business_of(self, *named: str) -> str:
        """Return the business that a request is about; empty where nothing tells.

        It is the credential's, else the first that is named.

        Raises:
            BusinessMismatch: a business is named that is not the credential's.
        """
        for other in named:
            if self.business_id and other and other != self.business_id:
                raise BusinessMismatch("the request names a business that is not the credential's")
        return self.business_id or next(filter(None, named), "")

    def business_in(self, *fields: Mapping[str, str]) -> str:
        """Return the business that a request is about, by the fields that may name one.

        Raises:
            BusinessMismatch: as `business_of`.
        """
        names = _CLIENT_BUSINESS_NAMES if self.proof is Proof.JWT else _BUSINESS_NAMES
        return self.business_of(*(said.get(name, "") for said in fields for name in names))

    def check_call(self, *named: str) -> None:
        """Check that the call that is named is one that the credential permits.

        Raises:
            BusinessMismatch: the credential is for another call.
        """
        for other in named:
            if self.call_sid and other and other != self.call_sid:
                raise BusinessMismatch("the request names a call that is not the credential's")

    def check_call_in(self, *fields: Mapping[str, str]) -> None:
        """Check the fields that may name a call.

        Raises:
            BusinessMismatch: as `check_call`.
        """
        names = _CLIENT_CALL_NAMES if self.proof is Proof.JWT else _CALL_NAMES
        self.check_call(*(said.get(name, "") for said in fields for name in names))

    def narrowed_to(self, other: "Authorization") -> "Authorization":
        """Return what two credentials of one request permit together, by this one's proof.

        Raises:
            BusinessMismatch: they are for different businesses or calls.
            PurposeMismatch: they are for different purposes.
        """
        self.require(other.purpose)
        business_id = self.business_of(other.business_id)
        self.check_call(other.call_sid)
        return replace(self, business_id=business_id, call_sid=self.call_sid or other.call_sid)
