"""Twilio's webhook requests: read whole, checked for their signature, then typed."""

from dataclasses import dataclass
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.types import Scope

from app.auth import TwilioSignatures
from app.errors import MalformedRequest, SignatureMissing
from app.metrics import Metrics
from app.web.body import bounded_body
from app.web.documented import FORM_TYPE

MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 200
SIGNATURE_HEADER = "x-twilio-signature"

Params = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class TwilioRequest:
    """A request that Twilio signed, or whose signature is waived.

    `form` has the first value of each field, from the body or, for a GET, from
    the URL; `business_id` is the URL's own `businessId`, or empty.
    """

    form: dict[str, str]
    business_id: str

    def field(self, name: str) -> str:
        """Give a field's value, empty when it is missing or blank."""
        return self.form.get(name, "")


class TwilioRequests:
    """Read Twilio's requests, and let none pass whose signature is wrong.

    With `waive_unsigned` a request without a signature passes; a wrong one
    never does, as long as there is a token to check it with.
    """

    def __init__(
        self, signatures: TwilioSignatures, metrics: Metrics, *, waive_unsigned: bool
    ) -> None:
        self._signatures = signatures
        self._metrics = metrics
        self._waive_unsigned = waive_unsigned

    async def read(self, request: Request) -> TwilioRequest:
        """Read one request.

        Raises:
            SignatureMissing, SignatureInvalid: Twilio did not send this.
            MalformedRequest: the body is not a form, or too large.
        """
        signatures = request.headers.getlist(SIGNATURE_HEADER)
        if not signatures and not self._waive_unsigned:
            raise SignatureMissing("X-Twilio-Signature is missing")
        query = _pairs(request.scope["query_string"])
        body = await _form(request) if request.method == "POST" else []
        if signatures and (self._signatures.configured or not self._waive_unsigned):
            self._note_token(
                self._signatures.check_webhook(*signed_parts(request.scope), body, signatures)
            )
        fields = body if request.method == "POST" else query
        return TwilioRequest(_first(fields), _first(query).get("businessId", ""))

    def check_handshake(self, path: str, query: str, signatures: list[str]) -> bool:
        """Tell whether Twilio signed this upgrade; False where that is waived.

        Raises:
            SignatureMissing, SignatureInvalid: Twilio did not send this.
        """
        if self._waive_unsigned and not (signatures and self._signatures.configured):
            return False
        self._note_token(self._signatures.check_handshake(path, query, signatures))
        return True

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
