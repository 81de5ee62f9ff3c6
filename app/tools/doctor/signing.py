"""Whether a signed webhook is taken, and if not, what is between."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from app.auth import public_url_in
from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import Finding, well
from app.hosts import is_public
from app.tools.doctor.address import Address, origin_of
from app.tools.doctor.asking import Answer, Asker, words_of

VOICE = "/twilio-voice"
# A query that is signed, and means nothing.
QUERY = "?businessId=doctor"
# Without a CallSid it is no call: the signature is checked, and then it is refused.
NO_CALL = {"From": "client:media-bridge-doctor"}
TAKEN = (400, "malformed_request")


@dataclass(frozen=True, slots=True)
class SigningChecks:
    """Ask the webhook for nothing, and learn from how it refuses."""

    address: Address
    asker: Asker

    async def signature(self) -> Sequence[Finding]:
        """Post a webhook that is no call: it costs no slot."""
        try:
            return [await self._judged(await self.asker.post(VOICE + QUERY, NO_CALL))]
        except httpx.HTTPError as error:
            said = f"POST {VOICE} gets no answer: {words_of(error)}."
            return [CAUSES["webhook_unreachable"].finding(said, url=self.address.origin)]

    async def _judged(self, answer: Answer) -> Finding:
        url = self.address.origin
        if (answer.status, answer.error) == TAKEN:
            return self._taken()
        match answer.error:
            case "not_configured":
                variable = answer.detail.partition(" ")[0] or "PUBLIC_URL"
                said = f"The Twilio routes are off: {answer.detail[:120]}."
                return CAUSES["twilio_routes_off"].finding(said, variable=variable)
            case "signature_missing" if not self.asker.signs:
                said = (
                    "An unsigned webhook is refused, as it should be. With TWILIO_AUTH_TOKEN in "
                    "the environment a signed one would be tried."
                )
                return well("signature", said)
            case "signature_missing":
                said = "A signed webhook arrives without its signature."
                return CAUSES["signature_stripped"].finding(said)
            case "signature_invalid":
                return await self._unfit(answer)
        said = f"POST {VOICE} is answered {answer.status} ({answer.content_type or 'no type'})."
        cause = "webhook_not_found" if answer.status in (404, 405) else "webhook_unreachable"
        return CAUSES[cause].finding(said, url=url)

    def _taken(self) -> Finding:
        if self.asker.signs:
            return well("signature", f"A webhook signed for {self.address.origin} is taken.")
        said = "A webhook without a signature is taken: ALLOW_UNSIGNED is set there."
        if is_public(self.address.host):
            return CAUSES["unsigned_allowed"].finding(said)
        return well("signature", said)

    async def _unfit(self, answer: Answer) -> Finding:
        """Tell another PUBLIC_URL, a query that was lost and another token apart."""
        called, signed = self.address.origin, _origin(public_url_in(answer.detail))
        if signed and signed != called:
            said = f"A webhook signed for {called} is refused: the service checks for {signed}."
            return CAUSES["public_url_differs"].finding(said, signed=signed, called=called)
        bare = await self.asker.post(VOICE, NO_CALL)
        if (bare.status, bare.error) == TAKEN:
            said = "A signed webhook is taken without a query, and refused with one."
            return CAUSES["query_stripped"].finding(said)
        return CAUSES["auth_token_differs"].finding(
            "A webhook signed with our TWILIO_AUTH_TOKEN is refused."
        )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return origin_of(parts.scheme, parts.hostname or "", parts.port) if url else ""
