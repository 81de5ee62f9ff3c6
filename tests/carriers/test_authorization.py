"""What each credential permits, and that what a peer names never widens it."""

import pytest

from app.carriers.authorization import Authorization, Proof, Purpose
from app.errors import BridgeError, BusinessMismatch, PurposeMismatch

OPEN = Purpose.OPEN_STREAM
A, B, CALL = "biz-a", "biz-b", "call-a"
FOR_ALL = [Authorization(proof, OPEN) for proof in Proof]
OF_A = [Authorization(proof, OPEN, A) for proof in Proof]
OF_A_CALL = [Authorization(proof, OPEN, A, CALL) for proof in Proof]


def shown(authorization: Authorization) -> str:
    return authorization.proof


def proofs(*authorizations: list[Authorization]) -> "pytest.MarkDecorator":
    return pytest.mark.parametrize("permits", sum(authorizations, []), ids=shown)


@proofs(OF_A, OF_A_CALL)
@pytest.mark.parametrize("named", [(), ("",), (A,), ("", A), (A, A)])
def test_a_credential_of_one_business_fixes_it(
    permits: Authorization, named: tuple[str, ...]
) -> None:
    assert permits.business_of(*named) == A


@proofs(OF_A, OF_A_CALL)
@pytest.mark.parametrize("named", [(B,), (A, B), (B, A), ("", B), (A.upper(),), (f" {A}",)])
def test_a_credential_of_one_business_admits_no_other(
    permits: Authorization, named: tuple[str, ...]
) -> None:
    with pytest.raises(BusinessMismatch):
        permits.business_of(*named)


@proofs(FOR_ALL)
@pytest.mark.parametrize(
    ("named", "expected"), [((), ""), (("",), ""), ((A,), A), (("", B), B), ((A, B), A)]
)
def test_a_credential_of_the_service_takes_the_first_business_named(
    permits: Authorization, named: tuple[str, ...], expected: str
) -> None:
    assert permits.business_of(*named) == expected


BUSINESS_FIELDS = ("businessId", "tenant_id", "business_id")
CALL_FIELDS = ("callSid", "CallSid", "interaction_id")


@pytest.mark.parametrize("field", BUSINESS_FIELDS)
@pytest.mark.parametrize("place", [0, 1])
@proofs(OF_A)
def test_every_field_that_names_a_business_is_compared(
    permits: Authorization, field: str, place: int
) -> None:
    fields: list[dict[str, str]] = [{}, {}]
    fields[place][field] = A
    assert permits.business_in(*fields) == A
    fields[place][field] = B
    # What is not a carrier's own field is the caller's data, and names nothing here.
    if permits.proof is Proof.JWT or field == "businessId":
        with pytest.raises(BusinessMismatch):
            permits.business_in(*fields)
    else:
        assert permits.business_in(*fields) == A


@pytest.mark.parametrize("field", CALL_FIELDS)
@pytest.mark.parametrize("place", [0, 1])
@proofs(OF_A_CALL)
def test_every_field_that_names_a_call_is_compared(
    permits: Authorization, field: str, place: int
) -> None:
    fields: list[dict[str, str]] = [{}, {}]
    fields[place][field] = CALL
    permits.check_call_in(*fields)
    fields[place][field] = "call-b"
    if permits.proof is Proof.JWT or field != "interaction_id":
        with pytest.raises(BusinessMismatch):
            permits.check_call_in(*fields)
    else:
        permits.check_call_in(*fields)


@proofs(OF_A, FOR_ALL)
def test_a_credential_without_a_call_speaks_for_any(permits: Authorization) -> None:
    permits.check_call("call-a", "call-b")


TICKET = Authorization(Proof.TICKET, OPEN, A, CALL)
NARROWED: dict[str, tuple[Authorization, Authorization | type[BridgeError]]] = {
    "the service": (
        Authorization(Proof.TWILIO_SERVICE, OPEN),
        Authorization(Proof.TWILIO_SERVICE, OPEN, A, CALL),
    ),
    "its business": (
        Authorization(Proof.TWILIO_BUSINESS, OPEN, A),
        Authorization(Proof.TWILIO_BUSINESS, OPEN, A, CALL),
    ),
    "its call": (
        Authorization(Proof.JWT, OPEN, A, CALL),
        Authorization(Proof.JWT, OPEN, A, CALL),
    ),
    "another business": (Authorization(Proof.TWILIO_BUSINESS, OPEN, B), BusinessMismatch),
    "another call": (Authorization(Proof.JWT, OPEN, A, "call-b"), BusinessMismatch),
    "another purpose": (
        Authorization(Proof.TWILIO_SERVICE, Purpose.ANSWER_CALL),
        PurposeMismatch,
    ),
}


@pytest.mark.parametrize(("permits", "expected"), NARROWED.values(), ids=NARROWED)
def test_a_ticket_narrows_what_its_handshake_permits(
    permits: Authorization, expected: Authorization | type[BridgeError]
) -> None:
    if isinstance(expected, Authorization):
        assert permits.narrowed_to(TICKET) == expected
    else:
        with pytest.raises(expected):
            permits.narrowed_to(TICKET)


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("required", Purpose)
def test_a_credential_is_good_for_its_purpose_alone(purpose: Purpose, required: Purpose) -> None:
    permits = Authorization(Proof.WAIVED, purpose)
    if purpose is required:
        permits.require(required)
    else:
        with pytest.raises(PurposeMismatch):
            permits.require(required)


def test_what_a_proof_says_of_a_request() -> None:
    signed = {Proof.TWILIO_SERVICE, Proof.TWILIO_BUSINESS}
    for permits in FOR_ALL:
        assert permits.is_signature == (permits.proof in signed)
        assert permits.is_own_account == (permits.proof is Proof.TWILIO_BUSINESS)
        assert permits.is_proven == (permits.proof is not Proof.WAIVED)
