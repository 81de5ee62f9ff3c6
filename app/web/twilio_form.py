"""Twilio's webhook requests: read whole, checked for their signature, then typed."""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.types import Scope

from app.admin.attempts import WayIn
from app.auth import TwilioSignatures
from app.carriers.authorization import Authorization, Proof, Purpose
from app.carriers.texts import form_field
from app.errors import MalformedRequest, SignatureInvalid, SignatureMissing
from app.metrics import Metrics
from app.session.accounts import OwnAccounts
from app.web.body import bounded_body
from app.web.documented import FORM_TYPE

MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 200
SIGNATURE_HEADER = "x-twilio-signature"

Params = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class TwilioRequest:
    """A request that Twilio signed, or whose signature is waived, and what that permits.

    `form` has the first value of each field, from the body or, for a GET, from
    the URL. The authorization's business is the one whose own account signed the request,
    else the URL's `businessId`, which the signature covers.
    """

    form: dict[str, str]
    authorization: Authorization

    def field(self, name: str) -> str:
        """Return a field's value, cut to its bound; empty when it is missing or blank."""
        return form_field(self.form, name)


class TwilioRequests:
    """Read Twilio's requests, and let none pass whose signature is wrong.

    The tokens of `signatures` are the service's, and sign for any business; those of
    a business's own account (`accounts`) sign for what is about this business alone.
    With `waive_unsigned` a request without a signature passes; a wrong one
    never does, as long as there is a token to check it with.
    """

    def __init__(
        self,
        signatures: TwilioSignatures,
        accounts: OwnAccounts,
        metrics: Metrics,
        *,
        waive_unsigned: bool,
    ) -> None:
        self._signatures = signatures
        self._accounts = accounts
        self._metrics = metrics
        self._waive_unsigned = waive_unsigned

    async def read(self, request: Request, purpose: Purpose) -> TwilioRequest:
        """Read one request, which is for `purpose`.

        Raises:
            SignatureMissing, SignatureInvalid: Twilio did not send this.
            MalformedRequest: the body is not a form, or too large.
            StoreUnavailable: whether a business has an account of its own is not known.
        """
        signatures = request.headers.getlist(SIGNATURE_HEADER)
        if not signatures and not self._waive_unsigned:
            raise SignatureMissing("X-Twilio-Signature is missing")
        query = _pairs(request.scope["query_string"])
        body = await _form(request) if request.method == "POST" else []
        form = _first(body if request.method == "POST" else query)
        business_id = _first(query).get("businessId", "")
        if not signatures or (self._waive_unsigned and not self._signatures.configured):
            return TwilioRequest(form, Authorization(Proof.WAIVED, purpose, business_id))
        parts = signed_parts(request.scope)
        authorization = await self._signed_by(
            lambda by: by.check_webhook(*parts, body, signatures),
            purpose,
            *(business_id, form.get("To", "")),
        )
        return TwilioRequest(form, authorization)

    async def check_handshake(
        self, path: str, query: str, signatures: list[str], business_id: str
    ) -> Authorization:
        """Return what an upgrade's signature permits; `business_id` is its path's.

        Raises:
            SignatureMissing, SignatureInvalid: Twilio did not send this.
            StoreUnavailable: as `read`.
        """
        if self._waive_unsigned and not (signatures and self._signatures.configured):
            return Authorization(Proof.WAIVED, Purpose.OPEN_STREAM, business_id)
        return await self._signed_by(
            lambda by: by.check_handshake(path, query, signatures),
            *(Purpose.OPEN_STREAM, business_id, ""),
        )

    async def _signed_by(
        self,
        check: Callable[[TwilioSignatures], int],
        purpose: Purpose,
        business_id: str,
        dialled: str,
    ) -> Authorization:
        """Return what a signature permits; `business_id` is the one in the signed URL.

        Wrong signatures are counted, and not limited by address: Twilio's requests all
        come from Twilio's addresses, and a right one is accepted whatever else came.
        """
        try:
            return await self._signed_by_any(check, purpose, business_id, dialled)
        except SignatureInvalid:
            opens = purpose is Purpose.OPEN_STREAM
            way = WayIn.TWILIO_HANDSHAKE if opens else WayIn.TWILIO_WEBHOOK
            self._metrics.failed_credentials.labels(way, "refused").inc()
            raise

    async def _signed_by_any(
        self,
        check: Callable[[TwilioSignatures], int],
        purpose: Purpose,
        business_id: str,
        dialled: str,
    ) -> Authorization:
        try:
            self._note_token(check(self._signatures))
            return Authorization(Proof.TWILIO_SERVICE, purpose, business_id)
        except SignatureInvalid:
            account = await self._accounts.of_request(business_id, dialled)
            if account is None:
                raise
        self._note_token(check(self._signatures.by(account.tokens)))
        # Whoever owns the number a moment later: the request is about this business.
        return Authorization(Proof.TWILIO_BUSINESS, purpose, account.business_id)

    def _note_token(self, index: int) -> None:
        if index > 0:
            self._metrics.old_tokens.inc()


def signed_parts(scope: Scope) -> tuple[str, str]:
    """Give path and query as they came, byte for byte: that is what is signed."""
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return raw_path.decode("latin-1"), query.decode("latin-1")


async def _form(request: Request) -> Params:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != FORM_TYPE:
        raise MalformedRequest(f"the body must be {FORM_TYPE}")
    return _pairs(await bounded_body(request, MAX_BODY_BYTES))


def _pairs(encoded: bytes) -> Params:
    try:
        # Twilio signs blank fields too: they must be kept.
        return parse_qsl(
            encoded.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError as error:
        raise MalformedRequest("the form cannot be read: not UTF-8, or too many fields") from error


def _first(pairs: Params) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found
