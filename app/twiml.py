"""What Twilio is told to do with a call, as TwiML text.

Everything that comes from a caller or a business may hold any character: what
XML 1.0 cannot carry is taken out, the rest is escaped by the library.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from twilio.twiml.voice_response import Connect, Dial, Start, Stream, VoiceResponse

# "The combined length of each <Parameter> name and value attributes must be
# under 500 characters" (twilio.com/docs/voice/twiml/stream).
PARAMETER_LIMIT_CHARS = 500

UNKNOWN_NUMBER = "We are sorry, this number is not in service. Goodbye."
UNAVAILABLE = "We are sorry, all our lines are busy. Please call again in a few minutes. Goodbye."

# The two spoke, or the caller hung up first.
_NOTHING_TO_ADD = frozenset({"completed", "answered", "canceled"})

# XML 1.0, 2.2: Char ::= #x9 | #xA | #xD | [#x20-#xD7FF] | [#xE000-#xFFFD] | [#x10000-#x10FFFF]
_NO_XML_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class StreamInstruction:
    """Where Twilio shall stream a call's audio to, and what it shall say there.

    `url` is a `wss` URL without a query, which Twilio would strip; `name` is
    unique within the call. An empty `status_callback` asks for none.
    """

    url: str
    name: str
    both_tracks: bool
    status_callback: str
    parameters: tuple[tuple[str, str], ...]


def connect_stream(
    instruction: StreamInstruction, before_stream: Sequence[str], after_stream: str
) -> str:
    """Say `before_stream`, stream the caller's audio, both ways, to its end; then hang up.

    Twilio gives `<Connect>` the inbound track only, and goes on to `after_stream`
    when the socket is closed or never came to be.
    """
    response = VoiceResponse()
    for text in before_stream:
        _say(response, text)
    connect = Connect()
    connect.append(_stream(instruction, track=None))
    response.append(connect)
    _say(response, after_stream)
    response.hangup()
    return str(response)


def forward_with_stream(
    instruction: StreamInstruction | None,
    before_stream: Sequence[str],
    forward_to: str,
    action_url: str,
    time_limit: int,
    caller_id: str = "",
) -> str:
    """Say `before_stream`, connect to `forward_to`, and stream beside it what is said.

    `forward_to` is an E.164 number or a SIP address; `action_url` is asked what
    to do when the call to it has ended, at the latest after `time_limit`
    seconds. Without `instruction` nothing is streamed. An empty `caller_id`
    leaves the caller's own number.
    """
    response = VoiceResponse()
    for text in before_stream:
        _say(response, text)
    if instruction:
        start = Start()
        track = "both_tracks" if instruction.both_tracks else "inbound_track"
        start.append(_stream(instruction, track))
        response.append(start)
    dial = Dial(action=action_url, time_limit=time_limit, caller_id=_clean(caller_id) or None)
    if forward_to.startswith(("sip:", "sips:")):
        dial.sip(_clean(forward_to))
    else:
        dial.number(_clean(forward_to))
    response.append(dial)
    return str(response)


def dial_only(number: str) -> str:
    """Connect to an E.164 number, and hang up after it."""
    response = VoiceResponse()
    dial = Dial()
    dial.number(_clean(number))
    response.append(dial)
    return str(response)


def reject_busy(busy_message: str = "") -> str:
    """Refuse a call: the busy tone, or the business's own words.

    A call that is rejected was never answered and costs nothing; one that hears
    words was (twilio.com/docs/voice/twiml/reject).
    """
    if busy_message:
        return _say_goodbye(busy_message)
    response = VoiceResponse()
    response.reject(reason="busy")
    return str(response)


def unknown_number() -> str:
    """Tell a caller politely that nobody owns the number."""
    return _say_goodbye(UNKNOWN_NUMBER)


def unavailable() -> str:
    """Ask a caller to call again: this service takes no call right now."""
    return _say_goodbye(UNAVAILABLE)


def dial_outcome(dial_call_status: str, not_answered: str) -> str:
    """Answer `<Dial action>`: `not_answered` is said unless the two parties spoke.

    Source: twilio.com/docs/voice/twiml/dial, "DialCallStatus".
    """
    spoke = dial_call_status in _NOTHING_TO_ADD
    return _say_goodbye("" if spoke else not_answered)


def _say_goodbye(text: str) -> str:
    response = VoiceResponse()
    _say(response, text)
    response.hangup()
    return str(response)


def _say(response: VoiceResponse, text: str) -> None:
    if words := _clean(text).strip():
        response.say(words)


def _stream(instruction: StreamInstruction, track: str | None) -> Stream:
    stream = Stream(
        url=instruction.url,
        name=_clean(instruction.name),
        track=track,
        status_callback=instruction.status_callback or None,
    )
    for pair in instruction.parameters:
        name, value = map(_clean, pair)
        # One that is too long would spoil the whole document; so might an empty one.
        if name and value and len(name) + len(value) < PARAMETER_LIMIT_CHARS:
            stream.parameter(name=name, value=value)
    return stream


def _clean(text: str) -> str:
    return _NO_XML_CHARACTER.sub("", text)
