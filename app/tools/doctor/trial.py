"""A test call through the whole path: webhook, TwiML, stream, receipt.

It names itself as caller (`client:media-bridge-doctor`) in every event, record and
log line, takes one slot of its business's plan, and gives it back.
"""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

import httpx
from websockets.exceptions import ConnectionClosed, WebSocketException

from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import Finding, skipped, well
from app.errors import CallRefused, StoreUnavailable
from app.tools.caller import FRAME_BYTES, FRAME_MS, Call, StreamTarget, new_call, parse_twiml
from app.tools.doctor.address import Address
from app.tools.doctor.asking import Answer, Asker, words_of
from app.tools.doctor.signing import VOICE
from app.tools.doctor.upgrade import opened
from app.tools.doctor.witness import Receipt, Witness
from app.wire import twilio

WHO = "client:media-bridge-doctor"
FRAMES = 50
SILENCE = b"\xff" * FRAME_BYTES
CLOSE_SECONDS = 4.0
RECEIPT_SECONDS = 3.0
LOOK_SECONDS = 0.1
XML = ("text/xml", "application/xml")


@dataclass(slots=True)
class TrialCall:
    """Place one call on `business_id`, or on the first that the witness knows."""

    address: Address
    asker: Asker
    context: ssl.SSLContext
    witness: Witness
    business_id: str = ""
    _call: Call = field(default_factory=lambda: new_call(WHO, WHO), init=False)
    _target: StreamTarget | None = field(default=None, init=False)

    async def twiml(self) -> Sequence[Finding]:
        """Ring, and read what is answered."""
        try:
            self.business_id = self.business_id or await self.witness.first_business()
        except StoreUnavailable:
            self.business_id = ""
        if not self.business_id:
            return [skipped("twiml", "No business to call is known: name one by --business ID.")]
        try:
            answer = await self._ring()
        except httpx.HTTPError as error:
            said = f"POST {VOICE} gets no answer: {words_of(error)}."
            return [CAUSES["webhook_unreachable"].finding(said, url=self.address.origin)]
        found = self._read(answer)
        if found.cause:
            await self._hang_up()
        return [found]

    async def call(self) -> Sequence[Finding]:
        """Speak for a second where the TwiML says, and ask for the receipt."""
        if self._target is None:
            return [skipped("test_call", "There is no stream to send a call to.")]
        try:
            ended = await self._stream(self._target)
        finally:
            await self._hang_up()
        if ended:
            return [CAUSES["call_cut"].finding(ended, call_sid=self._call.call_sid)]
        return [_judged(await self._receipt(), is_known=self.witness.knows_receipts)]

    async def _ring(self) -> Answer:
        form = {
            "AccountSid": self._call.account_sid,
            "ApiVersion": "2010-04-01",
            "CallSid": self._call.call_sid,
            "CallStatus": "ringing",
            "Direction": "inbound",
            "From": WHO,
            "To": WHO,
        }
        query = urlencode({"businessId": self.business_id})
        return await self.asker.post(f"{VOICE}?{query}", form)

    async def _hang_up(self) -> None:
        """Say that the call is over, so that its slot is free at once."""
        form = {"CallSid": self._call.call_sid, "CallStatus": "completed", "From": WHO, "To": WHO}
        query = urlencode({"businessId": self.business_id})
        try:
            await self.asker.post(f"/twilio-status?{query}", form)
        except httpx.HTTPError:
            return  # then the slot's lease runs out within a minute

    def _read(self, answer: Answer) -> Finding:
        if answer.status != httpx.codes.OK:
            said = f"POST {VOICE} is answered {answer.status} ({answer.error or 'no word why'})."
            return CAUSES["webhook_unreachable"].finding(said, url=self.address.origin)
        try:
            root = ElementTree.fromstring(answer.text)
            target = parse_twiml(answer.text) if root.tag == "Response" else None
        except ElementTree.ParseError as error:
            return CAUSES["twiml_unreadable"].finding(f"The answer is no XML: {error}.")
        except CallRefused as error:
            said = f"The call is answered without a stream: {error}."
            return CAUSES["call_turned_away"].finding(said, business=self.business_id)
        if target is None or not answer.text.startswith("<"):
            said = f"The answer's root is {root.tag!r}, or something stands before it."
            return CAUSES["twiml_unreadable"].finding(said)
        if answer.content_type not in XML:
            said = f"The answer's Content-Type is {answer.content_type or 'missing'}."
            return CAUSES["twiml_content_type"].finding(said)
        return self._place(target)

    def _place(self, target: StreamTarget) -> Finding:
        """Judge where the call's audio is to go."""
        try:
            parts = urlsplit(target.url)
        except ValueError:
            return CAUSES["twiml_unreadable"].finding("The <Stream url> is not a URL.")
        where = f"{parts.scheme}://{parts.netloc}"
        if parts.query:
            said = "The <Stream url> has a query."
            return CAUSES["twiml_query"].finding(said, query=parts.query[:100])
        if parts.scheme != "wss" and self.address.is_tls:
            return CAUSES["twiml_not_wss"].finding(f"The stream's URL begins with {where}.")
        if where != self.address.ws_origin:
            said = f"The call's audio is to go to {where}."
            called = self.address.origin
            return CAUSES["twiml_elsewhere"].finding(said, where=where, called=called)
        self._target = target
        return well("twiml", f"A call of {self.business_id} is streamed to {target.url}.")

    async def _stream(self, target: StreamTarget) -> str:
        """Send a second of silence; give why it was cut, or nothing."""
        try:
            async with opened(target.url, self.context, self.asker.signed(target.url)) as socket:
                for message in self._messages(target):
                    await socket.send(message)
                    await asyncio.sleep(FRAME_MS / 1000)
                async with asyncio.timeout(CLOSE_SECONDS):
                    await socket.wait_closed()
                if socket.close_code == 1000:
                    return ""
                return f"The stream was closed with {socket.close_code} {socket.close_reason}."
        except ConnectionClosed as closed:
            return f"The stream was cut off: {closed}."
        except TimeoutError:
            return f"The stream was not closed in {CLOSE_SECONDS:g} s after its stop."
        except (WebSocketException, OSError) as error:
            return f"The stream did not open: {words_of(error)}."

    def _messages(self, target: StreamTarget) -> Sequence[str]:
        stream_sid, call_sid = self._call.stream_sid, self._call.call_sid
        account_sid = self._call.account_sid
        return [
            twilio.connected_message(),
            twilio.start_message(
                stream_sid, call_sid, account_sid=account_sid, params=target.parameters
            ),
            *(
                twilio.media_message(
                    stream_sid, SILENCE, seq=n + 2, chunk=n + 1, timestamp=n * FRAME_MS
                )
                for n in range(FRAMES)
            ),
            twilio.stop_message(stream_sid, call_sid, seq=FRAMES + 2, account_sid=account_sid),
        ]

    async def _receipt(self) -> Receipt | None:
        """Wait a little for the receipt."""
        loop = asyncio.get_running_loop()
        until = loop.time() + RECEIPT_SECONDS * self.witness.knows_receipts
        while loop.time() < until:
            try:
                found = await self.witness.receipt(
                    self.business_id, self._call.call_sid, self._call.stream_sid
                )
            except StoreUnavailable:
                return None
            if found:
                return found
            await asyncio.sleep(LOOK_SECONDS)
        return None


def _judged(receipt: Receipt | None, *, is_known: bool) -> Finding:
    if receipt is None and is_known:
        return CAUSES["receipt_missing"].finding("The call was heard, and has no receipt here.")
    if receipt is None:
        said = (
            f"A test call of {FRAMES} frames was heard to its end. Its receipt would be read with "
            "REDIS_URL or ADMIN_TOKEN in the environment."
        )
        return well("test_call", said)
    published = receipt.get("published")
    if published == FRAMES:
        return well("test_call", f"A test call: {FRAMES} of {FRAMES} frames published.")
    told = ", ".join(
        f"{name}: {receipt[name]}" for name in ("dropped", "rejected") if receipt.get(name)
    )
    said = f"Of a test call {published} of {FRAMES} frames are published ({told or 'no reason'})."
    return CAUSES["frames_missing"].finding(said)
