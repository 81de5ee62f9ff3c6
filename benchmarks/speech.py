"""What is said in a call: every message ready to be written, and what is to be read of it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from app.audio import mulaw_to_pcm16
from app.tools.caller import FRAME_MS, Call, new_call, speech_frames
from app.wire import twilio
from benchmarks.exact import FIRST_SEQ
from benchmarks.line import TEXT, client_frame


@dataclass(frozen=True, slots=True)
class Speech:
    """One call: a WebSocket frame for each 20 ms, and the PCM16 that each is to become."""

    call: Call
    messages: list[bytes]
    heard: list[bytes]


def speeches_to(number: str, calls: int, frames: int) -> Iterator[Speech]:
    """Make so many frames of each of so many calls, masked: all that can be done before."""
    speech = speech_frames()
    decoded = {payload: mulaw_to_pcm16(payload) for payload in speech}
    for place in range(calls):
        call = new_call(number)
        # Each call begins elsewhere in the speech.
        payloads = list(itertools.islice(itertools.cycle(speech), place, place + frames))
        messages = [
            client_frame(
                TEXT,
                twilio.media_message(
                    call.stream_sid,
                    payload,
                    seq=FIRST_SEQ + chunk,
                    chunk=1 + chunk,
                    timestamp=chunk * FRAME_MS,
                ).encode(),
            )
            for chunk, payload in enumerate(payloads)
        ]
        yield Speech(call, messages, [decoded[payload] for payload in payloads])
